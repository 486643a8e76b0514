"""Starlette: applications with routes, and plain ASGI functions, in which nothing but the response takes its time."""

from __future__ import annotations

from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from zcresponse.bench.apps import path_of
from zcresponse.starlette import ZeroCopyFileResponse

__all__ = ["constant", "plain_stock", "plain_zero_copy", "stock", "zero_copy"]


async def plain_zero_copy(scope: Scope, receive: Receive, send: Send) -> None:
    """`ZeroCopyFileResponse` from a plain ASGI function."""
    if scope["type"] == "http":
        await ZeroCopyFileResponse(path_of(scope["path"]))(scope, receive, send)


async def plain_stock(scope: Scope, receive: Receive, send: Send) -> None:
    """Starlette's own `FileResponse` from a plain ASGI function."""
    if scope["type"] == "http":
        await FileResponse(path_of(scope["path"]))(scope, receive, send)


_bodies: dict[str, bytes] = {}


async def constant(scope: Scope, receive: Receive, send: Send) -> None:
    """The same bytes out of memory: what the server itself can do."""
    if scope["type"] == "http":
        path = scope["path"]
        body = _bodies.get(path)
        if body is None:
            body = _bodies[path] = Path(path_of(path)).read_bytes()
        fields = [(b"content-type", b"application/octet-stream"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": body, "more_body": False})


async def _empty(request: Request) -> Response:
    path_of(request.path_params["name"])
    return Response()


async def _zero_copy(request: Request) -> Response:
    return ZeroCopyFileResponse(path_of(request.path_params["name"]))


async def _stock(request: Request) -> Response:
    return FileResponse(path_of(request.path_params["name"]))


zero_copy = Starlette(routes=[Route("/empty/{name}", _empty), Route("/{name}", _zero_copy)])
stock = Starlette(routes=[Route("/empty/{name}", _empty), Route("/{name}", _stock)])
