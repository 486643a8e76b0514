from __future__ import annotations

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import FileResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from tests.support.table import FILES, Files
from zcresponse import Transfer
from zcresponse.starlette import ZeroCopyFileResponse
from zcresponse.testing import PathsendServer, record_transfers

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
