"""The door for Starlette as FastAPI uses it: as a returned response, and as a `response_class`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, Response
from fastapi.testclient import TestClient
from starlette.types import ASGIApp

from tests.support import servers, temporary
from tests.support.servers import wait_until
from tests.support.table import CASES, DOWNLOAD_NAME, FILES, MAX_AGE, Case, Files, check
from tests.support.table import Response as Answer
from zcresponse.starlette import ZeroCopyFileResponse, install
from zcresponse.testing import PathsendServer, record_transfers

DATA = FILES["data.bin"]

#: A request for each status that a file has, by its fields.
REQUESTS = {
    200: {},
    206: {"range": "bytes=5-99"},
    304: {"if-none-match": DATA.etag},
    412: {"if-match": '"another"'},
    416: {"range": f"bytes={DATA.size}-"},
}
BODIES = {200: DATA.content, 206: DATA.content[5:100], 304: b"", 412: b"", 416: b""}


@pytest.fixture(params=["chunks", "pathsend", "plain pathsend"])
def server_side(request: pytest.FixtureRequest) -> Callable[[ASGIApp], ASGIApp]:
    """What a test client's server offers."""
    if request.param == "chunks":
        return lambda app: app
    return lambda app: PathsendServer(app, ranges=request.param == "pathsend")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where `tests.support.temporary` makes its files."""
    monkeypatch.setenv("TEMPORARY_FILES", str(tmp_path))
    return tmp_path


# --- a returned path --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Path, str])
@pytest.mark.parametrize("status", REQUESTS)
def test_a_returned_path_becomes_the_response(
    kind: type[Path] | type[str], status: int, files: Files, server_side: Callable[[ASGIApp], ASGIApp]
) -> None:
    app = FastAPI()

    @app.get("/", response_class=ZeroCopyFileResponse)
    async def view() -> Any:
        return kind(files.path("data.bin"))

    response = TestClient(server_side(app)).get("/", headers=REQUESTS[status])
    assert (response.status_code, response.content) == (status, BODIES[status])


def test_a_plain_function_may_return_the_path(files: Files) -> None:
    app = FastAPI()

    @app.get("/", response_class=ZeroCopyFileResponse)
    def view() -> str:
        return str(files.path("data.bin"))

    assert TestClient(app).get("/").content == DATA.content


def test_it_can_be_the_default_of_an_application(files: Files) -> None:
    app = FastAPI(default_response_class=ZeroCopyFileResponse)

    @app.get("/")
    async def view() -> Path:
        return files.path("data.bin")

    assert TestClient(app).get("/").content == DATA.content


def test_a_returned_path_is_named_and_typed_by_the_file(files: Files) -> None:
    app = FastAPI()

    @app.get("/", response_class=ZeroCopyFileResponse)
    async def view() -> Path:
        return files.path("naïve name ✓ 100%.txt")

    response = TestClient(app).get("/")
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert "content-disposition" not in response.headers


def test_a_status_of_the_route_is_sent_and_ends_conditions_and_ranges(files: Files) -> None:
    app = FastAPI()

    @app.get("/", response_class=ZeroCopyFileResponse, status_code=203)
    async def view() -> Path:
        return files.path("data.bin")

    client = TestClient(app)
    for fields in REQUESTS.values():
        response = client.get("/", headers=fields)
        assert (response.status_code, response.content) == (203, DATA.content)


def test_a_status_of_the_injected_response_is_sent(files: Files) -> None:
    app = FastAPI()

    @app.get("/", response_class=ZeroCopyFileResponse)
    async def view(response: Response) -> Path:
        response.status_code = 203
        return files.path("data.bin")

    response = TestClient(app).get("/")
    assert (response.status_code, response.content) == (203, DATA.content)


@pytest.mark.parametrize("status", REQUESTS)
def test_what_is_set_on_the_injected_response_stays_in_every_answer(
    status: int, files: Files, server_side: Callable[[ASGIApp], ASGIApp]
) -> None:
    app = FastAPI()

    @app.get("/", response_class=ZeroCopyFileResponse)
    async def view(response: Response) -> Path:
        response.headers["X-View"] = "1"
        response.headers.append("Vary", "Cookie")
        response.set_cookie("session", "abc")
        response.set_cookie("other", "def")
        return files.path("data.bin")

    answer = TestClient(server_side(app)).get("/", headers=REQUESTS[status])
    assert (answer.status_code, answer.content) == (status, BODIES[status])
    assert (answer.headers.get_list("x-view"), answer.headers.get_list("vary")) == (["1"], ["Cookie"])
    assert [value.split(";")[0] for value in answer.headers.get_list("set-cookie")] == ["session=abc", "other=def"]


def test_fields_of_the_injected_response_win_over_the_files_own(files: Files) -> None:
    app = FastAPI()

    @app.get("/", response_class=ZeroCopyFileResponse)
    async def view(response: Response) -> Path:
        response.headers["ETag"] = '"v1"'
        response.headers["Content-Type"] = "application/x-own"
        response.headers["Content-Disposition"] = 'attachment; filename="own.bin"'
        response.headers["Cache-Control"] = "private"
        return files.path("data.bin")

    client = TestClient(app)
    response = client.get("/")
    assert response.headers.get_list("etag") == ['"v1"']
    assert response.headers.get_list("content-type") == ["application/x-own"]
    assert response.headers.get_list("content-disposition") == ['attachment; filename="own.bin"']
    assert response.headers.get_list("content-length") == [str(DATA.size)]
    assert client.get("/", headers={"if-none-match": '"v1"'}).status_code == 304


# --- a returned response ----------------------------------------------------------------------------------------------


def table_app(files: Files) -> FastAPI:
    """The table's two views."""
    app = FastAPI()

    def plain(name: str) -> ZeroCopyFileResponse:
        return ZeroCopyFileResponse(files.path(name))

    async def dressed(name: str) -> ZeroCopyFileResponse:
        return ZeroCopyFileResponse(files.path(name), filename=DOWNLOAD_NAME, max_age=MAX_AGE)

    app.add_api_route("/plain/{name}", plain, methods=["GET", "HEAD", "POST"])
    app.add_api_route("/dressed/{name}", dressed, methods=["GET", "HEAD", "POST"])
    return app


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_table_passes_for_returned_responses(case: Case, files: Files) -> None:
    client = TestClient(table_app(files), headers={"accept-encoding": "identity"})
    response = client.request(case.method, case.url_path(), headers=case.raw_fields)
    check(case, Answer.of(response.status_code, response.headers.multi_items(), response.content), files)


