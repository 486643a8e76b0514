"""Popular compressors between files and servers.

There are `/COMPRESSOR/ours/NAME`, a response of zcresponse's own, `/COMPRESSOR/static/NAME` and
`/COMPRESSOR/folder/NAME`, its static application and its `StaticFiles`, `/COMPRESSOR/stock/NAME`, Starlette's response,
and `/COMPRESSOR/text`.

`bare` has compressors alone, `below` has the middleware above them, `above` has it below them. Files come from the
directory named by the environment variable `TABLE_FILES`.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from brotli_asgi import BrotliMiddleware
from starlette.applications import Starlette
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette_compress import CompressMiddleware
from zstd_asgi import ZstdMiddleware

from zcresponse.asgi import ZeroCopyMiddleware, static_app
from zcresponse.starlette import ZeroCopyFileResponse, ZeroCopyStaticFiles

ASGIApp = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]
]

COMPRESSORS: dict[str, Callable[[Any], Any]] = {
    "gzip": GZipMiddleware,
    "brotli": BrotliMiddleware,
    "zstd": ZstdMiddleware,
    "compress": CompressMiddleware,
}
#: Those that drop the message of a file when the client accepts their own coding.
DROPPING = {"brotli": "br", "zstd": "zstd"}


_DIRECTORY = os.environ.get("TABLE_FILES", ".")


def _path(request: Request) -> str:
    return os.path.join(_DIRECTORY, request.path_params["name"])


async def _ours(request: Request) -> Response:
    return ZeroCopyFileResponse(_path(request))


async def _stock(request: Request) -> Response:
    return FileResponse(_path(request))


async def _text(request: Request) -> Response:
    return PlainTextResponse("text " * 1000)


_shop = Starlette(
    routes=[
        Route("/{compressor}/ours/{name}", _ours),
        Route("/{compressor}/stock/{name}", _stock),
        Mount("/{compressor}/static", static_app(_DIRECTORY)),
        Mount("/{compressor}/folder", ZeroCopyStaticFiles(directory=_DIRECTORY)),
        Route("/{compressor}/text", _text),
    ]
)


def _choosing(apps: dict[str, Any]) -> ASGIApp:
    async def choose(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await apps[scope["path"].split("/")[1]](scope, receive, send)
        else:
            await _shop(scope, receive, send)

    return choose


bare = _choosing({name: compressor(_shop) for name, compressor in COMPRESSORS.items()})
below = ZeroCopyMiddleware(bare)
above = _choosing({name: compressor(ZeroCopyMiddleware(_shop)) for name, compressor in COMPRESSORS.items()})
