"""A file system that does not answer keeps nobody waiting but those who want its files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import servers
from tests.support.servers import ROOT, wait_until
from tests.support.slow_files import CONTENT, NAME
from tests.support.wire import format_request

LOCAL = b"local" * 1000


@dataclass(frozen=True)
class Storage:
    folder: Path
    mountpoint: Path
    gate: Path
    daemon: subprocess.Popen[bytes]


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    """A folder with a local file and a link into a mounted file system that can be made to wait."""
    mountpoint, gate, folder = tmp_path / "mount", tmp_path / "gate", tmp_path / "folder"
    mountpoint.mkdir()
    folder.mkdir()
    (folder / "local.bin").write_bytes(LOCAL)
    (folder / NAME).symlink_to(mountpoint / NAME)
    argv = [sys.executable, "-m", "tests.support.slow_files", os.fspath(mountpoint), os.fspath(gate)]
    with subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.PIPE) as process:
        try:
            wait_until(lambda: os.path.ismount(mountpoint) or process.poll() is not None, what="the mount")
            assert process.poll() is None, process.stderr and process.stderr.read()
            yield Storage(folder, mountpoint, gate, process)
        finally:
            process.send_signal(signal.SIGCONT)
            gate.unlink(missing_ok=True)
            subprocess.run(["fusermount3", "-u", "-z", mountpoint], check=False)
            process.terminate()


@pytest.mark.parametrize("http", ["zcresponse.uvicorn:ZeroCopyHttpToolsProtocol", "httptools"])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_others_are_answered_while_a_file_system_does_not(storage: Storage, loop: str, http: str) -> None:
    env = {"TABLE_FILES": str(storage.folder)}
    with servers.uvicorn("tests.support.doors:bare", loop=loop, http=http, env=env) as server:
        # By now the server has learnt that the folder is local.
        with server.connect() as one, server.connect() as other:
            for _ in range(2):
                assert one.get("/plain/local.bin").body == LOCAL
                assert other.get(f"/plain/{NAME}").body == CONTENT
            storage.gate.touch()
            one.send(format_request("GET", f"/plain/{NAME}"))
            for _ in range(20):
                assert other.get("/plain/local.bin").body == LOCAL
                assert one.nothing_pending()
            storage.gate.unlink()
            assert one.read_response().body == CONTENT
            # Now the gate is shut while the body is on its way, not before it.
            assert one.get("/plain/local.bin").body == LOCAL
            one.send(format_request("GET", f"/plain/{NAME}"))
            head = one.read_head()
            storage.gate.touch()
            for _ in range(20):
                assert other.get("/plain/local.bin").body == LOCAL
            storage.gate.unlink()
            assert one.receive_exactly(head.length or 0) == CONTENT
            assert one.get("/plain/local.bin").body == LOCAL
        assert "Traceback" not in server.log()


def states_of_threads(pid: int) -> list[str]:
    stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return [stat.rpartition(")")[2].split()[0] for stat in stats]


def test_a_file_system_that_never_answers_does_not_keep_the_server_from_ending(storage: Storage) -> None:
    with servers.uvicorn(
        "tests.support.doors:bare",
        "--timeout-graceful-shutdown=1",
        http="zcresponse.uvicorn:ZeroCopyProtocol",
        env={"TABLE_FILES": str(storage.folder)},
    ) as server:
        # Stopped, not gated: a request that its daemon has taken up cannot even be ended by SIGKILL.
        storage.daemon.send_signal(signal.SIGSTOP)
        wait_until(lambda: set(states_of_threads(storage.daemon.pid)) == {"T"}, what="the daemon to stand still")
        with server.connect() as one, server.connect() as other:
            one.send(format_request("GET", f"/plain/{NAME}"))
            assert other.get("/plain/local.bin").body == LOCAL
            server.stop()
        assert not server.killed


def test_what_a_directory_lies_on_is_told_by_serve(storage: Storage) -> None:
    for folder, told in ((storage.folder, "the kernel moves the bytes"), (storage.mountpoint, "no sendfile")):
        argv = [sys.executable, "-m", "zcresponse", "serve", str(folder), "--port", "0"]
        with servers.run_server(argv, announced=r"http://127\.0\.0\.1:(\d+)/") as server:
            assert told in server.log()
