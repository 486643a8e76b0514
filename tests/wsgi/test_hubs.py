"""Greenlets go on while one of them waits for a disk.

gevent and eventlet patch the standard library of a whole process. So what is tested here runs in processes of its own:
each test names a function of this module, `run` calls it there by its name.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import io
import os
import posix
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import get_native_id
from typing import Any, TypeVar, cast
from wsgiref.util import FileWrapper

import pytest

from tests.support.servers import ROOT, wait_until
from tests.support.slow_files import CONTENT, NAME
from zcresponse import Transfer
from zcresponse.errors import FileTruncatedError, NotARegularFileError
from zcresponse.files import OpenedFile, open_file, reading
from zcresponse.files.linux import Storage
from zcresponse.testing import record_transfers
from zcresponse.wsgi import send_file
from zcresponse.wsgi.chunks import BLOCK, Chunks
from zcresponse.wsgi.hubs import Hub, run_in_thread, run_with, start_in_thread
from zcresponse.wsgi.static import static_app

PATCH = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    # It warns of itself.
    "eventlet": """
import warnings
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import eventlet
eventlet.monkey_patch()
""",
}
# How many jobs find a thread at once.
THREADS = {"gevent": 32, "eventlet": 20}

T = TypeVar("T")

both_hubs = pytest.mark.parametrize("hub", PATCH)


def run(hub: str, function: Callable[..., None], *arguments: Path | int) -> None:
    """Call a function of this module with `hub` and texts in a process where everything is patched.

    It must write nothing to standard error, where gevent and the interpreter tell what nobody catches.
    """
    __tracebackhide__ = True
    call = f"from tests.wsgi import test_hubs; test_hubs.{function.__name__}(*sys.argv[1:])"
    code = f"{PATCH[hub]}\nimport sys; {call}"
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", code, hub, *map(str, arguments)],
        cwd=ROOT,
        # eventlet's own resolver imports whatever HTTP client it finds, some of which break when they are patched.
        env={**os.environ, "EVENTLET_NO_GREENDNS": "yes"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    if done.returncode != 0 or done.stderr:
        pytest.fail(f"{function.__name__} on {hub} ended with {done.returncode}:\n{done.stderr}")


@dataclass(frozen=True)
class Slow:
    """A file on a file system of its own, that makes everybody wait while there is a file at `gate`."""

    path: Path
    gate: Path
    pid: int


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Slow]:
    """A file system that can be made to wait, mounted."""
    mountpoint, gate = tmp_path / "mount", tmp_path / "gate"
    mountpoint.mkdir()
    argv = [sys.executable, "-m", "tests.support.slow_files", os.fspath(mountpoint), os.fspath(gate)]
    with subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.PIPE) as process:
        # Whoever waits for it here and now could not even be killed.
        timer = threading.Timer(20, lambda: gate.unlink(missing_ok=True))
        timer.start()
        try:
            wait_until(lambda: os.path.ismount(mountpoint) or process.poll() is not None, what="the mount")
            assert process.poll() is None, process.stderr and process.stderr.read()
            yield Slow(mountpoint / NAME, gate, process.pid)
        finally:
            timer.cancel()
            timer.join()
            gate.unlink(missing_ok=True)
            subprocess.run(["fusermount3", "-u", "-z", mountpoint], check=False)
            process.terminate()


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A file on a local disk that tells which of its pages are in memory."""
    path = tmp_path / "local.bin"
    path.write_bytes(CONTENT)
    with open_file(path) as file:
        os.fsync(file.fileno())
        assert file.storage is Storage.PROBED, f"{tmp_path} must lie on a local disk file system"
    return path


# --- within the other process -----------------------------------------------------------------------------------------


