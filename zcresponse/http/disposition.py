"""Content-Disposition: the name a client may save a file under (RFC 6266, RFC 8187)."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Final, Literal
from urllib.parse import quote

__all__ = ["MAX_NAME_BYTES", "check_disposition", "format_content_disposition", "reduce_filename"]

MAX_NAME_BYTES: Final = 255
"""Names are cut to this many bytes of UTF-8, the most that the common file systems store."""

# Longer than any suffix in use (.sublime-workspace has 18), short enough to leave the stem its room.
_MAX_SUFFIX_BYTES: Final = 32

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# What no name keeps: separators of any system; controls, among them CR, LF and NUL; line and paragraph separators;
# marks that reorder text and let "exe.gpj" be read as "jpg.exe"; lone surrogates, which have no UTF-8.
_UNSAFE = re.compile(r"[/\\\x00-\x1f\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_ONLY_DOTS = re.compile(r"\.+")
# What a quoted string could hold but clients read differently (RFC 6266 appendix D): the quotation mark, since escapes
# are not understood everywhere, and what looks percent-encoded, since some decode it.
_MISREAD = re.compile(r'"|%(?=[0-9A-Fa-f]{2})')
# RFC 8187 §3.2.1 attr-char, beside letters and digits.
_ATTR_CHARS: Final = "!#$&+-.^_`|~"


def format_content_disposition(kind: Literal["attachment", "inline"] | str, filename: str | None) -> str:
    """Write a Content-Disposition value that carries any file name at all (RFC 6266 §4).

    The name goes through `reduce_filename` first. A plain ASCII name is given as ``filename`` alone; any other
    as ``filename*`` with all its characters, after a ``filename`` in ASCII for clients that know no better.
    The result is printable ASCII whatever the name holds, so that it cannot end the header field.

    Args:
        kind: The disposition type, ``attachment`` or ``inline``; other tokens are read as ``attachment`` by clients.
        filename: The name; None, or one of which nothing is left, gives the bare type.

    Raises:
        TypeError, ValueError: `kind` is not a token.
    """
    check_disposition("kind", kind)
    # A longer one is cut, and not to be remembered.
    written = _written if filename is None or len(filename) <= MAX_NAME_BYTES else _written.__wrapped__
    return written(kind, filename)


# Names come again and again, and reading one character by character takes as long as opening a file.
@lru_cache(maxsize=1024)
def _written(kind: str, filename: str | None) -> str:
    name = "" if filename is None else reduce_filename(filename)
    if not name:
        return kind
    fallback = _ascii_fallback(name)
    if fallback == name:
        return f'{kind}; filename="{name}"'
    # RFC 6266 appendix D: filename stands first, since some clients take the first they know.
    return f"{kind}; filename=\"{fallback}\"; filename*=UTF-8''{quote(name, safe=_ATTR_CHARS)}"


def check_disposition(argument: str, kind: str) -> None:
    """Tell a disposition type that is none.

    Args:
        argument: What the caller calls it.

    Raises:
        TypeError, ValueError: It is not a token; `argument` is named.
    """
    if not isinstance(kind, str):
        raise TypeError(f"{argument}: text is needed, not {type(kind).__name__}")
    if _TOKEN.fullmatch(kind) is None:
        raise ValueError(f"{argument}: a token such as 'attachment' or 'inline' is needed, not {kind!r}")


def reduce_filename(filename: str) -> str:
    """Make a name that is safe to offer: one path component, visible, storable (RFC 6266 §4.3).

    Separators, controls, bidirectional marks and lone surrogates each become ``_``, so that a path stays readable
    and can lead nowhere; a name of dots alone becomes as many ``_``. White space at the ends is dropped. A name of
    more than `MAX_NAME_BYTES` loses the end of its stem and keeps its suffix.

    Returns:
        The name, which encodes to at most `MAX_NAME_BYTES` bytes of UTF-8; empty if nothing is left.
    """
    name = _UNSAFE.sub("_", filename).strip()
    if len(name.encode()) > MAX_NAME_BYTES:
        name = _shorten(name)
    return _without_dots_alone(name)


def _shorten(name: str) -> str:
    """Cut the stem so that the name fits, at a character's boundary."""
    stem, dot, suffix = name.rpartition(".")
    # A compressed archive is told by both of its suffixes.
    if stem[-4:].lower() == ".tar":
        stem, dot, suffix = stem[:-4], stem[-4:] + ".", suffix
    ending = (dot + suffix).encode()
    if not stem or len(ending) > _MAX_SUFFIX_BYTES:
        stem, ending = name, b""
    # Every character has at least one byte: nothing that could remain is lost, and a long stem is not encoded whole.
    room = MAX_NAME_BYTES - len(ending)
    kept = stem[:room].encode()[:room].decode(errors="ignore").rstrip()
    return kept + ending.decode()


def _without_dots_alone(name: str) -> str:
    """Replace ``.``, ``..`` and their like, which name directories."""
    return "_" * len(name) if _ONLY_DOTS.fullmatch(name) else name


def _ascii_fallback(name: str) -> str:
    """Spell a reduced name in ASCII: letters without their marks, ``_`` for what has no likeness."""
    if not name.isascii():
        name = "".join(map(_ascii_likeness, name)).strip()
    return _MISREAD.sub("_", _without_dots_alone(name)) or "_"


def _ascii_likeness(character: str) -> str:
    """Spell one character in printable ASCII; a mark that belongs to the letter before it vanishes."""
    if character.isascii():
        return character
    # The compatibility form also knows fullwidth letters and ligatures, but makes separators of some characters.
    likeness = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    if likeness:
        return _UNSAFE.sub("_", likeness)
    return "" if unicodedata.combining(character) else "_"
