"""The client sees what a server does wrong, each thing shown by a little server that does it."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.servers import certificate
from tests.support.table import STATIC_CASES, make_files
from tests.support.wire import (
    BadChunk,
    BadHead,
    Connection,
    NoAnswer,
    PeerReset,
    ShortBody,
    SurplusBytes,
    TimedOut,
    WireError,
    check_on_wire,
    format_request,
)

OK = b"HTTP/1.1 200 OK\r\n"


@contextlib.contextmanager
def serving(talk: Callable[[socket.socket], object]) -> Iterator[int]:
    """A server for one connection, on a thread: `talk` has it until it returns, then it is closed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)

        def run() -> None:
            accepted, _ = listener.accept()
            with accepted:
                accepted.settimeout(10)
                talk(accepted)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            thread.join()


def read_request(sock: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\r\n\r\n") and (more := sock.recv(1)):
        data += more
    return data


def answering(*answers: bytes, then: str = "close") -> Callable[[socket.socket], None]:
    """Answers one request after the other; "wait" holds the connection until the client ends it."""

    def talk(sock: socket.socket) -> None:
        for answer in answers:
            read_request(sock)
            sock.sendall(answer)
        if then == "wait":
            with contextlib.suppress(ConnectionResetError):
                sock.recv(1)
        elif then == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return talk


def test_a_body_of_known_length_is_read_and_nothing_more() -> None:
    with serving(answering(OK + b"Content-Length: 5\r\n\r\nhello", then="wait")) as port, Connection(port) as client:
        response = client.get("/")
        assert (response.status, response.body, response.values("Content-Length")) == (200, b"hello", ["5"])
        assert response.head.keeps_alive
        assert client.nothing_pending()


def test_a_surplus_byte_is_pending() -> None:
    with serving(answering(OK + b"Content-Length: 5\r\n\r\nhello!", then="wait")) as port, Connection(port) as client:
        assert client.get("/").body == b"hello"
        assert not client.nothing_pending()
        with pytest.raises(SurplusBytes, match="'!'"):
            client.assert_nothing_pending()


def test_a_surplus_byte_that_comes_late_is_pending() -> None:
    read, late = threading.Event(), threading.Event()

    def talk(sock: socket.socket) -> None:
        answering(OK + b"Content-Length: 5\r\n\r\nhello")(sock)
        read.wait(10)
        sock.sendall(b"!")
        late.set()
        sock.recv(1)

    with serving(talk) as port, Connection(port) as client:
        assert client.get("/").body == b"hello"
        read.set()
        late.wait(10)
        assert not client.nothing_pending(grace=5)


def test_a_surplus_byte_breaks_the_next_answer() -> None:
    good = OK + b"Content-Length: 0\r\n\r\n"
    with serving(answering(good + b"!", good)) as port, Connection(port) as client:
        client.get("/")
        with pytest.raises(BadHead, match="'!"):
            client.get("/")


def test_a_body_to_head_breaks_the_next_answer() -> None:
    good = OK + b"Content-Length: 5\r\n\r\n"
    with serving(answering(good + b"hello", good)) as port, Connection(port) as client:
        assert client.request("HEAD", "/").body == b""
        with pytest.raises(BadHead, match="hello"):
            client.request("HEAD", "/")


def test_a_short_body_is_an_error() -> None:
    with serving(answering(OK + b"Content-Length: 6\r\n\r\nhello")) as port, Connection(port) as client:
        with pytest.raises(ShortBody) as failure:
            client.get("/")
        assert failure.value.received == 5


def test_a_body_that_never_ends_is_an_error() -> None:
    answer = OK + b"Content-Length: 6\r\n\r\nhello"
    with serving(answering(answer, then="wait")) as port, Connection(port, timeout=0.2) as client:
        with pytest.raises(TimedOut):
            client.get("/")


def test_a_reset_is_told_from_an_end() -> None:
    with serving(answering(OK + b"\r\nhello", then="reset")) as port, Connection(port) as client:
        client.send(format_request("GET", "/"))
        with pytest.raises(PeerReset):
            client.read_response()


def test_no_answer_is_told_from_a_broken_one() -> None:
    with serving(answering(b"")) as port, Connection(port) as client, pytest.raises(NoAnswer):
        client.get("/")


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 200\r\n\r\n",
        b"HTTP/1.1 200 OK\nX: y\r\n\r\n",
        b"\r\nHTTP/1.1 200 OK\r\n\r\n",
        OK + b"X : y\r\n\r\n",
        OK + b"X: y\r\n folded\r\n\r\n",
        OK + b"X: \x00\r\n\r\n",
        OK + b"no colon\r\n\r\n",
        OK + b"X: y\r\n",
        OK + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        OK + b"Content-Length: 1, 1\r\n\r\nx",
        OK + b"Content-Length: +1\r\n\r\nx",
        OK + b"Content-Length: 0x1\r\n\r\nx",
        OK + b"Content-Length: \r\n\r\n",
        OK + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        OK + b"Transfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_a_bad_head_is_an_error(head: bytes) -> None:
    with serving(answering(head)) as port, Connection(port) as client, pytest.raises(BadHead):
        client.get("/")


def test_chunks_are_put_together() -> None:
    body = b"5\r\nhello\r\n0;last=yes\r\nX-Trailer: t\r\n\r\n"
    answer = OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"A\r\n0123456789\r\n" + body
    with serving(answering(answer, then="wait")) as port, Connection(port) as client:
        assert client.get("/").body == b"0123456789hello"
        assert client.nothing_pending()


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"5\r\nhello!\r\n0\r\n\r\n", BadChunk),
        (b"6\r\nhello\r\n0\r\n\r\n", BadChunk),
        (b"five\r\nhello\r\n0\r\n\r\n", BadChunk),
        (b" 5\r\nhello\r\n0\r\n\r\n", BadChunk),
        (b"\r\n0\r\n\r\n", BadChunk),
        (b"5\nhello\r\n0\r\n\r\n", BadChunk),
        (b"5\r\nhello\r\n0\r\nnot a field\r\n\r\n", BadChunk),
        (b"5\r\nhello\r\n", ShortBody),
        (b"5\r\nhel", ShortBody),
        (b"5\r\nhello\r\n0\r\n", ShortBody),
    ],
)
def test_a_bad_chunk_is_an_error(body: bytes, error: type[WireError]) -> None:
    answer = OK + b"Transfer-Encoding: chunked\r\n\r\n" + body
    with serving(answering(answer)) as port, Connection(port) as client, pytest.raises(error):
        client.get("/")


