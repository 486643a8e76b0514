"""Files of many MiB, each of which differs from every other: a piece in the wrong place is found."""

from __future__ import annotations

import functools
import os
import random
from collections.abc import Iterator
from pathlib import Path

__all__ = ["MIB", "Comparison", "big_bytes", "same_bytes", "write_big"]

MIB = 1024 * 1024

#: Long ago, so that nobody takes a file for one that is being written: its tag would be weak, and nothing resumed.
_TIME = 1_700_000_000


def _pieces(size: int) -> Iterator[bytes]:
    block = random.Random("zcresponse big").randbytes(MIB - 8)
    return (number.to_bytes(8, "big") + block for number in range(size // MIB))


def write_big(path: Path, size: int) -> None:
    """Write a file of so many bytes, whole MiB."""
    with path.open("wb") as file:
        file.writelines(_pieces(size))
    os.utime(path, (_TIME, _TIME))


@functools.cache
def big_bytes(size: int) -> bytes:
    """What `write_big` writes."""
    return b"".join(_pieces(size))


class Comparison:
    """Takes bytes in pieces, and knows whether they are what a file holds.

    Args:
        path: The file.
        start: Where the bytes begin in it.

    Attributes:
        count: How many bytes were taken.
        same: Whether all of them are the file's.
    """

    def __init__(self, path: Path, start: int = 0) -> None:
        self.count = 0
        self.same = True
        self._path = path
        self._start = start

    def take(self, piece: bytes | memoryview) -> None:
        """Compare the next bytes."""
        with self._path.open("rb", buffering=0) as file:
            file.seek(self._start + self.count)
            self.same = self.same and file.read(len(piece)) == bytes(piece)
        self.count += len(piece)


def same_bytes(path: Path, other: Path, start: int, stop: int) -> bool:
    """Whether a file is what another one holds between two places."""
    comparison = Comparison(other, start)
    with path.open("rb") as file:
        while piece := file.read(MIB):
            comparison.take(piece)
    return comparison.same and comparison.count == stop - start
