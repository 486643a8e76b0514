"""A region of a file as a file object, for servers that look where its descriptor stands."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import Final

from zcresponse.errors import FileTruncatedError
from zcresponse.files.opened import FileRegion, reopen

__all__ = ["PositionedFile"]

#: What one turn of iteration reads, in bytes, for whoever does not say.
_BLOCK: Final = 64 * 1024
#: The most that one call reads, in bytes. waitress asks for as much as fits into the socket's buffer, some 4 MiB, which
#: no processor's cache keeps until it is sent.
_MOST: Final = 512 * 1024


class PositionedFile:
    """An unbuffered file object that holds one region of a file and nothing else.

    Its descriptor stands at the byte that comes next, however it is read: a server that gives the descriptor to the
    kernel begins there, one that calls `read` gets the same bytes and then the end, although the file may go on.

    The descriptor of a file that was opened for this one response serves as it is. One that others may use too has a
    position that is theirs; then the file is opened a second time, which without a name only Linux can do.

    Args:
        region: what it holds. Closing the region's file stays the caller's.
        on_close: called once, by `close`, with how many bytes of the region the file no longer has; None where the
            file system does not say any more.
        shows: whether whoever asks for the descriptor, each time, may have it: it may lead beyond the region. None:
            always.

    Raises:
        OSError: there is no descriptor whose position is ours alone.
    """

    # Without __slots__: Django puts a `close` of its own over the one of a file that it hands to the server.

    def __init__(
        self,
        region: FileRegion,
        on_close: Callable[[int | None], object],
        shows: Callable[[FileRegion], bool] | None = None,
    ) -> None:
        # Kept, so that nobody else can close the descriptor by dropping it.
        self._file = file = region.file
        self._own = not file.exclusive
        self._fd = reopen(file.fileno()) if self._own else file.fileno()
        self._start = region.offset
        self._end = region.offset + region.count
        self._region = region
        self._on_close = on_close
        self._shows = shows
        os.lseek(self._fd, region.offset, os.SEEK_SET)

    @property
    def closed(self) -> bool:
        return self._fd < 0

    @property
    def name(self) -> str | None:
        """The path that the file was opened by, if it was."""
        return self._file.path

    def fileno(self) -> int:
        """Return the descriptor.

        Raises:
            ValueError: the file is closed.
            io.UnsupportedOperation: whoever asks is to read it.
        """
        fd = self._open_fd()
        if self._shows is not None and not self._shows(self._region):
            raise io.UnsupportedOperation("the descriptor leads beyond the region, so it is to be read")
        return fd

    def _open_fd(self) -> int:
        if self._fd < 0:
            raise ValueError("I/O operation on closed file")
        return self._fd

    def read(self, size: int | None = -1) -> bytes:
        """Return up to `size` bytes, all that is left if it is negative or None; nothing at the end of the region.

        As with any unbuffered file, fewer than `size` do not mean that the end has come.

        Raises:
            FileTruncatedError: the file ends before the region does.
            ValueError: somebody has moved the descriptor to a byte before the region, or the file is closed.
        """
        fd = self._open_fd()
        position = os.lseek(fd, 0, os.SEEK_CUR)
        if position < self._start:
            raise ValueError(f"byte {position} of the file is not in the region that may be read")
        left = self._end - position
        if size is None or size < 0:
            return b"".join(iter(lambda: self.read(_BLOCK), b""))
        if left <= 0 or size == 0:
            return b""
        data = os.read(fd, min(size, left, _MOST))
        if not data:
            raise FileTruncatedError(f"the file ended {left} bytes before the promised end")
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a byte of the file itself, as `os.lseek` does; the end is the region's."""
        if whence == os.SEEK_END:
            offset, whence = self._end + offset, os.SEEK_SET
        return os.lseek(self._open_fd(), offset, whence)

    def tell(self) -> int:
        """Return where the descriptor stands in the file itself."""
        return os.lseek(self._open_fd(), 0, os.SEEK_CUR)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def __iter__(self) -> PositionedFile:
        return self

    def __next__(self) -> bytes:
        data = self.read(_BLOCK)
        if not data:
            raise StopIteration
        return data

    def close(self) -> None:
        """Close, once; further calls do nothing. What `on_close` raises comes out."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        missing: int | None = None
        try:
            missing = max(0, self._end - os.fstat(fd).st_size)
        except OSError:
            # A network file system that has lost the file, or a FUSE daemon that has died.
            pass
        try:
            if self._own:
                os.close(fd)
        finally:
            self._on_close(missing)

    def __del__(self) -> None:
        # Dropped by a server or middleware that does not close what it was given.
        if getattr(self, "_fd", -1) >= 0 and self._own:
            os.close(self._fd)
            self._fd = -1
