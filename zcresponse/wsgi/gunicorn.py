"""What gunicorn does with an answer, told and changed by its own `Response`.

How long it takes one of our files to be, told while it asks the file for its descriptor: `Response.sendfile` sends as
much as Content-Length says from where the file stands, and without one all that follows. The field may be missing
although we gave it, for a middleware on the way has taken it out. No application hears of that, but gunicorn asks for
the descriptor in that very method, whose frame knows. A file that gives none is read.

And how often it writes: a head, then the body. A small body leaves together with its head: for that one
`Response.write`, a connection that keeps what is sent stands in the place of gunicorn's own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any, Final

from zcresponse.files import FileRegion
from zcresponse.wsgi.types import StartResponse

__all__ = ["join_to_head", "sends_no_more"]

#: Whose frame it is; looked at in 25.0 and 27.0.
_MODULE: Final = "gunicorn.http.wsgi"
_METHOD: Final = "sendfile"
#: How many callers are looked at. It asks through a function of its own, and through two of `socket`.
_DEPTH: Final = 6


def sends_no_more(region: FileRegion) -> bool:
    """Whether whoever asks for the file's descriptor will send the region and no more; False where nobody knows.

    To be called by the file's `fileno`.
    """
    if region.offset + region.count == os.fstat(region.file.fileno()).st_size:
        return True
    frame: FrameType | None = sys._getframe(1)
    for _ in range(_DEPTH):
        if frame is None:
            break
        if frame.f_code.co_name == _METHOD and frame.f_globals.get("__name__") == _MODULE:
            return getattr(frame.f_locals.get("self"), "response_length", None) == region.count
        frame = frame.f_back
    return False


def join_to_head(start_response: StartResponse | None, count: int) -> Callable[[], object] | None:
    """Let the head, which is not sent yet, leave together with a body of `count` bytes that follows at once.

    Does nothing where `start_response` is not gunicorn's own, or it has heard of another length.

    Returns:
        To be called when the answer is done, should the body not have come.
    """
    response: Any = getattr(start_response, "__self__", None)
    if response is None or type(response).__module__ != _MODULE:
        return None
    if response.headers_sent or response.response_length != count or response.chunked:
        return None
    attributes = vars(response)
    attributes["write"] = partial(_write_joined, response)
    return partial(attributes.pop, "write", None)


def _write_joined(response: Any, data: bytes) -> None:
    """What gunicorn's `Response.write` does, once, and all that it sends in one call."""
    vars(response).pop("write", None)
    joining = response.sock = _Joining(response.sock)
    try:
        response.write(data)
    finally:
        response.sock = joining.sock
        joining.send_on()


class _Joining:
    """A connection that keeps what is sent until it is told to send it on."""

    __slots__ = ("_parts", "sock")

    def __init__(self, sock: Any) -> None:
        self.sock = sock
        self._parts: list[bytes] = []

    def sendall(self, data: bytes) -> None:
        self._parts.append(data)

    def send_on(self) -> None:
        """Send what was kept."""
        parts, self._parts = self._parts, []
        if parts:
            self.sock.sendall(b"".join(parts))

    def __getattr__(self, name: str) -> Any:
        # Whatever else is done with the connection comes after what was sent.
        self.send_on()
        return getattr(self.sock, name)
