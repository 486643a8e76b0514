"""`wsgi.file_wrapper`: the server's own, and another one shown to an application in its place."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from zcresponse.wsgi.types import Environ, StartResponse, WSGIApp

__all__ = [
    "FileWrapper",
    "ShownFileWrapper",
    "file_wrapper",
    "offer_file_wrapper",
    "with_file_wrapper",
    "without_file_wrapper",
]

_KEY: Final = "wsgi.file_wrapper"
#: Where the server's own lies while the application is shown another one.
_SERVERS: Final = "zcresponse.file_wrapper"


def file_wrapper(environ: Environ) -> Callable[..., Any] | None:
    """Return the server's own, also where the application is shown another one."""
    wrapper: Callable[..., Any] | None = environ.get(_KEY)
    # Whoever has taken it out on the way wants none.
    return None if wrapper is None else environ.get(_SERVERS, wrapper)


def offer_file_wrapper(environ: Environ, wrapper: Callable[..., Any] | None) -> None:
    """Put `wrapper` in the place of the server's own, unless the application is shown another one."""
    if wrapper is not None and _SERVERS not in environ:
        environ[_KEY] = wrapper


def with_file_wrapper(environ: Environ, wrapper: Callable[..., Any]) -> Environ:
    """Return a copy of `environ` in which a server offers `wrapper`."""
    return {**environ, _KEY: wrapper}


def without_file_wrapper(environ: Environ) -> Environ:
    """Return a copy of `environ`, to be looked at, in which there is none."""
    return {key: value for key, value in environ.items() if key != _KEY}


class FileWrapper:
    """A file as an iterable of blocks, of which one can see what it reads.

    Args:
        filelike: what is read, and closed with it if it can be.
        blksize: how much one turn of the iteration reads, in bytes.
    """

    def __init__(self, filelike: Any, blksize: int = 8192) -> None:
        self.filelike = filelike
        self.blksize = blksize

    def __iter__(self) -> FileWrapper:
        return self

    def __next__(self) -> bytes:
        data: bytes = self.filelike.read(self.blksize)
        if not data:
            raise StopIteration
        return data

    # What Werkzeug asks for, to begin a range where it begins.

    def seekable(self) -> bool:
        """Whether the file can be read from any byte on."""
        if hasattr(self.filelike, "seekable"):
            return bool(self.filelike.seekable())
        return hasattr(self.filelike, "seek")

    def seek(self, *args: Any) -> None:
        self.filelike.seek(*args)

    def tell(self) -> int:
        position: int = self.filelike.tell()
        return position

    def close(self) -> None:
        if hasattr(self.filelike, "close"):
            self.filelike.close()


class ShownFileWrapper:
    """WSGI middleware that shows the application a wrapper which can be looked into; servers' own often cannot.

    The server finds its own again: some ask environ for it after the application has answered.

    Args:
        app: the application.
        wrapper: what it is shown.
    """

    def __init__(self, app: WSGIApp, wrapper: Callable[..., Any]) -> None:
        self._app = app
        self._wrapper = wrapper

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        before = environ.pop(_KEY, None)
        # Within another application that is shown one, the server's own lies there already.
        outermost = _SERVERS not in environ
        if outermost:
            environ[_SERVERS] = before
        elif before is None:
            # Somebody has taken it out on the way.
            return self._app(environ, start_response)
        environ[_KEY] = self._wrapper
        try:
            return self._app(environ, start_response)
        finally:
            environ.pop(_KEY, None)
            if outermost:
                del environ[_SERVERS]
            if before is not None:
                environ[_KEY] = before
