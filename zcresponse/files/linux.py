"""Linux calls that Python has no name for: `openat2`, the type that `fstatfs` gives, and calls that hold Python's lock.

Where they are missing (another system, an old kernel, a seccomp filter) the functions say so, and callers take the
careful way.

Python lets go of its lock around every system call, so that other threads run while it waits. Around one that does not
wait, in a process whose other threads want the lock, that costs ten times the call: two switches between threads, or
five milliseconds where the other one computes. The functions named `..._held` keep it, and are for calls that do not
wait: of local file systems, and only what the kernel has in its caches.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from enum import Enum
from functools import lru_cache
from typing import Any, Final

from zcresponse.sendfile import AVAILABLE

__all__ = [
    "RESOLVE_BENEATH",
    "RESOLVE_CACHED",
    "RESOLVE_NO_MAGICLINKS",
    "RESOLVE_NO_SYMLINKS",
    "Storage",
    "close_held",
    "has_openat2",
    "how_to_open",
    "open_held",
    "open_prepared",
    "openat2",
    "read_held",
    "stat_held",
    "storage_of",
]

# openat2(2), <linux/openat2.h>
RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_NO_SYMLINKS: Final = 0x04
RESOLVE_BENEATH: Final = 0x08
RESOLVE_CACHED: Final = 0x20

_SYS_OPENAT2: Final = ctypes.c_long(437)  # the same number on every architecture but alpha
AT_FDCWD: Final = -100


class Storage(Enum):
    """What can be known of a file's pages without waiting for them."""

    PROBED = "a local file system: RWF_NOWAIT tells whether a page is cached"
    LOCAL = "a local file system that does not tell: a page may have to come from the disk"
    RESIDENT = "memory: every page is always there"
    UNKNOWN = "a network, FUSE or unknown file system: any call may wait"


# The f_type magic numbers of statfs(2). Only what is known to answer from memory is listed: a FUSE, NFS or CIFS mount
# can let even a cached open wait for a daemon or a server.
_STORAGE_BY_MAGIC: Final = {
    0xEF53: Storage.PROBED,  # ext2, ext3, ext4
    0x58465342: Storage.PROBED,  # XFS
    0x9123683E: Storage.PROBED,  # Btrfs
    0xF2F52010: Storage.PROBED,  # F2FS
    0xCA451A4E: Storage.PROBED,  # bcachefs
    0x794C7630: Storage.LOCAL,  # overlayfs, on which containers run: EOPNOTSUPP for RWF_NOWAIT, measured on Linux 6.18
    0x2FC12FC1: Storage.LOCAL,  # ZFS
    0x73717368: Storage.LOCAL,  # squashfs
    0xE0F5E1E2: Storage.LOCAL,  # EROFS
    0x2011BAB0: Storage.LOCAL,  # exFAT
    0x4D44: Storage.LOCAL,  # FAT
    0x7366746E: Storage.LOCAL,  # NTFS, by the kernel's ntfs3
    0x9660: Storage.LOCAL,  # ISO 9660
    0x01021994: Storage.RESIDENT,  # tmpfs
    0x858458F6: Storage.RESIDENT,  # ramfs
}


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
_openat2_missing = _libc is None

if _libc is not None:
    # Without argtypes, which would convert each argument anew: half a microsecond of three.
    _syscall = _libc.syscall
    _syscall.restype = ctypes.c_long
    _fstatfs = _libc.fstatfs
    _fstatfs.argtypes = (ctypes.c_int, ctypes.c_void_p)

_HOW_SIZE: Final = ctypes.c_size_t(ctypes.sizeof(_OpenHow))


class _IoVector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


# PyDLL is what keeps the lock.
_held: Any = ctypes.PyDLL(None) if sys.platform == "linux" else None

if _held is not None:
    _syscall_held = _held.syscall
    _syscall_held.restype = ctypes.c_long
    _close_held = _held.close
    # Of glibc 2.28 and 2.26; other C libraries may lack them. Where a long has four bytes, so has this offset.
    _statx_held = getattr(_held, "statx", None)
    _preadv2_held = getattr(_held, "preadv2", None) if ctypes.sizeof(ctypes.c_long) == 8 else None
    if _preadv2_held is not None:
        _preadv2_held.restype = ctypes.c_ssize_t

# statx(2), <linux/stat.h>
_AT_EMPTY_PATH: Final = 0x1000
_STATX_BASIC_STATS: Final = 0x7FF
_Statx: Final = ctypes.c_char * 256

#: The most that `read_held` reads, in bytes.
_MOST_HELD: Final = 64 * 1024
_NOWAIT: Final = getattr(os, "RWF_NOWAIT", 0)
_BEGINNING: Final = ctypes.c_long(0)


class _Buffer:
    """Where `read_held` reads to."""

    def __init__(self) -> None:
        data = bytearray(_MOST_HELD)
        self.view = memoryview(data)
        self.vector = _IoVector(ctypes.addressof(ctypes.c_char.from_buffer(data)), 0)
        self.reference = ctypes.byref(self.vector)
        #: What the vector says.
        self.count = 0


#: Those that nobody reads to now: as many as were ever needed at a time. (A local of each thread would be one of each
#: greenlet, where there are any.)
_buffers: Final[list[_Buffer]] = []


