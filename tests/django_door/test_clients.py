"""What a project's own tests see: Django's test clients and request factories, and clients of ASGI applications."""

# mypy: allow-subclassing-any

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.db import connection
from django.http import FileResponse, HttpRequest
from django.http.response import HttpResponseBase
from django.test import AsyncClient, AsyncRequestFactory, Client, RequestFactory, SimpleTestCase, TransactionTestCase
from django.views import View

from tests.support.django_project import MIDDLEWARE, communicator_of, descriptors_of, project, scope_of
from tests.support.table import FILES
from zcresponse import Transfer
from zcresponse.django import ZeroCopyFileResponse, get_asgi_application
from zcresponse.errors import FileTruncatedError
from zcresponse.testing import PathsendServer

DATA = FILES["data.bin"].content
ETAG = FILES["data.bin"].etag
RANGE = {"Range": "bytes=5-99"}

needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="looks at descriptors through /proc")


@pytest.fixture
def served(path: Path) -> Iterator[Path]:
    """The file, at every address of a project with the middleware."""
    with project(lambda request: ZeroCopyFileResponse(path), MIDDLEWARE):
        yield path


def by_client(**headers: str) -> Any:
    return Client().get("/", headers=headers)


def by_async_client(**headers: str) -> Any:
    async def go() -> Any:
        return await AsyncClient().get("/", headers=headers)

    return asyncio.run(go())


CLIENTS: dict[str, Callable[..., Any]] = {"sync": by_client, "async": by_async_client}


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_sees_the_part(client: str, served: Path) -> None:
    response = CLIENTS[client](**RANGE)
    assert (response.status_code, response.reason_phrase) == (206, "Partial Content")
    assert response["Content-Range"] == f"bytes 5-99/{len(DATA)}"
    assert response.headers["Content-Length"] == "95"
    assert response.streaming
    assert response.getvalue() == DATA[5:100]


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_sees_what_has_no_content(client: str, served: Path) -> None:
    for headers, status in (
        ({"If-None-Match": ETAG}, 304),
        ({"If-Match": '"another"'}, 412),
        ({"Range": f"bytes={len(DATA)}-"}, 416),
    ):
        response = CLIENTS[client](**headers)
        assert (response.status_code, response.content, response.text) == (status, b"", "")
        assert response.closed


@needs_proc
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("headers", [{}, RANGE], ids=str)
def test_a_response_is_closed_when_it_was_read(
    headers: dict[str, str], client: str, served: Path, finished: list[Any]
) -> None:
    response = CLIENTS[client](**headers)
    assert (response.closed, len(finished), descriptors_of(served)) == (False, 0, 1)
    parts = list(response.streaming_content)
    assert b"".join(parts) in (DATA, DATA[5:100])
    assert (response.closed, len(finished), descriptors_of(served)) == (True, 1, 0)


@needs_proc
@pytest.mark.parametrize("client", CLIENTS)
def test_a_response_that_is_not_read_is_closed_by_hand(client: str, served: Path, finished: list[Any]) -> None:
    response = CLIENTS[client]()
    response.close()
    assert (response.closed, len(finished), descriptors_of(served)) == (True, 1, 0)


def test_a_response_can_be_iterated_over_asynchronously(served: Path, finished: list[Any]) -> None:
    async def go() -> Any:
        response = await AsyncClient().get("/", headers=RANGE)
        return response, b"".join([part async for part in response])

    response, body = asyncio.run(go())
    assert (body, response.closed, len(finished)) == (DATA[5:100], True, 1)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_file_that_shrinks_raises_in_the_test(client: str, served: Path, finished: list[Any]) -> None:
    response = CLIENTS[client]()
    os.truncate(served, 1000)
    with pytest.raises(FileTruncatedError):
        response.getvalue()
    assert (response.closed, len(finished), descriptors_of(served)) == (True, 1, 0)


@pytest.mark.parametrize("method", ["head", "options", "post", "put", "patch", "delete"])
def test_every_method_has_djangos_answer(method: str, served: Path) -> None:
    response = getattr(Client(), method)("/", headers=RANGE)
    assert (response.status_code, response["Content-Length"]) == (200, str(len(DATA)))
    assert response.getvalue() == (b"" if method == "head" else DATA)