@pytest.mark.parametrize("status", REQUESTS)
def test_a_returned_response_keeps_its_own_fields_and_not_the_injected_ones(status: int, files: Files) -> None:
    """FastAPI drops what was set on the injected response when the view returns one of its own."""
    app = FastAPI()

    @app.get("/")
    async def view(response: Response) -> ZeroCopyFileResponse:
        response.headers["X-Injected"] = "1"
        own = ZeroCopyFileResponse(files.path("data.bin"), headers={"X-Own": "1"})
        own.set_cookie("session", "abc")
        return own

    answer = TestClient(app).get("/", headers=REQUESTS[status])
    assert (answer.status_code, answer.content) == (status, BODIES[status])
    assert (answer.headers.get("x-own"), answer.headers.get("x-injected")) == ("1", None)
    assert [value.split(";")[0] for value in answer.headers.get_list("set-cookie")] == ["session=abc"]


def test_a_dependency_that_refuses_leaves_the_file_unopened(files: Files) -> None:
    def refuse() -> None:
        raise HTTPException(401)

    app = FastAPI()

    @app.get("/", dependencies=[Depends(refuse)])
    async def view() -> ZeroCopyFileResponse:
        raise AssertionError("the view was run")

    with record_transfers() as transfers:
        assert TestClient(app).get("/").status_code == 401
    assert transfers == []


def test_a_missing_file_can_be_told_from_a_mistake(files: Files) -> None:
    app = FastAPI()

    @app.get("/", response_class=ZeroCopyFileResponse)
    async def view() -> Path:
        return files.path("missing")

    @app.exception_handler(FileNotFoundError)
    async def not_found(request: Any, error: Exception) -> Response:
        return Response(status_code=404)

    assert TestClient(app).get("/").status_code == 404


