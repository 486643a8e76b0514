"""The files in the bodies that other frameworks give.

A body is taken for a file where its exact type is known and nobody has begun to read it, or has read it in a way that
its file's position tells of. Whatever else it is (compressed, a generator, a class of somebody's own) stays what it is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from inspect import getattr_static
from typing import Any, Final

from zcresponse.files import MemoryFile, OpenedFile, open_content
from zcresponse.wsgi.wrappers import FileWrapper

__all__ = ["open_body", "plain_file"]


@dataclass(frozen=True, slots=True)
class _Part:
    """What iterating over a body would give.

    Attributes:
        file: the file object that it reads.
        offset: its first byte in the file; None: where the file stands.
        count: how many bytes; None: to the end of the file.
    """

    file: Any
    offset: int | None = None
    count: int | None = None


def open_body(body: object) -> OpenedFile | MemoryFile | None:
    """Open what iterating over a body would give; None: it is no file, or must be read to know its bytes.

    The body's own file stays open, and the body the caller's to close.
    """
    try:
        part = _part_of(body)
        if part is None:
            return None
        offset = part.file.tell() if part.offset is None else part.offset
        return open_content(part.file, offset=offset, count=part.count, closefd=False)
    except Exception:
        # A file object that stands for no file on disk may raise whatever it likes; so does one that is closed.
        return None


def plain_file(file: Any) -> Any:
    """Return the file that Django's `File` or Werkzeug's `FileStorage` holds, and everything else as it is."""
    # Asked of the modules that are loaded: without them there are no such objects.
    base = sys.modules.get("django.core.files.base")
    if base is not None:
        read = base.FileProxyMixin.__dict__["read"]
        # Unless a class of somebody's own reads in a way of its own: decrypts, say.
        while isinstance(file, base.File) and getattr_static(type(file), "read") is read:
            file = file.file
    uploads = sys.modules.get("werkzeug.datastructures")
    if uploads is not None and isinstance(file, uploads.FileStorage):
        file = file.stream
    return file


def _part_of(body: object) -> _Part | None:
    kind = type(body)
    look = _LOOKS.get((kind.__module__, kind.__qualname__))
    return None if look is None else look(body)


def _part_of_file(file: Any) -> _Part | None:
    kind = type(file)
    if (kind.__module__, kind.__qualname__) == ("whitenoise.responders", "SlicedFile"):
        return _Part(plain_file(file.fileobj), None, file.remaining)
    return _Part(plain_file(file))


def _in_wrapper(body: Any) -> _Part | None:
    return _part_of_file(body.filelike)


def _in_werkzeugs_wrapper(body: Any) -> _Part | None:
    return _part_of_file(body.file)


def _in_werkzeugs_range(body: Any) -> _Part | None:
    if body.read_length or body.end_reached:
        # Somebody has begun to read it, and what it holds back is its own affair.
        return None
    part = _part_of(body.iterable)
    if part is None or part.count is not None:
        return None
    start = body.start_byte
    # It moves to a byte of the file itself where it can, and otherwise leaves out as many as that.
    return _Part(part.file, start if body.seekable else part.file.tell() + start, body.byte_range)


def _in_closing_iterator(body: Any) -> _Part | None:
    # Bound to `next` of what it goes through.
    arguments = getattr(getattr(body, "_next", None), "args", ())
    return _part_of(arguments[0]) if arguments else None


def _in_djangos_response(body: Any) -> _Part | None:
    # Without a wrapper in environ Django gives the response itself. It forgets the file when its content is replaced.
    return None if body.file_to_stream is None else _part_of_file(body.file_to_stream)


_LOOKS: Final[dict[tuple[str, str], Callable[[Any], _Part | None]]] = {
    (FileWrapper.__module__, FileWrapper.__qualname__): _in_wrapper,
    ("wsgiref.util", "FileWrapper"): _in_wrapper,
    ("werkzeug.wsgi", "FileWrapper"): _in_werkzeugs_wrapper,
    ("werkzeug.wsgi", "_RangeWrapper"): _in_werkzeugs_range,
    ("werkzeug.wsgi", "ClosingIterator"): _in_closing_iterator,
    ("django.http.response", "FileResponse"): _in_djangos_response,
    ("whitenoise.middleware", "WhiteNoiseFileResponse"): _in_djangos_response,
}
