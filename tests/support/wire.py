"""A strict HTTP/1.1 client on a plain socket: it sends exactly what it is told and believes nothing.

Ordinary clients forgive: they skip surplus bytes, close connections that went wrong and hide how a body was framed.
Here every deviation is an error with its own type, all of them `AssertionError`s, so that a test fails by itself.

A connection blocks, and every wait has the connection's time limit. Bytes that were received but not yet asked for stay
in the connection, so that pipelined answers and surplus bytes are never lost.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal

from tests.support.table import SMALL, Case, Files, Response, check, problems

__all__ = [
    "BadChunk",
    "BadHead",
    "Connection",
    "Head",
    "NoAnswer",
    "PeerReset",
    "ShortBody",
    "Streamed",
    "SurplusBytes",
    "TimedOut",
    "WireError",
    "WireResponse",
    "check_on_wire",
    "format_request",
]


class WireError(AssertionError):
    """The peer broke the protocol, or the connection ended where it must not.

    WireError
      BadHead         a status line or field line that RFC 9112 does not allow, or contradictory framing
      BadChunk        a chunk size or chunk end that is not one
      ShortBody       the connection was closed before the promised end of the body
      SurplusBytes    bytes arrived that belong to no answer
      NoAnswer        the connection was closed before the first byte of an answer
      PeerReset       the connection was reset
      TimedOut        nothing arrived for as long as the connection waits
    """


class BadHead(WireError):
    """The answer's head cannot be read or contradicts itself."""


class BadChunk(WireError):
    """The chunked coding is broken."""


class ShortBody(WireError):
    """The body ended early.

    Attributes:
        received: How many of its bytes came.
    """

    def __init__(self, message: str, received: int) -> None:
        super().__init__(message)
        self.received = received


class SurplusBytes(WireError):
    """Bytes that nobody asked for."""


class NoAnswer(WireError):
    """The connection ended where an answer should have begun."""


class PeerReset(WireError):
    """The peer sent a reset."""


class TimedOut(WireError):
    """The peer kept silent."""


Framing = Literal["none", "length", "chunked", "close"]


@dataclass(frozen=True, slots=True)
class Head:
    """The head of an answer.

    Attributes:
        version: "1.0" or "1.1".
        status: The status code.
        reason: The phrase after it, possibly empty.
        fields: Header pairs, names in lower case, values without the space around them.
        framing: How the body ends.
        length: Content-Length, when it frames the body.
    """

    version: str
    status: int
    reason: str
    fields: list[tuple[str, str]]
    framing: Framing
    length: int | None

    @property
    def keeps_alive(self) -> bool:
        """Whether the peer promises to take another request on this connection (RFC 9112 §9.3)."""
        options = {
            option.strip().lower() for name, value in self.fields if name == "connection" for option in value.split(",")
        }
        if self.framing == "close" or "close" in options:
            return False
        return self.version == "1.1" or "keep-alive" in options


@dataclass(frozen=True, slots=True)
class WireResponse(Response):
    """A whole answer, with what only a socket can tell.

    Attributes:
        head: The final head.
        interim: Heads of 1xx answers before it.
    """

    head: Head
    interim: list[Head] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Streamed:
    """A whole answer whose body was counted, not kept.

    Attributes:
        head: The final head.
        count: Bytes of the body.
    """

    head: Head
    count: int

    @property
    def status(self) -> int:
        """The status code."""
        return self.head.status


_STATUS_LINE = re.compile(rb"HTTP/(1\.[01]) ([1-9][0-9][0-9]) ([\t \x21-\x7e\x80-\xff]*)")
_VISIBLE = rb"[\x21-\x7e\x80-\xff]"
_VALUE = rb"(?:%b(?:[\t \x21-\x7e\x80-\xff]*%b)?)?" % (_VISIBLE, _VISIBLE)
_FIELD_LINE = re.compile(rb"([!#$%%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(%b)[ \t]*" % _VALUE)
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[\t \x21-\x7e]*)?")
_HEAD_LIMIT = 64 * 1024
_RECEIVE = 1024 * 1024


def format_request(
    method: str,
    target: str,
    fields: Iterable[tuple[str, str]] = (),
    body: bytes = b"",
    *,
    version: str = "1.1",
    host: str | None = "localhost",
) -> bytes:
    """The bytes of a request.

    Args:
        method: Any method.
        target: The request target, already percent-encoded.
        fields: Header pairs, sent as given; values are Latin-1.
        body: The body. Content-Length is added when there is one, and always for POST, PUT and PATCH.
        version: "1.1" or "1.0".
        host: The value of Host, or None for a request without one.
    """
    lines = [f"{method} {target} HTTP/{version}"]
    if host is not None:
        lines.append(f"Host: {host}")
    lines += [f"{name}: {value}" for name, value in fields]
    if body or method in ("POST", "PUT", "PATCH"):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


