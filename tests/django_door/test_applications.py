"""The two applications: files handed to the server, everything closed once, and what is not ours left as it is."""

# mypy: allow-subclassing-any

from __future__ import annotations

import asyncio
import gzip
import io
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler, StaticFilesHandler
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.db import connection, connections
from django.http import FileResponse, HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.test import override_settings

from tests.support.django_project import (
    MIDDLEWARE,
    STOCK_FILES,
    WAYS,
    AsgiServer,
    ask,
    descriptors_of,
    environ_of,
    moved_environ,
    project,
    scope_of,
    serve_asgi,
    serve_wsgi,
    unread,
)
from tests.support.table import FILES
from zcresponse import Transfer
from zcresponse.asgi.dialect import PATHSEND
from zcresponse.django import ZeroCopyFileResponse, get_asgi_application, get_wsgi_application
from zcresponse.errors import FileTruncatedError
from zcresponse.plan import Offload
from zcresponse.wsgi import ZeroCopyMiddleware

DATA = FILES["data.bin"].content

#: Applications of ours, and who asks them.
SERVERS = ["wsgi", "moving wsgi", "asgi", "pathsend", "plain pathsend"]
PLAIN: dict[str, Any] = {PATHSEND: {}}

needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="looks at descriptors through /proc")


def test_the_applications_are_djangos() -> None:
    assert isinstance(get_wsgi_application(), WSGIHandler)
    assert isinstance(get_asgi_application(), ASGIHandler)


# --- closing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [*SERVERS, "stock wsgi", "moving stock wsgi", "stock asgi"])
@pytest.mark.parametrize("fields", [{}, {"Range": "bytes=5-9"}, {"If_None_Match": "*"}, {"Range": "bytes=x"}], ids=str)
def test_a_response_is_closed_once_and_the_request_finished_once(
    fields: dict[str, str], way: str, path: Path, finished: list[Any]
) -> None:
    made: list[Any] = []
    closed: list[str] = []

    def view(request: HttpRequest) -> HttpResponseBase:
        response = ZeroCopyFileResponse(path)
        response._resource_closers.append(lambda: closed.append("once"))
        made.append(response)
        return response

    with project(view, MIDDLEWARE):
        ask(way, **fields)
    [response] = made
    assert (response.closed, closed) == (True, ["once"])
    assert [issubclass(sender, WSGIHandler if "wsgi" in way else ASGIHandler) for sender in finished] == [True]


def test_a_wsgi_server_that_stops_reading_closes_everything(path: Path, finished: list[Any]) -> None:
    with project(lambda request: ZeroCopyFileResponse(path)):
        body = get_wsgi_application()(environ_of(), lambda status, headers: None)
        next(iter(body))
        assert not finished
        body.close()
    assert (len(finished), descriptors_of(path)) == (1, 0)


