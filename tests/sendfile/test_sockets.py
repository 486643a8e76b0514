from __future__ import annotations

import contextlib
import errno
import gzip
import io
import os
import random
import select
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.kernel import trace_syscalls
from tests.support.servers import certificate
from zcresponse.sendfile import sendfile, sockets

MIB = 1024 * 1024
CONTENT = random.Random("sendfile").randbytes(MIB + 17)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


class Received:
    """A connected socket to send to, and all that comes out of its other end."""

    def __init__(self, family: int) -> None:
        if family == socket.AF_INET:
            with socket.create_server(("127.0.0.1", 0)) as listening:
                self.sock = socket.create_connection(listening.getsockname())
                self.far, _ = listening.accept()
        else:
            self.sock, self.far = socket.socketpair()
        self._data = bytearray()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while data := self.far.recv(MIB):
            self._data += data

    def all(self) -> bytes:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)
        self._thread.join()
        return bytes(self._data)


@pytest.fixture(params=["tcp", "unix"])
def received(request: pytest.FixtureRequest) -> Iterator[Received]:
    received = Received(socket.AF_INET if request.param == "tcp" else socket.AF_UNIX)
    yield received
    received.all()
    received.sock.close()
    received.far.close()


#: Every kind of source that stands for a file on disk.
REAL: dict[str, Callable[[Path], Any]] = {
    "unbuffered": lambda path: path.open("rb", buffering=0),
    "buffered": lambda path: path.open("rb"),
    "buffered, to be written too": lambda path: path.open("r+b"),
}
#: Offsets and counts, and what of the file they mean.
INTERVALS = [(0, None), (0, 1), (7, None), (7, 700_000), (len(CONTENT) - 3, 100), (len(CONTENT), None), (10**10, 5)]


def expected(offset: int, count: int | None) -> bytes:
    return CONTENT[offset : None if count is None else offset + count]


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [None, 10.0])
@pytest.mark.parametrize(("offset", "count"), INTERVALS)
@pytest.mark.parametrize("kind", REAL)
def test_a_files_bytes_arrive_and_its_position_is_where_they_end(
    path: Path, received: Received, kind: str, offset: int, count: int | None, timeout: float | None
) -> None:
    received.sock.settimeout(timeout)
    with REAL[kind](path) as file:
        file.read(99)
        sent = sendfile(received.sock, file, offset, count)
        assert file.tell() == offset + sent
    assert sent == len(expected(offset, count))
    assert received.all() == expected(offset, count)


@pytest.mark.parametrize(("offset", "count"), INTERVALS)
def test_a_descriptor_and_what_has_nothing_else_are_sent_and_stay_open(
    path: Path, received: Received, offset: int, count: int | None
) -> None:
    class Opened:
        def fileno(self) -> int:
            return fd

    fd = os.open(path, os.O_RDONLY)
    try:
        for source in fd, Opened():
            assert sendfile(received.sock, source, offset, count) == len(expected(offset, count))
            assert os.lseek(fd, 0, os.SEEK_CUR) == offset + len(expected(offset, count))
    finally:
        os.close(fd)
    assert received.all() == expected(offset, count) * 2


def test_all_of_it_is_moved_by_the_kernel(path: Path, received: Received) -> None:
    with (
        trace_syscalls(os.getpid(), names=("sendfile", "sendfile64")) as trace,
        path.open("rb") as file,
    ):
        assert sendfile(received.sock, file) == len(CONTENT)
    assert sum(call.returned or 0 for call in trace.calls) == len(CONTENT)


@pytest.mark.parametrize("count", [None, len(CONTENT), 10])
def test_nothing_is_read_behind_the_end(
    path: Path, received: Received, monkeypatch: pytest.MonkeyPatch, count: int | None
) -> None:
    monkeypatch.delattr(sockets, "_send_read")
    with path.open("rb") as file:
        assert sendfile(received.sock, file, 0, count) == (count or len(CONTENT))


