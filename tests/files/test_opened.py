from __future__ import annotations

import asyncio
import errno
import fcntl
import gc
import gzip
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from zcresponse import loops
from zcresponse.errors import NotARegularFileError
from zcresponse.files import OpenedFile, linux, open_file, open_file_async, opened, places
from zcresponse.files.linux import Storage


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    return path


@pytest.fixture(autouse=True)
def learnt_nothing() -> None:
    folders = (places._local_folders, places._remote_folders, places._elsewhere)
    for known in (places._storage_by_device, places.opened_before, *folders):
        known.clear()


@pytest.fixture(params=["open_file", "open_file_async, first", "open_file_async, later"])
def opening(request: pytest.FixtureRequest) -> Callable[..., OpenedFile]:
    """Every way in: blocking, through a thread, and on the loop once the folder is known."""
    if request.param == "open_file":
        return open_file

    def opens(given: Any, **arguments: Any) -> OpenedFile:
        async def run() -> OpenedFile:
            if request.param.endswith("later") and isinstance(given, str | os.PathLike):
                neighbour = Path(given).parent / "neighbour"
                neighbour.touch()
                (await open_file_async(str(neighbour))).close()
            return await open_file_async(given, **arguments)

        return asyncio.run(run())

    return opens


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_what_is_told_of_a_file_is_its_descriptors_own(path: Path, opening: Callable[..., OpenedFile]) -> None:
    with opening(path) as file:
        assert (file.size, file.offset, file.path, file.windowed) == (10, 0, str(path), False)
        assert os.path.samestat(file.stat, os.fstat(file.fileno()))
        assert file.mtime_ns == path.stat().st_mtime_ns
        assert not os.get_inheritable(file.fd)
    assert file.closed


def test_closing_twice_closes_once(path: Path) -> None:
    file = open_file(path)
    number = file.fd
    file.close()
    with path.open() as other:
        assert other.fileno() == number
        file.close()
        assert os.fstat(number)
    with pytest.raises(ValueError, match="closed"):
        file.fileno()


def test_a_forgotten_file_is_closed_and_told_of(path: Path) -> None:
    before = descriptors()
    file = open_file(path)
    with pytest.warns(ResourceWarning, match="unclosed"):
        del file
    assert descriptors() == before


def test_a_file_in_a_dropped_message_is_closed_in_silence(path: Path) -> None:
    before = descriptors()
    open_file(path).hand_over()
    gc.collect()
    assert descriptors() == before


@pytest.mark.parametrize(
    ("offset", "count", "interval"),
    [(0, None, (0, 10)), (3, None, (3, 10)), (3, 4, (3, 7)), (10, None, (10, 10)), (0, 0, (0, 0)), (4, 6, (4, 10))],
)
def test_a_window_is_an_interval_of_the_file(
    path: Path, opening: Callable[..., OpenedFile], offset: int, count: int | None, interval: tuple[int, int]
) -> None:
    with opening(path, offset=offset, count=count) as file:
        region = file.region()
        assert (region.offset, region.offset + region.count) == interval
        assert len(region) == file.size


@pytest.mark.parametrize(
    ("arguments", "error", "named"),
    [
        ({"offset": -1}, ValueError, "offset"),
        ({"offset": 11}, ValueError, "offset"),
        ({"offset": 1.0}, TypeError, "offset"),
        ({"offset": True}, TypeError, "offset"),
        ({"offset": None}, TypeError, "offset"),
        ({"count": -1}, ValueError, "count"),
        ({"count": 11}, ValueError, "count"),
        ({"offset": 5, "count": 6}, ValueError, "count"),
        ({"count": "3"}, TypeError, "count"),
    ],
    ids=str,
)
def test_a_window_that_cannot_be_is_named_and_leaves_nothing_open(
    path: Path, opening: Callable[..., OpenedFile], arguments: dict[str, Any], error: type[Exception], named: str
) -> None:
    before = descriptors()
    with pytest.raises(error, match=named):
        opening(path, **arguments)
    assert descriptors() == before


def test_a_missing_file_says_so(tmp_path: Path, opening: Callable[..., OpenedFile]) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        opening(tmp_path / "missing")
    assert caught.value.filename == str(tmp_path / "missing")


def special(kind: str, directory: Path) -> Iterator[Path]:
    path = directory / kind
    if kind == "directory":
        path.mkdir()
        yield path
    elif kind == "fifo":
        os.mkfifo(path)
        yield path
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            yield path
    elif kind == "device":
        yield Path("/dev/zero")
    else:
        path.symlink_to("/dev/null")
        yield path


@pytest.mark.parametrize("kind", ["directory", "fifo", "socket", "device", "link to a device"])
def test_only_regular_files_are_opened_and_none_blocks(
    tmp_path: Path, opening: Callable[..., OpenedFile], kind: str
) -> None:
    for path in special(kind, tmp_path):
        before = descriptors()
        with pytest.raises(NotARegularFileError):
            opening(path)
        assert descriptors() == before