class Connection:
    """One TCP or TLS connection to a server on this machine; a context manager that closes it.

    Args:
        port: The server's port.
        host: The server's address.
        timeout: Seconds that any single wait may take.
        tls: A client context, for TLS.
        receive_buffer: SO_RCVBUF in bytes, set before connecting: a small one makes a reader that stalls the sender
            soon. The kernel doubles the number and has a floor of about 2 KiB.
    """

    def __init__(
        self,
        port: int,
        host: str = "127.0.0.1",
        *,
        timeout: float = 20.0,
        tls: ssl.SSLContext | None = None,
        receive_buffer: int | None = None,
    ) -> None:
        self._buffer = bytearray()
        self._scratch: bytearray | None = None
        self._ended = False
        self._ragged = False
        plain = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            plain.settimeout(timeout)
            if receive_buffer is not None:
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            plain.connect((host, port))
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # Not suppressing: only then can a TLS end without close_notify be told from an orderly one.
            self.socket: socket.socket = (
                plain
                if tls is None
                else tls.wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=False)
            )
        except BaseException:
            plain.close()
            raise

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket; unread bytes turn the close into a reset, as the kernel does."""
        self.socket.close()

    def reset(self) -> None:
        """End the connection by a reset, whatever is still to be sent or read."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def half_close(self) -> None:
        """Send the end of this side's stream and go on reading. Over TLS it is TCP's end, without close_notify."""
        # SSLSocket.shutdown would throw the TLS state away.
        socket.socket.shutdown(self.socket, socket.SHUT_WR)

    # --- sending ---

    def send(self, data: bytes) -> None:
        """Send exactly these bytes."""
        try:
            self.socket.sendall(data)
        except (ConnectionResetError, BrokenPipeError) as error:
            raise PeerReset(f"the peer reset the connection while {len(data)} bytes were sent") from error
        except TimeoutError as error:
            raise TimedOut(f"the peer did not take {len(data)} bytes in time") from error

    def request(
        self,
        method: str,
        target: str,
        fields: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
        *,
        version: str = "1.1",
        host: str | None = "localhost",
    ) -> WireResponse:
        """Send a request, see `format_request`, and read its whole answer."""
        self.send(format_request(method, target, fields, body, version=version, host=host))
        return self.read_response(method)

    def get(self, target: str, *fields: tuple[str, str]) -> WireResponse:
        """Send a GET and read its whole answer."""
        return self.request("GET", target, fields)

    def stream(
        self, target: str, *fields: tuple[str, str], take: Callable[[memoryview | bytes], object] = len
    ) -> Streamed:
        """Send a GET, hand the pieces of the answer's body to somebody, and count their bytes without keeping them."""
        self.send(format_request("GET", target, fields))
        return self.read_streamed(take=take)

    # --- reading ---

    def read_response(self, method: str = "GET") -> WireResponse:
        """Read one whole answer, with the 1xx answers before it.

        Args:
            method: The request's method; an answer to HEAD has no body.

        Raises:
            WireError: See its subclasses.
        """
        interim: list[Head] = []
        while (head := self.read_head(method)).status in range(100, 200) and head.status != 101:
            interim.append(head)
        body = b"".join(bytes(piece) for piece in self._body(head))
        return WireResponse(head.status, head.fields, body, head, interim)

    def read_streamed(self, method: str = "GET", *, take: Callable[[memoryview | bytes], object] = len) -> Streamed:
        """Read one whole answer, holding at most about 1 MiB of its body at a time.

        Args:
            method: The request's method.
            take: Is called with each piece, which is valid as long as the call.
        """
        while (head := self.read_head(method)).status in range(100, 200) and head.status != 101:
            pass
        count = 0
        for piece in self._body(head):
            count += len(piece)
            take(piece)
        return Streamed(head, count)

    def read_head(self, method: str = "GET") -> Head:
        """Read a status line and fields, leaving the body to the caller.

        Args:
            method: The request's method.

        Raises:
            BadHead: The head breaks RFC 9112 §4 and §5, or its framing §6.
            NoAnswer: The connection ended before its first byte.
        """
        if not self._buffer and not self._fill():
            raise NoAnswer("the connection was closed before an answer")
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            # Surplus bytes of the answer before show here first, and need not wait for an end that never comes.
            if not b"HTTP/1.".startswith(self._buffer[:7]):
                raise BadHead(f"the answer begins with {bytes(self._buffer[:80])!r}")
            if len(self._buffer) > _HEAD_LIMIT:
                raise BadHead(f"the head has no end within {_HEAD_LIMIT} bytes: {bytes(self._buffer[:80])!r}")
            if not self._fill():
                raise BadHead(f"the connection was closed within the head {bytes(self._buffer)!r}")
        head = bytes(self._buffer[:end])
        del self._buffer[: end + 4]
        return _parse_head(head, method)

    def receive(self, most: int) -> bytes:
        """At least one and at most so many raw bytes, whatever they mean; none at the end of the stream."""
        if not self._buffer:
            self._fill(most)
        data = bytes(self._buffer[:most])
        del self._buffer[:most]
        return data

    def receive_exactly(self, count: int) -> bytes:
        """Exactly so many raw bytes.

        Raises:
            ShortBody: The stream ended before them.
        """
        if count > _RECEIVE:
            # The reader of so many bytes does not stall any more, and is done in half the time.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE)
        while len(self._buffer) < count:
            if not self._fill(count - len(self._buffer)):
                raise ShortBody(f"{len(self._buffer)} of {count} bytes came", len(self._buffer))
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    def read_to_end(self) -> bytes:
        """All raw bytes until the peer closes.

        Raises:
            PeerReset: The peer reset the connection instead.
        """
        while self._fill():
            pass
        data = bytes(self._buffer)
        self._buffer.clear()
        return data

    # --- what is not there ---

    def nothing_pending(self, grace: float = 0.02) -> bool:
        """Whether no unasked byte has arrived, or arrives within a short grace.

        The grace can only miss bytes that come late, never see some that did not come. What proves the absence of
        surplus bytes is a second request on the same connection: its answer's head would begin with them.

        Args:
            grace: Seconds to look for.
        """
        if self._buffer:
            return False
        limit = time.monotonic() + grace
        before = self.socket.gettimeout()
        self.socket.settimeout(0)
        try:
            # A readable TLS socket may hold no data at all (session tickets), so one look is not enough.
            while not self._ended and not self._buffer:
                with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError):
                    self._fill()
                    continue
                left = limit - time.monotonic()
                if left <= 0 or not select.select([self.socket], [], [], left)[0]:
                    break
        finally:
            self.socket.settimeout(before)
        return not self._buffer

    def assert_nothing_pending(self, grace: float = 0.02) -> None:
        """Fail when `nothing_pending` is false, showing the bytes.

        Raises:
            SurplusBytes: Bytes arrived that belong to no answer.
        """
        if not self.nothing_pending(grace):
            raise SurplusBytes(f"{len(self._buffer)} or more surplus bytes: {bytes(self._buffer[:80])!r}")

    def assert_closed(self) -> None:
        """Wait for the peer to close in good order, with nothing before it.

        Raises:
            SurplusBytes: A byte came.
            PeerReset: A reset came.
            TimedOut: Nothing came.
        """
        if self._fill() or self._buffer:
            raise SurplusBytes(f"{bytes(self._buffer[:80])!r} came instead of the end")

    # --- inner parts ---

    def _fill(self, most: int = _RECEIVE) -> bool:
        """Receive once into the buffer; False at the end of the stream."""
        data = self._receive(min(most, _RECEIVE))
        self._buffer += data
        return bool(data)

    def _receive(self, most: int) -> memoryview:
        if self._scratch is None:
            self._scratch = bytearray(_RECEIVE)
        view = memoryview(self._scratch)
        if self._ended:
            return view[:0]
        try:
            if hasattr(socket, "TCP_QUICKACK"):
                # It does not last. A server that writes in small pieces waits 40 ms for each delayed acknowledgement.
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            count = self.socket.recv_into(view, most)
        except ConnectionResetError as error:
            raise PeerReset("the peer reset the connection") from error
        except TimeoutError as error:
            raise TimedOut(f"nothing came for {self.socket.gettimeout()} s") from error
        except ssl.SSLEOFError:
            self._ragged = True
            count = 0
        if count == 0:
            self._ended = True
        return view[:count]

    def _body(self, head: Head) -> Iterator[memoryview | bytes]:
        """The body's pieces; a piece is valid until the next one is asked for."""
        if head.framing == "length":
            assert head.length is not None
            yield from self._counted(head.length, head.length, 0)
        elif head.framing == "chunked":
            yield from self._chunks()
        elif head.framing == "close":
            if self._buffer:
                yield self.receive(len(self._buffer))
            received = 0
            while data := self._receive(_RECEIVE):
                received += len(data)
                yield data
            if self._ragged:
                raise ShortBody("the TLS stream was cut, which no close-delimited body survives", received)

    def _counted(self, count: int, promised: int, before: int) -> Iterator[memoryview | bytes]:
        left = count
        if self._buffer and left:
            data = self.receive(min(left, len(self._buffer)))
            left -= len(data)
            yield data
        while left:
            piece = self._receive(min(left, _RECEIVE))
            if not piece:
                received = before + count - left
                raise ShortBody(f"the connection was closed after {received} of {promised} bytes of body", received)
            left -= len(piece)
            yield piece

    def _chunks(self) -> Iterator[memoryview | bytes]:
        received = 0
        while True:
            line = self._line(received)
            found = _CHUNK_LINE.fullmatch(line)
            if found is None:
                raise BadChunk(f"{line[:80]!r} is no chunk size, after {received} bytes of body")
            size = int(found[1], 16)
            if size == 0:
                break
            yield from self._counted(size, received + size, received)
            received += size
            if (end := self._exactly_two(received)) != b"\r\n":
                raise BadChunk(f"the chunk of {size} bytes ends with {end!r}, after {received} bytes of body")
        while line := self._line(received):
            if not _FIELD_LINE.fullmatch(line):
                raise BadChunk(f"{line[:80]!r} is no trailer field")

    def _exactly_two(self, received: int) -> bytes:
        while len(self._buffer) < 2:
            if not self._fill():
                raise ShortBody(f"the connection was closed at the end of a chunk, after {received} bytes", received)
        data = bytes(self._buffer[:2])
        del self._buffer[:2]
        return data

    def _line(self, received: int) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > 4096:
                raise BadChunk(f"no end of line after {bytes(self._buffer[:80])!r}")
            if not self._fill():
                raise ShortBody(f"the connection was closed between chunks, after {received} bytes of body", received)
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line


