#!/usr/bin/env python3
"""Runs a command under a seccomp profile in Docker's format, as a container runtime would, but without a container.

    under_seccomp.py PROFILE COMMAND [ARGUMENT...]
    under_seccomp.py PROFILE --check        checks in the kernel that the profile allows and forbids the right calls

The script only needs libseccomp.so.2, which apt itself depends on. The exit code is 77 if it is missing.
"""

import ctypes
import errno
import json
import os
import platform
import sys
import threading

SKIPPED = 77
ACT_ALLOW = 0x7FFF0000
OPERATORS = {"SCMP_CMP_NE": 1, "SCMP_CMP_LE": 3, "SCMP_CMP_EQ": 4, "SCMP_CMP_GE": 5, "SCMP_CMP_MASKED_EQ": 7}
ARCHITECTURES = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}


class Comparison(ctypes.Structure):
    """struct scmp_arg_cmp"""

    _fields_ = [
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    ]


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    with open(sys.argv[1], encoding="utf-8") as file:
        load(json.load(file))
    if sys.argv[2] == "--check":
        check()
    else:
        os.execvp(sys.argv[2], sys.argv[2:])


def load(profile):
    """Applies the profile permanently to this process and to all processes that it starts."""
    try:
        lib = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    except OSError as error:
        print(f"skipped: {error}", file=sys.stderr)
        sys.exit(SKIPPED)
    lib.seccomp_init.restype = ctypes.c_void_p
    lib.seccomp_init.argtypes = [ctypes.c_uint32]
    lib.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.POINTER(Comparison),
    ]
    lib.seccomp_load.argtypes = [ctypes.c_void_p]

    assert ARCHITECTURES[platform.machine()] in profile["architectures"]
    filter_ = lib.seccomp_init(action(profile["defaultAction"], profile["defaultErrnoRet"]))
    for rule in profile["syscalls"]:
        comparisons = [
            Comparison(arg["index"], OPERATORS[arg["op"]], arg["value"], arg.get("valueTwo", 0))
            for arg in rule.get("args", [])
        ]
        array = (Comparison * len(comparisons))(*comparisons)
        for name in rule["names"]:
            number = lib.seccomp_syscall_resolve_name(name.encode())
            if number < 0:
                continue  # Not on this architecture, or newer than the library. Container runtimes skip it too.
            result = lib.seccomp_rule_add_array(
                filter_, action(rule["action"], rule.get("errnoRet")), number, len(comparisons), array
            )
            assert result == 0, f"{name}: {os.strerror(-result)}"
    result = lib.seccomp_load(filter_)
    assert result == 0, os.strerror(-result)


def action(name, error):
    """Returns the number of SCMP_ACT_ALLOW, or of SCMP_ACT_ERRNO with its error."""
    if name == "SCMP_ACT_ALLOW":
        return ACT_ALLOW
    assert name == "SCMP_ACT_ERRNO" and error is not None, name
    return 0x00050000 | error


def check():
    """Checks system calls that must reach the kernel, and some that must not."""
    libc = ctypes.CDLL(None, use_errno=True)
    lib = ctypes.CDLL("libseccomp.so.2")

    def call(name, *arguments):
        number = lib.seccomp_syscall_resolve_name(name.encode())
        ctypes.set_errno(0)
        libc.syscall(ctypes.c_long(number), *[ctypes.c_long(argument) for argument in arguments])
        return errno.errorcode.get(ctypes.get_errno(), "OK")

    clone_newuser = 0x10000000
    vsock, packet = 40, 17
    for expected, name, *arguments in [
        # Errors of the kernel itself: the filter allowed the call.
        ("EFAULT", "io_uring_setup", 8, 0),
        ("EBADF", "io_uring_enter", -1, 0, 0, 0, 0, 0),
        ("EBADF", "io_uring_register", 1 << 20, 0, 0, 0),
        ("OK", "membarrier", 0, 0, 0),
        ("OK", "eventfd2", 0, 0),
        ("OK", "personality", 0xFFFFFFFF),
        ("OK", "socket", 1, 1, 0),
        ("OK", "socket", 2, 1, 0),
        # Errors of the filter.
        ("ENOSYS", "clone3", 0, 0),
        ("EPERM", "clone", clone_newuser | 17, 0, 0, 0, 0),
        ("EPERM", "unshare", 0),
        ("EPERM", "setns", -1, 0),
        ("EPERM", "mount", 0, 0, 0, 0, 0),
        ("EPERM", "pivot_root", 0, 0),
        ("EPERM", "bpf", 0, 0, 0),
        ("EPERM", "ptrace", 0, 0, 0, 0),
        ("EPERM", "process_vm_readv", 0, 0, 0, 0, 0, 0),
        ("EPERM", "perf_event_open", 0, 0, 0, 0, 0),
        ("EPERM", "userfaultfd", 0),
        ("EPERM", "keyctl", 0, 0, 0, 0, 0),
        ("EPERM", "init_module", 0, 0, 0),
        ("EPERM", "kexec_load", 0, 0, 0, 0),
        ("EPERM", "reboot", 0, 0, 0, 0),
        ("EPERM", "swapon", 0, 0),
        ("EPERM", "clock_settime", -1, 0),
        ("EPERM", "sethostname", 0, 0),
        ("EPERM", "open_by_handle_at", -1, 0, 0),
        ("EPERM", "personality", 0x40000),
        ("EPERM", "socket", vsock, 1, 0),
        ("EPERM", "socket", packet, 3, 0),
    ]:
        got = call(name, *arguments)
        assert got == expected, f"{name}{arguments}: {got} instead of {expected}"

    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()
    child = os.fork()
    if child == 0:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    print("the profile allows and forbids the right calls")


if __name__ == "__main__":
    main()