def test_a_body_without_framing_ends_with_the_connection() -> None:
    with serving(answering(OK + b"\r\nhello")) as port, Connection(port) as client:
        response = client.get("/")
        assert (response.body, response.head.framing, response.head.keeps_alive) == (b"hello", "close", False)
        client.assert_closed()


def test_answers_without_a_body_have_none() -> None:
    answers = [
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\nok",
    ]
    with serving(answering(*answers, then="wait")) as port, Connection(port) as client:
        assert client.get("/").body == b""
        assert client.get("/").body == b""
        last = client.get("/")
        assert (last.body, [head.status for head in last.interim]) == (b"ok", [100])
        assert client.nothing_pending()


@pytest.mark.parametrize(
    ("head", "keeps"),
    [
        (b"HTTP/1.1 200 OK\r\n", True),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n", False),
        (b"HTTP/1.1 200 OK\r\nConnection: Upgrade, Close\r\n", False),
        (b"HTTP/1.0 200 OK\r\n", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n", True),
    ],
)
def test_whether_the_connection_is_kept_is_read(head: bytes, keeps: bool) -> None:
    with serving(answering(head + b"Content-Length: 0\r\n\r\n")) as port, Connection(port) as client:
        assert client.get("/").head.keeps_alive is keeps


def test_pipelined_answers_are_read_one_by_one() -> None:
    answers = [OK + b"Content-Length: 1\r\n\r\n%d" % number for number in range(3)]
    with serving(answering(*answers, then="wait")) as port, Connection(port) as client:
        client.send(format_request("GET", "/") * 3)
        assert [client.read_response().body for _ in range(3)] == [b"0", b"1", b"2"]
        assert client.nothing_pending()


def test_a_half_closed_client_goes_on_reading() -> None:
    def talk(sock: socket.socket) -> None:
        read_request(sock)
        assert sock.recv(1) == b""
        sock.sendall(OK + b"Content-Length: 5\r\n\r\nhello")

    with serving(talk) as port, Connection(port) as client:
        client.send(format_request("GET", "/"))
        client.half_close()
        assert client.read_response().body == b"hello"


def test_a_reset_reaches_the_server() -> None:
    seen: list[type[BaseException]] = []

    def talk(sock: socket.socket) -> None:
        read_request(sock)
        try:
            sock.recv(1)
        except ConnectionResetError as error:
            seen.append(type(error))

    with serving(talk) as port:
        client = Connection(port)
        client.send(format_request("GET", "/"))
        client.reset()
    assert seen == [ConnectionResetError]


def test_a_reader_that_stalls_stops_the_sender() -> None:
    sent: list[int] = []

    def talk(sock: socket.socket) -> None:
        read_request(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)
        sock.settimeout(0.2)
        with contextlib.suppress(TimeoutError):
            for _ in range(1000):
                sent.append(sock.send(bytes(64 * 1024)))

    with serving(talk) as port:
        client = Connection(port, receive_buffer=4096)
        client.send(format_request("GET", "/"))
    client.reset()
    assert 0 < sum(sent) < 1024 * 1024


def test_a_streamed_body_is_counted_and_handed_on() -> None:
    piece = bytes(range(256)) * 4096
    sent, received = hashlib.sha256(), hashlib.sha256()

    def talk(sock: socket.socket) -> None:
        read_request(sock)
        sock.sendall(OK + b"Content-Length: %d\r\n\r\n" % (64 * len(piece)))
        for _ in range(64):
            sock.sendall(piece)
            sent.update(piece)
        sock.recv(1)

    with serving(talk) as port, Connection(port) as client:
        streamed = client.stream("/", take=received.update)
        assert (streamed.status, streamed.count) == (200, 64 * len(piece))
        assert client.nothing_pending()
    assert received.digest() == sent.digest()


def test_raw_bytes_can_be_read_by_count() -> None:
    with serving(answering(OK + b"Content-Length: 5\r\n\r\nhello")) as port, Connection(port) as client:
        client.send(format_request("GET", "/"))
        assert client.read_head().length == 5
        assert client.receive_exactly(2) == b"he"
        assert client.receive(1) == b"l"
        assert client.read_to_end() == b"lo"
        with pytest.raises(ShortBody):
            client.receive_exactly(1)


def test_a_request_is_written_as_told() -> None:
    fields = [("rANGE", "bytes=0-\xb2"), ("X", "")]
    assert format_request("GET", "/a%20b", fields) == (
        b"GET /a%20b HTTP/1.1\r\nHost: localhost\r\nrANGE: bytes=0-\xb2\r\nX: \r\n\r\n"
    )
    assert format_request("POST", "/", version="1.0", host=None) == b"POST / HTTP/1.0\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize("orderly", [True, False])
def test_a_tls_stream_that_is_cut_is_told_from_one_that_ends(orderly: bool) -> None:
    made = certificate()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, made.key)

    def talk(sock: socket.socket) -> None:
        with context.wrap_socket(sock.dup(), server_side=True) as secure:
            read_request(secure)
            secure.sendall(OK + b"\r\nhello")
            if orderly:
                with contextlib.suppress(OSError):
                    secure.unwrap()

    with serving(talk) as port, Connection(port, tls=made.client_context()) as client:
        client.send(format_request("GET", "/"))
        if orderly:
            assert client.read_response().body == b"hello"
        else:
            with pytest.raises(ShortBody):
                client.read_response()


