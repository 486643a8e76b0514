"""A Django project for one test, and everybody who can ask it: test clients, and servers in memory.

Its settings are those of `tests.support.django_doors` but for what a test says.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import unquote

from asgiref.testing import ApplicationCommunicator
from django.core import asgi, wsgi
from django.core.files.base import File
from django.core.files.storage import Storage
from django.db.models import FileField
from django.db.models.fields.files import FieldFile
from django.http import FileResponse, HttpRequest
from django.test import AsyncClient, Client, override_settings
from django.urls import re_path
from django.views.static import serve

from tests.support import django_doors
from tests.support.table import FILES, Response
from zcresponse.django import get_asgi_application, get_wsgi_application
from zcresponse.testing import PathsendServer
from zcresponse.wsgi.servers import Server, Takes, made_by

__all__ = [
    "BODIES",
    "DATA",
    "DECIDING",
    "MIDDLEWARE",
    "MOVING",
    "REQUESTS",
    "SOME",
    "STOCK_FILES",
    "WAYS",
    "AsgiServer",
    "MovedFile",
    "ask",
    "body_of",
    "check_is_sound",
    "communicator_of",
    "descriptors_of",
    "environ_of",
    "field_file",
    "moved_environ",
    "named",
    "project",
    "scope_of",
    "serve_asgi",
    "serve_wsgi",
    "unread",
]

assert django_doors.urlpatterns

Middleware: TypeAlias = "str | Callable[..., Any]"

MIDDLEWARE = "zcresponse.django.ZeroCopyMiddleware"


@contextmanager
def project(view: Callable[..., Any], *middleware: Middleware, **settings: Any) -> Iterator[None]:
    """Have one view at every address, beneath some middleware."""

    class Urls:
        urlpatterns = (*settings.pop("urlpatterns", ()), re_path("", view))

    with override_settings(ROOT_URLCONF=Urls, MIDDLEWARE=[named(each) for each in middleware], **settings):
        yield


def named(middleware: Middleware) -> str:
    """Return the import string of a middleware, which may be a local function or class."""
    if isinstance(middleware, str):
        return middleware
    setattr(sys.modules[__name__], middleware.__name__, middleware)
    return f"{__name__}.{middleware.__name__}"


def field_file(storage: Storage, name: str) -> Any:
    """Return what a model's FileField has as its value."""
    return FieldFile(None, FileField(storage=storage), name)


def unread() -> Iterator[bytes]:
    """A stream that nobody may begin to read."""
    raise AssertionError("it was read")
    yield b""


def descriptors_of(path: str | os.PathLike[str]) -> int:
    """How many descriptors this process has of a file, or of the files in a folder, deleted ones too."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}").removesuffix(" (deleted)")
        except OSError:
            continue
        found += target == str(path) or target.startswith(f"{path}/")
    return found


# --- WSGI -------------------------------------------------------------------------------------------------------------


def environ_of(
    method: str = "GET", fields: Mapping[str, str] | None = None, *, url: str = "/", **more: Any
) -> dict[str, Any]:
    """What a WSGI server makes of a request."""
    return {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote(url).encode().decode("latin-1"),
        "QUERY_STRING": "",
        "SERVER_NAME": "testserver",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        **{f"HTTP_{name.upper().replace('-', '_')}": value for name, value in (fields or {}).items()},
        **more,
    }


class MovedFile:
    """A server's `wsgi.file_wrapper`: the kernel gets the descriptor, and the length that was promised."""

    def __init__(self, file: Any, block_size: int = 8192) -> None:
        self.file = file
        self.close = file.close

    def move(self, length: int) -> bytes:
        try:
            fd = self.file.fileno()
        except io.UnsupportedOperation:
            data: bytes = self.file.read(length)
            return data
        return os.pread(fd, length, os.lseek(fd, 0, os.SEEK_CUR))


def moved_environ(
    method: str = "GET", fields: Mapping[str, str] | None = None, *, url: str = "/", **more: Any
) -> dict[str, Any]:
    """What a server makes of a request that is known to move regions of files."""
    row = Server("a server", "", takes=Takes.REGION)
    return made_by(row, MovedFile, environ_of(method, fields, url=url, **more))