# --- tasks and dependencies -------------------------------------------------------------------------------------------

#: Fields, status, and which bytes of a temporary file come.
TEMPORARY = [
    ({}, 200, temporary.CONTENT),
    ({"range": "bytes=1000-1999"}, 206, temporary.CONTENT[1000:2000]),
    ({"range": "bytes=-70000"}, 206, temporary.CONTENT[-70000:]),
    ({"if-none-match": "*"}, 304, b""),
    ({"if-match": '"another"'}, 412, b""),
    ({"range": f"bytes={len(temporary.CONTENT)}-"}, 416, b""),
]


@pytest.mark.parametrize("view", temporary.VIEWS)
@pytest.mark.parametrize(("fields", "status", "body"), TEMPORARY, ids=lambda value: str(value)[:40])
def test_a_temporary_file_is_sent_and_then_deleted(
    view: str,
    fields: dict[str, str],
    status: int,
    body: bytes,
    folder: Path,
    server_side: Callable[[ASGIApp], ASGIApp],
) -> None:
    with record_transfers() as transfers:
        response = TestClient(server_side(temporary.app)).get(view, headers=fields)
    assert (response.status_code, response.content) == (status, body)
    assert list(folder.iterdir()) == []
    # A server that is only told the path could open it after it was deleted.
    assert [transfer.completed for transfer in transfers] == [True]


@pytest.mark.parametrize("view", temporary.VIEWS)
def test_several_ranges_of_a_temporary_file_are_sent_before_it_is_deleted(
    view: str, folder: Path, server_side: Callable[[ASGIApp], ASGIApp]
) -> None:
    response = TestClient(server_side(temporary.app)).get(view, headers={"range": "bytes=0-999,500000-500999"})
    assert response.status_code == 206
    assert temporary.CONTENT[:1000] in response.content
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("view", temporary.VIEWS)
def test_head_of_a_temporary_file_deletes_it_too(
    view: str, folder: Path, server_side: Callable[[ASGIApp], ASGIApp]
) -> None:
    response = TestClient(server_side(temporary.app)).head(view)
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["content-length"] == str(len(temporary.CONTENT))
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("view", temporary.VIEWS)
def test_a_response_that_says_that_its_file_will_go_hands_out_no_path(view: str, folder: Path) -> None:
    with record_transfers() as transfers:
        TestClient(PathsendServer(temporary.app, ranges=False)).get(view)
    (transfer,) = transfers
    assert (transfer.way, transfer.reason) == (
        "chunks",
        "a file that may be removed after sending needs its descriptor",
    )


@pytest.mark.parametrize(("removed_later", "way"), [(None, "chunks"), (True, "chunks"), (False, "pathsend")])
def test_what_is_said_of_the_file_wins_over_what_a_task_suggests(
    removed_later: bool | None, way: str, files: Files
) -> None:
    app = FastAPI()

    @app.get("/")
    async def view(background_tasks: BackgroundTasks) -> ZeroCopyFileResponse:
        background_tasks.add_task(lambda: None)
        return ZeroCopyFileResponse(files.path("data.bin"), removed_later=removed_later)

    with record_transfers() as transfers:
        response = TestClient(PathsendServer(app, ranges=False)).get("/")
    assert response.content == DATA.content
    assert [transfer.way for transfer in transfers] == [way]


def test_tasks_run_in_order_and_after_the_body(files: Files) -> None:
    app = FastAPI()
    ran: list[str] = []

    @app.get("/", response_class=ZeroCopyFileResponse)
    async def view(background_tasks: BackgroundTasks) -> Path:
        background_tasks.add_task(ran.append, "first")
        background_tasks.add_task(ran.append, "second")
        return files.path("data.bin")

    with record_transfers() as transfers:

        def ended() -> None:
            ran.append(f"{len(transfers)} transfers before")

        @app.get("/later", response_class=ZeroCopyFileResponse)
        async def later(background_tasks: BackgroundTasks) -> Path:
            background_tasks.add_task(ended)
            return files.path("data.bin")

        client = TestClient(app)
        client.get("/")
        client.get("/later")
    assert ran == ["first", "second", "2 transfers before"]


