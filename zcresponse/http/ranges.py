"""Byte ranges: reading Range, writing Content-Range (RFC 9110 §14)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, TypeAlias

__all__ = [
    "MAX_RANGES",
    "ByteRange",
    "NoRanges",
    "RangeResult",
    "format_content_range",
    "format_unsatisfied_range",
    "parse_range",
]

MAX_RANGES: Final = 100
"""More members than this make a Range field ignored: many small ranges cost the server far more than the client that
asks for them (RFC 9110 §17.15), and each becomes a part with a head of its own."""


@dataclass(frozen=True, slots=True)
class ByteRange:
    """The bytes from `start` up to but not including `stop`; never empty.

    Raises:
        ValueError: `stop` is not greater than `start`, or `start` is negative.
    """

    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop:
            raise ValueError(f"start and stop must be 0 <= start < stop, not {self.start} and {self.stop}")

    @property
    def count(self) -> int:
        """The number of bytes."""
        return self.stop - self.start


class NoRanges(Enum):
    """Why a Range field yields no ranges."""

    IGNORED = auto()
    """The answer is the one to a request without Range: another unit, a malformed set, or too much asked."""
    UNSATISFIABLE = auto()
    """The field is valid and no byte of it lies in the file: 416."""


RangeResult: TypeAlias = tuple[ByteRange, ...] | NoRanges

# What nearly all clients write, which is read in one step. Longer numbers than any file has are left to the others.
_USUAL: Final = re.compile(r"bytes=([0-9]{1,18})-([0-9]{1,18})?")


def parse_range(text: str, size: int) -> RangeResult:
    """Read a Range field against a representation of `size` bytes (RFC 9110 §14.1.1, §14.1.2, §14.2).

    Unsatisfiable members are left out as long as another can be satisfied. The field is ignored as a whole if one
    member is malformed, if it has more than `MAX_RANGES` members, or if its members add up to more bytes than the
    representation has, for then they overlap and the whole is the cheaper answer. These limits are checked before
    overlapping and touching ranges are merged, so that merging does not hide an attack (§17.15).

    The work is linear in the length of the text, also for numbers of any length.

    Args:
        text: The field value.
        size: The size of the representation in bytes, 0 or more.

    Returns:
        Disjoint ranges that do not touch, at least one, in the order asked (a merged range stands where the first of
        its members stood); or a `NoRanges`. An empty representation has no ranges: a suffix of it is satisfiable
        but Content-Range could not express it, so that the field is ignored.

    Raises:
        ValueError: `size` is negative.
    """
    if size < 0:
        raise ValueError(f"size must be 0 or more, not {size}")
    usual = _USUAL.fullmatch(text)
    if usual is not None:
        start = int(usual[1])
        stop = size if usual[2] is None else min(int(usual[2]) + 1, size)
        if start < stop:
            return (ByteRange(start, stop),)
    unit, equals, members_text = text.strip(" \t").partition("=")
    if not equals or unit.lower() != "bytes":
        return NoRanges.IGNORED
    # §5.6.1.2: empty list members are ignored, whatever their number; but a set has at least one member.
    members = [member for padded in members_text.split(",") if (member := padded.strip(" \t"))]
    if not 1 <= len(members) <= MAX_RANGES:
        return NoRanges.IGNORED

    satisfiable = []
    total = 0
    for member in members:
        bounds = _parse_member(member, size)
        if bounds is NoRanges.IGNORED:
            return NoRanges.IGNORED
        if bounds is not NoRanges.UNSATISFIABLE:
            start, stop = bounds
            total += stop - start
            satisfiable.append(bounds)
    if not satisfiable:
        return NoRanges.UNSATISFIABLE
    if size == 0 or total > size:
        return NoRanges.IGNORED
    return _merge(satisfiable)


def format_content_range(r: ByteRange, size: int) -> str:
    """Write the Content-Range of a part, like ``bytes 42-1233/1234`` (RFC 9110 §14.4).

    Args:
        r: The part.
        size: The size of the whole representation in bytes.

    Raises:
        ValueError: `r` reaches beyond `size`.
    """
    if r.stop > size:
        raise ValueError(f"r must lie within the {size} bytes of the representation, not end at {r.stop}")
    return f"bytes {r.start}-{r.stop - 1}/{size}"


def format_unsatisfied_range(size: int) -> str:
    """Write the Content-Range that tells the size to a client whose ranges all missed (RFC 9110 §15.5.17).

    Args:
        size: The size of the whole representation in bytes.

    Raises:
        ValueError: `size` is negative.
    """
    if size < 0:
        raise ValueError(f"size must be 0 or more, not {size}")
    return f"bytes */{size}"


def _parse_member(member: str, size: int) -> tuple[int, int] | NoRanges:
    """Read one member of a set: its interval within the representation, or UNSATISFIABLE, or IGNORED if malformed."""
    first, dash, last = member.partition("-")
    if not dash or not (first or last) or not _all_digits(first) or not _all_digits(last):
        return NoRanges.IGNORED
    if not first:
        # §14.1.2: a suffix longer than the representation is the representation; only -0 asks for nothing.
        if not last.strip("0"):
            return NoRanges.UNSATISFIABLE
        return size - _at_most(last, size), size
    if last and _order(last) < _order(first):
        return NoRanges.IGNORED
    start = _at_most(first, size)
    if start == size:
        return NoRanges.UNSATISFIABLE
    return start, _at_most(last, size - 1) + 1 if last else size


def _all_digits(text: str) -> bool:
    """Tell whether there are only ASCII digits, or nothing."""
    return not text or (text.isascii() and text.isdigit())


def _order(digits: str) -> tuple[int, str]:
    """Make a key that sorts numerals by value without converting them."""
    significant = digits.lstrip("0")
    return len(significant), significant


def _at_most(digits: str, limit: int) -> int:
    """Read a numeral, or give `limit` if it is larger.

    RFC 9110 §14.1.2: recipients MUST anticipate large numerals. int() takes quadratic time for them and Python
    refuses more than some thousands of digits, so that only those which can matter are converted.
    """
    significant = digits.lstrip("0")
    if len(significant) > len(str(limit)):
        return limit
    return min(int(significant or "0"), limit)


def _merge(asked: list[tuple[int, int]]) -> tuple[ByteRange, ...]:
    """Join intervals that overlap or touch; each result stands where the first of its members stood."""
    if len(asked) == 1:
        return (ByteRange(*asked[0]),)
    merged: list[tuple[int, ByteRange]] = []
    by_start = sorted((start, stop, index) for index, (start, stop) in enumerate(asked))
    left, right, place = by_start[0]
    for start, stop, index in by_start[1:]:
        if start <= right:
            right = max(right, stop)
            place = min(place, index)
        else:
            merged.append((place, ByteRange(left, right)))
            left, right, place = start, stop, index
    merged.append((place, ByteRange(left, right)))
    merged.sort(key=lambda entry: entry[0])
    return tuple(joined for _, joined in merged)
