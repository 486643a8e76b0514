"""From one file into another."""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final

from zcresponse.sendfile.calls import AVAILABLE, is_refusal
from zcresponse.sendfile.sources import (
    BLOCK,
    Destination,
    Source,
    accounted,
    check_binary,
    check_numbers,
    check_stream,
    flush,
    is_seekable,
    is_socket,
    plain_file,
    real_file,
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
    need not even move the bytes; where it cannot (another file system, an old kernel), by sendfile(2). Holes of the
    source become holes behind the end of the target. Everything else is read and written.

    Args:
        src: where the bytes come from. It stays open, and its position, if it has one, is where copying ended, also
            when an error did, or a signal's handler that raised.
        dst: a descriptor or binary file object, open for writing, or a connected stream socket. What was written to it
            before is flushed first; it stays open and stands behind what was copied, also when an error ended it.
        offset: first byte to copy; 0 for what has no position.
        count: the most to copy; None: until the end.
        on_progress: called after every step, of 64 MiB at most (a hole is one), with how many bytes are copied by then.
            What it raises ends the copying.

    Sockets wait as their own timeouts say, for each block.

    Raises:
        ValueError: a text file, a socket that is not of SOCK_STREAM, a count below 1, an offset below 0, or a file that
            would be copied onto itself.
        TypeError: `src` or `dst` is no file, or a number is none.
        OverflowError: an offset beyond 2**63.
        BlockingIOError: one of them is non-blocking, and has or takes nothing just now.
        TimeoutError: a socket had or took nothing for as long as its timeout.
        OSError: what reading or writing said, such as ENOSPC.
    """
    check_numbers(offset, count)
    source = _opened(src, "read")
    target = _opened(dst, "write")
    for file in source, target:
        flush(file)
    start = _start(target)
    if _is_plain(source) and _is_plain(target):
        count = _apart(source.fileno(), target.fileno(), offset, start, count)
    # Past its buffer, which is empty now: what could not be written in the end would have counted as copied.
    beneath = getattr(target, "raw", target) if _is_plain(target) else target
    copy = _Copy(source, beneath, offset, start, count, on_progress)
    try:
        copy.run()
    finally:
        if is_seekable(source):
            source.seek(offset + copy.copied)
        if is_seekable(target) and not _appends(target):
            target.seek(start + copy.copied)
    flush(target)
    return copy.copied


class _Stream:
    """A socket as a file: it waits as its timeout says, of which its descriptor, if it is one, knows nothing."""

    def __init__(self, sock: Any) -> None:
        self.read = sock.recv
        self.write = sock.send

    def seekable(self) -> bool:
        return False


def _opened(file: Any, method: str) -> Any:
    check_binary(file)
    if is_socket(file):
        check_stream(file)
        return _Stream(file)
    return plain_file(file, writing=method == "write") or with_method(file, method)


def _is_plain(file: Any) -> bool:
    """Whether its descriptor has the very bytes that it reads or writes."""
    return real_file(file) is not None


def _start(target: Any) -> int:
    """Return where writing begins."""
    if not is_seekable(target):
        return 0
    if _appends(target):
        return os.fstat(target.fileno()).st_size
    return int(target.tell())


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


class _Copy:
    """A file on its way into another.

    Attributes:
        copied: How many bytes the target has.
    """

    def __init__(
        self,
        source: Any,
        target: Any,
        offset: int,
        start: int,
        count: int | None,
        on_progress: Callable[[int], object] | None,
    ) -> None:
        self.copied = 0
        self._source = source
        self._target = target
        self._offset = offset
        self._start = start
        self._count = count
        self._on_progress = on_progress

    def _most(self, step: int) -> int:
        return step if self._count is None else min(step, self._count - self.copied)

    def _tell(self) -> None:
        if self._on_progress is not None:
            self._on_progress(self.copied)

    def run(self) -> None:
        source, target = self._source, self._target
        regular = _is_plain(source) and _is_plain(target) and _both_regular(source, target)
        if regular and self._by_kernel(source.fileno(), target.fileno()):
            return
        if is_seekable(source):
            source.seek(self._offset + self.copied)
        elif self._offset:
            raise ValueError("offset: src can only be read from where it stands")
        if is_seekable(target) and self.copied:
            target.seek(self._start + self.copied)
        while most := self._most(BLOCK):
            data = source.read(most)
            if data is None:
                raise BlockingIOError(errno.EAGAIN, "src is non-blocking and has nothing just now")
            if not data:
                return
            self._write(data)

    def _by_kernel(self, source: int, target: int) -> bool:
        """Copy as far as the kernel can, and tell whether that was all."""
        sparse = _is_sparse(source)
        for copy in _COPIES:
            while most := self._most(_STEP):
                at, position = self._offset + self.copied, self._start + self.copied
                if sparse:
                    hole, data = _next_parts(source, at)
                    # Only where the target has nothing yet.
                    if hole and os.fstat(target).st_size <= position:
                        hole = self._most(hole)
                        try:
                            for _ in accounted(os.ftruncate, target, position + hole):
                                self.copied += hole
                        except OSError:
                            # Then zeros are written, or it is told why nothing can be.
                            sparse = False
                        else:
                            self._tell()
                        continue
                    most = min(most, hole or data)
                try:
                    for moved in copy(source, target, most, at, position):
                        self.copied += moved
                except OSError as error:
                    # Across file systems, to one that has no such call, to swap files, where a sandbox forbids it
                    # (copy_file_range(2), ERRORS); a full disk is met again.
                    if is_refusal(error):
                        break
                    raise
                if not moved:
                    if 0 < os.fstat(source).st_size <= at:
                        return True
                    # A file system that says so of a file whose size it does not know.
                    break
                self._tell()
        return not self._most(_STEP)

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            try:
                written = None
                for written in accounted(self._target.write, left):
                    if written:
                        self.copied += written
            except BlockingIOError as error:
                # A buffer has taken a part of it.
                self.copied += getattr(error, "characters_written", 0)
                raise
            if written is None and isinstance(self._target, io.RawIOBase):
                raise BlockingIOError(errno.EAGAIN, "dst is non-blocking and takes nothing just now")
            if written is None:
                # What others mean who do not tell.
                written = len(left)
                self.copied += written
            if not written:
                raise OSError(errno.EIO, "dst takes nothing")
            left = left[written:]
            self._tell()


def _both_regular(source: Any, target: Any) -> bool:
    regular = all(stat.S_ISREG(os.fstat(file.fileno()).st_mode) for file in (source, target))
    return regular and not _appends(target)


def _appends(target: Any) -> bool:
    """Whether whatever is written goes to the end of the file."""
    if sys.platform == "win32" or not _is_plain(target):
        return False
    import fcntl

    return bool(fcntl.fcntl(target.fileno(), fcntl.F_GETFL) & os.O_APPEND)


# --- holes ------------------------------------------------------------------------------------------------------------


def _is_sparse(source: int) -> bool:
    """Whether a file may have holes: it takes less room than its bytes would."""
    found = os.fstat(source)
    return hasattr(os, "SEEK_DATA") and found.st_blocks * 512 < found.st_size


def _next_parts(source: int, at: int) -> tuple[int, int]:
    """Return how long the hole at `at` is, 0 if there is none, and if there is none, how far the data goes."""
    end = os.fstat(source).st_size
    # A buffered reader takes it for granted that nobody else moves its descriptor.
    before = os.lseek(source, 0, os.SEEK_CUR)
    try:
        data = os.lseek(source, at, os.SEEK_DATA)
        return (data - at, 0) if data > at else (0, os.lseek(source, at, os.SEEK_HOLE) - at)
    except OSError as error:
        # ENXIO: no data from here on (lseek(2)). Any other: the file system does not tell.
        return (max(0, end - at), _STEP) if error.errno == errno.ENXIO else (0, _STEP)
    finally:
        os.lseek(source, before, os.SEEK_SET)


# --- calls ------------------------------------------------------------------------------------------------------------


def _by_copy_file_range(source: int, target: int, count: int, offset: int, position: int) -> Iterator[int]:
    return accounted(os.copy_file_range, source, target, count, offset, position)


def _by_sendfile(source: int, target: int, count: int, offset: int, position: int) -> Iterator[int]:
    os.lseek(target, position, os.SEEK_SET)
    return accounted(os.sendfile, target, source, offset, count)


#: How the kernel copies between files, the best first.
_COPIES: Final = [_by_copy_file_range] * hasattr(os, "copy_file_range") + [_by_sendfile] * AVAILABLE