def test_assertions_of_djangos_test_cases_work(path: Path) -> None:
    path.write_text("This is the report.")
    with project(lambda request: ZeroCopyFileResponse(path), MIDDLEWARE):
        case = SimpleTestCase()
        case.assertContains(Client().get("/"), "the report")
        case.assertContains(Client().get("/", headers={"Range": "bytes=0-3"}), "This", status_code=206)
        case.assertNotContains(Client().get("/"), "another")


def test_queries_are_counted(served: Path) -> None:
    def asked_twice(request: HttpRequest) -> HttpResponseBase:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            cursor.execute("SELECT 2")
        return ZeroCopyFileResponse(served)

    with project(asked_twice, MIDDLEWARE), TransactionTestCase().assertNumQueries(2):
        assert Client().get("/").getvalue() == DATA
    connection.close()


def test_a_missing_file_raises_in_the_test(path: Path) -> None:
    with project(lambda request: ZeroCopyFileResponse(path.parent / "missing"), MIDDLEWARE):
        with pytest.raises(FileNotFoundError):
            Client().get("/")
        assert Client(raise_request_exception=False).get("/").status_code == 500


def test_cookies_reach_the_client(served: Path) -> None:
    def view(request: HttpRequest) -> HttpResponseBase:
        response = ZeroCopyFileResponse(served)
        response.set_cookie("seen", "yes")
        return response

    with project(view, MIDDLEWARE):
        client = Client()
        client.get("/", headers={"If-None-Match": ETAG})
        assert client.cookies["seen"].value == "yes"


def test_without_the_middleware_a_client_sees_the_whole_file(path: Path) -> None:
    with project(lambda request: ZeroCopyFileResponse(path)):
        for client in CLIENTS.values():
            response = client(**RANGE)
            assert (response.status_code, response.getvalue()) == (200, DATA)


# --- request factories ------------------------------------------------------------------------------------------------


class Download(View):
    """A view as a class, which its test calls."""

    path: Path | None = None

    def get(self, request: HttpRequest) -> HttpResponseBase:
        return ZeroCopyFileResponse(self.path, request=request, as_attachment=True)

    def head(self, request: HttpRequest) -> HttpResponseBase:
        return self.get(request)


@pytest.mark.parametrize("factory", [RequestFactory, AsyncRequestFactory])
def test_a_view_can_be_called(factory: Any, path: Path) -> None:
    for headers, status, body in (
        ({}, 200, DATA),
        (RANGE, 206, DATA[5:100]),
        ({"If-None-Match": ETAG}, 304, b""),
    ):
        request = factory().get("/", headers=headers)
        response = Download.as_view(path=path)(request)
        assert (response.status_code, response.getvalue()) == (status, body)
        assert status == 304 or response["Content-Disposition"] == 'attachment; filename="report.txt"'
        response.close()
    response = Download.as_view(path=path)(factory().head("/"))
    assert (response["Content-Length"], response.getvalue()) == (str(len(DATA)), b"")
    response.close()


# --- clients of ASGI applications -------------------------------------------------------------------------------------


async def fetch(app: Any, *requests: dict[str, str]) -> list[httpx.Response]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver") as client:
        return [await client.get("/", headers=headers) for headers in requests]


@pytest.mark.parametrize("offer", [None, True, False])
def test_httpx_sees_the_part(offer: bool | None, path: Path, transfers: list[Transfer]) -> None:
    with project(lambda request: ZeroCopyFileResponse(path)):
        app: Any = get_asgi_application()
        if offer is not None:
            app = PathsendServer(app, ranges=offer)
        whole, part, unmodified = asyncio.run(fetch(app, {}, RANGE, {"If-None-Match": ETAG}))
    assert (whole.status_code, whole.content) == (200, DATA)
    assert (part.status_code, part.content) == (206, DATA[5:100])
    assert (unmodified.status_code, unmodified.content) == (304, b"")
    assert "Content-Length" not in unmodified.headers
    ways = {None: ["chunks", "chunks"], True: ["pathsend", "pathsend"], False: ["pathsend", "chunks"]}[offer]
    assert [transfer.way for transfer in transfers] == [*ways, "none"]


