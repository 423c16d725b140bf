#!/usr/bin/env python3
"""Runs a program under a seccomp filter that makes io_uring_setup fail, as in containers.

usage: without_io_uring.py EPERM|ENOSYS PROGRAM [ARGUMENTS...]
"""

import ctypes
import errno
import os
import struct
import sys

PR_SET_SECCOMP = 22
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_MODE_FILTER = 2
SECCOMP_RET_ALLOW = 0x7FFF0000
SECCOMP_RET_ERRNO = 0x00050000
IO_URING_SETUP = 425  # on every architecture that the server runs on

BPF_LOAD_WORD = 0x20
BPF_JUMP_EQUAL = 0x15
BPF_RETURN = 0x06


def instruction(code, jump_true, jump_false, value):
    return struct.pack("HBBI", code, jump_true, jump_false, value)


def install_filter(error):
    program = b"".join(
        (
            instruction(BPF_LOAD_WORD, 0, 0, 0),  # seccomp_data.nr
            instruction(BPF_JUMP_EQUAL, 0, 1, IO_URING_SETUP),
            instruction(BPF_RETURN, 0, 0, SECCOMP_RET_ERRNO | error),
            instruction(BPF_RETURN, 0, 0, SECCOMP_RET_ALLOW),
        )
    )
    instructions = ctypes.create_string_buffer(program, len(program))
    sock_fprog = struct.pack("HL", len(program) // 8, ctypes.addressof(instructions))
    libc = ctypes.CDLL(None, use_errno=True)
    one, nothing = ctypes.c_ulong(1), ctypes.c_ulong(0)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, one, nothing, nothing, nothing) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_NO_NEW_PRIVS")
    if libc.prctl(PR_SET_SECCOMP, ctypes.c_ulong(SECCOMP_MODE_FILTER), sock_fprog, nothing, nothing) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_SECCOMP")


def main():
    install_filter({"EPERM": errno.EPERM, "ENOSYS": errno.ENOSYS}[sys.argv[1]])
    os.execv(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
