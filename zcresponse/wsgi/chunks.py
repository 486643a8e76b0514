"""A body as an iterable of large blocks, for servers that take nothing better: what was promised, or an error."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Final, TypeAlias

from zcresponse.errors import FileTruncatedError
from zcresponse.files import FileRegion, reading
from zcresponse.files.linux import Storage
from zcresponse.plan import Segment
from zcresponse.plan.segments import total_length
from zcresponse.wsgi.hubs import Hub, run_with

__all__ = ["BLOCK", "Block", "Chunks", "OnClose", "read_whole"]

#: What one turn of the iteration gives, in bytes.
BLOCK: Final = 256 * 1024

#: Told how many bytes the server has taken, whether that was all (None: it did not say), and the error that ended it.
OnClose: TypeAlias = Callable[[int | None, bool | None, BaseException | None], object]


class Chunks:
    """The segments of a body as blocks of bytes, closed exactly once.

    A server that stops by Content-Length itself and one that sends whatever it is given send the same: no byte is given
    beyond the promised ones, and where a file has become shorter the iteration raises, so that the server ends the
    connection.

    Args:
        segments: the body.
        hub: the loop of greenlets that must not wait for a disk, if any.
        on_close: called once, by `close`.
        on_error: called before an error of reading comes out.
    """

    __slots__ = ("_blocks", "_error", "_given", "_on_close", "_on_error", "_taken", "_whole")

    def __init__(
        self,
        segments: Sequence[Segment],
        hub: Hub | None,
        on_close: OnClose,
        on_error: Callable[[], object] = lambda: None,
    ) -> None:
        self._whole = total_length(segments)
        self._given = 0
        self._taken = 0
        self._error: BaseException | None = None
        self._on_error = on_error
        self._on_close: OnClose | None = on_close
        # Not a method: a body that somebody drops must be freed at once, and would be a circle.
        self._blocks = _only(segments, hub) if 0 < self._whole <= BLOCK else _blocks(segments, hub)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._on_close is None:
            raise ValueError("the body is closed")
        # Who asks for more has taken what was given before (PEP 3333, "Buffering and Streaming").
        self._taken = self._given
        try:
            block = next(self._blocks)
        except StopIteration:
            raise
        except BaseException as error:
            self._error = error
            # Whatever is the matter with the connection, it does not hide what was the matter first.
            with suppress(Exception):
                self._on_error()
            raise
        self._given += len(block)
        return block

    def close(self) -> None:
        """Say that the server is done with the body; further calls do nothing."""
        on_close, self._on_close = self._on_close, None
        if on_close is None:
            return
        if self._error is not None:
            on_close(self._taken, False, self._error)
        elif self._taken == self._whole:
            on_close(self._whole, True, None)
        elif self._given == self._whole:
            # It stopped after the last byte, or in the middle of writing it.
            on_close(None, None, None)
        else:
            on_close(self._taken, False, None)


class Block:
    """A body of one block that has been read already, given once and closed exactly once.

    Args:
        data: the body.
        on_close: called once, by `close`.
        on_start: called when the block is asked for; what it returns, if anything, is called in the end.
    """

    __slots__ = ("_data", "_on_close", "_on_end", "_on_start")

    def __init__(
        self,
        data: bytes,
        on_close: Callable[[], object],
        on_start: Callable[[], Callable[[], object] | None] | None = None,
    ) -> None:
        self._data: bytes | None = data
        self._on_close: Callable[[], object] | None = on_close
        self._on_start = on_start
        self._on_end: Callable[[], object] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._on_close is None:
            raise ValueError("the body is closed")
        data, self._data = self._data, None
        if data is None:
            raise StopIteration
        if self._on_start is not None:
            self._on_end = self._on_start()
        return data

    def close(self) -> None:
        """Say that the server is done with the body; further calls do nothing."""
        on_close, self._on_close = self._on_close, None
        if on_close is not None:
            try:
                if self._on_end is not None:
                    self._on_end()
            finally:
                on_close()


def read_whole(segment: Segment) -> bytes:
    """Return all that was promised of a small body; waits for the disk.

    Raises:
        FileTruncatedError: the file has become shorter.
        OSError: as `os.pread`.
    """
    if isinstance(segment, FileRegion):
        data = reading.read_cached(segment.file, segment.offset, segment.count)
        if data is not None and len(data) == segment.count:
            return data
    return _all_of(segment, None)


def _only(segments: Sequence[Segment], hub: Hub | None) -> Iterator[bytes]:
    """Give one block, however many parts there are: the heads between them are a few bytes each."""
    if len(segments) > 1:
        return map(_joined, (segments,), (hub,))
    # Read when it is asked for.
    return map(_all_of, segments, (hub,))


def _all_of(segment: Segment, hub: Hub | None) -> bytes:
    return _bytes_of(segment, 0, len(segment), hub)


def _joined(segments: Sequence[Segment], hub: Hub | None) -> bytes:
    return b"".join([_all_of(segment, hub) for segment in segments])


def _blocks(segments: Sequence[Segment], hub: Hub | None) -> Iterator[bytes]:
    for segment in segments:
        for start in range(0, len(segment), BLOCK):
            yield _bytes_of(segment, start, min(BLOCK, len(segment) - start), hub)


def _bytes_of(segment: Segment, start: int, count: int, hub: Hub | None) -> bytes:
    if not isinstance(segment, FileRegion):
        return segment[start : start + count]
    file, offset = segment.file, segment.offset + start
    if hub is None or reading.are_cached(file, offset, count):
        data = reading.read_blocking(file.fileno(), offset, count)
    else:
        remote = file.storage is Storage.UNKNOWN
        try:
            data = run_with(hub, file.fileno(), reading.read_blocking, offset, count, remote=remote)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            # No descriptor is left for a thread: rather wait here than fail.
            data = reading.read_blocking(file.fileno(), offset, count)
    if len(data) < count:
        raise FileTruncatedError(f"the file ended {segment.count - start - len(data)} bytes before the promised end")
    return data
