"""What a Django view can give to be sent: opened, where it has a size and can be read anywhere."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tempfile
from contextlib import suppress
from inspect import getattr_static
from typing import Any, Final, TypeAlias

from django.core.files.base import File
from django.core.files.utils import FileProxyMixin
from django.db.models.fields.files import FieldFile

from zcresponse.files import MemoryFile, OpenedFile, open_content, open_file
from zcresponse.files.opened import check_window
from zcresponse.http.mediatype import DEFAULT_MEDIA_TYPE, guess_media_type
from zcresponse.machinetypes import guess_type

__all__ = [
    "Content",
    "Given",
    "closes_plainly",
    "guess_content_type",
    "is_as_stored",
    "open_by_path",
    "open_source",
    "plain_file",
]

Content: TypeAlias = OpenedFile | MemoryFile

#: What is opened as it is. A union would be built anew each time it is asked about.
_OPENED: Final = (str, bytes, os.PathLike, int, OpenedFile, MemoryFile)

_COMPRESSED: Final = {
    "br": "application/x-brotli",
    "bzip2": "application/x-bzip",
    "compress": "application/x-compress",
    "gzip": "application/gzip",
    "xz": "application/x-xz",
}


#: What does no more than close.
_PLAIN_CLOSES: Final = (
    File.__dict__["close"],
    FieldFile.__dict__["close"],
    *(getattr_static(kind, "close") for kind in (io.FileIO, io.BufferedReader, io.BufferedRandom)),
)


class Given:
    """What a response was made of: closed where Django closes things, or quietly when the response is dropped.

    A middleware may well answer in the response's place, and close nothing.
    """

    def __init__(self, file: Any) -> None:
        self.file = file
        self._closed = False

    def close(self) -> None:
        """Close it by its own method, which may do more than that of what it holds, or nothing. Once."""
        if not self._closed:
            self._closed = True
            self.file.close()

    def __del__(self) -> None:
        with suppress(Exception):
            self.close()


def open_source(source: Any, offset: int | None, count: int | None) -> tuple[Content | None, str]:
    """Open what has a size and can be read anywhere, and return it with the name that it goes by.

    None: it can only be read from front to back.
    """
    if type(source) is str and offset is None and count is None:
        # Most are.
        file = open_file(source)
        return file, file.path or ""
    check_window(0 if offset is None else offset, count)
    if isinstance(source, _OPENED):
        content = open_content(source, offset=offset or 0, count=count)
        return content, content.path or ""
    plain = plain_file(source)
    if isinstance(plain, io.IOBase) and not plain.readable():
        raise ValueError("path_or_file: the file is not open for reading")
    name = getattr(source, "name", None)
    name = name if isinstance(name, str) else ""
    start = offset
    if start is None:
        try:
            start = plain.tell()
        except Exception:
            # Whatever somebody's reader raises; an iterator has no position at all.
            return None, name
    try:
        content = open_content(plain, offset=start, count=count, closefd=False)
    except (TypeError, OSError):
        return None, name
    if isinstance(content, OpenedFile) and closes_plainly(source):
        content = open_by_path(content, plain, start, count) or content
    return content, name


def closes_plainly(source: Any) -> bool:
    """Whether closing it does no more than that: what deletes the file must not be told to a server by its path."""
    return getattr_static(type(source), "close", None) in _PLAIN_CLOSES


def plain_file(file: Any) -> Any:
    """Return what Django's wrappers hold, opened by its storage if need be."""
    # Unless a class of somebody's own reads in a way of its own: decrypts, say.
    while isinstance(file, File) and getattr_static(type(file), "read") is FileProxyMixin.__dict__["read"]:
        file = file.file
    return file


def open_by_path(file: OpenedFile, plain: Any, offset: int, count: int | None) -> OpenedFile | None:
    """Open the same file by its path, if it has one: servers can be told that, and the descriptor is ours alone.

    `file` is then closed; None: it stays open, there is no such path.
    """
    if isinstance(plain, tempfile._TemporaryFileWrapper) or not isinstance(plain.name, str):
        # It is deleted when it is closed.
        return None
    if not os.path.isabs(plain.name):
        return None
    try:
        again = open_file(plain.name, offset=offset, count=count)
    except (OSError, ValueError):
        return None
    if not os.path.samestat(again.stat, file.stat):
        again.close()
        return None
    file.close()
    return again


def is_as_stored(file: Any) -> bool:
    """Whether reading gives what the storage holds, as far as types tell: what is decoded has another size."""
    return not isinstance(plain_file(file), File | gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile)


def guess_content_type(name: str) -> str:
    own = guess_media_type(name)
    if own != DEFAULT_MEDIA_TYPE:
        return own
    guessed, encoding = guess_type(name)
    # As in Django: a compressed file is what its last suffix says.
    return (guessed if encoding is None else _COMPRESSED.get(encoding)) or own