def test_a_descriptor_of_something_else_stays_the_callers() -> None:
    read, write = os.pipe()
    with pytest.raises(NotARegularFileError):
        open_file(read)
    with pytest.raises(ValueError, match="not open for reading"):
        open_file(write)
    os.close(read)
    os.close(write)
    with pytest.raises(OSError, match="Bad file descriptor"):
        open_file(read)
    with pytest.raises(ValueError, match="descriptor"):
        open_file(-1)
    with pytest.raises(TypeError):
        open_file(True)


@pytest.mark.parametrize("closefd", [True, False])
def test_a_descriptor_is_closed_if_it_was_given_away(path: Path, closefd: bool) -> None:
    fd = os.open(path, os.O_RDONLY)
    os.lseek(fd, 4, os.SEEK_SET)
    with open_file(fd, closefd=closefd) as file:
        assert (file.size, file.path) == (10, None)
        assert os.lseek(fd, 0, os.SEEK_CUR) == 4
    if closefd:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
    else:
        os.close(fd)


@pytest.mark.parametrize(
    ("kind", "lasting"),
    [
        ("path", True),
        ("opened", True),
        ("opened by bytes", True),
        ("opened, and removed since", False),
        ("descriptor", False),
        ("opened by descriptor", False),
        ("temporary", False),
        ("temporary with a name", False),
        ("spooled", False),
    ],
)
@pytest.mark.parametrize("closefd", [True, False])
def test_what_has_a_name_lasts(
    kind: str, lasting: bool, closefd: bool, path: Path, opening: Callable[..., OpenedFile]
) -> None:
    def removed() -> BinaryIO:
        opened = open(path, "rb")  # noqa: SIM115 - what opens it closes it
        path.unlink()
        return opened

    kinds: dict[str, Callable[[], Any]] = {
        "path": lambda: path,
        "opened": partial(open, path, "rb"),
        "opened by bytes": partial(open, os.fsencode(path), "rb"),
        "opened, and removed since": removed,
        "descriptor": lambda: os.open(path, os.O_RDONLY),
        "opened by descriptor": lambda: os.fdopen(os.open(path, os.O_RDONLY), "rb"),
        "temporary": tempfile.TemporaryFile,
        "temporary with a name": tempfile.NamedTemporaryFile,
        "spooled": partial(tempfile.SpooledTemporaryFile, max_size=0),
    }
    given = kinds[kind]()
    if kind == "spooled":
        given.write(b"x")
        given.rollover()
    with opening(given, closefd=closefd) as file:
        assert file.lasting is lasting
        with open_file(file, closefd=False) as again:
            assert again.lasting is lasting
    if isinstance(given, int) and not closefd:
        os.close(given)
    elif hasattr(given, "close"):
        given.close()


def test_a_file_object_is_kept_alive(path: Path) -> None:
    with open_file(path.open("rb")) as file:
        gc.collect()
        assert os.pread(file.fileno(), 3, 0) == b"012"


def test_what_was_written_is_sent(tmp_path: Path) -> None:
    file = tempfile.NamedTemporaryFile(dir=tmp_path)  # noqa: SIM115 - the OpenedFile closes it
    file.write(b"not yet flushed")
    with open_file(file) as opened_file:
        assert opened_file.size == len(b"not yet flushed")
    assert file.closed


def test_a_spooled_file_is_taken_once_it_is_on_disk() -> None:
    with tempfile.SpooledTemporaryFile(max_size=100) as file:
        file.write(b"abc")
        with pytest.raises(TypeError, match="SpooledTemporaryFile"):
            open_file(file)  # type: ignore[arg-type]
        file.rollover()
        with open_file(file, closefd=False) as rolled_over:  # type: ignore[arg-type]
            assert os.pread(rolled_over.fileno(), 10, 0) == b"abc"


def test_what_is_not_ours_may_be_dropped_in_silence(path: Path) -> None:
    with path.open("rb") as file, open_file(path) as opened_file:
        for borrowed in (open_file(file, closefd=False), open_file(opened_file, closefd=False)):
            assert borrowed.size == 10
        del borrowed
        gc.collect()
        assert os.fstat(file.fileno())
        assert os.fstat(opened_file.fileno())


@pytest.mark.parametrize("mode", ["r", "gzip", "w"])
def test_an_object_that_reads_other_bytes_than_its_descriptor_is_refused(path: Path, mode: str) -> None:
    opens: Any = gzip.open if mode == "gzip" else open
    with (
        opens(path, "wb" if mode == "gzip" else mode) as file,
        pytest.raises((TypeError, ValueError), match="path_or_file"),
    ):
        open_file(file)


