from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http.wsgi import FileWrapper, Response

from tests.support.between import FILE
from tests.support.kernel import trace_syscalls
from tests.support.servers import Server, gunicorn, workers
from zcresponse.files import open_file
from zcresponse.files.positioned import PositionedFile
from zcresponse.wsgi.gunicorn import _Joining, join_to_head, sends_no_more

SIZE = 100_000
SMALL = os.urandom(1000)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(SIZE))
    return path


class Connection:
    """Tells what gunicorn would have sent by sendfile."""

    def __init__(self) -> None:
        self.moved: list[tuple[int, int]] = []

    def sendall(self, data: bytes) -> None:
        """The head."""

    def sendfile(self, file: Any, offset: int, count: int) -> None:
        # As `socket.sendfile`, a few calls deeper.
        (lambda: os.fstat(file.fileno()))()
        self.moved.append((offset, count))


def moved(path: Path, start: int, stop: int, length: int | None) -> list[tuple[int, int]]:
    """What gunicorn's own code moves of a region when it was told this Content-Length."""
    connection = Connection()
    request = SimpleNamespace(method="GET", version=(1, 1), should_close=lambda: False)
    response = Response(request, connection, Config())
    response.start_response("206 Partial", [] if length is None else [("Content-Length", str(length))])
    with open_file(path) as file:
        positioned = PositionedFile(file.region(start, stop), lambda _: None, sends_no_more)
        assert response.sendfile(FileWrapper(positioned)) is bool(connection.moved)
        positioned.close()
    return connection.moved


@pytest.mark.parametrize(("start", "stop"), [(0, 10), (5, 1000), (0, SIZE - 1)])
def test_gunicorn_is_given_a_part_whose_length_it_was_told(path: Path, start: int, stop: int) -> None:
    assert moved(path, start, stop, stop - start) == [(start, stop - start)]


@pytest.mark.parametrize("length", [None, 0, 4, 6, SIZE])
def test_gunicorn_is_given_no_part_of_another_length(path: Path, length: int | None) -> None:
    assert moved(path, 5, 10, length) == []


@pytest.mark.parametrize("start", [0, 5])
def test_what_goes_on_to_the_end_of_the_file_needs_no_length(path: Path, start: int) -> None:
    assert moved(path, start, SIZE, None) == [(start, SIZE - start)]


def asked_at_once(file: PositionedFile) -> int:
    return file.fileno()


def asked_deep_down(file: PositionedFile, depth: int = 20) -> int:
    return asked_deep_down(file, depth - 1) if depth else file.fileno()


@pytest.mark.parametrize("asks", [asked_at_once, asked_deep_down])
def test_nobody_else_is_given_a_part(path: Path, asks: Callable[[PositionedFile], int]) -> None:
    with open_file(path) as file:
        part = PositionedFile(file.region(5, 10), lambda _: None, sends_no_more)
        with pytest.raises(io.UnsupportedOperation, match="it is to be read"):
            asks(part)
        assert (part.tell(), len(part.read())) == (5, 5)
        whole = PositionedFile(file.region(), lambda _: None, sends_no_more)
        assert asks(whole) == file.fileno()


def test_a_file_that_has_grown_is_a_part(path: Path) -> None:
    with open_file(path) as file:
        positioned = PositionedFile(file.region(), lambda _: None, sends_no_more)
        path.write_bytes(bytes(SIZE + 1))
        with pytest.raises(io.UnsupportedOperation):
            positioned.fileno()


# --- head and body in one call ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["sync", "gthread"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    path = tmp_path_factory.mktemp("between") / "small.bin"
    path.write_bytes(SMALL)
    with gunicorn("tests.support.between:app", worker_class=request.param, env={FILE: str(path)}) as server:
        yield server


@pytest.mark.parametrize(
    ("between", "writes"),
    [
        ("nothing", 1),
        ("passing", 1),
        ("traced", 1),
        ("other-start-response", 2),
        ("without-length", 3),
        ("in-pieces", 3),
    ],
)
def test_a_small_body_leaves_together_with_its_head(server: Server, between: str, writes: int) -> None:
    (worker,) = workers(server.pid)
    with server.connect() as client:
        assert client.get(f"/{between}").body == SMALL
    with server.connect() as client, trace_syscalls(worker, names=("sendto",)) as trace:
        assert client.get(f"/{between}").body == SMALL
    assert trace.counts["sendto"] == writes


