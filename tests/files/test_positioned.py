from __future__ import annotations

import contextlib
import gc
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.util import FileWrapper

import pytest
from gunicorn.http.wsgi import FileWrapper as GunicornFileWrapper

from tests.support.servers import ROOT, wait_until
from tests.support.slow_files import NAME
from zcresponse.errors import FileTruncatedError
from zcresponse.files import OpenedFile, open_file, places
from zcresponse.files.positioned import PositionedFile

CONTENT = bytes(range(256)) * 1000
SIZE = len(CONTENT)

#: Half-open intervals of the file.
INTERVALS = [(0, SIZE), (0, 1), (5, 70_000), (SIZE - 1, SIZE), (100, 100), (SIZE, SIZE)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture(params=["own", "shared"])
def opening(request: pytest.FixtureRequest) -> Callable[[Path], OpenedFile]:
    """Both kinds: a descriptor that serves as it is, and one whose position is somebody else's."""

    def opens(path: Path) -> OpenedFile:
        return open_file(path) if request.param == "own" else open_file(os.open(path, os.O_RDONLY))

    return opens


@pytest.fixture
def endings() -> list[int | None]:
    """What `on_close` was told, each time it was called."""
    return []


@pytest.fixture
def file(path: Path, opening: Callable[[Path], OpenedFile]) -> Iterator[OpenedFile]:
    with opening(path) as file:
        yield file


def descriptors_of(path: Path) -> int:
    """How many descriptors this process has of a file, deleted or not."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            count += os.readlink(f"/proc/self/fd/{name}").removesuffix(" (deleted)") == str(path)
        except FileNotFoundError:
            continue  # the one that listed them
    return count


# --- what it holds ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("start", "stop"), INTERVALS)
def test_the_descriptor_stands_where_the_region_begins(
    file: OpenedFile, endings: list[int | None], start: int, stop: int
) -> None:
    positioned = PositionedFile(file.region(start, stop), endings.append)
    assert os.lseek(positioned.fileno(), 0, os.SEEK_CUR) == positioned.tell() == start
    assert os.fstat(positioned.fileno()).st_size == SIZE
    positioned.close()
    assert endings == [0]


@pytest.mark.parametrize("size", [1000, 65_536, SIZE, 10 * SIZE])
@pytest.mark.parametrize(("start", "stop"), INTERVALS)
def test_reading_gives_the_region_and_then_nothing(
    file: OpenedFile, endings: list[int | None], start: int, stop: int, size: int
) -> None:
    positioned = PositionedFile(file.region(start, stop), endings.append)
    blocks = list(iter(lambda: positioned.read(size), b""))
    assert b"".join(blocks) == CONTENT[start:stop]
    assert max(map(len, blocks), default=0) <= size
    assert positioned.read(size) == positioned.read() == b""
    positioned.close()


@pytest.mark.parametrize("all_of_it", [(), (-1,), (None,), (-5,)])
def test_reading_without_a_size_gives_all_that_is_left(
    file: OpenedFile, endings: list[int | None], all_of_it: tuple[int | None, ...]
) -> None:
    positioned = PositionedFile(file.region(10, 5000), endings.append)
    assert positioned.read(0) == b""
    assert positioned.read(7) == CONTENT[10:17]
    assert positioned.read(*all_of_it) == CONTENT[17:5000]
    positioned.close()


def test_one_call_reads_no_more_than_a_cache_holds(path: Path, endings: list[int | None]) -> None:
    path.write_bytes(CONTENT * 20)
    with open_file(path) as file:
        positioned = PositionedFile(file.region(), endings.append)
        blocks = list(iter(lambda: positioned.read(4 << 20), b""))
        assert max(map(len, blocks)) == 512 * 1024
        assert b"".join(blocks) == CONTENT * 20
        positioned.close()


@pytest.mark.parametrize(("start", "stop"), INTERVALS)
def test_iterating_gives_the_region_in_blocks(
    file: OpenedFile, endings: list[int | None], start: int, stop: int
) -> None:
    positioned = PositionedFile(file.region(start, stop), endings.append)
    assert iter(positioned) is positioned
    blocks = list(positioned)
    assert b"".join(blocks) == CONTENT[start:stop]
    assert b"" not in blocks
    assert list(positioned) == []
    positioned.close()


def test_reading_goes_on_where_somebody_has_moved_the_descriptor(file: OpenedFile, endings: list[int | None]) -> None:
    positioned = PositionedFile(file.region(10, 5000), endings.append)
    os.lseek(positioned.fileno(), 4000, os.SEEK_SET)
    assert positioned.read(5) == CONTENT[4000:4005]
    assert os.read(positioned.fileno(), 5) == CONTENT[4005:4010]
    assert positioned.read() == CONTENT[4010:5000]
    positioned.close()


def test_the_end_is_the_regions_wherever_one_seeks(file: OpenedFile, endings: list[int | None]) -> None:
    positioned = PositionedFile(file.region(10, 5000), endings.append)
    # What waitress does to learn how much there is.
    start = positioned.tell()
    assert (positioned.seek(0, os.SEEK_END), positioned.tell()) == (5000, 5000)
    assert positioned.read() == b""
    assert positioned.seek(start) == 10
    assert positioned.seek(5, os.SEEK_CUR) == 15
    assert positioned.read(1) == CONTENT[15:16]
    assert positioned.seek(-3, os.SEEK_END) == 4997
    assert positioned.read() == CONTENT[4997:5000]
    # Beyond the region the file may go on, and beyond the file there is nothing.
    for beyond in (5001, SIZE, 10 * SIZE):
        assert positioned.seek(beyond) == beyond
        assert positioned.read() == b""
    with pytest.raises(OSError, match="Invalid argument"):
        positioned.seek(-1)
    positioned.close()


def test_bytes_before_the_region_cannot_be_read(file: OpenedFile, endings: list[int | None]) -> None:
    positioned = PositionedFile(file.region(10, 5000), endings.append)
    for before in (9, 0):
        assert positioned.seek(before) == positioned.tell() == before
        for read in (positioned.read, positioned.__next__, lambda: positioned.read(5)):
            with pytest.raises(ValueError, match=f"byte {before} of the file is not in the region"):
                read()
    positioned.seek(10)
    assert positioned.read() == CONTENT[10:5000]
    positioned.close()


def test_it_is_a_file_object_as_far_as_servers_ask(file: OpenedFile, endings: list[int | None]) -> None:
    positioned = PositionedFile(file.region(), endings.append)
    assert positioned.readable()
    assert positioned.seekable()
    assert not positioned.closed
    taken = io.BytesIO()
    shutil.copyfileobj(positioned, taken)
    assert taken.getvalue() == CONTENT
    positioned.close()


@pytest.mark.parametrize("wrapper", [FileWrapper, GunicornFileWrapper])
@pytest.mark.parametrize("size", [8192, 100_000])
def test_wrappers_of_servers_give_the_region_and_close_it(
    file: OpenedFile, endings: list[int | None], wrapper: Any, size: int
) -> None:
    wrapped = wrapper(PositionedFile(file.region(10, 100_010), endings.append), size)
    blocks = list(wrapped)
    assert b"".join(blocks) == CONTENT[10:100_010]
    assert {len(block) for block in blocks[:-1]} <= {size}
    wrapped.close()
    wrapped.close()
    assert endings == [0]


def test_the_standard_librarys_socket_sends_the_region(file: OpenedFile, endings: list[int | None]) -> None:
    positioned = PositionedFile(file.region(10, 20_010), endings.append)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        # What gunicorn does; Python seeks behind what was sent.
        start = os.lseek(positioned.fileno(), 0, os.SEEK_CUR)
        assert ours.sendfile(positioned, offset=start, count=20_000) == 20_000
        assert positioned.tell() == 20_010
        assert theirs.recv(30_000, socket.MSG_WAITALL | socket.MSG_DONTWAIT) == CONTENT[10:20_010]
    positioned.close()


def test_the_kernel_moves_on_the_position_of_its_own(file: OpenedFile, endings: list[int | None]) -> None:
    positioned = PositionedFile(file.region(10, 20_010), endings.append)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert os.sendfile(ours.fileno(), positioned.fileno(), None, 5000) == 5000
        assert theirs.recv(10_000) == CONTENT[10:5010]
    # Whoever reads the rest gets the rest.
    assert positioned.read() == CONTENT[5010:20_010]
    positioned.close()


# --- whose position it is ---------------------------------------------------------------------------------------------


def test_a_file_that_was_opened_here_needs_no_second_descriptor(path: Path, endings: list[int | None]) -> None:
    with open_file(path) as file:
        positioned = PositionedFile(file.region(5, 10), endings.append)
        assert positioned.fileno() == file.fileno()
        positioned.close()
        assert not file.closed
        assert os.fstat(file.fileno())


def test_the_position_of_a_descriptor_that_is_shared_is_left_alone(path: Path, endings: list[int | None]) -> None:
    fd = os.open(path, os.O_RDONLY)
    os.lseek(fd, 77, os.SEEK_SET)
    with open_file(fd) as file:
        positioned = PositionedFile(file.region(5, 1000), endings.append)
        assert positioned.fileno() != fd
        assert not os.get_inheritable(positioned.fileno())
        assert positioned.read() == CONTENT[5:1000]
        assert os.lseek(fd, 0, os.SEEK_CUR) == 77
        positioned.close()
        assert descriptors_of(path) == 1
    assert endings == [0]


def given_open(kind: str, path: Path) -> tuple[Any, bool]:
    """Something that may be opened, and whether it is given away."""
    if kind == "descriptor":
        return os.open(path, os.O_RDONLY), True
    if kind == "file object":
        return path.open("rb"), True
    if kind == "unbuffered file object":
        return path.open("rb", buffering=0), False
    return open_file(path), False


@pytest.mark.parametrize("kind", ["descriptor", "file object", "unbuffered file object", "opened file"])
def test_many_at_once_on_one_descriptor_do_not_disturb_each_other(
    path: Path, kind: str, endings: list[int | None]
) -> None:
    given, closefd = given_open(kind, path)
    with open_file(given, closefd=closefd) as file:
        starts = range(0, SIZE - 50_000, 7001)
        opened = [PositionedFile(file.region(start, start + 50_000), endings.append) for start in starts]
        bodies = [b""] * len(opened)

        def read(number: int) -> None:
            while block := opened[number].read(997):
                bodies[number] += block

        threads = [threading.Thread(target=read, args=(number,)) for number in range(len(opened))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for start, body in zip(starts, bodies, strict=True):
            assert body == CONTENT[start : start + 50_000]
        for positioned in opened:
            positioned.close()
    if not closefd:
        given.close()
    assert endings == [0] * len(opened)
    assert descriptors_of(path) == 0


def test_a_file_without_a_name_can_be_opened_again(path: Path, endings: list[int | None]) -> None:
    fd = os.open(path, os.O_RDONLY)
    path.unlink()
    with open_file(fd) as file, tempfile.TemporaryFile() as nameless:
        nameless.write(b"0123456789")
        for other in (file, open_file(nameless, closefd=False)):
            positioned = PositionedFile(other.region(5, 8), endings.append)
            assert len(positioned.read()) == 3
            positioned.close()
    assert endings == [0, 0]


def test_a_file_in_memory_can_be_opened_again(endings: list[int | None]) -> None:
    with open_file(os.memfd_create("memory")) as empty:
        PositionedFile(empty.region(), endings.append).close()
        os.write(empty.fileno(), CONTENT)
    fd = os.memfd_create("memory")
    os.write(fd, CONTENT)
    with open_file(fd) as file:
        positioned = PositionedFile(file.region(5, 1000), endings.append)
        assert positioned.read() == CONTENT[5:1000]
        positioned.close()
        assert os.lseek(fd, 0, os.SEEK_CUR) == SIZE


def test_a_name_that_is_another_files_by_now_is_not_followed(path: Path, endings: list[int | None]) -> None:
    with open_file(os.open(path, os.O_RDONLY)) as file:
        other = path.with_name("other")
        other.write_bytes(b"x" * SIZE)
        other.replace(path)
        positioned = PositionedFile(file.region(5, 1000), endings.append)
        assert positioned.read() == CONTENT[5:1000]
        positioned.close()


def test_without_a_descriptor_left_nothing_is_opened_and_nothing_closed(path: Path, endings: list[int | None]) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with open_file(os.open(path, os.O_RDONLY)) as file:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            with pytest.raises(OSError, match="Too many"):
                PositionedFile(file.region(), endings.append)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == 0
        gc.collect()
    assert endings == []
    assert descriptors_of(path) == 0


AT_NUMBER_0 = """
import os, sys
from zcresponse.files import open_file
from zcresponse.files.positioned import PositionedFile

os.close(0)
endings = []
with open_file(sys.argv[1]) as file:
    positioned = PositionedFile(file.region(5, 10), endings.append)
    assert positioned.fileno() == 0
    assert not positioned.closed
    assert positioned.read() == bytes(range(5, 10))
    positioned.close()
assert endings == [0]
"""


def test_a_descriptor_may_be_number_0(path: Path) -> None:
    # In a process without standard input, as a daemon may be.
    subprocess.run([sys.executable, "-X", "dev", "-W", "error", "-c", AT_NUMBER_0, path], cwd=ROOT, check=True)


# --- the end ----------------------------------------------------------------------------------------------------------


def test_closing_twice_closes_once(path: Path, file: OpenedFile, endings: list[int | None]) -> None:
    positioned = PositionedFile(file.region(), endings.append)
    number = positioned.fileno()
    positioned.close()
    assert positioned.closed
    if number != file.fileno():
        with path.open() as other:
            assert other.fileno() == number
            positioned.close()
            assert os.fstat(number)
    positioned.close()
    assert endings == [0]


@pytest.mark.parametrize(
    "use",
    [
        PositionedFile.fileno,
        PositionedFile.read,
        PositionedFile.tell,
        PositionedFile.__next__,
        lambda positioned: positioned.read(0),
        lambda positioned: positioned.seek(0),
        lambda positioned: positioned.seek(0, os.SEEK_END),
    ],
)
def test_a_closed_one_says_so(
    file: OpenedFile, endings: list[int | None], use: Callable[[PositionedFile], object]
) -> None:
    positioned = PositionedFile(file.region(), endings.append)
    positioned.close()
    with pytest.raises(ValueError, match="closed"):
        use(positioned)
    # It is the region that was closed: the file is the caller's still.
    assert os.pread(file.fileno(), 3, 0) == CONTENT[:3]


@pytest.mark.parametrize(("size", "missing"), [(100_000, 0), (99_999, 1), (50_000, 50_000), (0, 100_000)])
def test_the_end_is_told_how_much_the_file_no_longer_has(
    path: Path, file: OpenedFile, endings: list[int | None], size: int, missing: int
) -> None:
    positioned = PositionedFile(file.region(10, 100_000), endings.append)
    os.truncate(path, size)
    positioned.close()
    positioned.close()
    assert endings == [missing]


def test_what_the_listener_raises_comes_out_once(path: Path, file: OpenedFile) -> None:
    def fails(missing: int | None) -> None:
        raise FileTruncatedError(f"{missing} bytes")

    positioned = PositionedFile(file.region(), fails)
    os.truncate(path, SIZE - 3)
    with pytest.raises(FileTruncatedError, match="3 bytes"):
        positioned.close()
    positioned.close()
    assert descriptors_of(path) == 1


@pytest.mark.parametrize("wrapper", [FileWrapper, GunicornFileWrapper])
def test_reading_a_file_that_was_cut_is_an_error_after_what_is_left_of_it(
    path: Path, file: OpenedFile, endings: list[int | None], wrapper: Any
) -> None:
    wrapped = wrapper(PositionedFile(file.region(10, 100_000), endings.append), 1000)
    blocks = [next(wrapped)]
    os.truncate(path, 5555)
    with pytest.raises(FileTruncatedError, match=f"ended {100_000 - 5555} bytes before"):
        blocks.extend(iter(wrapped))
    assert CONTENT[10:5555].startswith(b"".join(blocks))
    wrapped.close()
    assert endings == [100_000 - 5555]


@pytest.mark.parametrize("size", [5000, 10, 0])
def test_reading_all_of_a_file_that_was_cut_is_an_error(
    path: Path, file: OpenedFile, endings: list[int | None], size: int
) -> None:
    positioned = PositionedFile(file.region(10, 100_000), endings.append)
    os.truncate(path, size)
    with pytest.raises(FileTruncatedError):
        positioned.read()
    positioned.close()


def test_a_file_that_grows_is_read_to_the_regions_end(path: Path, file: OpenedFile, endings: list[int | None]) -> None:
    positioned = PositionedFile(file.region(), endings.append)
    with path.open("ab") as more:
        more.write(b"more")
    assert b"".join(positioned) == CONTENT
    positioned.close()
    assert endings == [0]


def test_a_dropped_one_is_closed_in_silence(path: Path, file: OpenedFile, endings: list[int | None]) -> None:
    gc.collect()
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            positioned = PositionedFile(file.region(), endings.append)
            positioned.read(10)
            del positioned
            assert descriptors_of(path) == 1
    finally:
        gc.enable()
    # Nobody was done with it, so there is nothing to tell.
    assert endings == []
    assert os.fstat(file.fileno())


def test_the_region_keeps_its_file_open(path: Path, endings: list[int | None]) -> None:
    file = open_file(path)
    file.hand_over()
    positioned = PositionedFile(file.region(5, 1000), endings.append)
    del file
    gc.collect()
    assert positioned.read() == CONTENT[5:1000]
    positioned.close()
    del positioned
    assert descriptors_of(path) == 0


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """A file on a file system of its own, and the process behind it."""
    mountpoint, gate = tmp_path / "mount", tmp_path / "gate"
    mountpoint.mkdir()
    argv = [sys.executable, "-m", "tests.support.slow_files", os.fspath(mountpoint), os.fspath(gate)]
    with subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.PIPE) as process:
        try:
            wait_until(lambda: os.path.ismount(mountpoint) or process.poll() is not None, what="the mount")
            assert process.poll() is None, process.stderr and process.stderr.read()
            yield mountpoint / NAME, process
        finally:
            subprocess.run(["fusermount3", "-u", "-z", mountpoint], check=False)
            process.terminate()
            # The next file system to be mounted gets this one's number.
            places._storage_by_device.clear()


def has_died(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return True
    return False


@pytest.mark.parametrize("shared", [False, True])
def test_whoever_waits_for_the_end_hears_of_it_although_the_file_system_has_died(
    mounted: tuple[Path, subprocess.Popen[bytes]], shared: bool
) -> None:
    path, process = mounted
    endings: list[int | None] = []
    file = open_file(os.open(path, os.O_RDONLY)) if shared else open_file(path)
    positioned = PositionedFile(file.region(), endings.append)
    assert positioned.read(3) == b"\0\1\2"
    process.send_signal(signal.SIGKILL)
    process.wait()
    # The kernel answers from what it remembers for a second.
    wait_until(lambda: has_died(file.fileno()), what="the file system to be known as dead")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="not connected"):
        positioned.read(3)
    # Even closing can fail there, and closes all the same.
    for closing in (positioned, positioned, file):
        with contextlib.suppress(OSError):
            closing.close()
    assert len(os.listdir("/proc/self/fd")) == before - 1 - shared
    assert endings == [None]
