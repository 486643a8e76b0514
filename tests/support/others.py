"""Applications of other frameworks that send files, bare and beneath the middleware, for servers and in memory.

`app` gives each framework a folder: `/starlette/NAME`, `/static/NAME`, `/fastapi/NAME`, `/baize/NAME`,
`/servestatic/NAME`; and there is

- `/plain/NAME` and `/dressed/NAME`: the views of the table by an application that knows neither conditions nor ranges,
  and sends whole files by their paths,
- `/named?field=NAME&value=TEXT&status=NUMBER`: an answer that names a file; fields and values may be repeated, values
  are Latin-1,
- `/ours/NAME`: a response of zcresponse's own,
- `/gone`: an answer with a path where nothing lies.

Files come from the directory named by the environment variable `TABLE_FILES`.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

import baize.asgi
from fastapi import FastAPI
from fastapi.responses import FileResponse as FastAPIFileResponse
from servestatic import ServeStaticASGI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from tests.support.table import CACHE_CONTROL, FILES
from zcresponse.asgi import ZeroCopyMiddleware
from zcresponse.starlette import ZeroCopyFileResponse

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

DIRECTORY = os.environ.get("TABLE_FILES", ".")

#: The folders of frameworks with semantics of their own.
FRAMEWORKS = ("starlette", "static", "fastapi", "baize", "servestatic")

_ANY = ["GET", "HEAD", "POST"]


async def _starlette(request: Request) -> Response:
    return FileResponse(f"{DIRECTORY}/{request.path_params['name']}")


async def _ours(request: Request) -> Response:
    return ZeroCopyFileResponse(f"{DIRECTORY}/{request.path_params['name']}")


async def _text(request: Request) -> Response:
    return PlainTextResponse("text " * 1000)


# Of the directory as it is when somebody asks: tests in memory set it later.
_static_files = functools.cache(StaticFiles)
_serve_static = functools.cache(ServeStaticASGI)


async def _static(scope: Scope, receive: Receive, send: Send) -> None:
    await _static_files(directory=DIRECTORY)(scope, receive, send)


fastapi = FastAPI()


@fastapi.api_route("/{name}", methods=_ANY)
async def _fastapi(name: str) -> FastAPIFileResponse:
    return FastAPIFileResponse(f"{DIRECTORY}/{name}")


async def _baize(scope: Scope, receive: Receive, send: Send) -> None:
    name = scope["path"].rpartition("/")[2]
    answer: Any = baize.asgi.FileResponse(f"{DIRECTORY}/{name}", content_type=FILES[name].media_type)
    await answer(scope, receive, send)


async def _whole(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer as an application does that leaves the rest to its server."""
    _, folder, name = scope["path"].split("/")
    file = FILES[name]
    fields = [(b"content-type", file.media_type.encode()), (b"content-length", b"%d" % file.size)]
    if folder == "dressed":
        fields += [(b"content-disposition", b"attachment"), (b"cache-control", CACHE_CONTROL.encode())]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    if "http.response.pathsend" in (scope.get("extensions") or {}):
        await send({"type": "http.response.pathsend", "path": f"{DIRECTORY}/{name}"})
    else:
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else file.content})


async def _named(scope: Scope, receive: Receive, send: Send) -> None:
    query = parse_qs(scope["query_string"].decode("ascii"), encoding="latin-1", keep_blank_values=True)
    body = b"the application's own"
    fields = [(b"content-type", b"text/plain"), (b"set-cookie", b"a=1"), (b"content-length", b"%d" % len(body))]
    for name, value in zip(query["field"], query["value"], strict=True):
        fields.append((name.encode("latin-1"), value.encode("latin-1")))
    await send({"type": "http.response.start", "status": int(query.get("status", ["200"])[0]), "headers": fields})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


_shop = Starlette(
    routes=[
        Route("/starlette/{name}", _starlette, methods=_ANY),
        Route("/ours/{name}", _ours, methods=_ANY),
        Route("/text", _text),
        Mount("/static", _static),
        Mount("/fastapi", fastapi),
    ]
)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """All of them."""
    folder = scope["path"].split("/")[1] if scope["type"] == "http" else ""
    if folder == "baize":
        await _baize(scope, receive, send)
    elif folder in ("plain", "dressed"):
        await _whole(scope, receive, send)
    elif folder == "named":
        await _named(scope, receive, send)
    elif folder == "gone":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
        await send({"type": "http.response.pathsend", "path": f"{DIRECTORY}/nothing"})
    elif folder == "servestatic":
        files: Any = _serve_static(_shop, root=DIRECTORY, prefix="servestatic/")
        await files(scope, receive, send)
    else:
        await _shop(scope, receive, send)


wrapped = ZeroCopyMiddleware(app)
upgraded = ZeroCopyMiddleware(
    app, conditional=True, x_sendfile=[DIRECTORY], x_accel_redirect={"/protected/": DIRECTORY}
)
