"""Which pages of a file the kernel has in memory, and how to have none there."""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

import pytest

from tests.support.servers import wait_until

__all__ = ["make_cold", "resident_pages"]


def resident_pages(fd: int) -> list[int]:
    """The numbers of a file's pages that are in memory, by mincore(2), which does not bring any in as reading would."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
    size = os.fstat(fd).st_size
    address = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
    assert address not in (None, ctypes.c_void_p(-1).value)
    pages = (ctypes.c_ubyte * ((size + mmap.PAGESIZE - 1) // mmap.PAGESIZE))()
    try:
        assert libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(size), pages) == 0
    finally:
        libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(size))
    return [number for number, page in enumerate(pages) if page & 1]


def make_cold(path: Path) -> None:
    """Drop a file's pages, and make sure that they are gone.

    A page that the kernel is busy with is not dropped at the first try. Where the file system keeps pages in memory, no
    file is cold, and the test is skipped.
    """
    fd = os.open(path, os.O_RDONLY)

    def drop() -> bool:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        return not resident_pages(fd)

    try:
        wait_until(drop, timeout=3, what="the pages to be dropped")
    except AssertionError:
        pytest.skip("the file system keeps the pages in memory")
    finally:
        os.close(fd)
