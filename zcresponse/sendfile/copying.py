"""From one file into another."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final

from zcresponse.sendfile.calls import AVAILABLE, is_refusal
from zcresponse.sendfile.sources import (
    BLOCK,
    PLAIN,
    Destination,
    Source,
    check_binary,
    check_numbers,
    flush,
    is_seekable,
    plain_file,
    with_method,
)

__all__ = ["copy_file"]

#: What one call copies between files, so that Ctrl-C and whoever watches need not wait for a big one.
_STEP: Final = 64 * 1024 * 1024


def copy_file(
    src: Source,
    dst: Destination,
    offset: int = 0,
    count: int | None = None,
    *,
    on_progress: Callable[[int], object] | None = None,
) -> int:
    """Copy bytes of one file into another where that stands, and return how many were copied.

    Between two regular files the kernel copies: by copy_file_range(2), which on file systems such as Btrfs, XFS and NFS
    need not even move the bytes; where it cannot (another file system, an old kernel), by sendfile(2). Everything else
    is read and written.

    Args:
        src: where the bytes come from. It stays open, and its position, if it has one, is where copying ended, also
            when an error did.
        dst: a descriptor or binary file object, open for writing. What was written to it before is flushed first; it
            stays open and stands behind what was copied, also when an error ended it.
        offset: first byte to copy; 0 for what has no position.
        count: the most to copy; None: until the end.
        on_progress: called after every step, of 64 MiB at most, with how many bytes are copied by then. What it raises
            ends the copying.

    Raises:
        ValueError: a text file, a count below 1, an offset below 0, or a file that would be copied onto itself.
        TypeError: `src` or `dst` is no file, or a number is none.
        OSError: what reading or writing said, such as ENOSPC.
    """
    check_numbers(offset, count)
    check_binary(src)
    check_binary(dst)
    source = plain_file(src) or with_method(src, "read")
    target = plain_file(dst, writing=True) or with_method(dst, "write")
    for file in source, target:
        flush(file)
    start = target.tell() if is_seekable(target) else 0
    if isinstance(source, PLAIN) and isinstance(target, PLAIN):
        count = _apart(source.fileno(), target.fileno(), offset, start, count)
    copied = 0
    try:
        for step in _copy_steps(source, target, offset, start, count):
            copied += step
            if on_progress is not None:
                on_progress(copied)
    finally:
        if is_seekable(source):
            source.seek(offset + copied)
        if is_seekable(target) and not _appends(target):
            target.seek(start + copied)
    flush(target)
    return copied


def _apart(source: int, target: int, offset: int, start: int, count: int | None) -> int | None:
    """Return how much to copy when a file may be copied into itself, where its end moves as it grows."""
    found = os.fstat(source)
    if not stat.S_ISREG(found.st_mode) or not os.path.samestat(found, os.fstat(target)):
        return count
    whole = max(0, found.st_size - offset)
    count = whole if count is None else min(count, whole)
    if count and offset < start + count and start < offset + count:
        raise ValueError("src and dst are the same file, and what is copied would be overwritten")
    return count


def _copy_steps(source: Any, target: Any, offset: int, start: int, count: int | None) -> Iterator[int]:
    """Copy, and tell of each step how many bytes it was."""
    copied = 0

    def most(step: int) -> int:
        return step if count is None else min(step, count - copied)

    if isinstance(source, PLAIN) and isinstance(target, PLAIN) and _both_regular(source, target):
        for copy in _COPIES:
            # No bytes: the end, or a file system that says so of a file whose size it does not know.
            while most(_STEP):
                try:
                    moved = copy(source.fileno(), target.fileno(), most(_STEP), offset + copied, start + copied)
                except OSError as error:
                    # Across file systems, to one that has no such call, to swap files, where a sandbox forbids it
                    # (copy_file_range(2), ERRORS); a full disk is met again.
                    if is_refusal(error):
                        break
                    raise
                if not moved:
                    break
                copied += moved
                yield moved
    if is_seekable(source):
        source.seek(offset + copied)
    elif offset:
        raise ValueError("offset: src can only be read from where it stands")
    if is_seekable(target) and copied:
        target.seek(start + copied)
    while most(BLOCK):
        data = source.read(most(BLOCK))
        if data is None:
            raise BlockingIOError(errno.EAGAIN, "src is non-blocking and has nothing just now")
        if not data:
            return
        left = memoryview(data)
        while left:
            written = target.write(left)
            if written is None:
                raise BlockingIOError(errno.EAGAIN, "dst is non-blocking and takes nothing just now")
            copied += written
            left = left[written:]
            yield written


def _both_regular(source: Any, target: Any) -> bool:
    regular = all(stat.S_ISREG(os.fstat(file.fileno()).st_mode) for file in (source, target))
    return regular and not _appends(target)


def _appends(target: Any) -> bool:
    """Whether whatever is written goes to the end of the file."""
    if sys.platform == "win32" or not isinstance(target, PLAIN):
        return False
    import fcntl

    return bool(fcntl.fcntl(target.fileno(), fcntl.F_GETFL) & os.O_APPEND)


def _by_copy_file_range(source: int, target: int, count: int, offset: int, position: int) -> int:
    return os.copy_file_range(source, target, count, offset, position)


def _by_sendfile(source: int, target: int, count: int, offset: int, position: int) -> int:
    os.lseek(target, position, os.SEEK_SET)
    return os.sendfile(target, source, offset, count)


#: How the kernel copies between files, the best first.
_COPIES: Final = [_by_copy_file_range] * hasattr(os, "copy_file_range") + [_by_sendfile] * AVAILABLE
