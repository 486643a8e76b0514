"""System calls that really fail, as in a container: a seccomp filter of the process's own (Linux).

As a program it forbids what `FORBIDDEN` names (`EPERM sendfile preadv2`) and becomes uvicorn with its arguments.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import runpy
import struct

__all__ = ["CALLS", "forbid"]

#: The calls' numbers on x86-64 and on aarch64, <asm/unistd.h>.
CALLS = {
    "sendfile": (40, 71),
    "splice": (275, 76),
    "preadv2": (327, 286),
    "copy_file_range": (326, 285),
    "openat2": (437, 437),
}

# <linux/prctl.h>, <linux/seccomp.h>, <linux/bpf_common.h>
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _SECCOMP_MODE_FILTER = 22, 38, 2
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def forbid(error: str, *names: str) -> None:
    """Let calls fail from now on, in this process and in those that it starts.

    Args:
        error: The errno's name.
        names: Keys of `CALLS`.
    """
    machine = ["x86_64", "aarch64"].index(platform.machine())
    steps = [(_LOAD, 0, 0, 0)]
    for name in names:
        steps += [(_JUMP_IF_EQUAL, 0, 1, CALLS[name][machine]), (_RETURN, 0, 0, _ERRNO | getattr(errno, error))]
    steps.append((_RETURN, 0, 0, _ALLOW))
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = _Program(len(steps), ctypes.cast(code, ctypes.c_void_p))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program)):
        if libc.prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), "no seccomp filter could be set")


if __name__ == "__main__":
    forbid(*os.environ["FORBIDDEN"].split())
    runpy.run_module("uvicorn", run_name="__main__", alter_sys=True)
