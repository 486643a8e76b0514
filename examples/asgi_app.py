"""Plain ASGI: one call answers a request with a file.

uvicorn examples.asgi_app:app --http zcresponse.uvicorn:ZeroCopyProtocol
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from zcresponse import Transfer
from zcresponse.asgi import send_file

SITE = Path(__file__).parent / "site"


def tell(transfer: Transfer) -> None:
    """Say how a body travelled, and why not in a better way."""
    print(f"{transfer.bytes_promised} bytes by {transfer.way} {transfer.reason}".rstrip())


async def app(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
) -> None:
    """Answer every GET and HEAD with the same file."""
    if scope["type"] != "http":
        raise RuntimeError(f"{scope['type']} is not served here")
    await send_file(scope, receive, send, SITE / "index.html", max_age=60, on_transfer=tell)
