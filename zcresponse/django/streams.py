"""What can only be read from front to back, or must be read to know its bytes: which of them are sent, and how."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from zcresponse.django.sources import Given
from zcresponse.errors import DeliveryError, FileTruncatedError
from zcresponse.wsgi.chunks import BLOCK

__all__ = ["Part", "blocks_of", "part_of", "position_of"]


@dataclass(frozen=True, slots=True)
class Part:
    """What is sent of a stream.

    Attributes:
        skip: where it begins, in bytes from where the stream stands; negative: it has to go back.
        size: how many bytes; None: all there are.
        is_rest: whether it ends where the stream does.
    """

    skip: int
    size: int | None
    is_rest: bool


def part_of(file: Any, follow: int | None, offset: int | None, count: int | None) -> Part:
    """Return the part of a file that a window means.

    Args:
        follow: how many bytes follow from where it stands; None: nobody knows.
        offset: first byte, from the beginning of the file; None: where it stands.
        count: how many bytes; None: all that follow.

    Raises:
        ValueError: there are no such bytes, as far as is known; the argument is named.
    """
    stands = position_of(file)
    start = stands if offset is None else offset
    if start < stands and not _can_seek(file):
        raise ValueError(f"offset: {offset} lies before {stands}, where the file stands, and it cannot go back")
    size = count
    if follow is not None:
        end = stands + follow
        if start > end:
            raise ValueError(f"offset: {start} lies beyond the file's end at {end}")
        if count is not None and start + count > end:
            raise ValueError(f"count: {start} + {count} lies beyond the file's end at {end}")
        size = end - start if count is None else count
    return Part(start - stands, size, count is None)


def position_of(file: Any) -> int:
    """Return where a file stands; 0 where it does not tell: nobody has read of it."""
    try:
        position: int = file.tell()
    except Exception:
        # Whatever somebody's reader raises.
        return 0
    return position


def blocks_of(given: Given, part: Part) -> Iterator[bytes]:
    """Read exactly the part, which closes nothing.

    Raises:
        FileTruncatedError: there are fewer bytes.
        DeliveryError: there are more than the rest was to have; the last block was not given, so that nobody takes it
            for all.
    """
    file, left = given.file, part.size
    if part.skip:
        _pass_over(file, part.skip)
    while left is None or left > 0:
        block = file.read(BLOCK if left is None else min(BLOCK, left))
        if not block:
            break
        if left is not None:
            left -= len(block)
            if left == 0 and part.is_rest and file.read(1):
                raise DeliveryError("the file holds more than the promised bytes")
        yield block
    if left:
        raise FileTruncatedError(f"the file ended {left} bytes before the promised end")


def _can_seek(file: Any) -> bool:
    # As Django asks.
    return hasattr(file, "seek") and hasattr(file, "tell") and (not hasattr(file, "seekable") or file.seekable())


def _pass_over(file: Any, count: int) -> None:
    if _can_seek(file):
        file.seek(file.tell() + count)
        return
    while count > 0:
        block = file.read(min(BLOCK, count))
        if not block:
            raise FileTruncatedError(f"the file ended {count} bytes before the first that was to be sent")
        count -= len(block)
