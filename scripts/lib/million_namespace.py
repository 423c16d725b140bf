"""Runs scripts/million.sh in a network namespace of its own, whose table of TCP connections is large enough for the run.

    million_namespace.py CONNECTIONS COMMAND...

The kernel sizes the table of the host's namespace at boot. That of another namespace has the size that the setting
net.ipv4.tcp_child_ehash_entries had in the namespace from which it was made (Linux 6.1). Therefore two are made: the setting is
changed in the first one, and the command runs in the second one. Nothing changes in the host's namespace, and both end with
their last process, however that ends.

The command is run in any case. MILLION_NAMESPACE tells it where: `own`, or `host`, in which case MILLION_NAMESPACE_REASON tells
why. MILLION_HOST_SYSCTLS has the settings that only the host's namespace shows, as JSON.
"""

import ctypes
import fcntl
import json
import os
import socket
import struct
import sys

CLONE_NEWNET = 0x4000_0000
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1

# The kernel's maximum of tcp_child_ehash_entries.
BUCKETS_MAX = 1 << 24

BUCKETS, CHILD_BUCKETS = "net.ipv4.tcp_ehash_entries", "net.ipv4.tcp_child_ehash_entries"

# Settings that a new namespace does not take over, or not all of them. It gets those of the host's.
COPIED = (
    "net.core.somaxconn", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_congestion_control", "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_rmem", "net.ipv4.tcp_tw_reuse", "net.ipv4.tcp_wmem",
)

# Settings that apply to all namespaces.
HOST_ONLY = ("net.ipv4.tcp_max_orphans", "net.ipv4.tcp_mem")


def path_of(name):
    return "/proc/sys/" + name.replace(".", "/")


def read_all(names):
    """Returns the kernel settings with these names that this namespace has."""
    found = {}
    for name in names:
        if os.path.exists(path_of(name)):
            with open(path_of(name), encoding="ascii") as file:
                found[name] = file.read().strip()
    return found


def write(name, value):
    with open(path_of(name), "w", encoding="ascii") as file:
        file.write(str(value))


def buckets_for(connections):
    """Returns the size of a table for both ends of all connections, with two buckets or more for each end.

    It is not smaller than the present one, whose size is shown as a negative number if it is shared with the host's namespace.
    """
    wanted = 1 << (4 * connections - 1).bit_length()
    present = abs(int(read_all([BUCKETS]).get(BUCKETS, 0)))
    return min(max(wanted, present), BUCKETS_MAX)


def call(function, *arguments):
    """Calls a function of the C library. Python has these two since 3.12."""
    if getattr(ctypes.CDLL(None, use_errno=True), function)(*arguments) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{function}: {os.strerror(error)}")


def enter_new_namespace():
    call("unshare", CLONE_NEWNET)


def start_loopback():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh22x", b"lo", 0)
        flags = struct.unpack_from("h", fcntl.ioctl(any_socket, SIOCGIFFLAGS, request), 16)[0]
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags | IFF_UP))


def make_namespace(connections):
    """Enters a namespace for the run. Returns a reason if there can be none; the process is then in the host's."""
    if os.geteuid() != 0:
        return "only root can make another one"
    if not os.path.exists(path_of(CHILD_BUCKETS)):
        return "this kernel gives all of them the same table of TCP connections"
    host = os.open("/proc/self/ns/net", os.O_RDONLY)
    copied = read_all(COPIED)
    try:
        enter_new_namespace()
        write(CHILD_BUCKETS, buckets_for(connections))
        enter_new_namespace()
        start_loopback()
        for name, value in copied.items():
            write(name, value)
    except OSError as error:
        call("setns", host, CLONE_NEWNET)
        return f"another one could not be made: {error}"
    finally:
        os.close(host)
    return None


def main():
    environment = {"MILLION_HOST_SYSCTLS": json.dumps(read_all(HOST_ONLY))}
    reason = make_namespace(int(sys.argv[1]))
    environment["MILLION_NAMESPACE"] = "host" if reason else "own"
    environment["MILLION_NAMESPACE_REASON"] = reason or ""
    os.execvpe(sys.argv[2], sys.argv[2:], {**os.environ, **environment})


if __name__ == "__main__":
    main()