def _parse_head(head: bytes, method: str) -> Head:
    status_line, *lines = head.split(b"\r\n")
    found = _STATUS_LINE.fullmatch(status_line)
    if found is None:
        raise BadHead(f"{status_line[:80]!r} is no status line")
    fields: list[tuple[str, str]] = []
    for line in lines:
        match = _FIELD_LINE.fullmatch(line)
        if match is None:
            raise BadHead(f"{line[:80]!r} is no field line")
        fields.append((match[1].decode("ascii").lower(), match[2].decode("latin-1")))
    status = int(found[2])
    framing, length = _framing(status, method, fields)
    return Head(found[1].decode(), status, found[3].decode("latin-1"), fields, framing, length)


def _framing(status: int, method: str, fields: list[tuple[str, str]]) -> tuple[Framing, int | None]:
    """How the body ends, by RFC 9112 §6.3, refusing what a recipient could only guess at."""
    lengths = [value for name, value in fields if name == "content-length"]
    codings = [value for name, value in fields if name == "transfer-encoding"]
    if len(lengths) > 1:
        raise BadHead(f"several Content-Length fields: {lengths}")
    if lengths and not re.fullmatch(r"[0-9]{1,19}", lengths[0]):
        raise BadHead(f"Content-Length is {lengths[0]!r}")
    if lengths and codings:
        raise BadHead(f"both Content-Length {lengths} and Transfer-Encoding {codings}")
    if codings and [coding.lower() for coding in codings] != ["chunked"]:
        raise BadHead(f"Transfer-Encoding is {codings}")
    if status < 200 or status == 204:
        if lengths or codings:
            raise BadHead(f"a {status} has no body to frame, but {lengths or codings}")
        return "none", None
    if method == "HEAD" or status == 304:
        return "none", None
    if codings:
        return "chunked", None
    if lengths:
        return "length", int(lengths[0])
    return "close", None


