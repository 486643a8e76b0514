"""A `send` for daphne that waits for slow clients: its own returns at once, and keeps what they have not taken."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from zcresponse.asgi.types import Message, Send

__all__ = ["paced"]


@contextmanager
def paced(send: Send) -> Iterator[Send]:
    """Give a `send` that waits while daphne has more to write than a connection takes; any other server's as it is.

    It has to be daphne's very own: one that somebody has wrapped does not tell of its connection.
    """
    arguments = getattr(send, "args", ()) if isinstance(send, partial) else ()
    request = arguments[0] if arguments else None
    if (type(request).__module__, type(request).__name__) != ("daphne.http_protocol", "WebRequest"):
        yield send
        return
    pace = _Pace(request, send)
    try:
        yield pace.send
    finally:
        pace.end()


class _Pace:
    """What Twisted calls a push producer: it is told when to pause (twisted.internet.interfaces.IPushProducer)."""

    def __init__(self, request: Any, send: Send) -> None:
        self._request = request
        self._send = send
        self._registered = False
        self._may_go_on = asyncio.Event()
        self._may_go_on.set()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.body":
            if message.get("more_body", False):
                self._begin()
            else:
                # Twisted takes a producer that is still there at the end for a mistake.
                self.end()
        await self._send(message)
        await self._may_go_on.wait()

    def _begin(self) -> None:
        if not self._registered and getattr(self._request, "channel", None) is not None:
            self._request.registerProducer(self, True)
            self._registered = True

    def end(self) -> None:
        self._may_go_on.set()
        # There is no channel any more when the client has left.
        if self._registered and getattr(self._request, "channel", None) is not None:
            self._request.unregisterProducer()
        self._registered = False

    # Twisted's names.

    def pauseProducing(self) -> None:
        self._may_go_on.clear()

    def resumeProducing(self) -> None:
        self._may_go_on.set()

    def stopProducing(self) -> None:
        """Go on: the client has left, and whatever is sent now is dropped."""
        self._may_go_on.set()
