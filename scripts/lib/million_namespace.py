"""Runs scripts/million.sh in a network namespace of its own, whose table of TCP connections is large enough for the run.

    million_namespace.py CONNECTIONS COMMAND...

The kernel sizes the table of the host's namespace at boot. That of another namespace has the size that the setting
net.ipv4.tcp_child_ehash_entries had in the namespace from which it was made (Linux 6.1). Therefore two are made: the setting is
changed in the first one, and the command runs in the second one. Nothing changes in the host's namespace, and both end with
their last process, however that ends.

The command is run in any case. MILLION_NAMESPACE tells it where: `own`, or `host`, in which case MILLION_NAMESPACE_REASON tells
why. MILLION_HOST_SYSCTLS has the settings that only the host's namespace shows, as JSON.

If MILLION_STEER_TO has a list of cores, these cores process the packets that the namespace's loopback interface receives. It is
empty for the command if that cannot be set.
"""

import ctypes
import fcntl
import json
import os
import socket
import struct
import sys

CLONE_NEWNS, CLONE_NEWNET = 0x0002_0000, 0x4000_0000
MS_REC, MS_PRIVATE = 0x4000, 1 << 18
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1

# The kernel's maximum of tcp_child_ehash_entries.
BUCKETS_MAX = 1 << 24

# The cores that process what the loopback interface receives, as a mask. Without any, each sender processes what it has sent.
STEERED_TO = "/sys/class/net/lo/queues/rx-0/rps_cpus"

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


def cores_of(text):
    """Returns the cores of a list such as `1,4-6`."""
    for part in text.split(","):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def mask_of(cores):
    """Returns a mask in the form of sysfs: hexadecimal words of 32 cores each, separated by commas."""
    mask = sum(1 << core for core in set(cores))
    words = []
    while mask or not words:
        words.append(f"{mask & 0xFFFF_FFFF:08x}")
        mask >>= 32
    return ",".join(reversed(words))


def steer(cores):
    """Lets these cores process what the loopback interface of this network namespace receives. Returns a reason if it cannot.

    /sys shows the interfaces of the namespace in which it was mounted: it is mounted once more, for this process and its children.
    """
    try:
        call("unshare", CLONE_NEWNS)
        call("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)
        call("mount", b"none", b"/sys", b"sysfs", 0, None)
        with open(STEERED_TO, "w", encoding="ascii") as file:
            file.write(mask_of(cores_of(cores)))
    except (OSError, ValueError) as error:
        return str(error)
    return None


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
    wanted = os.environ.get("MILLION_STEER_TO")
    unsteered = (reason or steer(wanted)) if wanted else None
    if unsteered:
        environment["MILLION_STEER_TO"] = ""
        print(f"million.sh: packets are not steered to the cores {wanted}: {unsteered}", file=sys.stderr)
    environment["MILLION_NAMESPACE"] = "host" if reason else "own"
    environment["MILLION_NAMESPACE_REASON"] = reason or ""
    os.execvpe(sys.argv[2], sys.argv[2:], {**os.environ, **environment})


if __name__ == "__main__":
    main()