def test_a_socket_that_is_none_of_the_standard_librarys_is_sent_to_by_its_own_send(
    path: Path, received: Received
) -> None:
    class Wrapped:
        def __getattr__(self, name: str) -> Any:
            return getattr(received.sock, name)

    with path.open("rb") as file:
        assert sendfile(Wrapped(), file) == len(CONTENT)  # type: ignore[arg-type]
    assert received.all() == CONTENT


def test_an_empty_file_sends_nothing(tmp_path: Path, received: Received) -> None:
    path = tmp_path / "empty"
    path.touch()
    with path.open("rb") as file:
        assert sendfile(received.sock, file) == sendfile(received.sock, file, 0, 10) == 0
        assert file.tell() == 0


def test_more_than_one_call_can_move_arrives(tmp_path: Path, received: Received) -> None:
    # A hole takes no room on the disk, and what is counted need not be kept.
    path, size = tmp_path / "big", (1 << 31) + 12_345
    with path.open("wb") as file:
        file.truncate(size)
    with path.open("rb") as file:
        offset = size - 3 * MIB
        assert sendfile(received.sock, file, offset, (1 << 32)) == 3 * MIB
        assert file.tell() == size
    assert received.all() == bytes(3 * MIB)


def test_what_was_written_and_not_flushed_is_sent(tmp_path: Path, received: Received) -> None:
    with (tmp_path / "file").open("w+b") as file:
        file.write(b"not flushed")
        assert sendfile(received.sock, file) == 11
    assert received.all() == b"not flushed"


@pytest.mark.parametrize("size", [10, 100_000])
def test_temporary_files_are_sent(received: Received, size: int) -> None:
    with (
        tempfile.TemporaryFile() as one,
        tempfile.NamedTemporaryFile() as two,
        tempfile.SpooledTemporaryFile(1000) as three,
    ):
        for file in one, two, three:
            file.write(CONTENT[:size])
            assert sendfile(received.sock, file, 2) == size - 2
    assert received.all() == CONTENT[2:size] * 3


def test_a_file_that_has_content_but_no_size_is_sent(received: Received) -> None:
    with open("/proc/self/cmdline", "rb") as file:
        whole = file.read()
        assert whole
        assert sendfile(received.sock, file) == len(whole)
        assert sendfile(received.sock, file, 3, 5) == 5
    assert received.all() == whole + whole[3:8]


def test_a_device_is_sent_as_far_as_it_is_asked_for(received: Received) -> None:
    with open("/dev/zero", "rb") as file:
        assert sendfile(received.sock, file, 0, 700_000) == 700_000
    assert received.all() == bytes(700_000)


# --- what only its own read can tell ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("offset", "count"), INTERVALS)
def test_a_compressed_file_sends_its_content(
    tmp_path: Path, received: Received, offset: int, count: int | None
) -> None:
    if offset > len(CONTENT):
        pytest.skip("a GzipFile does not stand behind its end")
    path = tmp_path / "file.gz"
    path.write_bytes(gzip.compress(CONTENT, 1))
    with gzip.open(path) as file:
        sent = sendfile(received.sock, file, offset, count)
        assert file.tell() == offset + sent
    assert received.all() == expected(offset, count)


@pytest.mark.parametrize(("offset", "count"), INTERVALS)
def test_a_file_in_memory_is_sent(received: Received, offset: int, count: int | None) -> None:
    file = io.BytesIO(CONTENT)
    file.read(5)
    sent = sendfile(received.sock, file, offset, count)
    assert file.tell() == offset + sent
    assert received.all() == expected(offset, count)


