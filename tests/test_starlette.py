from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from tests.support.doors import starlette_app
from tests.support.table import CASES, FILES, Case, Files, check
from tests.support.table import Response as Answer
from zcresponse import Transfer
from zcresponse.errors import NotARegularFileError
from zcresponse.starlette import ZeroCopyFileResponse, install
from zcresponse.testing import PathsendServer, record_transfers

View = Callable[[Request], Awaitable[Response]]

DATA = FILES["data.bin"]
LARGE = FILES["large.bin"]


def app_with(response: Callable[[], Response], *middleware: Middleware, methods: list[str] | None = None) -> Starlette:
    async def view(request: Request) -> Response:
        return response()

    return Starlette(routes=[Route("/", view, methods=methods)], middleware=list(middleware))


def answer_of(response: Any) -> Answer:
    return Answer.of(response.status_code, response.headers.multi_items(), response.content)


@pytest.fixture(params=["chunks", "pathsend", "plain pathsend"])
def server_side(request: pytest.FixtureRequest) -> Callable[[ASGIApp], ASGIApp]:
    """What a test client's server offers."""
    if request.param == "chunks":
        return lambda app: app
    return lambda app: PathsendServer(app, ranges=request.param == "pathsend")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_table_passes_in_the_test_client(
    case: Case, files: Files, server_side: Callable[[ASGIApp], ASGIApp], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TABLE_FILES", str(files.directory))
    client = TestClient(server_side(starlette_app()), headers={"accept-encoding": "identity"})
    check(case, answer_of(client.request(case.method, case.url_path(), headers=case.raw_fields)), files)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("name", ["data.bin", "large.bin", "empty.bin"])
def test_httpx_asgi_transport_gets_the_file_on_both_backends(backend: str, name: str, files: Files) -> None:
    app = app_with(lambda: ZeroCopyFileResponse(files.path(name)))

    async def fetch() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver") as client:
            return await client.get("/")

    response = anyio.run(fetch, backend=backend)
    assert response.content == files.content(name)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_test_client_gets_the_file_on_both_backends(backend: Any, files: Files) -> None:
    client = TestClient(app_with(lambda: ZeroCopyFileResponse(files.path("large.bin"))), backend=backend)
    assert client.get("/").content == files.content("large.bin")


STACKS = {
    "gzip": [Middleware(GZipMiddleware)],
    "base": [Middleware(BaseHTTPMiddleware, dispatch=lambda request, call_next: call_next(request))],
    "both": [
        Middleware(GZipMiddleware),
        Middleware(BaseHTTPMiddleware, dispatch=lambda request, call_next: call_next(request)),
    ],
}


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("fields", [{}, {"range": "bytes=5-99"}, {"range": "bytes=0-9,50-59"}], ids=str)
def test_stock_middleware_passes_the_body(
    stack: str, fields: dict[str, str], files: Files, server_side: Callable[[ASGIApp], ASGIApp]
) -> None:
    bare = TestClient(app_with(lambda: ZeroCopyFileResponse(files.path("data.bin"))))
    wrapped = TestClient(
        server_side(app_with(lambda: ZeroCopyFileResponse(files.path("data.bin")), *STACKS[stack])),
    )
    expected, response = bare.get("/", headers=fields), wrapped.get("/", headers=fields)
    assert response.status_code == expected.status_code
    if "," not in fields.get("range", ""):
        assert response.content == expected.content
    else:
        assert len(response.content) == len(expected.content)


@pytest.mark.parametrize("fields", [{}, {"range": "bytes=1-2"}, {"if-none-match": DATA.etag}], ids=str)
def test_what_others_set_on_the_response_survives_every_status(fields: dict[str, str], files: Files) -> None:
    def response() -> Response:
        response = ZeroCopyFileResponse(files.path("data.bin"), headers={"X-View": "1"})
        response.headers["X-Later"] = "2"
        response.headers.append("Vary", "Cookie")
        response.set_cookie("session", "abc")
        response.set_cookie("other", "def")
        return response

    answer = TestClient(app_with(response)).get("/", headers=fields)
    assert answer.status_code == {0: 200, 1: {"range": 206}.get(next(iter(fields), ""), 304)}[len(fields)]
    assert (answer.headers["x-view"], answer.headers["x-later"], answer.headers["vary"]) == ("1", "2", "Cookie")
    assert [value.split(";")[0] for value in answer.headers.get_list("set-cookie")] == ["session=abc", "other=def"]


def test_a_given_etag_wins_and_is_compared(files: Files) -> None:
    client = TestClient(app_with(lambda: ZeroCopyFileResponse(files.path("data.bin"), headers={"ETag": '"v1"'})))
    assert client.get("/").headers.get_list("etag") == ['"v1"']
    assert client.get("/", headers={"if-none-match": '"v1"'}).status_code == 304
    assert client.get("/", headers={"if-none-match": DATA.etag}).status_code == 200


def test_the_parameters_are_those_of_file_response_in_its_order() -> None:
    import inspect

    ours = list(inspect.signature(ZeroCopyFileResponse.__init__).parameters.values())
    # Before 1.0 there was a `method`, which did nothing but tell HEAD.
    theirs = [p for p in inspect.signature(FileResponse.__init__).parameters.values() if p.name != "method"]
    assert [(p.name, p.default) for p in ours[: len(theirs)]] == [(p.name, p.default) for p in theirs]
    assert all(p.kind in (p.KEYWORD_ONLY, p.VAR_KEYWORD) for p in ours[len(theirs) :])


def test_a_stat_result_is_not_trusted(files: Files, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"x")
    client = TestClient(
        app_with(lambda: ZeroCopyFileResponse(files.path("data.bin"), stat_result=os.stat(other), filename="a.bin"))
    )
    response = client.get("/")
    assert response.headers["content-length"] == str(DATA.size)
    assert response.headers["etag"] == DATA.etag
    assert response.content == files.content("data.bin")


def test_a_missing_file_is_file_not_found_before_anything_is_sent(tmp_path: Path) -> None:
    client = TestClient(app_with(lambda: ZeroCopyFileResponse(tmp_path / "missing")))
    with pytest.raises(FileNotFoundError):
        client.get("/")


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotARegularFileError):
        TestClient(app_with(lambda: ZeroCopyFileResponse(tmp_path))).get("/")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"max_age": -1}, "max_age"),
        ({"content_disposition_type": "at tach"}, "content_disposition_type"),
        ({"max_age": 1, "no_store": True}, "no_store"),
        ({"media_type": "text/html\r\nX-Evil: 1"}, "media_type"),
        ({"etag": 'a"b'}, "etag"),
        ({"offset": -1}, "offset"),
        ({"last_modified": "x"}, "last_modified"),
        ({"headers": {"X-A": "b\r\nEvil: 1"}}, "headers"),
    ],
    ids=str,
)
def test_a_mistake_of_the_caller_is_told_at_once(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        ZeroCopyFileResponse("file", **arguments)


def test_a_window_has_its_own_etag_and_ranges(files: Files) -> None:
    client = TestClient(app_with(lambda: ZeroCopyFileResponse(files.path("data.bin"), offset=100, count=50)))
    content = files.content("data.bin")
    whole = client.get("/")
    assert whole.content == content[100:150]
    assert whole.headers["etag"] == f'{DATA.etag[:-1]}-64-32"'
    part = client.get("/", headers={"range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, content[110:120])
    assert part.headers["content-range"] == "bytes 10-19/50"


def opened(path: Path, **how: Any) -> Iterator[Any]:
    yield path
    yield os.fspath(path)
    yield os.fsencode(path)
    yield path.open("rb")
    yield path.open("rb", buffering=0)
    yield path.open("r+b")
    yield os.open(path, os.O_RDONLY)
    copy = tempfile.NamedTemporaryFile()  # noqa: SIM115 - the response closes it
    copy.write(path.read_bytes())
    yield copy


def test_every_kind_of_file_is_sent_and_closed(files: Files, server_side: Callable[[ASGIApp], ASGIApp]) -> None:
    for given in opened(files.path("data.bin")):
        client = TestClient(server_side(app_with(lambda given=given: ZeroCopyFileResponse(given))))  # type: ignore[misc]
        assert client.get("/").content == files.content("data.bin")
        if isinstance(given, int):
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(given)
        elif not isinstance(given, str | bytes | Path):
            assert given.closed


def test_a_file_that_is_not_ours_stays_open(files: Files) -> None:
    with files.path("data.bin").open("rb") as file:
        file.seek(17)
        client = TestClient(app_with(lambda: ZeroCopyFileResponse(file, closefd=False)))
        for _ in range(2):
            assert client.get("/").content == files.content("data.bin")
        assert file.tell() == 17


@pytest.mark.parametrize("given", [io.BytesIO(b"x"), 3.5, None, {}, True])
def test_what_is_no_file_is_a_type_error_at_once(given: Any) -> None:
    with pytest.raises(TypeError, match="path_or_file"):
        ZeroCopyFileResponse(given)


@pytest.mark.parametrize(
    "arguments",
    [
        {"disposition": "inline"},
        {"etagg": 1},
        {"on_transfer": 3},
        {"sendfile": "off"},
        {"etag": 5},
        {"filename": 5},
        {"media_type": 5},
        {"content_disposition_type": 5},
    ],
    ids=str,
)
def test_a_word_or_type_that_cannot_be_meant_is_a_type_error_at_once(arguments: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=next(iter(arguments))):
        ZeroCopyFileResponse("file", **arguments)


def test_background_runs_after_the_body_and_may_delete_the_file(
    tmp_path: Path, server_side: Callable[[ASGIApp], ASGIApp]
) -> None:
    path = tmp_path / "temporary"
    path.write_bytes(b"t" * 300_000)
    app = app_with(lambda: ZeroCopyFileResponse(path, background=BackgroundTask(path.unlink)))
    with record_transfers() as transfers:
        assert TestClient(server_side(app)).get("/").content == b"t" * 300_000
    assert not path.exists()
    # A server that is only told the path could open it after it was deleted.
    assert [(transfer.reason, transfer.completed) for transfer in transfers] in (
        [("the server offers no http.response.pathsend", True)],
        [("expanded by zcresponse.testing", True)],
        [("a file that may be removed after sending needs its descriptor", True)],
    )


def test_background_runs_when_the_client_left(files: Files) -> None:
    ran: list[bool] = []
    response = ZeroCopyFileResponse(files.path("large.bin"), background=BackgroundTask(lambda: ran.append(True)))
    sent = 0

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        nonlocal sent
        sent += len(message.get("body", b""))
        await anyio.sleep(0)

    scope = {"type": "http", "method": "GET", "headers": [], "asgi": {"spec_version": "2.3"}}
    with record_transfers() as transfers:
        anyio.run(lambda: response(scope, receive, send))
    assert ran == [True]
    assert sent < LARGE.size
    (transfer,) = transfers
    assert (transfer.completed, transfer.bytes_sent, transfer.bytes_promised) == (False, sent, LARGE.size)


def test_a_send_that_fails_means_that_the_client_left_since_asgi_2_4(files: Files) -> None:
    ran: list[bool] = []
    response = ZeroCopyFileResponse(files.path("large.bin"), background=BackgroundTask(lambda: ran.append(True)))

    async def receive() -> dict[str, Any]:
        await anyio.sleep_forever()
        raise AssertionError

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            raise BrokenPipeError

    def scope(version: str) -> dict[str, Any]:
        return {"type": "http", "method": "GET", "headers": [], "asgi": {"spec_version": version}}

    anyio.run(lambda: response(scope("2.4"), receive, send))
    assert ran == [True]
    with pytest.raises(BrokenPipeError):
        anyio.run(lambda: response(scope("2.3"), receive, send))


def test_events_reach_the_callable_and_a_failing_one_changes_nothing(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[Transfer] = []

    def listener(transfer: Transfer) -> None:
        heard.append(transfer)
        raise RuntimeError("listener")

    app = app_with(lambda: ZeroCopyFileResponse(files.path("data.bin"), on_transfer=listener))
    response = TestClient(app).get("/")
    assert response.content == files.content("data.bin")
    (transfer,) = heard
    assert (transfer.way, transfer.status, transfer.bytes_sent, transfer.completed) == ("chunks", 200, DATA.size, True)
    assert "on_transfer" in caplog.text


def test_a_websocket_handshake_can_be_answered_with_a_file(files: Files) -> None:
    messages: list[Any] = []

    async def receive() -> dict[str, Any]:
        await anyio.sleep_forever()
        raise AssertionError

    async def send(message: Any) -> None:
        messages.append(message)

    response = ZeroCopyFileResponse(files.path("small.bin"), status_code=403)
    scope = {"type": "websocket", "headers": [], "extensions": {"websocket.http.response": {}}}
    anyio.run(lambda: response(scope, receive, send))
    assert [message["type"] for message in messages] == [
        "websocket.http.response.start",
        "websocket.http.response.body",
    ]
    assert messages[0]["status"] == 403
    assert messages[1]["body"] == files.content("small.bin")


def test_install_wraps_once_and_only_before_the_first_request(files: Files) -> None:
    app = app_with(lambda: ZeroCopyFileResponse(files.path("data.bin")))
    install(app)
    install(app)
    assert TestClient(app).get("/").content == files.content("data.bin")
    with pytest.raises(RuntimeError, match="before"):
        install(app)


def test_install_takes_the_options_of_the_middleware(files: Files) -> None:
    def stock(request: Request) -> Response:
        return FileResponse(files.path("data.bin"))

    app = Starlette(routes=[Route("/", stock)])
    install(app, conditional=True, x_sendfile=iter([files.directory]))
    client = TestClient(app)
    tag = client.get("/").headers["etag"]
    assert client.get("/", headers={"If-None-Match": tag}).status_code == 304
    with pytest.raises(FileNotFoundError, match="x_sendfile"):
        install(Starlette(), x_sendfile=["/nothing/there"])
    with pytest.raises(ValueError, match="stall_timeout_s"):
        install(Starlette(), stall_timeout_s=-1)
