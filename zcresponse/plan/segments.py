"""What a body is made of: bytes that are already here, and regions of a file that need not be read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from zcresponse.files import FileRegion

__all__ = ["Segment", "total_length"]

Segment: TypeAlias = bytes | FileRegion


def total_length(segments: Iterable[Segment]) -> int:
    """Return how many bytes the segments hold together."""
    total = 0
    for segment in segments:
        total += segment.count if type(segment) is FileRegion else len(segment)
    return total