@pytest.fixture
def database(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A database that notices when its connection is closed: one in memory is kept."""
    monkeypatch.setitem(connections.settings["default"], "NAME", str(path.with_suffix(".sqlite3")))
    yield
    for each in connections.all(initialized_only=True):
        each.close()
        del connections[each.alias]


@pytest.mark.parametrize("way", [*SERVERS, "stock wsgi", "stock asgi"])
def test_the_connection_to_the_database_is_closed_with_the_response(way: str, path: Path, database: None) -> None:
    used: list[Any] = []

    def view(request: HttpRequest) -> HttpResponseBase:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        used.append(connections["default"])
        assert used[0].connection is not None
        return ZeroCopyFileResponse(path)

    with project(view, MIDDLEWARE):
        assert ask(way).body == DATA
    assert [each.connection for each in used] == [None]


def test_the_connection_to_the_database_is_open_while_a_stream_is_sent(database: None) -> None:
    def parts() -> Iterator[bytes]:
        with connection.cursor() as cursor:
            for number in range(3):
                cursor.execute("SELECT %s", [number])
                yield str(cursor.fetchone()[0]).encode()

    with project(lambda request: ZeroCopyFileResponse(parts())):
        for way in SERVERS:
            assert ask(way).body == b"012"


# --- HEAD -------------------------------------------------------------------------------------------------------------


async def unread_asynchronously() -> AsyncIterator[bytes]:
    raise AssertionError("it is read for nobody")
    yield b""


#: Responses to HEAD, and what Content-Length says of them.
ANY: dict[str, tuple[Callable[[Path], Any], list[str]]] = {
    "ours": (ZeroCopyFileResponse, [str(len(DATA))]),
    "ours of a stream": (lambda path: ZeroCopyFileResponse(unread(), headers={"Content-Length": "7"}), ["7"]),
    "ours of an async stream": (lambda path: ZeroCopyFileResponse(unread_asynchronously()), []),
    "a file": (lambda path: FileResponse(path.open("rb")), [str(len(DATA))]),
    "in memory": (lambda path: FileResponse(io.BytesIO(DATA)), [str(len(DATA))]),
    "a stream": (lambda path: StreamingHttpResponse(unread()), []),
    "an async stream": (lambda path: StreamingHttpResponse(unread_asynchronously()), []),
    "a page": (lambda path: HttpResponse("text", headers={"Content-Length": "4"}), ["4"]),
}


@needs_proc
@pytest.mark.parametrize("kind", ANY)
@pytest.mark.parametrize("way", SERVERS)
def test_nothing_has_a_body_to_head(way: str, kind: str, path: Path, finished: list[Any]) -> None:
    make, length = ANY[kind]
    closed: list[str] = []

    def view(request: HttpRequest) -> Any:
        response = make(path)
        response.set_cookie("seen", "yes")
        response._resource_closers.append(lambda: closed.append("once"))
        return response

    with project(view):
        answer = ask(way, "HEAD")
    assert (answer.status, answer.body, answer.values("Content-Length")) == (200, b"", length)
    assert [cookie.strip() for cookie in answer.values("Set-Cookie")] == ["seen=yes; Path=/"]
    assert (closed, len(finished), descriptors_of(path)) == (["once"], 1, 0)


def test_a_middleware_that_has_validators_for_head_still_sees_the_file(path: Path) -> None:
    with project(lambda request: FileResponse(path.open("rb"))):
        for environ in environ_of("HEAD"), moved_environ("HEAD"):
            answer = serve_wsgi(ZeroCopyMiddleware(get_wsgi_application(), conditional=True), environ)
            assert (answer.body, answer.values("ETag")) == (b"", [FILES["data.bin"].etag])
    with project(lambda request: FileResponse(unread())):
        assert serve_wsgi(ZeroCopyMiddleware(get_wsgi_application()), environ_of("HEAD")).body == b""


# --- WSGI -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [{}, {"Range": "bytes=5-9"}], ids=str)
@pytest.mark.parametrize("app", ["ours", "stock with middleware"])
def test_a_wsgi_server_gets_the_positioned_file(app: str, fields: dict[str, str], path: Path) -> None:
    with project(lambda request: ZeroCopyFileResponse(path), MIDDLEWARE):
        application = get_wsgi_application() if app == "ours" else WSGIHandler()
        body = application(moved_environ("GET", fields), lambda status, headers: None)
        start = os.lseek(body.file.fileno(), 0, os.SEEK_CUR)
        body.close()
    assert start == (5 if fields else 0)


@needs_proc
def test_a_file_that_shrinks_under_a_wsgi_server_ends_the_connection(path: Path, finished: list[Any]) -> None:
    with project(lambda request: ZeroCopyFileResponse(path)):
        for environ in environ_of(), moved_environ():
            path.write_bytes(DATA)
            body = get_wsgi_application()(environ, lambda status, headers: None)
            os.truncate(path, 1000)
            with pytest.raises(FileTruncatedError):
                try:
                    b"".join(body if "mod_wsgi.version" not in environ else body.file)
                finally:
                    body.close()
            assert descriptors_of(path) == 0
    assert len(finished) == 2


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_stock_response_is_djangos_own_affair_under_wsgi(method: str, path: Path) -> None:
    with project(lambda request: FileResponse(path.open("rb"))):
        for environ in environ_of(method), moved_environ(method):
            answer = serve_wsgi(get_wsgi_application(), environ)
            assert (answer.status, answer.body) == (200, DATA if method == "GET" else b"")


# --- ASGI: responses of Django's own ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", STOCK_FILES)
@pytest.mark.parametrize(
    ("way", "moved"), [("asgi", "chunks"), ("pathsend", "pathsend"), ("plain pathsend", "pathsend")]
)
def test_djangos_own_file_goes_the_best_way(
    way: str, moved: str, kind: str, path: Path, transfers: list[Transfer]
) -> None:
    with project(STOCK_FILES[kind](path)):
        answer = ask(way, Range="bytes=5-99")
        assert (answer.status, answer.body, answer.values("Content-Length")) == (200, DATA, [str(len(DATA))])
        assert ask(way, "HEAD").body == b""
    assert [transfer.way for transfer in transfers] == [moved, "none"]


@needs_proc
@pytest.mark.parametrize("kind", STOCK_FILES)
@pytest.mark.parametrize("way", SERVERS)
def test_djangos_own_file_is_closed_once(way: str, kind: str, path: Path, finished: list[Any]) -> None:
    with project(STOCK_FILES[kind](path)):
        ask(way)
    assert (len(finished), descriptors_of(path)) == (1, 0)


@pytest.mark.parametrize("way", SERVERS)
def test_djangos_own_response_begins_where_its_file_stands(way: str, path: Path) -> None:
    def view(request: HttpRequest) -> HttpResponseBase:
        file = path.open("rb")
        file.read(1000)
        return FileResponse(file)

    with project(view):
        answer = ask(way)
    assert (answer.body, answer.values("Content-Length")) == (DATA[1000:], [str(len(DATA) - 1000)])


class Throttled(FileResponse):
    """Has a word in how it is sent."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self.streaming_content:
            await asyncio.sleep(0)
            yield part.swapcase()


@pytest.mark.parametrize("way", ["asgi", "pathsend", "plain pathsend"])
def test_a_subclass_with_its_own_iteration_is_iterated(way: str, path: Path) -> None:
    with project(lambda request: Throttled(path.open("rb"))):
        assert ask(way).body == DATA.swapcase()


class Swapping(ZeroCopyFileResponse):
    def __iter__(self) -> Iterator[bytes]:
        return (part.swapcase() for part in super().__iter__())


class SwappingAsynchronously(Swapping):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in ZeroCopyFileResponse.__aiter__(self):
            yield part


class SwappingContent(ZeroCopyFileResponse):
    @property
    def streaming_content(self) -> Any:
        return map(bytes.swapcase, super().streaming_content)

    @streaming_content.setter
    def streaming_content(self, value: Any) -> None:
        self._set_streaming_content(value)


# Django's test clients put an iterator of their own around what they find.
@pytest.mark.parametrize("kind", [Swapping, SwappingAsynchronously, SwappingContent])
@pytest.mark.parametrize("way", [way for way in WAYS if "client" not in way])
def test_a_subclass_of_ours_has_its_say_everywhere(way: str, kind: Any, path: Path) -> None:
    with project(lambda request: kind(path, etag="v1"), MIDDLEWARE):
        answer = ask(way, Range="bytes=5-99")
        assert (answer.status, answer.values("Content-Length")) == (200, [str(len(DATA))])
        assert answer.body == DATA.swapcase()
        assert ask(way, If_None_Match='"v1"').status == 304


@pytest.mark.parametrize("kind", [Swapping, SwappingContent])
def test_a_subclass_of_ours_is_not_offloaded(kind: Any, path: Path) -> None:
    offload = Offload("X-Sendfile", [path.parent])
    with project(lambda request: kind(path), ZCRESPONSE_OFFLOAD=offload):
        for way in SERVERS:
            answer = ask(way)
            assert (answer.body, answer.values("X-Sendfile")) == (DATA.swapcase(), [])


def test_djangos_own_response_that_a_middleware_wraps_is_wrapped(path: Path) -> None:
    with project(STOCK_FILES["FileResponse"](path), "django.middleware.gzip.GZipMiddleware"):
        for way in "asgi", "pathsend":
            answer = ask(way, Accept_Encoding="gzip")
            assert gzip.decompress(answer.body) == DATA


@pytest.mark.parametrize("way", ["asgi", "pathsend"])
def test_other_responses_are_untouched(way: str) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"

    views: list[tuple[Callable[[HttpRequest], Any], bytes]] = [
        (lambda request: HttpResponse("text"), b"text"),
        (lambda request: HttpResponse(b"x" * 200_000), b"x" * 200_000),
        (lambda request: StreamingHttpResponse(parts()), b"onetwo"),
        (lambda request: FileResponse(io.BytesIO(DATA)), DATA),
        (lambda request: FileResponse(iter([b"one", b"two"])), b"onetwo"),
    ]
    for view, body in views:
        with project(view):
            answer = ask(way, Range="bytes=0-1", If_None_Match="*")
        assert (answer.status, answer.body) == (200, body)


def test_djangos_warning_of_a_synchronous_stream_is_still_given() -> None:
    with project(lambda request: StreamingHttpResponse(iter([b"one", b"two"]))):
        with pytest.warns(Warning, match="synchronous iterators"):
            assert ask("asgi").body == b"onetwo"


# --- around and beside ------------------------------------------------------------------------------------------------


def test_scopes_that_django_does_not_know_are_refused_as_by_django() -> None:
    async def go() -> None:
        server = AsgiServer()
        await get_asgi_application()({"type": "lifespan"}, server.receive, server.send)

    with pytest.raises(ValueError, match="ASGI/HTTP"):
        asyncio.run(go())


def test_a_request_that_django_cannot_read_is_answered_by_django() -> None:
    with project(lambda request: HttpResponse("never")):
        scope = scope_of()
        scope["query_string"] = b"\xff"
        assert asyncio.run(serve_asgi(get_asgi_application(), scope)).status == 400


@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume")
def test_djangos_handlers_of_static_files_can_stand_around(path: Path) -> None:
    settings = {"STATIC_URL": "/static/", "STATICFILES_DIRS": [str(path.parent)], "DEBUG": True}
    with override_settings(**settings), override_settings(INSTALLED_APPS=["django.contrib.staticfiles"]):
        with project(lambda request: ZeroCopyFileResponse(path, offset=1)):
            for url, body in ("/static/report.txt", DATA), ("/other", DATA[1:]):
                wsgi_app = StaticFilesHandler(get_wsgi_application())
                assert serve_wsgi(wsgi_app, environ_of(url=url)).body == body
                asgi_app = ASGIStaticFilesHandler(get_asgi_application())
                assert asyncio.run(serve_asgi(asgi_app, scope_of(url=url))).body == body


def test_the_door_can_be_imported_before_there_are_settings() -> None:
    code = "import zcresponse.django"
    environ = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, env=environ)
