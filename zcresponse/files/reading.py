"""Bytes of a file without stopping an event loop: cached pages at once, the rest in a thread.

`preadv` with RWF_NOWAIT (Linux 4.14) reads what the page cache holds and fails with EAGAIN where it would have to wait
for the disk. tmpfs answers EOPNOTSUPP to it, because its pages are always there; so does overlayfs, whose pages may
well be missing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, TypeVar

from zcresponse import loops
from zcresponse.errors import FileTruncatedError
from zcresponse.events import logger
from zcresponse.files import linux
from zcresponse.files.linux import Storage
from zcresponse.files.opened import OpenedFile

__all__ = ["are_cached", "page_in", "read", "read_blocking", "read_cached", "submit"]

T = TypeVar("T")

_NOWAIT: Final = getattr(os, "RWF_NOWAIT", None)

#: How far apart pages are probed in `are_cached`: the kernel's default readahead brings pages in runs of this length.
PROBE_STEP: Final = 128 * 1024

#: Up to here, in bytes, a new buffer takes less time than looking for the one that is kept.
_LITTLE: Final = 32 * 1024

_scratch = threading.local()
_probe = bytearray(1)


def read_cached(file: OpenedFile, offset: int, count: int) -> bytes | None:
    """Read `count` bytes at `offset` of the file if that takes no wait.

    Returns:
        The bytes (fewer than `count` where the file ends), or None when some of them are not in memory.
    """
    if file.storage is Storage.RESIDENT:
        return read_blocking(file.fileno(), offset, count)
    if file.storage is not Storage.PROBED or _NOWAIT is None:
        return None
    fd = file.fileno()
    held = linux.read_held(fd, offset, count)
    if held is not None:
        return held
    # The kernel can fill a buffer of ours but not a bytes object, so it is copied.
    view = bytearray(count) if count <= _LITTLE else memoryview(_kept(count))[:count]
    try:
        got = os.preadv(fd, (view,), offset, _NOWAIT)
        # A short count is the end of the file, or where the next page is not there yet.
        while 0 < got < count:
            more = os.preadv(fd, (memoryview(view)[got:],), offset + got, _NOWAIT)
            if more == 0:
                break
            got += more
    except BlockingIOError:
        return None
    except OSError as error:
        _take_for_silent(file, error)
        return None
    return bytes(view if got == count else view[:got])


def _kept(count: int) -> bytearray:
    """Return a buffer that is used again and again, so that it stays in the processor's cache."""
    buffer: bytearray | None = getattr(_scratch, "buffer", None)
    if buffer is None or len(buffer) < count:
        buffer = _scratch.buffer = bytearray(max(count, 64 * 1024))
    return buffer


def are_cached(file: OpenedFile, offset: int, count: int) -> bool:
    """Whether sending `count` bytes at `offset` needs no wait for the disk, as far as a few probes tell.

    One byte is read every `PROBE_STEP` bytes and at the end, which costs less than a microsecond each. A page that was
    dropped from between two probes goes unnoticed.
    """
    if file.storage is Storage.RESIDENT:
        return True
    if file.storage is not Storage.PROBED or _NOWAIT is None:
        return False
    fd = file.fileno()
    last = offset + count - 1
    try:
        for position in range(offset, last, PROBE_STEP):
            os.preadv(fd, [_probe], position, _NOWAIT)
        os.preadv(fd, [_probe], last, _NOWAIT)
    except BlockingIOError:
        return False
    except OSError as error:
        _take_for_silent(file, error)
        return False
    return True


def _take_for_silent(file: OpenedFile, error: OSError) -> None:
    """Give up probing a file whose file system has no answer to it, or where a sandbox forbids the question.

    A disk that cannot be read is met again by the thread that reads.
    """
    logger.debug("%s: nothing tells what of it is cached: %s", file.path, error.strerror)
    file.storage = Storage.LOCAL


if hasattr(os, "pread"):
    _pread = os.pread
else:
    # Windows has no positioned read, and a duplicated descriptor shares its position with the first.
    _position = threading.Lock()

    def _pread(fd: int, count: int, offset: int, /) -> bytes:
        with _position:
            os.lseek(fd, offset, os.SEEK_SET)
            return os.read(fd, count)


def read_blocking(fd: int, offset: int, count: int) -> bytes:
    """Read `count` bytes at `offset`, fewer only where the file ends. Waits for the disk: for a thread."""
    data = _pread(fd, count, offset)
    while 0 < len(data) < count:
        more = _pread(fd, count - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


async def read(file: OpenedFile, offset: int, count: int) -> bytes:
    """Read exactly `count` bytes at `offset` of the file; the loop does not wait for the disk.

    Raises:
        FileTruncatedError: the file ends before.
        OSError: as `os.pread`.
    """
    data = read_cached(file, offset, count)
    if data is None:
        try:
            job = submit(file, read_blocking, offset, count)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE, errno.EAGAIN):
                raise
            # No descriptor or thread is left for it: rather wait here than fail.
            data = read_blocking(file.fileno(), offset, count)
        else:
            data = await loops.result_of(job)
    if len(data) < count:
        raise FileTruncatedError(
            f"{file.path or 'the file'} ended at byte {offset + len(data)}, {count - len(data)} before the promised end"
        )
    return data


def submit(file: OpenedFile, job: Callable[..., T], *args: int) -> Future[T]:
    """Run `job(fd, *args)` in a thread, on a duplicate of the file's descriptor: it may outlive the file."""
    threads = loops.REMOTE if file.storage is Storage.UNKNOWN else loops.LOCAL
    return loops.submit_with(file.fileno(), job, *args, threads=threads)


def page_in(fd: int, offset: int, count: int, ahead: int = 0) -> None:
    """Bring `count` bytes at `offset` into the page cache and ask for `ahead` more. For a thread."""
    if hasattr(os, "posix_fadvise"):
        # It is only advice.
        with contextlib.suppress(OSError):
            os.posix_fadvise(fd, offset, count + ahead, os.POSIX_FADV_WILLNEED)
    for position in range(offset, offset + count, PROBE_STEP):
        _pread(fd, 1, position)
    _pread(fd, 1, offset + count - 1)
