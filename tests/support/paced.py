"""ASGI applications that send a long body as fast as they may; one tells how far it has come."""

from __future__ import annotations

import os

from zcresponse.asgi import ZeroCopyMiddleware, send_file
from zcresponse.asgi.daphne import paced
from zcresponse.asgi.types import Receive, Scope, Send

__all__ = ["PART", "PARTS", "app", "sending", "wrapped"]

PART = 64 * 1024
PARTS = 1024

_sent = 0
_running = 0


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """At /long the body; at /failing it breaks off; elsewhere how many parts were sent, and how many bodies are."""
    global _sent, _running
    parts = {"/long": PARTS, "/failing": PARTS // 2}.get(scope["path"], 0)
    told = b"" if parts else f"{_sent} {_running}".encode()
    length = PART * PARTS if parts else len(told)
    _sent = 0 if parts else _sent
    _running += bool(parts)
    try:
        with paced(send) as paced_send:
            headers = [(b"content-length", str(length).encode())]
            await paced_send({"type": "http.response.start", "status": 200, "headers": headers})
            for _ in range(parts):
                await paced_send({"type": "http.response.body", "body": bytes(PART), "more_body": True})
                _sent += 1
            if parts == PARTS // 2:
                raise RuntimeError("it breaks off")
            await paced_send({"type": "http.response.body", "body": told})
    finally:
        _running -= bool(parts)


async def sending(scope: Scope, receive: Receive, send: Send) -> None:
    """The file that the environment names."""
    if scope["type"] == "http":
        await send_file(scope, receive, send, os.environ["PACED_FILE"])


wrapped = ZeroCopyMiddleware(sending)