def test_a_file_in_an_archive_sends_its_content(tmp_path: Path, received: Received) -> None:
    with zipfile.ZipFile(tmp_path / "archive", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("file", CONTENT)
    with zipfile.ZipFile(tmp_path / "archive") as archive, archive.open("file") as member:
        assert sendfile(received.sock, member, 5) == len(CONTENT) - 5
        assert member.tell() == len(CONTENT)
    assert received.all() == CONTENT[5:]


def test_what_has_no_position_is_sent_from_where_it_stands(received: Received) -> None:
    left = [b"ab", b"c" * 10, b"d"]

    class Stream:
        def read(self, size: int, /) -> bytes:
            return left.pop(0) if left else b""

    assert sendfile(received.sock, Stream()) == 13
    assert received.all() == b"ab" + b"c" * 10 + b"d"
    with pytest.raises(ValueError, match="can only be read from where it stands"):
        sendfile(received.sock, Stream(), 1)


def test_a_source_that_would_make_it_wait_for_ever_is_an_error(received: Received) -> None:
    class Empty(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any, /) -> None:
            return None

    with pytest.raises(BlockingIOError):
        sendfile(received.sock, Empty())


# --- pipes and sockets ------------------------------------------------------------------------------------------------

WRITES = "import sys; sys.stdout.buffer.write(bytes(range(256)) * 20_000)"
WRITTEN = bytes(range(256)) * 20_000


@pytest.mark.parametrize("buffering", [0, -1])
@pytest.mark.parametrize("timeout", [None, 10.0])
@pytest.mark.parametrize("count", [None, 3, 700_001])
def test_the_output_of_a_process_is_sent(
    received: Received, buffering: int, timeout: float | None, count: int | None
) -> None:
    received.sock.settimeout(timeout)
    with subprocess.Popen([sys.executable, "-c", WRITES], stdout=subprocess.PIPE, bufsize=buffering) as process:
        assert process.stdout is not None
        first = process.stdout.read(2)
        sent = sendfile(received.sock, process.stdout, 0, count)
        rest = process.stdout.read()
    assert sent == (len(WRITTEN) - 2 if count is None else count)
    assert first + received.all() + rest == WRITTEN


def test_a_pipes_bytes_go_through_the_kernel(received: Received) -> None:
    outlet, inlet = os.pipe()
    os.write(inlet, b"z" * 50_000)
    os.close(inlet)
    with trace_syscalls(os.getpid(), names=("splice", "read")) as trace:
        assert sendfile(received.sock, outlet) == 50_000
    os.close(outlet)
    assert sum(call.returned or 0 for call in trace.calls if call.name == "splice") == 50_000


@pytest.mark.parametrize("timeout", [None, 10.0])
@pytest.mark.parametrize("count", [None, 3, 700_001])
def test_what_comes_from_a_socket_is_sent(received: Received, timeout: float | None, count: int | None) -> None:
    near, far = socket.socketpair()
    with near, far:
        near.settimeout(timeout)
        received.sock.settimeout(timeout)

        def write() -> None:
            far.sendall(WRITTEN)
            far.shutdown(socket.SHUT_WR)

        writer = threading.Thread(target=write)
        writer.start()
        sent = sendfile(received.sock, near, 0, count)
        rest = b"".join(iter(lambda: near.recv(MIB), b""))
        writer.join()
    assert sent == (len(WRITTEN) if count is None else count)
    assert received.all() + rest == WRITTEN


def test_a_source_that_gives_nothing_for_its_timeout_is_an_error(received: Received) -> None:
    near, far = socket.socketpair()
    before = len(os.listdir("/proc/self/fd"))
    with near, far:
        near.settimeout(0.05)
        far.send(b"all there is")
        with pytest.raises(TimeoutError):
            sendfile(received.sock, near)
        assert len(os.listdir("/proc/self/fd")) == before
    assert received.all() == b"all there is"


@pytest.mark.parametrize("kind", ["socket", "its descriptor", "pipe"])
@pytest.mark.parametrize("spliced", [True, False])
def test_a_non_blocking_source_that_has_nothing_is_an_error(
    received: Received, monkeypatch: pytest.MonkeyPatch, kind: str, spliced: bool
) -> None:
    if not spliced:
        monkeypatch.delattr(os, "splice")
    near, far = socket.socketpair()
    outlet, inlet = os.pipe()
    os.set_blocking(outlet, False)
    with near, far:
        near.setblocking(False)
        far.send(b"all there is")
        os.write(inlet, b"all there is")
        sources: dict[str, Any] = {"socket": near, "its descriptor": near.fileno(), "pipe": outlet}
        with pytest.raises(BlockingIOError) as caught:
            sendfile(received.sock, sources[kind])
    os.close(outlet)
    os.close(inlet)
    assert caught.value.__notes__ == ["sent: 12 bytes; taken out of the source and lost: 0 bytes"]
    assert received.all() == b"all there is"


@pytest.mark.parametrize("spliced", [True, False])
@pytest.mark.parametrize("kind", ["socket", "pipe"])
def test_an_error_tells_what_was_sent_and_little_is_lost(
    monkeypatch: pytest.MonkeyPatch, kind: str, spliced: bool
) -> None:
    if not spliced:
        monkeypatch.delattr(os, "splice")
    near, far = socket.socketpair()
    sock, reader = socket.socketpair()
    outlet, inlet = os.pipe()
    with near, far, sock, reader, open(outlet, "rb", 0) as pipe, open(inlet, "wb", 0) as filled:
        sock.settimeout(0.1)
        writer = threading.Thread(target=feed, args=(filled.write if kind == "pipe" else far.send, filled, far))
        writer.start()
        with pytest.raises(TimeoutError) as caught:
            sendfile(sock, pipe if kind == "pipe" else near)
        sock.shutdown(socket.SHUT_WR)
        sent = sum(map(len, iter(lambda: reader.recv(MIB), b"")))
        (note,) = caught.value.__notes__
        lost = int(note.split()[-2])
        assert note.startswith(f"sent: {sent} bytes;")
        assert lost <= 64 * 1024
        read = pipe.read if kind == "pipe" else near.recv
        rest = sum(map(len, iter(lambda: read(MIB), b"")))
        writer.join()
    assert sent + lost + rest == len(WRITTEN)


def feed(write: Callable[[memoryview], int], pipe: io.FileIO, sock: socket.socket) -> None:
    left = memoryview(WRITTEN)
    while left:
        left = left[write(left) :]
    pipe.close()
    sock.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("bare", [True, False])
def test_datagrams_as_the_source_are_refused(received: Received, bare: bool) -> None:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with near, far:
        far.send(b"a message")
        with pytest.raises(ValueError, match="only SOCK_STREAM type sockets are supported"):
            sendfile(received.sock, near.fileno() if bare else near)
        assert near.recv(100) == b"a message"


def test_where_there_is_no_splice_pipes_and_sockets_are_read(
    received: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "splice")
    near, far = socket.socketpair()
    outlet, inlet = os.pipe()
    with near, far:
        far.sendall(b"socket")
        far.close()
        os.write(inlet, b"pipe")
        os.close(inlet)
        assert (sendfile(received.sock, near), sendfile(received.sock, outlet)) == (6, 4)
        os.close(outlet)
    assert received.all() == b"socketpipe"


def test_where_splice_is_forbidden_pipes_and_sockets_are_read(
    received: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(os, "splice", refuse)
    test_where_there_is_no_splice_pipes_and_sockets_are_read(received, monkeypatch)


def test_what_a_pipe_took_from_a_socket_is_not_lost_where_the_other_end_refuses(
    received: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    splice = os.splice

    def refuse_socket(src: int, dst: int, count: int) -> int:
        if dst == received.sock.fileno():
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return splice(src, dst, count)

    monkeypatch.setattr(os, "splice", refuse_socket)
    near, far = socket.socketpair()
    with near, far:
        far.sendall(CONTENT[:100_000])
        far.close()
        assert sendfile(received.sock, near) == 100_000
    assert received.all() == CONTENT[:100_000]


def test_a_pipe_cannot_be_sent_from_its_middle(received: Received) -> None:
    outlet, inlet = os.pipe()
    with pytest.raises(ValueError, match="can only be read from where it stands"):
        sendfile(received.sock, outlet, 5)
    os.close(outlet)
    os.close(inlet)


# --- where the kernel cannot ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("offset", "count"), INTERVALS)
@pytest.mark.parametrize("reason", ["no such call", "refused", "refused in the middle"])
def test_files_are_read_where_the_kernel_cannot_send_them(
    path: Path, received: Received, monkeypatch: pytest.MonkeyPatch, reason: str, offset: int, count: int | None
) -> None:
    if reason == "no such call":
        monkeypatch.setattr(sockets, "AVAILABLE", False)
        monkeypatch.delattr(os, "sendfile")
    else:
        real, calls = os.sendfile, iter([reason == "refused", True])

        def refuse(out: int, file: int, offset: int, count: int) -> int:
            if next(calls, True):
                raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
            return real(out, file, offset, min(count, 1000))

        monkeypatch.setattr(os, "sendfile", refuse)
    with path.open("rb") as file:
        assert sendfile(received.sock, file, offset, count) == len(expected(offset, count))
        assert file.tell() == offset + len(expected(offset, count))
    assert received.all() == expected(offset, count)


def test_a_tls_connection_gets_no_clear_text(path: Path) -> None:
    got = bytearray()

    def read(far: ssl.SSLSocket) -> None:
        while data := far.recv(MIB):
            got.extend(data)

    with tls_to(read) as sock, path.open("rb") as file:
        assert sendfile(sock, file, 10) == len(CONTENT) - 10
    assert got == CONTENT[10:]


@pytest.mark.parametrize("count", [None, 700_001])
def test_what_comes_over_tls_is_sent_in_clear(received: Received, count: int | None) -> None:
    def write(far: ssl.SSLSocket) -> None:
        far.sendall(WRITTEN)
        far.shutdown(socket.SHUT_WR)
        # The session tickets: to close over what is unread would be a reset.
        while far.recv(MIB):
            pass

    with tls_to(write) as sock:
        sent = sendfile(received.sock, sock, 0, count)
        rest = b"".join(iter(lambda: sock.recv(MIB), b""))
    assert sent == (len(WRITTEN) if count is None else count)
    assert received.all() + rest == WRITTEN


@contextlib.contextmanager
def tls_to(serve: Callable[[ssl.SSLSocket], object]) -> Iterator[ssl.SSLSocket]:
    """Connect to what runs in a thread; at the end it has returned."""
    made = certificate()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(made.certificate, made.key)
    client = made.client_context()

    def connect(address: tuple[str, int]) -> None:
        with socket.create_connection(address) as plain:
            with client.wrap_socket(plain, server_hostname="localhost") as far:
                serve(far)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        peer = threading.Thread(target=connect, args=(listening.getsockname(),))
        peer.start()
        accepted, _ = listening.accept()
        with server.wrap_socket(accepted, server_side=True) as sock:
            yield sock
        peer.join()


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", REAL)
def test_a_peer_that_is_gone_is_an_error_and_the_position_stays(path: Path, kind: str) -> None:
    near, far = socket.socketpair()
    far.close()
    with near, REAL[kind](path) as file:
        with pytest.raises(BrokenPipeError):
            sendfile(near, file, 1000)
        assert file.tell() == 1000


@pytest.mark.parametrize("kind", [*REAL, "memory", "pipe"])
def test_a_reader_that_takes_nothing_is_a_timeout_and_the_position_tells_what_it_has(path: Path, kind: str) -> None:
    near, far = socket.socketpair()
    with contextlib.ExitStack() as stack:
        stack.enter_context(near)
        stack.enter_context(far)
        near.settimeout(0.05)
        if kind == "pipe":
            process = stack.enter_context(subprocess.Popen(["cat", path], stdout=subprocess.PIPE, bufsize=0))
            stack.callback(process.kill)
            file: Any = process.stdout
        else:
            file = io.BytesIO(CONTENT) if kind == "memory" else stack.enter_context(REAL[kind](path))
        with pytest.raises(TimeoutError):
            sendfile(near, file)
        near.shutdown(socket.SHUT_WR)
        got = b"".join(iter(lambda: far.recv(MIB), b""))
        assert 0 < len(got) < len(CONTENT)
        assert got == CONTENT[: len(got)]
        if kind != "pipe":
            assert file.tell() == len(got)


@pytest.mark.parametrize("count", [0, -1, 1.5, "1", b"", True])
@pytest.mark.parametrize("kind", REAL)
def test_bad_counts_are_refused_as_the_standard_library_does(
    path: Path, received: Received, kind: str, count: Any
) -> None:
    def outcome(send: Callable[..., int]) -> tuple[Any, ...]:
        with REAL[kind](path) as file:
            try:
                return ("sent", send(file, 0, count))
            except Exception as error:
                return type(error), str(error)

    assert outcome(lambda *given: sendfile(received.sock, *given)) == outcome(received.sock.sendfile)


@pytest.mark.parametrize(("offset", "error"), [(-1, ValueError), (1.5, TypeError), ("0", TypeError)])
def test_bad_offsets_are_refused(path: Path, received: Received, offset: Any, error: type[Exception]) -> None:
    with path.open("rb") as file, pytest.raises(error, match="offset must be a non-negative integer"):
        sendfile(received.sock, file, offset)


@pytest.mark.parametrize("offset", [2**63, 2**64, 2**70])
def test_an_offset_that_no_file_has_is_the_standard_librarys_error(path: Path, received: Received, offset: int) -> None:
    with path.open("rb") as file:
        for send in received.sock.sendfile, partial(sendfile, received.sock):
            with pytest.raises(OverflowError):
                send(file, offset)


def test_a_count_that_is_larger_than_any_file_is_all_of_it(path: Path, received: Received) -> None:
    with path.open("rb") as file:
        assert sendfile(received.sock, file, 0, 2**70) == len(CONTENT)
    assert received.all() == CONTENT


def test_text_is_told_by_what_is_read(path: Path, received: Received) -> None:
    with tempfile.NamedTemporaryFile("w+") as text, pytest.raises(ValueError, match="binary mode"):
        sendfile(received.sock, text)


def test_text_files_datagrams_and_non_blocking_sockets_are_refused_as_the_standard_library_does(path: Path) -> None:
    near, far = socket.socketpair()
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with near, far, datagrams, path.open("rb") as file, path.open() as text:
        for sock, source in ((near, text), (datagrams, file)):
            with pytest.raises(ValueError) as ours:
                sendfile(sock, source)
            with pytest.raises(ValueError) as theirs:
                sock.sendfile(source)  # type: ignore[arg-type]
            assert str(ours.value) == str(theirs.value)
        near.setblocking(False)
        with pytest.raises(ValueError) as ours:
            sendfile(near, file)
        with pytest.raises(ValueError) as theirs:
            near.sendfile(file)
        assert str(ours.value) == str(theirs.value)
        assert not select.select([far], [], [], 0)[0]


@pytest.mark.parametrize("source", [None, "/etc/passwd", object(), b"bytes"])
def test_what_is_no_file_is_named(received: Received, source: Any) -> None:
    with pytest.raises(TypeError, match=f"not {type(source).__name__}"):
        sendfile(received.sock, source)


def test_closed_ones_are_errors(path: Path, received: Received) -> None:
    file = path.open("rb")
    file.close()
    with pytest.raises(ValueError, match="closed file"):
        sendfile(received.sock, file)
    with path.open("rb") as opened:
        near, far = socket.socketpair()
        near.close()
        far.close()
        with pytest.raises(OSError) as caught:
            sendfile(near, opened)
    assert caught.value.errno == errno.EBADF