def test_httpx_decodes_what_was_compressed(path: Path) -> None:
    with project(lambda request: ZeroCopyFileResponse(path), "django.middleware.gzip.GZipMiddleware"):
        [answer] = asyncio.run(fetch(get_asgi_application(), {"Accept-Encoding": "gzip", **RANGE}))
    assert (answer.status_code, answer.headers["Content-Encoding"], answer.content) == (200, "gzip", DATA)


def test_messages_come_as_asgi_wants_them(path: Path) -> None:
    async def go() -> list[Any]:
        communicator = communicator_of(get_asgi_application(), scope_of("GET", RANGE))
        await communicator.send_input({"type": "http.request", "body": b"", "more_body": False})
        messages = [await communicator.receive_output(10), await communicator.receive_output(10)]
        assert await communicator.receive_nothing()
        await communicator.wait(10)
        return messages

    with project(lambda request: ZeroCopyFileResponse(path)):
        start, body = asyncio.run(go())
    assert start["type"] == "http.response.start"
    assert start["status"] == 206
    assert all(type(name) is bytes and name == name.lower() for name, _ in start["headers"])
    assert body == {"type": "http.response.body", "body": DATA[5:100], "more_body": False}


def test_an_upload_before_the_answer_is_read(path: Path) -> None:
    def view(request: HttpRequest) -> HttpResponseBase:
        assert request.body == b"x" * 200_000
        return ZeroCopyFileResponse(path)

    async def go() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(get_asgi_application())) as client:
            return [await client.post("http://testserver/", content=b"x" * 200_000)]

    with project(view):
        [answer] = asyncio.run(go())
    assert answer.content == DATA


@pytest.mark.parametrize("kind", ["ours", "stock"])
def test_a_server_is_not_told_the_path_of_what_is_uploaded(kind: str, path: Path, transfers: list[Transfer]) -> None:
    def view(request: HttpRequest) -> Any:
        temporary = request.FILES["file"].temporary_file_path()
        return FileResponse(open(temporary, "rb")) if kind == "stock" else ZeroCopyFileResponse(temporary)

    async def go(app: Any) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
            return await client.post("http://testserver/", files={"file": ("report.txt", DATA)})

    handlers = ["django.core.files.uploadhandler.TemporaryFileUploadHandler"]
    with project(view, FILE_UPLOAD_HANDLERS=handlers, FILE_UPLOAD_TEMP_DIR=str(path.parent)):
        answer = asyncio.run(go(PathsendServer(get_asgi_application(), ranges=False)))
    assert answer.content == DATA
    assert [transfer.way for transfer in transfers] == ["chunks"]


def test_what_is_uploaded_can_be_sent_back(path: Path, transfers: list[Transfer]) -> None:
    def view(request: HttpRequest) -> HttpResponseBase:
        return ZeroCopyFileResponse(request.FILES["file"])

    async def go(app: Any) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
            return await client.post("http://testserver/", files={"file": ("report.txt", DATA)})

    for limit in 0, 1 << 20:
        with project(view, FILE_UPLOAD_MAX_MEMORY_SIZE=limit, FILE_UPLOAD_TEMP_DIR=str(path.parent)):
            for offer in True, False:
                answer = asyncio.run(go(PathsendServer(get_asgi_application(), ranges=offer)))
                assert answer.content == DATA
                assert answer.headers["Content-Disposition"] == 'inline; filename="report.txt"'
    assert [transfer.way for transfer in transfers] == ["pathsend", "chunks", "chunks", "chunks"]
    assert os.listdir(path.parent) == [path.name]


def test_djangos_own_response_in_the_same_project(path: Path) -> None:
    with project(lambda request: FileResponse(path.open("rb"))):
        for offer in True, False:
            app = PathsendServer(get_asgi_application(), ranges=offer)
            [answer] = asyncio.run(fetch(app, RANGE))
            assert (answer.status_code, answer.content) == (200, DATA)
