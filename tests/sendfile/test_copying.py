from __future__ import annotations

import contextlib
import errno
import gzip
import io
import os
import random
import signal
import socket
import subprocess
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from zcresponse.sendfile import copy_file, copying, sendfile

MIB = 1024 * 1024
CONTENT = random.Random("copy").randbytes(2 * MIB + 9)
INTERVALS = [(0, None), (0, 1), (7, None), (7, MIB), (len(CONTENT) - 3, 100), (len(CONTENT), None)]

SOURCES: dict[str, Callable[[Path], Any]] = {
    "unbuffered": lambda path: path.open("rb", buffering=0),
    "buffered": lambda path: path.open("rb"),
    "in memory": lambda path: io.BytesIO(path.read_bytes()),
}
TARGETS: dict[str, Callable[[Path], Any]] = {
    "unbuffered": lambda path: path.open("wb", buffering=0),
    "buffered": lambda path: path.open("wb"),
    "to be read too": lambda path: path.open("w+b"),
    "appending": lambda path: path.open("ab"),
    "temporary": lambda path: tempfile.NamedTemporaryFile(dir=path.parent),  # noqa: SIM115
    "in memory": lambda path: io.BytesIO(),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "from"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture(params=["copy_file_range", "sendfile", "reading"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the bytes go: what is better is not there."""
    ways = {"copy_file_range": copying._COPIES, "sendfile": copying._COPIES[1:], "reading": []}
    assert len(copying._COPIES) == 2
    monkeypatch.setattr(copying, "_COPIES", ways[request.param])
    return str(request.param)


def expected(offset: int, count: int | None) -> bytes:
    return CONTENT[offset : None if count is None else offset + count]


def written(target: Any) -> bytes:
    target.flush()
    if isinstance(target, io.BytesIO):
        return target.getvalue()
    return Path(target.name).read_bytes()


@pytest.mark.parametrize(("offset", "count"), INTERVALS)
@pytest.mark.parametrize("kind", TARGETS)
def test_bytes_are_copied_to_where_the_target_stands(
    path: Path, tmp_path: Path, way: str, kind: str, offset: int, count: int | None
) -> None:
    with path.open("rb") as source, TARGETS[kind](tmp_path / "to") as target:
        source.read(1)
        target.write(b"before")
        copied = copy_file(source, target, offset, count)
        assert copied == len(expected(offset, count))
        assert (source.tell(), target.tell()) == (offset + copied, 6 + copied)
        target.write(b"after")
        assert written(target) == b"before" + expected(offset, count) + b"after"


@pytest.mark.parametrize("kind", SOURCES)
def test_every_source_is_copied(path: Path, tmp_path: Path, way: str, kind: str) -> None:
    with SOURCES[kind](path) as source, (tmp_path / "to").open("wb") as target:
        source.read(50)
        assert copy_file(source, target, 3) == len(CONTENT) - 3
        assert source.tell() == len(CONTENT)
    assert (tmp_path / "to").read_bytes() == CONTENT[3:]


def test_descriptors_are_copied_and_stay_open(path: Path, tmp_path: Path, way: str) -> None:
    source, target = os.open(path, os.O_RDONLY), os.open(tmp_path / "to", os.O_RDWR | os.O_CREAT)
    try:
        assert copy_file(source, target, 10) == copy_file(source, target, 10) == len(CONTENT) - 10
        assert os.lseek(source, 0, os.SEEK_CUR) == len(CONTENT)
        assert os.lseek(target, 0, os.SEEK_CUR) == 2 * (len(CONTENT) - 10)
    finally:
        os.close(source)
        os.close(target)
    assert (tmp_path / "to").read_bytes() == CONTENT[10:] * 2


def test_bytes_in_the_middle_of_the_target_are_replaced(path: Path, tmp_path: Path, way: str) -> None:
    (tmp_path / "to").write_bytes(b"x" * 100)
    with path.open("rb") as source, (tmp_path / "to").open("r+b") as target:
        target.seek(10)
        assert copy_file(source, target, 0, 20) == 20
    assert (tmp_path / "to").read_bytes() == b"x" * 10 + CONTENT[:20] + b"x" * 70


def test_a_pipe_is_copied(tmp_path: Path) -> None:
    with subprocess.Popen(["cat", "/proc/self/status"], stdout=subprocess.PIPE) as process:
        with (tmp_path / "to").open("wb") as target:
            assert process.stdout is not None
            first = process.stdout.readline()
            copied = copy_file(process.stdout, target)
    text = (tmp_path / "to").read_bytes()
    assert (first, len(text)) == (b"Name:\tcat\n", copied)
    assert b"VmRSS" in text


def test_a_file_that_has_content_but_no_size_is_copied(tmp_path: Path, way: str) -> None:
    with open("/proc/self/cmdline", "rb") as source, (tmp_path / "to").open("wb") as target:
        assert copy_file(source, target) > 0
    assert (tmp_path / "to").read_bytes() == Path("/proc/self/cmdline").read_bytes()


def test_a_compressed_file_is_copied_by_its_content_and_written_compressed(path: Path, tmp_path: Path) -> None:
    with path.open("rb") as source, gzip.open(tmp_path / "to.gz", "wb", 1) as target:
        assert copy_file(source, target) == len(CONTENT)
    with gzip.open(tmp_path / "to.gz") as source, (tmp_path / "to").open("wb") as target:
        assert copy_file(source, target, 5) == len(CONTENT) - 5
    assert (tmp_path / "to").read_bytes() == CONTENT[5:]


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A directory on another file system."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        yield Path(directory)


def test_it_goes_across_file_systems(path: Path, elsewhere: Path) -> None:
    assert os.stat(elsewhere).st_dev != os.stat(path).st_dev
    with path.open("rb") as source, (elsewhere / "to").open("wb") as target:
        assert copy_file(source, target) == len(CONTENT)
    assert (elsewhere / "to").read_bytes() == CONTENT


@pytest.mark.parametrize("name", ["EXDEV", "EINVAL", "ENOSYS", "EPERM", "EIO"])
@pytest.mark.parametrize("after", [0, 2])
def test_what_the_kernel_refuses_is_copied_in_another_way(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, after: int
) -> None:
    def copy(source: int, target: int, count: int, offset: int, position: int) -> Iterator[int]:
        if len(steps) == after:
            raise OSError(getattr(errno, name), name)
        # A short count is not the end.
        return copying._by_copy_file_range(source, target, min(count, 1000), offset, position)

    steps: list[int] = []
    monkeypatch.setattr(copying, "_COPIES", [copy, copying._by_sendfile])
    with path.open("rb") as source, (tmp_path / "to").open("wb") as target:
        assert copy_file(source, target, on_progress=steps.append) == len(CONTENT)
    assert steps[:after] == [1000, 2000][:after]
    assert (tmp_path / "to").read_bytes() == CONTENT


def test_progress_is_told_by_steps(path: Path, tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "_STEP", MIB // 2)
    told: list[int] = []
    with path.open("rb") as source, (tmp_path / "to").open("wb") as target:
        copy_file(source, target, on_progress=told.append)
    assert told == sorted(set(told))
    assert (told[-1], max(map(int.__sub__, told[1:], told))) == (len(CONTENT), told[0])


def test_what_progress_raises_ends_it_and_the_positions_tell_where(path: Path, tmp_path: Path, way: str) -> None:
    def stop(copied: int) -> None:
        raise KeyboardInterrupt

    with path.open("rb") as source, (tmp_path / "to").open("wb") as target:
        with pytest.raises(KeyboardInterrupt):
            copy_file(source, target, 5, on_progress=stop)
        copied = target.tell()
        assert source.tell() == 5 + copied
        assert copied > 0
    assert (tmp_path / "to").read_bytes() == CONTENT[5 : 5 + copied]


def test_a_full_disk_is_an_error_and_the_positions_tell_what_was_copied(path: Path, way: str) -> None:
    with path.open("rb") as source, open("/dev/full", "wb", buffering=0) as target:
        with pytest.raises(OSError) as caught:
            copy_file(source, target, 5)
        assert caught.value.errno == errno.ENOSPC
        assert source.tell() == 5


def test_an_error_in_the_middle_leaves_what_was_copied(path: Path, tmp_path: Path) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() >= MIB:
                raise OSError(errno.EIO, "disk")
            return super().read(size)

    source = Broken(CONTENT)
    with (tmp_path / "to").open("wb") as target:
        with pytest.raises(OSError, match="disk"):
            copy_file(source, target)
        assert (source.tell(), target.tell()) == (MIB, MIB)
    assert (tmp_path / "to").read_bytes() == CONTENT[:MIB]


@pytest.mark.parametrize("count", [None, len(CONTENT), 10**9])
def test_a_file_can_be_doubled(path: Path, way: str, count: int | None) -> None:
    with path.open("rb") as source, path.open("ab" if way == "reading" else "r+b") as target:
        target.seek(0, os.SEEK_END)
        assert copy_file(source, target, 0, count) == len(CONTENT)
    assert path.read_bytes() == CONTENT * 2


@pytest.mark.parametrize(("offset", "count", "start"), [(0, None, 0), (0, 100, 99), (50, 100, 0)])
def test_what_would_overwrite_itself_is_refused(path: Path, offset: int, count: int | None, start: int) -> None:
    with path.open("rb") as source, path.open("r+b") as target:
        target.seek(start)
        with pytest.raises(ValueError, match="are the same file"):
            copy_file(source, target, offset, count)
    assert path.read_bytes() == CONTENT


def test_regions_of_one_file_that_are_apart_are_copied(path: Path, way: str) -> None:
    with path.open("rb") as source, path.open("r+b") as target:
        target.seek(100)
        assert copy_file(source, target, 0, 100) == 100
    assert path.read_bytes() == CONTENT[:100] * 2 + CONTENT[200:]


@pytest.mark.parametrize("given", [None, "/etc/passwd", object()])
def test_what_is_no_file_is_named(path: Path, given: Any) -> None:
    with path.open("rb") as source, pytest.raises(TypeError, match=f"not {type(given).__name__}"):
        copy_file(source, given)
    with io.BytesIO() as target, pytest.raises(TypeError, match=f"not {type(given).__name__}"):
        copy_file(given, target)


def test_text_files_and_bad_numbers_are_refused(path: Path, tmp_path: Path) -> None:
    with path.open("rb") as source, (tmp_path / "to").open("w") as text, (tmp_path / "to").open("wb") as target:
        for pair in (source, text), (text, target):
            with pytest.raises(ValueError, match="binary mode"):
                copy_file(*pair)
        for numbers in ((-1, None), (0, 0), (0, -5)):
            with pytest.raises(ValueError, match="must be a"):
                copy_file(source, target, *numbers)


def test_wrong_ways_round_are_errors(path: Path, tmp_path: Path) -> None:
    (tmp_path / "to").touch()
    with path.open("rb") as source, (tmp_path / "to").open("rb") as target, pytest.raises(OSError):
        copy_file(source, target)
    with (tmp_path / "from").open("ab") as source, (tmp_path / "to").open("wb") as target, pytest.raises(OSError):
        copy_file(source, target)
    assert (tmp_path / "to").read_bytes() == b""
    assert path.read_bytes() == CONTENT


# --- sockets ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    with near, far:
        yield near, far


@pytest.mark.parametrize("timeout", [None, 10.0])
def test_sockets_are_waited_for_as_their_timeouts_say(
    path: Path, tmp_path: Path, pair: tuple[socket.socket, socket.socket], timeout: float | None
) -> None:
    for sock in pair:
        sock.settimeout(timeout)

    def send() -> None:
        with path.open("rb") as source:
            copy_file(source, pair[0], 5)
        pair[0].shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send)
    sender.start()
    with (tmp_path / "to").open("wb") as target:
        assert copy_file(pair[1], target) == len(CONTENT) - 5
    sender.join()
    assert (tmp_path / "to").read_bytes() == CONTENT[5:]


@pytest.mark.parametrize(("timeout", "error"), [(0.05, TimeoutError), (0.0, BlockingIOError)])
def test_a_socket_that_takes_nothing_is_an_error_and_the_position_tells_what_it_has(
    path: Path, pair: tuple[socket.socket, socket.socket], timeout: float, error: type[Exception]
) -> None:
    near, far = pair
    near.settimeout(timeout)
    with path.open("rb") as source:
        with pytest.raises(error):
            copy_file(source, near)
        near.shutdown(socket.SHUT_WR)
        assert source.tell() == len(b"".join(iter(lambda: far.recv(MIB), b""))) > 0


@pytest.mark.parametrize(("timeout", "error"), [(0.05, TimeoutError), (0.0, BlockingIOError)])
def test_a_socket_that_has_nothing_is_an_error(
    tmp_path: Path, pair: tuple[socket.socket, socket.socket], timeout: float, error: type[Exception]
) -> None:
    pair[0].settimeout(timeout)
    pair[1].send(b"all there is")
    with (tmp_path / "to").open("wb") as target:
        with pytest.raises(error):
            copy_file(pair[0], target)
        assert target.tell() == 12


def test_datagrams_are_refused(path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, path.open("rb") as source, io.BytesIO() as target:
        with pytest.raises(ValueError, match="SOCK_STREAM"):
            copy_file(source, sock)
        with pytest.raises(ValueError, match="SOCK_STREAM"):
            copy_file(sock, target)


# --- what is written to -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [0, 50])
def test_a_file_is_appended_to_itself_wherever_the_descriptor_stands(path: Path, start: int) -> None:
    target = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        os.lseek(target, start, os.SEEK_SET)
        with path.open("rb") as source:
            assert copy_file(source, target) == len(CONTENT)
    finally:
        os.close(target)
    assert path.read_bytes() == CONTENT * 2


def test_what_a_full_disk_took_none_of_is_not_counted(path: Path) -> None:
    target = open("/dev/full", "wb")  # noqa: SIM115
    with path.open("rb") as source:
        with pytest.raises(OSError) as caught:
            copy_file(source, target, 5, 100)
        assert (caught.value.errno, source.tell()) == (errno.ENOSPC, 5)
    target.close()


class Takes(io.RawIOBase):
    """Takes what it is told to, then says something else."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int | None:
        return self.answers.pop(0)  # type: ignore[no-any-return]


@pytest.mark.parametrize(("answer", "error"), [(None, BlockingIOError), (0, OSError)])
def test_a_target_that_takes_no_more_is_an_error(path: Path, answer: int | None, error: type[Exception]) -> None:
    with path.open("rb") as source:
        with pytest.raises(error, match=r"dst .*nothing"):
            copy_file(source, Takes(10, answer))
        assert source.tell() == 10


def test_what_a_buffer_took_before_it_blocked_is_counted(path: Path) -> None:
    class Pipe(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: Any, /) -> None:
            return None

    target = io.BufferedWriter(Pipe(), 1000)
    with path.open("rb") as source:
        with pytest.raises(BlockingIOError):
            copy_file(source, target)
        assert source.tell() == 1000
    with pytest.raises(BlockingIOError):
        target.close()


def test_a_target_that_does_not_tell_has_taken_all(path: Path) -> None:
    class Silent:
        def __init__(self) -> None:
            self.data = b""

        def write(self, data: memoryview, /) -> None:
            self.data += data

    target = Silent()
    with path.open("rb") as source:
        assert copy_file(source, target) == len(CONTENT)
    assert target.data == CONTENT


def test_a_file_in_an_archive_is_copied(path: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "archive", "w") as archive:
        with path.open("rb") as source, archive.open("file", "w") as member:
            assert copy_file(source, member) == len(CONTENT)
    with zipfile.ZipFile(tmp_path / "archive") as archive, archive.open("file") as member:
        with (tmp_path / "to").open("wb") as target:
            assert copy_file(member, target, 3) == len(CONTENT) - 3
    assert (tmp_path / "to").read_bytes() == CONTENT[3:]


# --- holes ------------------------------------------------------------------------------------------------------------

SPARSE = [(8 * MIB, CONTENT), (40 * MIB, b"end")]


@pytest.fixture
def sparse(tmp_path: Path) -> Path:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        for position, data in SPARSE:
            file.seek(position)
            file.write(data)
        file.truncate(50 * MIB)
    assert path.stat().st_blocks * 512 < 8 * MIB
    return path


@pytest.mark.parametrize(("offset", "count"), [(0, None), (5, None), (9 * MIB, 35 * MIB), (45 * MIB, None), (0, MIB)])
def test_holes_stay_holes(sparse: Path, tmp_path: Path, way: str, offset: int, count: int | None) -> None:
    with sparse.open("rb") as source, (tmp_path / "to").open("wb") as target:
        first = source.read(10)
        copied = copy_file(source, target, offset, count)
        assert (source.tell(), target.tell()) == (offset + copied, copied)
        source.seek(0)
        assert source.read(10) == first
    with sparse.open("rb") as source:
        source.seek(offset)
        assert (tmp_path / "to").read_bytes() == source.read(-1 if count is None else count)
    if way != "reading":
        assert (tmp_path / "to").stat().st_blocks * 512 < 8 * MIB


def test_a_hole_is_written_over_what_the_target_has(sparse: Path, tmp_path: Path, way: str) -> None:
    (tmp_path / "to").write_bytes(b"x" * (50 * MIB + 1))
    with sparse.open("rb") as source, (tmp_path / "to").open("r+b") as target:
        assert copy_file(source, target) == 50 * MIB
    assert (tmp_path / "to").read_bytes() == sparse.read_bytes() + b"x"


# --- signals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pause_s", [0.0002, 0.001, 0.005, 0.02])
def test_after_ctrl_c_the_positions_tell_what_was_copied(tmp_path: Path, way: str, pause_s: float) -> None:
    path = tmp_path / "from"
    path.write_bytes(CONTENT * 40)
    with path.open("rb") as source, (tmp_path / "to").open("wb") as target:
        with contextlib.suppress(KeyboardInterrupt), interrupted_after(pause_s):
            copy_file(source, target)
        copied = target.tell()
        assert source.tell() == copied == (tmp_path / "to").stat().st_size


@pytest.mark.parametrize("pause_s", [0.0002, 0.001, 0.005, 0.02])
@pytest.mark.parametrize("in_memory", [False, True])
def test_after_ctrl_c_the_position_tells_what_a_socket_has(
    path: Path, pair: tuple[socket.socket, socket.socket], in_memory: bool, pause_s: float
) -> None:
    near, far = pair
    with io.BytesIO(CONTENT) if in_memory else path.open("rb") as source:
        with pytest.raises(KeyboardInterrupt), interrupted_after(pause_s):
            sendfile(near, source)
        near.shutdown(socket.SHUT_WR)
        assert source.tell() == len(b"".join(iter(lambda: far.recv(MIB), b"")))


@contextlib.contextmanager
def interrupted_after(pause_s: float) -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, pause_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
