"""The applications under test, one file response each; files come from the directory that `BENCHMARK_FILES` names."""

from __future__ import annotations

import os
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from zcresponse.starlette import ZeroCopyFileResponse

_DIRECTORY = os.environ.get("BENCHMARK_FILES", ".")


async def zero_copy(scope: Scope, receive: Receive, send: Send) -> None:
    """`ZeroCopyFileResponse` from a plain ASGI function."""
    if scope["type"] == "http":
        await ZeroCopyFileResponse(_DIRECTORY + scope["path"])(scope, receive, send)


async def stock(scope: Scope, receive: Receive, send: Send) -> None:
    """Starlette's own `FileResponse` from a plain ASGI function."""
    if scope["type"] == "http":
        await FileResponse(_DIRECTORY + scope["path"])(scope, receive, send)


_bodies: dict[str, bytes] = {}


async def constant(scope: Scope, receive: Receive, send: Send) -> None:
    """The same bytes out of memory: what the server itself can do."""
    if scope["type"] == "http":
        path = scope["path"]
        body = _bodies.get(path)
        if body is None:
            body = _bodies[path] = Path(_DIRECTORY + path).read_bytes()
        fields = [(b"content-type", b"application/octet-stream"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": body, "more_body": False})


async def _zero_copy_view(request: Request) -> Response:
    return ZeroCopyFileResponse(f"{_DIRECTORY}/{request.path_params['name']}")


async def _stock_view(request: Request) -> Response:
    return FileResponse(f"{_DIRECTORY}/{request.path_params['name']}")


routed_zero_copy = Starlette(routes=[Route("/{name}", _zero_copy_view)])
routed_stock = Starlette(routes=[Route("/{name}", _stock_view)])
