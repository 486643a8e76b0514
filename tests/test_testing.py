from __future__ import annotations

import gzip
import io
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import FileResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient
from werkzeug.test import Client

from tests.support.table import FILES, Files
from zcresponse import Transfer
from zcresponse.errors import FileTruncatedError
from zcresponse.starlette import ZeroCopyFileResponse
from zcresponse.testing import FileWrapperServer, HandedOver, PathsendServer, record_transfers
from zcresponse.wsgi import send_file

SIZE = FILES["data.bin"].size


def app_of(make: Any) -> Starlette:
    async def view(request: Any) -> Response:
        response: Response = make()
        return response

    return Starlette(routes=[Route("/", view, methods=["GET", "POST"])])


def ways(transfers: list[Transfer]) -> list[tuple[str, int, int, bool | None]]:
    return [(t.way, t.status, t.bytes_promised, t.completed) for t in transfers]


@pytest.mark.parametrize(
    ("fields", "status", "length"),
    [({}, 200, SIZE), ({"range": "bytes=1-9"}, 206, 9), ({"range": "bytes=0-0,5-5"}, 206, 0)],
    ids=str,
)
def test_a_body_is_expanded_and_told_as_handed_over(
    files: Files, transfers: list[Transfer], fields: dict[str, str], status: int, length: int
) -> None:
    client = TestClient(PathsendServer(app_of(lambda: ZeroCopyFileResponse(files.path("data.bin")))))
    response = client.get("/", headers=fields)
    assert response.status_code == status
    assert len(response.content) == (length or int(response.headers["content-length"]))
    assert ways(transfers) == [("pathsend", status, len(response.content), True)]


def test_a_server_without_ranges_takes_whole_files_alone(files: Files, transfers: list[Transfer]) -> None:
    app = app_of(lambda: ZeroCopyFileResponse(files.path("data.bin")))
    client = TestClient(PathsendServer(app, ranges=False))
    assert client.get("/").content == files.content("data.bin")
    assert client.get("/", headers={"range": "bytes=1-9"}).content == files.content("data.bin")[1:10]
    assert ways(transfers) == [("pathsend", 200, SIZE, None), ("chunks", 206, 9, True)]


def test_stock_responses_are_expanded_too(files: Files, transfers: list[Transfer]) -> None:
    client = TestClient(PathsendServer(app_of(lambda: FileResponse(files.path("data.bin")))))
    assert client.get("/").content == files.content("data.bin")
    assert ways(transfers) == [("pathsend", 200, SIZE, True)]


def test_a_callable_hears_what_the_recorder_hears(files: Files) -> None:
    heard: list[Transfer] = []
    app = app_of(lambda: ZeroCopyFileResponse(files.path("data.bin"), on_transfer=heard.append))
    with record_transfers() as transfers:
        TestClient(PathsendServer(app)).get("/")
    assert heard == transfers
    assert len(heard) == 1


def test_an_empty_file_is_expanded_to_nothing(files: Files, transfers: list[Transfer]) -> None:
    client = TestClient(PathsendServer(app_of(lambda: ZeroCopyFileResponse(files.path("empty.bin")))))
    assert client.get("/").content == b""
    assert ways(transfers) == [("none", 200, 0, True)]


def test_other_scopes_pass_untouched() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, receive, send))

    import asyncio

    scope: dict[str, Any] = {"type": "lifespan"}
    asyncio.run(PathsendServer(app)(scope, None, None))  # type: ignore[arg-type]
    assert seen == [(scope, None, None)]


# --- WSGI -------------------------------------------------------------------------------------------------------------


def sending(path: Path) -> Any:
    return lambda environ, start_response: send_file(environ, start_response, path)


def wrapping(file: Any, *fields: tuple[str, str]) -> Any:
    """An application that knows nothing of us."""

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response("200 OK", list(fields))
        body: Iterable[bytes] = environ["wsgi.file_wrapper"](file)
        return body

    return app