@pytest.mark.parametrize(
    "between",
    ["nothing", "passing", "traced", "get-of-head", "other-start-response", "without-length", "in-pieces"],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_answers_follow_each_other_on_a_connection(server: Server, between: str, method: str) -> None:
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(server.connect())
        for _ in range(3):
            answer = client.request(method, f"/{between}")
            assert (answer.status, answer.body) == (200, SMALL if method == "GET" else b"")
            client.assert_nothing_pending()
            if not answer.head.keeps_alive:
                client.close()
                client = stack.enter_context(server.connect())


@pytest.mark.parametrize("between", ["emptied", "emptied-and-open"])
def test_a_head_whose_body_does_not_come_is_sent_all_the_same(server: Server, between: str) -> None:
    with server.connect() as client:
        client.send(f"GET /{between} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        assert client.read_to_end().startswith(b"HTTP/1.1 200 OK\r\n")


class Wire:
    """A connection that keeps what is sent, call by call."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def sendall(self, data: bytes) -> None:
        self.sent.append(data)

    def fileno(self) -> int:
        self.sent.append(b"asked")
        return 7


def started(wire: Wire, *fields: tuple[str, str], method: str = "GET") -> Any:
    """gunicorn's own response, as it is when an application has called `start_response`."""
    request = SimpleNamespace(method=method, version=(1, 1), should_close=lambda: False)
    response = Response(request, wire, Config())
    response.start_response("200 OK", [*fields])
    return response


def test_nothing_is_kept_beyond_the_one_write() -> None:
    wire = Wire()
    response = started(wire, ("Content-Length", "3"))
    assert join_to_head(response.start_response, 3) is not None
    assert wire.sent == []
    response.write(b"abc")
    (sent,) = wire.sent
    assert sent.startswith(b"HTTP/1.1 200 OK\r\n")
    assert sent.endswith(b"\r\n\r\nabc")
    assert response.sock is wire
    assert "write" not in vars(response)
    response.write(b"")
    response.close()
    assert wire.sent == [sent]


def test_a_head_without_its_body_is_not_kept() -> None:
    wire = Wire()
    response = started(wire, ("Content-Length", "3"))
    ended = join_to_head(response.start_response, 3)
    # As at the end of an answer whose body somebody has taken out.
    response.close()
    assert len(wire.sent) == 1
    assert ended is not None
    ended()
    assert "write" not in vars(response)


def test_gunicorns_own_view_of_a_head_request_is_heeded() -> None:
    wire = Wire()
    response = started(wire, ("Content-Length", "3"), method="HEAD")
    join_to_head(response.start_response, 3)
    # A middleware has made a GET of it.
    response.write(b"abc")
    (head,) = wire.sent
    assert head.endswith(b"\r\n\r\n")


def test_what_was_to_be_sent_before_an_error_is_sent() -> None:
    wire = Wire()
    response = started(wire, ("Content-Length", "3"))
    join_to_head(response.start_response, 3)
    with pytest.raises(TypeError):
        response.write("abc")
    assert response.sock is wire
    assert len(wire.sent) == 1


def test_what_else_is_done_with_a_connection_comes_after_what_was_sent() -> None:
    wire = Wire()
    joining = _Joining(wire)
    joining.sendall(b"a")
    joining.sendall(b"b")
    assert joining.fileno() == 7
    joining.sendall(b"c")
    joining.send_on()
    joining.send_on()
    assert wire.sent == [b"ab", b"asked", b"c"]


@pytest.mark.parametrize("fields", [(), (("Content-Length", "4"),), (("Transfer-Encoding", "chunked"),)])
def test_a_body_of_another_length_is_not_joined(fields: tuple[tuple[str, str], ...]) -> None:
    assert join_to_head(started(Wire(), *fields).start_response, 3) is None


def test_a_head_that_is_sent_is_not_waited_for() -> None:
    wire = Wire()
    response = started(wire, ("Content-Length", "3"))
    response.send_headers()
    assert join_to_head(response.start_response, 3) is None


@pytest.mark.parametrize("start_response", [None, lambda *said: None, [].append])
def test_nobody_elses_response_is_touched(start_response: Any) -> None:
    assert join_to_head(start_response, 3) is None
