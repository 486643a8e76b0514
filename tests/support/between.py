"""WSGI applications that send a small file through a middleware which does something to the answer; one by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from zcresponse.wsgi import send_file
from zcresponse.wsgi.types import Environ, StartResponse

__all__ = ["FILE", "app"]

#: The variable that names the file.
FILE: Final = "ZCRESPONSE_TEST_FILE"


def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """What the path names does it."""
    return _BETWEEN[environ["PATH_INFO"][1:]](environ, start_response)


def _nothing(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    return send_file(environ, start_response, os.environ[FILE])


def _other_start_response(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    return _nothing(environ, lambda *said: start_response(*said))


def _without_length(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    def start(status: str, fields: list[tuple[str, str]], *exception: Any) -> Any:
        return start_response(status, [field for field in fields if field[0] != "Content-Length"], *exception)

    return _nothing(environ, start)


class _Around:
    """Passes a body on as somebody's middleware does, or gives none of it."""

    def __init__(self, body: Any, *, empty: bool = False, closes: bool = True) -> None:
        self._body = body
        self._parts: Iterator[bytes] = iter(body)
        self._empty = empty
        self._closes = closes

    def __iter__(self) -> _Around:
        return self

    def __next__(self) -> bytes:
        if self._empty:
            for _ in self._parts:
                pass
        return next(self._parts)

    def close(self) -> None:
        if self._closes:
            self._body.close()


def _in_pieces(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    body: Any = _nothing(environ, start_response)
    try:
        whole = b"".join(body)
    finally:
        body.close()
    return [whole[:1], whole[1:]]


class _Traced:
    """Keeps what `iter` gives of a body, and closes that, as tracers do."""

    def __init__(self, body: Any) -> None:
        self._parts: Any = iter(body)

    def __iter__(self) -> _Traced:
        return self

    def __next__(self) -> bytes:
        part: bytes = next(self._parts)
        return part

    def close(self) -> None:
        self._parts.close()


def _get_of_head(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    # What frameworks keep there is a circle.
    environ["circle"] = environ
    yield from _nothing({**environ, "REQUEST_METHOD": "GET"}, start_response)


_BETWEEN: Final[dict[str, Callable[[Environ, StartResponse], Iterable[bytes]]]] = {
    "nothing": _nothing,
    "passing": lambda *called: _Around(_nothing(*called)),
    "traced": lambda *called: _Traced(_nothing(*called)),
    "get-of-head": _get_of_head,
    "other-start-response": _other_start_response,
    "without-length": _without_length,
    "in-pieces": _in_pieces,
    "emptied": lambda *called: _Around(_nothing(*called), empty=True),
    "emptied-and-open": lambda *called: _Around(_nothing(*called), empty=True, closes=False),
}