def serve_wsgi(app: Any, environ: dict[str, Any]) -> Response:
    """Run one request as a WSGI server does, and close what it was given."""
    started: list[tuple[str, list[tuple[str, str]]]] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
        assert not started
        assert all(type(name) is str and type(value) is str for name, value in headers)
        started.append((status, headers))
        return lambda data: None

    body = app(environ, start_response)
    try:
        [(status, headers)] = started
        if isinstance(body, MovedFile):
            content = body.move(int(dict(headers)["Content-Length"]))
        else:
            content = b"".join(body)
    finally:
        if hasattr(body, "close"):
            body.close()
    return Response.of(int(status[:3]), headers, content)


# --- ASGI -------------------------------------------------------------------------------------------------------------


def scope_of(
    method: str = "GET",
    fields: Mapping[str, str] | None = None,
    *,
    url: str = "/",
    extensions: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """What an ASGI server makes of a request."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(url),
        "raw_path": url.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in (fields or {}).items()],
        "client": ("127.0.0.1", 1),
        "server": ("testserver", 80),
        **({} if extensions is None else {"extensions": extensions}),
    }


class AsgiServer:
    """The two callables of an ASGI server, for one request.

    Attributes:
        messages: what the application has sent.
        on_send: awaited with each message.
    """

    def __init__(self, on_send: Callable[[Any], Any] | None = None) -> None:
        self.messages: list[Any] = []
        self.on_send = on_send
        self._asked = False
        self._gone = asyncio.Event()

    def leave(self) -> None:
        """Have the client leave."""
        self._gone.set()

    async def receive(self) -> Any:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.messages.append(message)
        if self.on_send is not None:
            await self.on_send(message)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages[1:])


def communicator_of(app: Any, scope: dict[str, Any]) -> Any:
    """Return asgiref's own client of one request."""
    return ApplicationCommunicator(app, scope)  # type: ignore[no-untyped-call]


async def serve_asgi(app: Any, scope: dict[str, Any]) -> Response:
    """Run one request as an ASGI server does."""
    server = AsgiServer()
    async with asyncio.timeout(10):
        await app(scope, server.receive, server.send)
    start, *parts = server.messages
    assert start["type"] == "http.response.start"
    assert {part["type"] for part in parts} == {"http.response.body"}
    assert [part.get("more_body", False) for part in parts] == [True] * (len(parts) - 1) + [False]
    return Response.of(start["status"], start["headers"], server.body)


# --- everybody --------------------------------------------------------------------------------------------------------


def body_of(response: Any) -> bytes:
    """Read what a test client got, to the end."""
    if not response.streaming:
        content: bytes = response.content
    elif response.is_async:
        content = asyncio.run(_join(response.streaming_content))
    else:
        content = response.getvalue()
    return content


async def _join(parts: Any) -> bytes:
    return b"".join([part async for part in parts])


def _answer_of(response: Any) -> Response:
    body = body_of(response)
    cookies = [("Set-Cookie", cookie.OutputString()) for cookie in response.cookies.values()]
    return Response.of(response.status_code, [*response.items(), *cookies], body)


def _by_client(method: str, url: str, fields: Mapping[str, str]) -> Response:
    return _answer_of(Client().generic(method, url, headers=fields))


def _by_async_client(method: str, url: str, fields: Mapping[str, str]) -> Response:
    async def go() -> Any:
        return await AsyncClient().generic(method, url, headers=fields)

    return _answer_of(asyncio.run(go()))


def _by_wsgi(method: str, url: str, fields: Mapping[str, str]) -> Response:
    return serve_wsgi(get_wsgi_application(), environ_of(method, fields, url=url))


def _by_moving_wsgi(method: str, url: str, fields: Mapping[str, str]) -> Response:
    return serve_wsgi(get_wsgi_application(), moved_environ(method, fields, url=url))


def _by_stock_wsgi(method: str, url: str, fields: Mapping[str, str]) -> Response:
    return serve_wsgi(wsgi.get_wsgi_application(), environ_of(method, fields, url=url))


def _by_moving_stock_wsgi(method: str, url: str, fields: Mapping[str, str]) -> Response:
    return serve_wsgi(wsgi.get_wsgi_application(), moved_environ(method, fields, url=url))


def _by_asgi(method: str, url: str, fields: Mapping[str, str]) -> Response:
    return asyncio.run(serve_asgi(get_asgi_application(), scope_of(method, fields, url=url)))


def _by_pathsend(method: str, url: str, fields: Mapping[str, str]) -> Response:
    app = PathsendServer(get_asgi_application())
    return asyncio.run(serve_asgi(app, scope_of(method, fields, url=url)))


def _by_plain_pathsend(method: str, url: str, fields: Mapping[str, str]) -> Response:
    app = PathsendServer(get_asgi_application(), ranges=False)
    return asyncio.run(serve_asgi(app, scope_of(method, fields, url=url)))


def _by_stock_asgi(method: str, url: str, fields: Mapping[str, str]) -> Response:
    return asyncio.run(serve_asgi(asgi.get_asgi_application(), scope_of(method, fields, url=url)))


#: Everybody who can ask.
WAYS: dict[str, Callable[[str, str, Mapping[str, str]], Response]] = {
    "client": _by_client,
    "async client": _by_async_client,
    "wsgi": _by_wsgi,
    "moving wsgi": _by_moving_wsgi,
    "stock wsgi": _by_stock_wsgi,
    "moving stock wsgi": _by_moving_stock_wsgi,
    "asgi": _by_asgi,
    "pathsend": _by_pathsend,
    "plain pathsend": _by_plain_pathsend,
    "stock asgi": _by_stock_asgi,
}

#: Who asks an application of ours, which decides without the middleware.
DECIDING = ["wsgi", "moving wsgi", "asgi", "pathsend", "plain pathsend"]


def ask(way: str, method: str = "GET", url: str = "/", **fields: str) -> Response:
    """Ask in one of the ways; `If_None_Match="*"` is a header field."""
    return WAYS[way](method, url, {name.replace("_", "-"): value for name, value in fields.items()})


# --- what is asked, and what may come back ----------------------------------------------------------------------------

DATA = FILES["data.bin"].content

#: A request for each status that a file has; the views give the tag "v1".
REQUESTS: dict[int, dict[str, str]] = {
    200: {},
    206: {"Range": "bytes=5-99"},
    304: {"If_None_Match": '"v1"'},
    412: {"If_Match": '"another"'},
    416: {"Range": f"bytes={len(DATA)}-"},
}
BODIES = {200: DATA, 206: DATA[5:100], 304: b"", 412: b"", 416: b""}

#: Whose bodies are moved, and how they tell.
MOVING = {"moving wsgi": "file_wrapper", "pathsend": "pathsend"}
#: Each reads in its own manner.
SOME = ["client", "moving wsgi", "moving stock wsgi", "asgi", "pathsend", "stock asgi"]


def check_is_sound(answer: Response, *, content: bytes = DATA, head: bool = False) -> None:
    """Fail unless status, fields and body say the same."""
    [coding] = answer.values("Content-Encoding") or ["identity"]
    body = gzip.decompress(answer.body) if coding == "gzip" and answer.body else answer.body
    if not head:
        assert answer.values("Content-Length") in ([], [str(len(answer.body))])
    ranges = answer.values("Content-Range")
    if answer.status == 206:
        [found] = ranges
        [first, last, size] = map(int, re.findall("[0-9]+", found))
        assert (coding, size) == ("identity", len(content))
        assert body == content[first : last + 1]
        return
    assert ranges == ([f"bytes */{len(content)}"] if answer.status == 416 else [])
    if coding != "identity" and not head:
        # Of what is coded on the way nobody gets a part.
        assert answer.values("Accept-Ranges") == []
    assert body == (b"" if answer.status in (304, 412, 416) or head else content)


def _static(request: HttpRequest, folder: Path) -> Any:
    return serve(request, "report.txt", document_root=folder)


#: Views of responses of Django's own that are the file `report.txt`.
STOCK_FILES: dict[str, Callable[[Path], Callable[[HttpRequest], Any]]] = {
    "FileResponse": lambda path: lambda request: FileResponse(path.open("rb")),
    "of a File": lambda path: lambda request: FileResponse(File(path.open("rb"))),
    "static.serve": lambda path: lambda request: _static(request, path.parent),
}