class Greenlets:
    """What the two libraries have in common."""

    def __init__(self, hub: str) -> None:
        library: Any = importlib.import_module(hub)
        self.sleep: Callable[[float], None] = library.sleep
        self.spawn: Callable[..., Any] = library.spawn
        # That of a thread which is no greenlet.
        if hub == "gevent":
            self._start = importlib.import_module("gevent.monkey").get_original("_thread", "start_new_thread")
        else:
            self._start = importlib.import_module("eventlet.patcher").original("_thread").start_new_thread

    def start_real_thread(self, function: Callable[..., object], *arguments: Any) -> None:
        self._start(function, arguments)

    def wait_until(self, predicate: Callable[[], object], what: str) -> None:
        limit = time.monotonic() + 10
        while not predicate():
            assert time.monotonic() < limit, f"waited for {what}"
            self.sleep(0.005)

    def others_run_while(self, gate: Path, action: Callable[[], T]) -> T:
        """Do what the gate makes wait, see that other greenlets go on, open the gate and return the result."""
        gate.touch()
        done: list[T] = []
        greenlet = self.spawn(lambda: done.append(action()))
        for _ in range(20):
            self.sleep(0.005)
        assert gate.exists(), "no other greenlet ran before somebody opened the gate"
        assert not done, "nothing had to be waited for"
        gate.unlink()
        result_of(greenlet)
        return done[0]


class Disk:
    """Stops the threads that wait for it, until it answers."""

    def __init__(self) -> None:
        self._waiting, self._answer = os.pipe()

    def wait(self, *_: object) -> None:
        # The system call itself; eventlet has an `os.read` that waits as a greenlet does.
        posix.read(self._waiting, 1)

    def answer(self) -> None:
        posix.close(self._answer)

    def __enter__(self) -> Disk:
        return self

    def __exit__(self, *_: object) -> None:
        posix.close(self._waiting)


def result_of(greenlet: Any) -> Any:
    return greenlet.get() if hasattr(greenlet, "get") else greenlet.wait()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def descriptors_are(count: int) -> bool:
    return descriptors() == count


def at_least(things: Sized, count: int) -> bool:
    return len(things) >= count


def native_threads() -> int:
    return len(os.listdir("/proc/self/task"))


@contextlib.contextmanager
def request(**fields: str) -> Iterator[dict[str, Any]]:
    """Of gunicorn's worker for the library that has patched this process: it is known by its socket."""
    with socket.socket() as made:
        yield {
            "REQUEST_METHOD": "GET",
            "gunicorn.socket": made,
            "SERVER_SOFTWARE": "gunicorn/27.0.1",
            "wsgi.file_wrapper": FileWrapper,
            **{f"HTTP_{name.upper()}": value for name, value in fields.items()},
        }


def ignore(*_: object) -> None:
    pass


def body_of(file: OpenedFile, hub: Hub, start: int = 0, stop: int | None = None) -> Chunks:
    return Chunks((file.region(start, stop),), hub, on_error=ignore, on_close=ignore)


def number_of(fd: int) -> int:
    """What file a descriptor is of."""
    return os.fstat(fd).st_ino


# --- the threads ------------------------------------------------------------------------------------------------------


def a_job_has_a_descriptor_of_its_own(hub: Hub, path: str) -> None:
    greenlets = Greenlets(hub)
    fd = os.open(path, os.O_RDONLY)
    inode = number_of(fd)
    assert run_with(hub, fd, lambda own, *args: (own != fd, number_of(own) == inode, args), 1, "a") == (
        True,
        True,
        (1, "a"),
    )
    before = descriptors()
    with Disk() as disk:

        def late(own: int) -> bytes:
            disk.wait()
            return os.pread(own, 5, 0)

        greenlet = greenlets.spawn(run_with, hub, fd, late)
        greenlets.wait_until(partial(descriptors_are, before + 3), "the duplicate")
        posix.close(fd)
        disk.answer()
        assert result_of(greenlet) == CONTENT[:5]
    assert descriptors() == before - 1


@both_hubs
def test_a_job_has_a_descriptor_of_its_own(hub: str, local: Path) -> None:
    run(hub, a_job_has_a_descriptor_of_its_own, local)