@pytest.mark.parametrize(("wanted", "offset", "count"), [(None, 0, SIZE), ("bytes=5-999", 5, 995)])
def test_what_a_wsgi_server_was_given_is_seen_and_sent(
    wanted: str | None, offset: int, count: int, files: Files, transfers: list[Transfer]
) -> None:
    path = files.path("data.bin")
    server = FileWrapperServer(sending(path))
    response = Client(server).get("/", headers={"Range": wanted} if wanted else {})
    assert response.data == files.content("data.bin")[offset : offset + count]
    assert server.handed_over == [HandedOver(str(path), offset, count)]
    response.close()
    assert [transfer.way for transfer in transfers] == ["file_wrapper"]


def test_a_wsgi_server_without_ranges_takes_whole_files_alone(files: Files) -> None:
    server = FileWrapperServer(sending(files.path("data.bin")), ranges=False)
    client, content = Client(server), files.content("data.bin")
    assert client.get("/", headers={"Range": "bytes=5-999"}, buffered=True).data == content[5:1000]
    assert server.handed_over == []
    assert client.get("/", buffered=True).data == content
    assert server.handed_over == [HandedOver(str(files.path("data.bin")), 0, SIZE)]


def test_a_wsgi_server_without_ranges_is_given_no_file_that_may_grow(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    server = FileWrapperServer(sending(path), ranges=False)
    assert Client(server).get("/", buffered=True).data == b"content"
    assert server.handed_over == []
    os.utime(path, (time.time() - 10,) * 2)
    assert Client(server).get("/", buffered=True).data == b"content"
    assert len(server.handed_over) == 1


@pytest.mark.parametrize("ranges", [True, False])
def test_an_applications_mistake_is_seen_as_a_server_makes_it(ranges: bool, tmp_path: Path) -> None:
    path = tmp_path / "file.gz"
    path.write_bytes(gzip.compress(b"content"))
    with gzip.open(path) as file:
        server = FileWrapperServer(wrapping(file), ranges=ranges)
        assert Client(server).get("/", buffered=True).data == path.read_bytes()


def test_what_is_no_file_on_a_disk_is_read() -> None:
    server = FileWrapperServer(wrapping(io.BytesIO(b"content")))
    assert Client(server).get("/", buffered=True).data == b"content"
    assert server.handed_over == []


def test_a_wsgi_server_closes_what_it_was_given(files: Files) -> None:
    file = files.path("data.bin").open("rb")
    response = Client(FileWrapperServer(wrapping(file))).get("/")
    assert not file.closed
    response.close()
    assert file.closed


def test_a_file_that_is_shorter_than_promised_is_an_error(files: Files) -> None:
    server = FileWrapperServer(wrapping(files.path("data.bin").open("rb"), ("Content-Length", str(SIZE + 1))))
    with pytest.raises(FileTruncatedError):
        Client(server).get("/", buffered=True)


def test_a_middleware_that_reads_hands_nothing_over(files: Files) -> None:
    def reading(environ: Any, start_response: Any) -> list[bytes]:
        body = sending(files.path("data.bin"))(environ, start_response)
        try:
            return [b"".join(body)]
        finally:
            body.close()

    server = FileWrapperServer(reading)
    assert Client(server).get("/").data == files.content("data.bin")
    assert server.handed_over == []


@pytest.mark.parametrize(("wanted", "given"), [(None, 1), ("bytes=5-", 1), ("bytes=5-999", 0)])
def test_a_part_whose_length_a_middleware_takes_out_is_read(wanted: str | None, given: int, files: Files) -> None:
    def stripping(environ: Any, start_response: Any) -> Iterable[bytes]:
        def start(status: str, fields: list[tuple[str, str]]) -> Any:
            return start_response(status, [field for field in fields if field[0] != "Content-Length"])

        body: Iterable[bytes] = sending(files.path("data.bin"))(environ, start)
        return body

    server, content = FileWrapperServer(stripping), files.content("data.bin")
    expected = {None: content, "bytes=5-": content[5:], "bytes=5-999": content[5:1000]}[wanted]
    assert Client(server).get("/", headers={"Range": wanted} if wanted else {}, buffered=True).data == expected
    assert len(server.handed_over) == given
