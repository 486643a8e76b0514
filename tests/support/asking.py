"""Both kinds of application asked in the same way, in memory, as a server would ask them."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

from tests.support.table import Response

__all__ = ["ask_asgi", "ask_wsgi", "exchange"]


def ask_asgi(
    app: Any,
    target: str,
    method: str = "GET",
    headers: Sequence[tuple[bytes, bytes]] = (),
    *,
    root_path: str = "",
    **more: Any,
) -> Response:
    """Ask an ASGI application; `target` is percent-encoded and begins with `root_path`, `more` goes into the scope."""
    raw, _, query = target.partition("?")
    scope = {
        "type": "http",
        "method": method,
        "path": unquote(raw),
        "raw_path": raw.encode("ascii"),
        "query_string": query.encode("ascii"),
        "root_path": root_path,
        "headers": list(headers),
        **more,
    }
    return asyncio.run(exchange(app, scope))


async def exchange(app: Any, scope: dict[str, Any]) -> Response:
    """Call an ASGI application and put its messages together."""
    messages: list[Any] = []

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        messages.append(message)

    await app(scope, receive, send)
    start, *parts = messages
    assert [message.get("more_body", False) for message in parts] == [True] * (len(parts) - 1) + [False]
    return Response.of(start["status"], start["headers"], b"".join(part.get("body", b"") for part in parts))


def ask_wsgi(
    app: Callable[..., Iterable[bytes]],
    target: str,
    method: str = "GET",
    headers: Sequence[tuple[bytes, bytes]] = (),
    *,
    root_path: str = "",
    **more: Any,
) -> Response:
    """Ask a WSGI application; `target` is percent-encoded and begins with `root_path`, `more` goes into environ."""
    raw, _, query = target.partition("?")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": root_path,
        "PATH_INFO": unquote_to_bytes(raw).decode("latin-1").removeprefix(root_path),
        "RAW_URI": target,
        "QUERY_STRING": query,
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": io.StringIO(),
        "wsgi.url_scheme": "http",
    }
    for name, value in headers:
        key = f"HTTP_{name.decode('latin-1').upper().replace('-', '_')}"
        text = value.decode("latin-1")
        environ[key] = f"{environ[key]},{text}" if key in environ else text
    started: list[tuple[str, list[tuple[str, str]]]] = []
    body = app({**environ, **more}, lambda status, fields, error=None: started.append((status, fields)))
    try:
        content = b"".join(body)
    finally:
        body.close()  # type: ignore[attr-defined]
    ((status, fields),) = started
    return Response.of(int(status[:3]), fields, content)
