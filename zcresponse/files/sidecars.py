"""Compressed copies that lie ready beside a file: `.br`, `.zst` and `.gz`."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Final

from zcresponse.files.opened import OpenedFile
from zcresponse.files.rooted import Found, Lookup, Root

__all__ = ["SUFFIXES", "find_sidecar"]

#: What is added to a file's name, by content coding (RFC 7932, RFC 8878, RFC 1952), the best first: brotli makes text
#: smaller than zstd does, and both than gzip.
SUFFIXES: Final = {"br": ".br", "zstd": ".zst", "gzip": ".gz"}


def find_sidecar(
    root: Root, url_path: str, plain: OpenedFile, codings: Sequence[str]
) -> Generator[Lookup, Found, tuple[OpenedFile, str] | None]:
    """Look for a file's copy in one of `codings`, the best first, and return it with its coding.

    It has to be a regular file that can be reached as the file itself can, so no link leads to another place, and not
    older than the file, of which it would be no copy. An empty one is what a compressor leaves that was stopped. What
    cannot be opened, whatever the reason, is passed over: the file itself is there.

    Args:
        root: where the file was found.
        url_path: the path that it was found by.
        plain: the file, which stays the caller's.
        codings: keys of `SUFFIXES`.
    """
    for coding in codings:
        try:
            found = yield Lookup(root, url_path + SUFFIXES[coding])
        except OSError:
            continue
        if isinstance(found, OpenedFile) and found.size > 0 and found.mtime_ns >= plain.mtime_ns:
            return found, coding
        found.close()
    return None