def check_on_wire(
    connection: Connection, case: Case, files: Files, *, static: bool = False, prefix: str = "", again: bool = True
) -> WireResponse:
    """Run a case of the table on a connection, and then a second request on the same one.

    The second request is what proves that the first answer ended where its framing says.

    Args:
        connection: A connection on which no answer is owed.
        case: The row.
        files: The files served.
        static: See `Case.url_path`.
        prefix: Stands before the path, for an application that is mounted somewhere.
        again: Whether the connection has to stay open and take the second request.

    Returns:
        The first answer.

    Raises:
        AssertionError: The first answer is wrong, surplus bytes follow it, or the second is wrong.
    """
    __tracebackhide__ = True
    target = prefix + case.url_path(static=static)
    connection.send(format_request(case.method, target, case.fields))
    response = connection.read_response(case.method)
    check(case, response, files)
    connection.assert_nothing_pending(grace=0)
    if again:
        if not response.head.keeps_alive:
            raise WireError(f"{case.name}: the connection is not kept open: {response.fields}")
        second = connection.get(prefix + _SECOND.url_path(static=static), *_SECOND.fields)
        if found := problems(_SECOND, second, files):
            raise WireError(f"{case.name}: the second request on the connection: " + "; ".join(found))
        connection.assert_nothing_pending(grace=0)
    return response


_SECOND = Case(
    "the second request",
    "GET",
    (("Range", "bytes=3-6"),),
    SMALL.name,
    206,
    (("content-length", "4"), ("content-range", f"bytes 3-6/{SMALL.size}")),
    ((3, 7),),
)