def an_error_comes_out_once(hub: Hub, path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    run_with(hub, fd, ignore)
    before = descriptors()

    def fails(*_: object) -> None:
        raise OSError(errno.EIO, "the disk is broken")

    for remote in (False, True):
        with pytest.raises(OSError, match="the disk is broken") as caught:
            run_with(hub, fd, fails, remote=remote)
        assert caught.value.errno == errno.EIO
        assert caught.traceback[-1].name == "fails"
        with pytest.raises(ZeroDivisionError):
            run_in_thread(hub, divmod, 1, 0, remote=remote)
    assert descriptors() == before


@both_hubs
def test_an_error_of_a_job_comes_out_once(hub: str, local: Path) -> None:
    run(hub, an_error_comes_out_once, local)


def greenlets_are_killed(hub: Hub, path: str) -> None:
    greenlets = Greenlets(hub)
    fd = os.open(path, os.O_RDONLY)
    for remote in (False, True):
        run_with(hub, fd, ignore, remote=remote)
        before = descriptors()
        begun: list[int] = []
        with Disk() as disk:

            def job(own: int, begun: list[int] = begun, disk: Disk = disk) -> None:
                begun.append(own)
                disk.wait()

            waiting = [greenlets.spawn(run_with, hub, fd, job, remote=remote) for _ in range(THREADS[hub] + 20)]
            greenlets.wait_until(partial(at_least, begun, THREADS[hub]), "as many jobs as there are threads")
            for greenlet in waiting:
                greenlet.kill()
            # Those that the threads have, and nobody else's.
            greenlets.wait_until(partial(descriptors_are, before + 2 + len(begun)), "descriptors to be closed")
            disk.answer()
            # What nobody waits for any more does not begin.
            assert run_with(hub, fd, number_of, remote=remote) == number_of(fd)
            assert len(begun) == THREADS[hub]
        greenlets.wait_until(partial(descriptors_are, before), "every descriptor to be closed")


@both_hubs
def test_a_greenlet_that_is_killed_while_it_waits_leaves_no_descriptor(hub: str, local: Path) -> None:
    run(hub, greenlets_are_killed, local)


def jobs_are_started(hub: Hub, path: str) -> None:
    greenlets = Greenlets(hub)
    fd = os.open(path, os.O_RDONLY)
    run_with(hub, fd, ignore, remote=True)
    count = THREADS[hub] + 20
    with Disk() as disk:
        before = descriptors()
        busy = [greenlets.spawn(run_with, hub, fd, disk.wait, remote=True) for _ in range(count)]
        greenlets.wait_until(partial(descriptors_are, before + count), "every thread to be taken")
        # By a greenlet, by one that is killed next, by the hub's own, as of a finalizer, and by a real thread.
        start_in_thread(hub, os.close, os.dup(fd))
        killed = greenlets.spawn(start_in_thread, hub, os.close, os.dup(fd))
        greenlets.sleep(0)
        killed.kill()
        if hub == "gevent":
            loop = importlib.import_module("gevent").get_hub().loop
            loop.run_callback(start_in_thread, hub, os.close, os.dup(fd))
        greenlets.start_real_thread(start_in_thread, hub, os.close, os.dup(fd))
        # One that fails, of which nobody hears.
        start_in_thread(hub, os.close, -1)
        greenlets.wait_until(partial(descriptors_are, before + count), "what was started to be done")
        disk.answer()
        for greenlet in busy:
            result_of(greenlet)


@both_hubs
def test_what_is_started_waits_for_nobody(hub: str, local: Path) -> None:
    run(hub, jobs_are_started, local)


def remote_files_hang(hub: Hub, path: str) -> None:
    greenlets = Greenlets(hub)
    fd = os.open(path, os.O_RDONLY)
    run_with(hub, fd, ignore, remote=True)
    count = THREADS[hub] + 20
    with Disk() as disk:
        before = descriptors()
        busy = [greenlets.spawn(run_with, hub, fd, disk.wait, remote=True) for _ in range(count)]
        greenlets.wait_until(partial(descriptors_are, before + count), "every thread to be taken")
        assert run_with(hub, fd, os.read, 5) == CONTENT[:5]
        assert socket.getaddrinfo("localhost", 80)
        disk.answer()
        for greenlet in busy:
            result_of(greenlet)


def test_files_that_hang_keep_neither_local_files_nor_names_waiting(local: Path) -> None:
    # eventlet has one pool of threads for everybody.
    run("gevent", remote_files_hang, local)


def a_process_ends(hub: Hub) -> None:
    greenlets = Greenlets(hub)
    begun: list[int] = []

    def hang() -> None:
        begun.append(1)
        Disk().wait()

    greenlets.spawn(run_in_thread, hub, hang, remote=True)
    greenlets.wait_until(partial(at_least, begun, 1), "the job to begin")


def test_a_job_that_hangs_does_not_keep_the_process_from_ending() -> None:
    # eventlet waits for its threads.
    run("gevent", a_process_ends)


def a_child_is_forked(hub: Hub, path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    assert run_with(hub, fd, os.read, 5) == CONTENT[:5]
    child = os.fork()
    if child == 0:
        with importlib.import_module(hub).Timeout(5, False):
            os._exit(0 if run_with(hub, fd, os.pread, 5, 5) == CONTENT[5:10] else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_forked_child_has_threads_of_its_own(local: Path) -> None:
    # eventlet's are gone, for everybody.
    run("gevent", a_child_is_forked, local)


def real_threads_wait(hub: Hub, path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    # From a thread that is no greenlet's, as of an application's own pool.
    assert run_in_thread(hub, run_with, hub, fd, os.pread, 5, 5) == CONTENT[5:10]


@both_hubs
def test_a_real_thread_may_wait_too(hub: str, local: Path) -> None:
    run(hub, real_threads_wait, local)


# --- files ------------------------------------------------------------------------------------------------------------


def others_run(hub: Hub, path: str, gate_path: str) -> None:
    greenlets, gate = Greenlets(hub), Path(gate_path)
    transfers: list[Transfer] = []
    with request(range="bytes=5-") as environ:

        def answer() -> Any:
            return send_file(environ, ignore, path, on_transfer=transfers.append)

        body = greenlets.others_run_while(gate, answer)
        blocks = [greenlets.others_run_while(gate, lambda: next(body)) for _ in range(2)]
        assert b"".join([*blocks, *body]) == CONTENT[5:]
        # Whoever closes it does not wait at all.
        gate.touch()
        body.close()
        assert gate.exists()
        gate.unlink()
    (transfer,) = transfers
    assert transfer.reason == f"gunicorn does not use sendfile on {hub}"
    assert (transfer.way, transfer.bytes_sent, transfer.completed) == ("chunks", len(CONTENT) - 5, True)
    greenlets.wait_until(lambda: not is_open(path), "the file to be closed")


def is_open(path: str) -> bool:
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            if os.readlink(f"/proc/self/fd/{name}") == path:
                return True
    return False


@both_hubs
def test_other_greenlets_run_while_one_waits_for_a_file(hub: str, slow: Slow) -> None:
    run(hub, others_run, slow.path, slow.gate)


def many_wait(hub: Hub, path: str, gate_path: str) -> None:
    greenlets, gate = Greenlets(hub), Path(gate_path)
    starts = range(0, 500_000, 50_000)
    with open_file(path) as file:
        # More than one thread of theirs, and more than one block.
        bodies = [body_of(file, hub, start, start + 400_000) for start in starts]
        fetching: list[Any] = []

        def fetch_all() -> list[bytes]:
            fetching.extend(greenlets.spawn(lambda body=body: b"".join(body)) for body in bodies)
            return [result_of(greenlet) for greenlet in fetching]

        got = greenlets.others_run_while(gate, fetch_all)
        assert got == [CONTENT[start : start + 400_000] for start in starts]


@both_hubs
def test_many_greenlets_wait_for_one_file_together(hub: str, slow: Slow) -> None:
    run(hub, many_wait, slow.path, slow.gate)


def a_reader_is_killed(hub: Hub, path: str, gate_path: str) -> None:
    greenlets, gate = Greenlets(hub), Path(gate_path)
    with request() as environ, record_transfers() as transfers:
        body: Any = send_file(environ, ignore, path)
        assert next(body) == CONTENT[:BLOCK]
        before = descriptors()
        gate.touch()

        def read() -> None:
            try:
                next(body)
            finally:
                body.close()

        killed = greenlets.spawn(read)
        greenlets.sleep(0.1)
        killed.kill()
        greenlets.wait_until(lambda: transfers, "the end of the body")
        # The thread still reads, by a descriptor that is its own.
        assert gate.exists()
        assert is_open(path)
        gate.unlink()
        greenlets.wait_until(lambda: not is_open(path), "the thread to be done")
        assert descriptors() == before - 1
    (transfer,) = transfers
    assert (transfer.bytes_sent, transfer.completed) == (BLOCK, False)
    assert transfer.reason.endswith("; GreenletExit")


@both_hubs
def test_a_reader_that_is_killed_leaves_nothing_open(hub: str, slow: Slow) -> None:
    run(hub, a_reader_is_killed, slow.path, slow.gate)


def an_opener_is_killed(hub: Hub, path: str, gate_path: str) -> None:
    greenlets, gate = Greenlets(hub), Path(gate_path)
    with request() as environ:
        list(cast("Any", send_file(environ, ignore, path)))
        gc.collect()
        greenlets.wait_until(lambda: not is_open(path), "the first to be closed")
        gate.touch()
        killed = greenlets.spawn(send_file, environ, ignore, path)
        greenlets.sleep(0.1)
        killed.kill()
        gate.unlink()
        greenlets.sleep(0.3)
        gc.collect()
        greenlets.wait_until(lambda: not is_open(path), "the thread to be done")


@both_hubs
def test_a_greenlet_that_is_killed_while_a_file_is_opened_leaves_nothing_open(hub: str, slow: Slow) -> None:
    run(hub, an_opener_is_killed, slow.path, slow.gate)


def a_directory_is_served(hub: Hub, path: str, gate_path: str) -> None:
    greenlets, gate = Greenlets(hub), Path(gate_path)
    app = static_app(os.path.dirname(path), listing=True)
    with request() as environ:
        for _ in range(2):
            body = greenlets.others_run_while(gate, lambda: app({**environ, "PATH_INFO": f"/{NAME}"}, ignore))
            assert b"".join(body) == CONTENT
            # Whoever closes it does not wait at all.
            gate.touch()
            cast("Any", body).close()
            assert gate.exists()
            gate.unlink()
            page = b"".join(app({**environ, "PATH_INFO": "/"}, ignore))
            assert NAME.encode() in page
    greenlets.wait_until(lambda: not is_open(path), "the file to be closed")


@both_hubs
def test_a_static_application_lets_other_greenlets_run(hub: str, slow: Slow) -> None:
    run(hub, a_directory_is_served, slow.path, slow.gate)


def what_cannot_be_opened_says_so(hub: Hub, path: str) -> None:
    with request() as environ:
        for missing in (f"{path}.missing", os.fsencode(path) + b".missing"):
            with pytest.raises(FileNotFoundError):
                send_file(environ, ignore, missing)
        with pytest.raises(NotARegularFileError):
            send_file(environ, ignore, os.path.dirname(path))
        with pytest.raises(ValueError, match="offset"):
            send_file(environ, ignore, path, offset=10**9)
        with pytest.raises(TypeError, match="count"):
            send_file(environ, ignore, path, count=cast("Any", "3"))
    assert not is_open(path)


@both_hubs
def test_what_cannot_be_opened_says_so(hub: str, local: Path) -> None:
    run(hub, what_cannot_be_opened_says_so, local)


def every_source_is_sent(hub: Hub, path: str) -> None:
    with open_file(path) as lent, request(range="bytes=5-99") as environ:
        sources: list[Any] = [path, Path(path), os.fsencode(path), os.open(path, os.O_RDONLY)]
        given = Path(path).open("rb")  # noqa: SIM115 - closed by what is tested
        for source in (*sources, given, io.BytesIO(CONTENT), open_file(path)):
            body: Any = send_file(environ, ignore, source)
            assert b"".join(body) == CONTENT[5:100]
            body.close()
        body = send_file(environ, ignore, lent, closefd=False)
        assert b"".join(body) == CONTENT[5:100]
        body.close()
        assert not lent.closed
    assert not is_open(path)


@both_hubs
def test_every_source_is_sent(hub: str, local: Path) -> None:
    run(hub, every_source_is_sent, local)


def cached_files_need_no_thread(hub: Hub, path: str) -> None:
    with request() as environ:
        for _ in range(3):
            # The first time, a thread learns what the folder is on.
            threads = native_threads()
            body: Any = send_file(environ, ignore, path)
            assert b"".join(body) == CONTENT
            body.close()
    assert native_threads() == threads
    with open_file(path) as file:
        assert reading.are_cached(file, 0, len(CONTENT))
        assert b"".join(body_of(file, hub)) == CONTENT
    assert native_threads() == threads


@both_hubs
def test_what_is_cached_is_opened_and_read_without_a_thread(hub: str, local: Path) -> None:
    run(hub, cached_files_need_no_thread, local)


def cold_files_are_read_in_a_thread(hub: Hub, path: str) -> None:
    greenlets = Greenlets(hub)
    read_by: set[int] = set()
    read_blocking = reading.read_blocking

    def observed(fd: int, offset: int, count: int) -> bytes:
        read_by.add(get_native_id())
        return read_blocking(fd, offset, count)

    with open_file(path) as file:

        def is_cold() -> bool:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            return not reading.are_cached(file, 0, len(CONTENT))

        greenlets.wait_until(is_cold, "the pages to be dropped")
        reading.read_blocking = observed
        assert b"".join(body_of(file, hub)) == CONTENT
    assert read_by - {get_native_id()}


@both_hubs
def test_what_is_cold_is_read_in_a_thread(hub: str, local: Path) -> None:
    run(hub, cold_files_are_read_in_a_thread, local)


def a_file_is_cut(hub: Hub, path: str) -> None:
    for storage in (Storage.PROBED, Storage.UNKNOWN):
        Path(path).write_bytes(CONTENT)
        with open_file(path) as file:
            file.storage = storage
            body = body_of(file, hub)
            assert next(body) == CONTENT[:BLOCK]
            os.truncate(path, BLOCK + 5)
            with pytest.raises(FileTruncatedError, match=f"ended {len(CONTENT) - BLOCK - 5} bytes before"):
                next(body)


@both_hubs
def test_a_file_that_was_cut_is_an_error(hub: str, local: Path) -> None:
    run(hub, a_file_is_cut, local)


def no_descriptor_is_left(hub: Hub, path: str) -> None:
    import resource

    with open_file(path) as file:
        file.storage = Storage.UNKNOWN
        run_with(hub, file.fileno(), ignore, remote=True)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        assert b"".join(body_of(file, hub)) == CONTENT


@both_hubs
def test_without_a_descriptor_left_a_file_is_read_all_the_same(hub: str, local: Path) -> None:
    run(hub, no_descriptor_is_left, local)


def a_file_system_dies(hub: Hub, path: str, pid: str) -> None:
    greenlets = Greenlets(hub)
    with request() as environ, record_transfers() as transfers:
        body: Any = send_file(environ, ignore, path)
        assert next(body) == CONTENT[:BLOCK]
        os.kill(int(pid), signal.SIGKILL)
        with pytest.raises(OSError, match="not connected"):
            list(body)
        body.close()
        greenlets.wait_until(lambda: not is_open(path), "the file to be closed")
    (transfer,) = transfers
    assert transfer.completed is False
    assert "not connected" in transfer.reason


@both_hubs
def test_a_file_system_that_dies_is_an_error(hub: str, slow: Slow) -> None:
    run(hub, a_file_system_dies, slow.path, slow.pid)