def test_a_path_with_a_nul_is_an_error_not_a_shorter_path(path: Path, opening: Callable[..., OpenedFile]) -> None:
    with pytest.raises(ValueError, match="null"):
        opening(f"{path}\0.txt")


@pytest.mark.parametrize("name", [b"\xff\xfe", "na\u00efve \u2713 100%".encode(), b"\n"])
def test_any_name_can_be_opened(tmp_path: Path, opening: Callable[..., OpenedFile], name: bytes) -> None:
    path = os.path.join(os.fsencode(tmp_path), name)
    with open(path, "wb") as file:
        file.write(b"x")
    with opening(path) as opened_file:
        assert os.fsencode(opened_file.path or "") == path


def test_a_relative_path_is_told_as_an_absolute_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    with open_file("file") as file:
        assert file.path == str(path)


def test_a_leased_file_is_waited_for(path: Path) -> None:
    # As Samba does for its oplocks: the holder is told by a signal and gives the lease back.
    holder = os.open(path, os.O_RDWR)
    told = threading.Event()

    def give_back(*_: object) -> None:
        fcntl.fcntl(holder, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        told.set()

    before = signal.signal(signal.SIGIO, give_back)
    try:
        fcntl.fcntl(holder, fcntl.F_SETLEASE, fcntl.F_WRLCK)

        async def run() -> int:
            with await open_file_async(path) as file:
                return file.size

        assert asyncio.run(run()) == 10
        assert told.is_set()
    finally:
        signal.signal(signal.SIGIO, before)
        os.close(holder)


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The jobs that were given to threads."""
    jobs: list[object] = []
    submit = loops.Threads.submit

    def counted(threads: loops.Threads, *job: Any) -> Any:
        if job[0] is not os.close:
            jobs.append(job)
        return submit(threads, *job)

    monkeypatch.setattr(loops.Threads, "submit", counted)
    return jobs


def test_what_is_cached_in_a_known_folder_is_opened_without_a_thread(path: Path, threads: list[object]) -> None:
    async def run() -> None:
        for _ in range(3):
            (await open_file_async(path)).close()

    asyncio.run(run())
    assert len(threads) == 1


def test_a_link_is_left_to_a_thread(path: Path, threads: list[object]) -> None:
    link = path.parent / "link"
    link.symlink_to("/proc/self/status")

    async def run() -> None:
        (await open_file_async(path)).close()
        for _ in range(2):
            with await open_file_async(link) as file:
                assert file.storage is Storage.UNKNOWN

    asyncio.run(run())
    assert len(threads) == 3


def test_a_file_with_another_file_system_mounted_on_it_is_left_to_threads(path: Path, threads: list[object]) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    neighbour = path.parent / "neighbour"
    neighbour.touch()
    subprocess.run(["mount", "--bind", "/proc/self/status", path], check=True)

    async def run() -> None:
        (await open_file_async(neighbour)).close()
        for _ in range(3):
            with await open_file_async(path) as file:
                assert file.storage is Storage.UNKNOWN

    try:
        asyncio.run(run())
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)
    assert len(threads) == 4
    assert str(path) in places._elsewhere


def test_without_openat2_a_thread_opens(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linux, "_openat2_missing", True)

    async def run() -> None:
        for _ in range(2):
            (await open_file_async(path)).close()

    asyncio.run(run())
    with pytest.raises(NotImplementedError):
        linux.openat2(b"/", os.O_RDONLY, 0)


def test_a_kernel_that_does_not_know_the_call_is_asked_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linux, "_SYS_OPENAT2", 100_000)
    monkeypatch.setattr(linux, "_openat2_missing", False)
    with pytest.raises(NotImplementedError):
        linux.openat2(os.fsencode(path), os.O_RDONLY, 0)
    assert not linux.has_openat2()


def test_a_cancelled_opening_leaves_nothing_open(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started, finish = threading.Event(), threading.Event()
    closed = threading.Event()
    open_in_thread = opened._open_in_thread

    def slowly(*arguments: Any) -> OpenedFile:
        started.set()
        finish.wait(10)
        return open_in_thread(*arguments)

    close = OpenedFile.close

    def closing(file: OpenedFile) -> None:
        close(file)
        closed.set()

    monkeypatch.setattr(opened, "_open_in_thread", slowly)
    monkeypatch.setattr(OpenedFile, "close", closing)

    async def run() -> None:
        task = asyncio.ensure_future(open_file_async(path))
        await asyncio.to_thread(started.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        finish.set()

    asyncio.run(run())
    assert closed.wait(10)


def test_running_out_of_descriptors_passes_through(path: Path) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(OSError, match="Too many") as caught:
            open_file(path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caught.value.errno == errno.EMFILE


def test_a_system_without_the_flags_of_posix_opens_files_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    # Those that Windows has not.
    script = f"""
import os
for flag in "O_CLOEXEC", "O_NONBLOCK", "O_NOCTTY", "O_NOFOLLOW", "O_DIRECTORY", "O_PATH":
    delattr(os, flag)
import zcresponse.starlette, zcresponse.wsgi
with zcresponse.open_file({str(path)!r}) as file:
    print(file.size)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("7\n", "")


# --- again, by what is known of it ------------------------------------------------------------------------------------


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the calls that keep Python's lock, as they are made."""
    made: list[str] = []
    for name in ("open_held", "stat_held", "close_held", "read_held"):
        call = getattr(linux, name)

        def told(*args: Any, name: str = name, call: Any = call) -> Any:
            made.append(name)
            return call(*args)

        monkeypatch.setattr(linux, name, told)
    return made


def settle(path: Path) -> None:
    """Let it be known, and what it looks like."""
    for _ in range(2):
        open_file(str(path)).close()


def test_what_was_opened_before_is_opened_without_letting_go_of_the_lock(path: Path, calls: list[str]) -> None:
    settle(path)
    calls.clear()
    with open_file(str(path)) as file:
        assert (file.size, file.path, file.lasting, file.exclusive) == (10, str(path), True, True)
        assert file.stat == os.stat(path)
        assert os.get_inheritable(file.fd) is False
        fd = file.fd
    assert calls == ["open_held", "stat_held", "close_held"]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_a_large_file_is_closed_by_the_plain_call(path: Path, calls: list[str]) -> None:
    os.truncate(path, 65 * 1024)
    settle(path)
    calls.clear()
    open_file(str(path)).close()
    assert calls == ["open_held", "stat_held"]


def replaced(path: Path) -> None:
    (path.parent / "new").write_bytes(b"abcde")
    (path.parent / "new").rename(path)


def rewritten(path: Path) -> None:
    stat = path.stat()
    path.write_bytes(b"ABCDEFGHIJ")
    # Also where its time is set back.
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def linked(path: Path) -> None:
    path.rename(path.with_name("target"))
    path.symlink_to(path.with_name("target"))


@pytest.mark.parametrize("change", [replaced, rewritten, linked, lambda path: os.truncate(path, 3)])
def test_what_has_changed_since_is_seen(change: Callable[[Path], object], path: Path) -> None:
    settle(path)
    change(path)
    for _ in range(2):
        with open_file(str(path)) as file:
            assert (file.size, os.pread(file.fd, 100, 0)) == (path.stat().st_size, path.read_bytes())
            assert (file.stat.st_ino, file.stat.st_ctime_ns) == (path.stat().st_ino, path.stat().st_ctime_ns)


@pytest.mark.parametrize("kind", ["directory", "FIFO", "socket", "nothing"])
def test_what_is_no_file_any_more_is_an_error(kind: str, path: Path, tmp_path: Path) -> None:
    settle(path)
    path.unlink()
    if kind == "directory":
        path.mkdir()
    elif kind == "FIFO":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    before = descriptors()
    with pytest.raises(FileNotFoundError if kind == "nothing" else NotARegularFileError):
        open_file(str(path))
    assert descriptors() == before


def test_a_link_is_opened_by_the_plain_call_each_time(path: Path, calls: list[str]) -> None:
    linked(path)
    settle(path)
    calls.clear()
    with open_file(str(path)) as file:
        assert file.size == 10
    assert calls == []


def test_without_openat2_the_plain_call_opens_each_time(
    path: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linux, "_openat2_missing", True)
    settle(path)
    open_file(str(path)).close()
    assert calls == []


def test_without_statx_a_file_is_looked_at_each_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linux, "_statx_held", None)
    settle(path)
    rewritten(path)
    with open_file(str(path)) as file:
        assert file.stat.st_ctime_ns == path.stat().st_ctime_ns


def test_a_relative_path_is_another_files_elsewhere(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    settle(Path("file"))
    elsewhere = path.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").write_bytes(b"other")
    monkeypatch.chdir(elsewhere)
    with open_file("file") as file:
        assert file.size == 5


def test_threads_open_the_same_file_while_it_changes(path: Path) -> None:
    def opens() -> int:
        for _ in range(2000):
            with open_file(str(path)) as file:
                # What is told of it is what it is, or was a moment before.
                assert file.size in (10, 20)
                assert len(os.pread(file.fd, 100, 0)) in (10, 20)
        return 1

    settle(path)
    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(opens) for _ in range(4)]
        while not all(job.done() for job in running):
            for size in (20, 10):
                path.with_name("new").write_bytes(bytes(size))
                path.with_name("new").rename(path)
        assert sum(job.result() for job in running) == 4
    with open_file(str(path)) as file:
        assert os.path.samestat(file.stat, os.stat(path))
