"""The table's two views behind each door that ASGI has, for servers and test clients.

Files come from the directory named by the environment variable `TABLE_FILES`.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.support.table import CACHE_CONTROL, DOWNLOAD_NAME, MAX_AGE
from zcresponse.asgi import ZeroCopyMiddleware, send_file
from zcresponse.starlette import ZeroCopyFileResponse, install

_METHODS = ["GET", "HEAD", "POST"]


def _path(name: str) -> Path:
    return Path(os.environ["TABLE_FILES"]) / name


async def plain(request: Request) -> Response:
    """The file as it is."""
    return ZeroCopyFileResponse(_path(request.path_params["name"]))


async def dressed(request: Request) -> Response:
    """The file as a download with a caching field."""
    return ZeroCopyFileResponse(_path(request.path_params["name"]), filename=DOWNLOAD_NAME, max_age=MAX_AGE)


def starlette_app() -> Starlette:
    """A Starlette application of its own."""
    return Starlette(
        routes=[Route("/plain/{name}", plain, methods=_METHODS), Route("/dressed/{name}", dressed, methods=_METHODS)]
    )


async def bare(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
) -> None:
    """The same in plain ASGI."""
    if scope["type"] != "http":
        return
    _, view, name = scope["path"].split("/", 2)
    if view == "dressed":
        await send_file(
            scope, receive, send, _path(name), filename=DOWNLOAD_NAME, headers=[("Cache-Control", CACHE_CONTROL)]
        )
    else:
        await send_file(scope, receive, send, _path(name))


app = starlette_app()
installed = starlette_app()
install(installed)
wrapped = ZeroCopyMiddleware(bare)
