"""Entity tags: their text, their two comparisons, and the tag of a file (RFC 9110 §8.8.3)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Final

__all__ = ["ANY_ETAG", "AnyETag", "ETag", "file_etag", "parse_etag", "parse_etag_list", "strong_match", "weak_match"]

# RFC 9110 §8.8.3: visible ASCII but the quotation mark, and the bytes above ASCII. No escapes: a backslash is itself.
_OPAQUE = r"[\x21\x23-\x7e\x80-\xff]*+"
_OPAQUE_TEXT = re.compile(_OPAQUE)
_TAG = re.compile(f'(W/)?"({_OPAQUE})"')
# A member of a list ends where only blanks part it from a comma or the end.
_MEMBER = re.compile(rf'(W/)?"({_OPAQUE})"(?=[ \t]*+(?:,|\Z))')
_BETWEEN_MEMBERS = re.compile(r"[ \t,]*+")

# RFC 9110 §8.8.1: a validator is weak if the representation may change twice without it changing. Nanoseconds are how
# a time is stored, not how often it is taken: kernels stamp files by their tick (1 to 10 ms), FAT by 2 s, the coarsest
# in use. A file this old has been left alone for longer than any of them.
SETTLED_NS: Final = 2_000_000_000


@dataclass(frozen=True, slots=True)
class ETag:
    """An entity tag: the text between the quotation marks, and whether it is a weak validator.

    Raises:
        ValueError: `opaque` holds a character that may not stand in an entity tag, such as a quotation mark, a blank,
            a control or anything beyond U+00FF.
    """

    opaque: str
    weak: bool = False

    def __post_init__(self) -> None:
        if _OPAQUE_TEXT.fullmatch(self.opaque) is None:
            raise ValueError(f"opaque must be characters that an entity tag can hold, not {self.opaque!r}")

    def __str__(self) -> str:
        """Write the tag as a field value, quotation marks included."""
        return f'W/"{self.opaque}"' if self.weak else f'"{self.opaque}"'


class AnyETag(Enum):
    """The ``*`` of If-Match and If-None-Match: any current representation."""

    ANY = "*"


ANY_ETAG: Final = AnyETag.ANY


def parse_etag(text: str) -> ETag | None:
    """Read one entity tag, or None if the text is anything else (RFC 9110 §8.8.3).

    ``W/`` is case-sensitive. Blanks around the tag do not matter.
    """
    found = _TAG.fullmatch(text.strip(" \t"))
    return None if found is None else ETag(found[2], found[1] is not None)


def parse_etag_list(text: str) -> tuple[ETag, ...] | AnyETag:
    """Read the value of If-Match or If-None-Match (RFC 9110 §13.1.1, §13.1.2).

    Members that are not entity tags are skipped, and so is a ``*`` that does not stand alone. The rest counts, because
    a condition on several tags is about any of them; if none is left the list is empty and nothing matches it.
    """
    text = text.strip(" \t")
    if text == "*":
        return AnyETag.ANY
    tags = []
    position = _end(_BETWEEN_MEMBERS, text, 0)
    while position < len(text):
        found = _MEMBER.match(text, position)
        if found is not None:
            tags.append(ETag(found[2], found[1] is not None))
            position = found.end()
        else:
            comma = text.find(",", position)
            position = comma if comma >= 0 else len(text)
        position = _end(_BETWEEN_MEMBERS, text, position)
    return tuple(tags)


def strong_match(a: ETag, b: ETag) -> bool:
    """Compare for If-Match and If-Range: neither is weak and both say the same (RFC 9110 §8.8.3.2)."""
    return not a.weak and not b.weak and a.opaque == b.opaque


def weak_match(a: ETag, b: ETag) -> bool:
    """Compare for If-None-Match: both say the same, weak or not (RFC 9110 §8.8.3.2)."""
    return a.opaque == b.opaque


def file_etag(*, size: int, mtime_ns: int, now_ns: int, window: tuple[int, int] | None = None) -> ETag:
    """Derive the tag of a file from what its descriptor's stat says.

    Neither inode nor device takes part, so every machine that holds the same copy gives the same tag. While the
    modification time is younger than 2 s, or lies in the future, the tag is weak: the file could still change without
    a change of size and time (RFC 9110 §8.8.1).

    Args:
        size: The size of the whole file in bytes.
        mtime_ns: Its modification time in nanoseconds since the epoch.
        now_ns: The present in nanoseconds since the epoch.
        window: Offset and count in bytes, if only a part of the file is the representation.
    """
    return _file_etag(size, mtime_ns, window, now_ns - mtime_ns < SETTLED_NS)


# The same file is asked for again and again, and building a checked value costs more than finding it.
@lru_cache(maxsize=1024)
def _file_etag(size: int, mtime_ns: int, window: tuple[int, int] | None, weak: bool) -> ETag:
    opaque = f"{mtime_ns:x}-{size:x}"
    if window is not None:
        offset, count = window
        opaque = f"{opaque}-{offset:x}-{count:x}"
    return ETag(opaque, weak)


def _end(pattern: re.Pattern[str], text: str, position: int) -> int:
    """Where a pattern that always matches ends, when it starts at `position`."""
    found = pattern.match(text, position)
    return position if found is None else found.end()