# EPERM, EACCES: a seccomp filter refuses the call, as old container runtimes do with what they do not know. EINVAL: the
# kernel has the call but not this RESOLVE_ flag. All can also be about one path (a file that may not be read or is
# sealed, a name that the file system cannot hold), and a path that a client asked for must not decide for all others.
_MAYBE_REFUSED: Final = frozenset((errno.ENOSYS, errno.EPERM, errno.EACCES, errno.EINVAL, errno.E2BIG))


def _works(resolve: int) -> bool:
    """Whether `openat2` takes these RESOLVE_ rules for a name that no permissions guard."""
    how = _OpenHow(getattr(os, "O_PATH", 0) | os.O_CLOEXEC, 0, resolve)
    # The working directory may well be another user's, but an empty name is ENOENT to everybody, after the rules.
    _syscall(_SYS_OPENAT2, AT_FDCWD, b"", ctypes.byref(how), _HOW_SIZE)
    return ctypes.get_errno() not in _MAYBE_REFUSED


def has_openat2() -> bool:
    """Whether `openat2` may be tried; turns False once the kernel has refused it as unknown or forbidden."""
    return not _openat2_missing


def openat2(path: bytes, flags: int, resolve: int, *, dir_fd: int = AT_FDCWD) -> int:
    """Open `path` with the RESOLVE_ rules of openat2(2) and return the descriptor.

    Raises:
        ValueError: a NUL byte in `path`, which C would take for its end.
        NotImplementedError: there is no such call here.
        OSError: as `os.open`; BlockingIOError when RESOLVE_CACHED was asked and the path is not cached, or when a
            rename raced with RESOLVE_BENEATH.
    """
    global _openat2_missing
    if _openat2_missing:
        raise NotImplementedError("openat2 is not available")
    if b"\0" in path:
        raise ValueError("embedded null byte")
    how = how_to_open(flags, resolve)
    while True:
        fd = _syscall(_SYS_OPENAT2, dir_fd, path, how, _HOW_SIZE)
        if fd >= 0:
            return int(fd)
        code = ctypes.get_errno()
        if code == errno.EINTR:
            continue
        if code in _MAYBE_REFUSED and not _works(resolve):
            _openat2_missing = True
            raise NotImplementedError("openat2 is not available")
        raise OSError(code, os.strerror(code), os.fsdecode(path))


@lru_cache(maxsize=64)
def how_to_open(flags: int, resolve: int) -> Any:
    """Return flags and RESOLVE_ rules as the kernel takes them."""
    # Made when a module is loaded, on every system.
    return ctypes.byref(_OpenHow(flags | getattr(os, "O_CLOEXEC", 0), 0, resolve))


def open_prepared(path: bytes, how: Any) -> int:
    """`openat2` for a path that it has opened before; -1 where it cannot any more, whatever the reason.

    A third of the time, for nothing is looked at that was looked at then.
    """
    fd: int = _syscall(_SYS_OPENAT2, AT_FDCWD, path, how, _HOW_SIZE)
    return fd


def open_held(path: bytes, how: Any) -> int:
    """`open_prepared`; see above."""
    if _held is None:
        return -1
    fd: int = _syscall_held(_SYS_OPENAT2, AT_FDCWD, path, how, _HOW_SIZE)
    return fd


def close_held(fd: int) -> None:
    """Close a descriptor; see above."""
    # An error of close(2) leaves nothing to be done: the descriptor is gone.
    _close_held(fd)


def stat_held(fd: int) -> bytes | None:
    """Return all that statx(2) tells of a file but for when it was read, to be compared; None where it cannot."""
    if _statx_held is None:
        return None
    buffer = _Statx()
    if _statx_held(fd, b"", _AT_EMPTY_PATH, _STATX_BASIC_STATS, buffer) != 0:
        return None
    raw = buffer.raw
    # stx_atime lies between; what follows stx_dev_minor is more than was asked for.
    return raw[:64] + raw[80:144]


def read_held(fd: int, offset: int, count: int) -> bytes | None:
    """Read `count` bytes, no more than 64 KiB; None where they are not all in the page cache, or it cannot be told."""
    if not 0 < count <= _MOST_HELD or _NOWAIT == 0 or _preadv2_held is None:
        return None
    try:
        buffer = _buffers.pop()
    except IndexError:
        buffer = _Buffer()
    if buffer.count != count:
        buffer.vector.length = buffer.count = count
    got = _preadv2_held(fd, buffer.reference, 1, ctypes.c_long(offset) if offset else _BEGINNING, _NOWAIT)
    data = buffer.view[:count].tobytes() if got == count else None
    _buffers.append(buffer)
    return data


def storage_of(fd: int) -> Storage:
    """Classify the file system that holds `fd`. May wait on a network file system: call it from a thread."""
    if _libc is None:
        # Elsewhere nothing tells; where there is sendfile, files are taken to be local, and paged in by threads.
        return Storage.LOCAL if AVAILABLE else Storage.UNKNOWN
    # f_type is the first member, a word on all but s390x (where the value matches nothing: the careful answer).
    buffer = (ctypes.c_long * 32)()
    if _fstatfs(fd, ctypes.byref(buffer)) != 0:
        return Storage.UNKNOWN
    return _STORAGE_BY_MAGIC.get(buffer[0] & 0xFFFFFFFF, Storage.UNKNOWN)
