"""The loops over bare sockets, and the clients of a benchmark: every byte of a file arrives, by each way."""

from __future__ import annotations

import random
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.kernel import trace_sendfile
from tests.support.servers import is_running, wait_until
from zcresponse.bench import clients, servers
from zcresponse.bench.raw import WAYS, send
from zcresponse.bench.servers import Server, ServerFailed
from zcresponse.bench.usage import processes

DATA = random.Random(1).randbytes(2_500_001)

linux = pytest.mark.skipif(sys.platform != "linux", reason="strace")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("files")
    (made / "a.bin").write_bytes(DATA)
    (made / "empty.bin").touch()
    return made


@pytest.fixture(scope="module")
def server(directory: Path) -> Iterator[Server]:
    with servers.raw("sendfile", directory) as server:
        yield server


def answer(way: str, directory: Path, request: bytes) -> bytes:
    ours, theirs = socket.socketpair()

    def work() -> None:
        with theirs:
            send(way, theirs, directory, request)

    thread = threading.Thread(target=work)
    thread.start()
    with ours, ours.makefile("rb") as stream:
        received = stream.read()
    thread.join()
    return received


@pytest.mark.parametrize("way", WAYS)
def test_a_way_sends_the_whole_file(directory: Path, way: str) -> None:
    head, _, body = answer(way, directory, b"GET /a.bin HTTP/1.1\r\nHost: x\r\n\r\n").partition(b"\r\n\r\n")
    assert head == b"HTTP/1.1 200 OK\r\nContent-Length: 2500001"
    assert body == DATA


@pytest.mark.parametrize("way", sorted(set(WAYS) - {"copyfileobj"}))
def test_a_way_sends_a_range(directory: Path, way: str) -> None:
    request = b"GET /a.bin HTTP/1.1\r\nHost: x\r\nRange: bytes=7-1000006\r\n\r\n"
    head, _, body = answer(way, directory, request).partition(b"\r\n\r\n")
    assert head == b"HTTP/1.1 206 Partial Content\r\nContent-Length: 1000000"
    assert body == DATA[7:1000007]


@pytest.mark.parametrize("way", WAYS)
def test_an_empty_file_is_an_empty_answer(directory: Path, way: str) -> None:
    request = b"GET /empty.bin HTTP/1.1\r\n\r\n"
    assert answer(way, directory, request) == b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def test_another_request_is_refused(directory: Path) -> None:
    with socket.socket() as unused, pytest.raises(ValueError, match="POST"):
        send("sendfile", unused, directory, b"POST / HTTP/1.1\r\n\r\n")


@linux
@pytest.mark.parametrize(("way", "moved"), [("sendfile", len(DATA)), ("socket.sendfile", len(DATA)), ("read-8KiB", 0)])
def test_sendfile_is_what_moves_the_bytes_where_it_says_so(directory: Path, way: str, moved: int) -> None:
    with servers.raw(way, directory) as server, trace_sendfile(server.pid) as trace:
        size, seconds = clients.download(server.port, "a.bin")
    assert size == len(DATA)
    assert seconds > 0
    assert trace.total_from(directory / "a.bin") == moved


def test_a_range_is_downloaded(server: Server) -> None:
    assert clients.download(server.port, "a.bin", "10-19")[0] == 10
    assert clients.repeat(server.port, "a.bin", 3) > 0


def test_downloads_are_kept_up_until_their_time(server: Server, directory: Path) -> None:
    # One connection, because this server has one at a time.
    assert clients.load(server.port, directory / "a.bin", 1, time.monotonic() + 0.2, cold=True) > 0
    assert len(clients.probe(server.port, "a.bin", time.monotonic(), time.monotonic() + 0.2)) > 0


def test_readers_go_on_at_the_beginning_when_they_come_to_the_end(server: Server) -> None:
    # Half a second is time for more than the file's two ranges.
    total = clients.read_ranges(server.port, "a.bin", len(DATA), 1, 1_000_000, time.monotonic() + 0.5)
    assert total > 0
    assert clients.download(server.port, "a.bin")[0] == len(DATA)


def test_an_error_and_an_end_before_the_end_are_errors() -> None:
    for said in (
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1",
    ):
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def serve(listener: socket.socket = listener, said: bytes = said) -> None:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(1000)
                    connection.sendall(said)

            thread = threading.Thread(target=serve)
            thread.start()
            with pytest.raises(ConnectionError, match=r"404|8 bytes before the end"):
                clients.download(listener.getsockname()[1], "a.bin")
            thread.join()


def test_a_server_that_ends_at_once_says_why() -> None:
    with (
        pytest.raises(ServerFailed, match="ended with 3: no such luck"),
        servers.run([sys.executable, "-c", "import sys; print('no such luck'); sys.exit(3)"]),
    ):
        pytest.fail("it runs")


@linux
def test_nothing_of_a_server_is_left(directory: Path) -> None:
    child = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"
    raw = f"{child}; sys.argv[1:] = ['sendfile', {str(directory)!r}]; from zcresponse.bench import raw; raw.main()"
    with servers.run([sys.executable, "-c", raw]) as server:
        found = processes(server.pid)
        assert len(found) == 2
    wait_until(lambda: not any(map(is_running, found)), what="both to end")
