"""Content that is in memory already, as something that a plan can be made of."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from zcresponse.files.opened import FileSource, OpenedFile, check_window, open_file

__all__ = ["ContentSource", "MemoryFile", "open_content"]

#: What `open_content` can open.
ContentSource: TypeAlias = "FileSource | io.BytesIO | MemoryFile"

#: What most sources are; to ask a class such as SpooledTemporaryFile takes longer.
_MOST: Final = (str, OpenedFile)


class MemoryFile:
    """Bytes in a file's place: they have a size and regions, but no descriptor and no times.

    Attributes:
        path: None.
        offset, size: first byte of the window, and bytes in it.
        windowed: whether a part was asked for.
        mtime_ns: None: nobody knows when they changed.
    """

    __slots__ = ("_close", "_data", "offset", "size", "windowed")

    path = None
    mtime_ns = None

    def __init__(
        self, data: bytes, *, offset: int = 0, count: int | None = None, close: Callable[[], object] | None = None
    ) -> None:
        check_window(offset, count)
        self._data = data
        self._close = close
        self.offset = offset
        self.size = len(data) - offset if count is None else count
        self.windowed = offset != 0 or count is not None
        if self.size < 0 or offset + self.size > len(data):
            raise ValueError(f"offset, count: the window lies beyond the end at {len(data)}")

    def region(self, start: int = 0, stop: int | None = None) -> bytes:
        """Return bytes `[start, stop)` of the window."""
        return self._data[self.offset + start : self.offset + (self.size if stop is None else stop)]

    def borrowed(self) -> MemoryFile:
        """Return the same content, without the duty to close it."""
        return MemoryFile(self._data, offset=self.offset, count=self.size if self.windowed else None)

    def close_also(self, close: Callable[[], object]) -> None:
        """Call `close` when this is closed: of what the bytes came from, which has been somebody else's so far."""
        self._close = close

    def __enter__(self) -> MemoryFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close what the bytes came from. Further calls do nothing."""
        close, self._close = self._close, None
        if close is not None:
            close()


def open_content(
    source: ContentSource, *, offset: int = 0, count: int | None = None, closefd: bool = True
) -> OpenedFile | MemoryFile:
    """`open_file` that takes a `BytesIO` too, and a `SpooledTemporaryFile` that is still in memory.

    Such an object may be written to afterwards: what is sent is what it held now.
    """
    if isinstance(source, _MOST):
        return open_file(source, offset=offset, count=count, closefd=closefd)
    if isinstance(source, MemoryFile):
        if offset != 0 or count is not None:
            raise ValueError("offset, count: the content has its window already")
        return source if closefd else source.borrowed()
    given: Any = source
    buffer = given._file if isinstance(given, tempfile.SpooledTemporaryFile) else given
    # A class of somebody's own may read something else than it holds.
    if type(buffer) is not io.BytesIO:
        return open_file(given, offset=offset, count=count, closefd=closefd)
    # Of a BytesIO that nobody writes to this is no copy.
    return MemoryFile(buffer.getvalue(), offset=offset, count=count, close=given.close if closefd else None)