def test_a_case_on_the_wire_needs_the_second_answer(tmp_path: Path) -> None:
    files = make_files(tmp_path)
    case = next(case for case in STATIC_CASES if case.name == "an open range of an empty file")
    first = b"HTTP/1.1 416 No\r\nContent-Length: 0\r\nContent-Range: bytes */0\r\n"
    part = files.content("small.bin")[3:7]
    second = b"HTTP/1.1 206 Yes\r\nContent-Length: 4\r\nContent-Range: bytes 3-6/1024\r\n\r\n"
    with serving(answering(first + b"\r\n", second + part, then="wait")) as port, Connection(port) as client:
        check_on_wire(client, case, files)
    with serving(answering(first + b"Connection: close\r\n\r\n")) as port, Connection(port) as client:
        with pytest.raises(WireError, match="kept open"):
            check_on_wire(client, case, files)
    # Closed after the first answer: the second request meets the end, or a reset when it comes after the close.
    with serving(answering(first + b"\r\n")) as port, Connection(port) as client:
        with pytest.raises((NoAnswer, PeerReset)):
            check_on_wire(client, case, files)
    with serving(answering(first + b"\r\n", second + part[::-1])) as port, Connection(port) as client:
        with pytest.raises(WireError, match="second request"):
            check_on_wire(client, case, files)
    with serving(answering(first + b"\r\n" + second)) as port, Connection(port) as client:
        with pytest.raises(SurplusBytes):
            check_on_wire(client, case, files)