# --- routes, schemas, servers -----------------------------------------------------------------------------------------


def test_a_head_route_tells_what_get_would_send(files: Files) -> None:
    app = FastAPI()

    @app.head("/", response_class=ZeroCopyFileResponse)
    @app.get("/", response_class=ZeroCopyFileResponse)
    async def view() -> Path:
        return files.path("data.bin")

    client = TestClient(app)
    got, told = client.get("/"), client.head("/")
    assert (told.status_code, told.content) == (200, b"")
    assert {**told.headers} == {**got.headers}
    assert client.head("/", headers={"if-none-match": DATA.etag}).status_code == 304


def test_the_schema_of_an_application_with_files_can_be_made(files: Files) -> None:
    app = FastAPI()

    @app.get("/path", response_class=ZeroCopyFileResponse)
    async def path() -> Path:
        return files.path("data.bin")

    @app.get("/response")
    async def response() -> ZeroCopyFileResponse:
        return ZeroCopyFileResponse(files.path("data.bin"))

    @app.get("/either", response_model=None)
    async def either() -> ZeroCopyFileResponse | dict[str, str]:
        return ZeroCopyFileResponse(files.path("data.bin"))

    answer = TestClient(app).get("/openapi.json")
    assert answer.status_code == 200
    assert set(answer.json()["paths"]) == {"/path", "/response", "/either"}


def test_install_takes_a_fastapi_application(files: Files) -> None:
    app = FastAPI()

    @app.get("/", response_class=ZeroCopyFileResponse)
    async def view() -> Path:
        return files.path("data.bin")

    install(app)
    install(app)
    client = TestClient(app)
    assert client.get("/").content == DATA.content
    assert client.get("/openapi.json").status_code == 200
    with pytest.raises(RuntimeError, match="before"):
        install(app)


def opened() -> Iterator[int]:
    """A dependency: this file, open until the request is over."""
    descriptor = os.open(__file__, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@pytest.mark.skipif(not temporary.DEPENDENCIES_OUTLIVE_THE_ANSWER, reason="FastAPI before 0.118 closes them before")
def test_a_descriptor_may_belong_to_a_dependency_of_a_mounted_application() -> None:
    inner, outer = FastAPI(), FastAPI()
    outer.mount("/inner", inner)

    @inner.get("/file")
    async def view(descriptor: Annotated[int, Depends(opened)]) -> ZeroCopyFileResponse:
        return ZeroCopyFileResponse(descriptor, closefd=False)

    assert TestClient(outer).get("/inner/file").content == Path(__file__).read_bytes()


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="looks into the server through /proc")
@pytest.mark.parametrize("how", ["the protocol class", "installed"])
def test_real_uvicorn_deletes_temporary_files_after_the_kernel_has_moved_them(how: str, tmp_path: Path) -> None:
    if how == "installed":
        start = servers.uvicorn(
            "tests.support.temporary:installed",
            "--factory",
            env={"TEMPORARY_FILES": str(tmp_path)},
            python=("-X", "dev", "-W", "error"),
        )
    else:
        start = servers.uvicorn(
            "tests.support.temporary:app",
            http="zcresponse.uvicorn:ZeroCopyProtocol",
            loop="uvloop",
            env={"TEMPORARY_FILES": str(tmp_path)},
            python=("-X", "dev", "-W", "error"),
        )
    with start as server:
        with server.connect() as connection:
            for view in temporary.VIEWS:
                whole = connection.get(view)
                part = connection.get(view, ("Range", "bytes=1000-1999"))
                assert (whole.status, whole.body) == (200, temporary.CONTENT)
                assert (part.status, part.body) == (206, temporary.CONTENT[1000:2000])
            told = connection.get("/transfers").body
        wait_until(lambda: not list(tmp_path.iterdir()), what="the files to be deleted")
        assert told.count(b'"way":"sendfile"') == len(temporary.VIEWS)
        # Parts as small as these leave together with the head.
        assert told.count(b'"way":"joined"') == len(temporary.VIEWS)
        assert "Traceback" not in server.log()
