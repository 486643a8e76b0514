"""Servers start on ports of their own, are watched from outside, and are gone afterwards."""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from tests.support import servers
from tests.support.servers import (
    Server,
    ServerFailed,
    certificate,
    http_server,
    is_running,
    nginx,
    open_descriptors,
    rss_bytes,
    run_server,
    thread_ids,
    uvicorn,
    wait_until,
    workers,
)
from tests.support.table import CASES, Files, make_files
from tests.support.wire import ShortBody, check_on_wire, format_request

APP = "tests.support.stock:app"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return make_files(tmp_path_factory.mktemp("files"))


def fetches(server: Server, files: Files, path: str = "/plain/data.bin") -> None:
    with server.connect() as client:
        for _ in range(2):
            response = client.get(path, ("Range", "bytes=5-299998"))
            assert response.status == 206
            assert response.body == files.content("data.bin")[5:299_999]
        client.assert_nothing_pending()


@pytest.mark.parametrize("http", ["h11", "httptools", "uvicorn.protocols.http.h11_impl:H11Protocol"])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_uvicorn_serves_on_both_loops_with_any_parser(loop: str, http: str, files: Files) -> None:
    with uvicorn(APP, loop=loop, http=http, env={"TABLE_FILES": str(files.directory)}) as server:
        fetches(server, files)
        assert is_running(server.pid)
    assert not is_running(server.pid)
    assert not server.killed
    assert "Finished server process" in server.log()


def test_uvicorn_serves_over_tls(files: Files) -> None:
    with uvicorn(APP, tls=certificate(), env={"TABLE_FILES": str(files.directory)}) as server:
        fetches(server, files)


def test_uvicorn_serves_with_workers(files: Files) -> None:
    with uvicorn(APP, workers=2, env={"TABLE_FILES": str(files.directory)}) as server:
        fetches(server, files)
        pids = workers(server.pid)
        assert len(pids) == 2
    assert not any(is_running(pid) for pid in pids)


def test_the_interpreter_takes_arguments(files: Files) -> None:
    python = ("-X", "dev", "-W", "error::ResourceWarning")
    with uvicorn(APP, "--no-access-log", python=python, env={"TABLE_FILES": str(files.directory)}) as server:
        fetches(server, files)
        assert b"dev" in Path(f"/proc/{server.pid}/cmdline").read_bytes()
    assert "GET /plain" not in server.log()
    assert "Traceback" not in server.log()


def test_nginx_serves_on_an_inherited_socket(files: Files) -> None:
    with nginx(files.directory, workers=2) as server:
        fetches(server, files, "/data.bin")
        pids = workers(server.pid)
        assert len(pids) == 2
        assert open_descriptors(server.pid)
    assert not any(is_running(pid) for pid in pids)


def test_http_server_serves(files: Files) -> None:
    with http_server(files.directory) as server, server.connect() as client:
        response = client.get("/small.bin")
        assert (response.status, response.body) == (200, files.content("small.bin"))
        assert client.nothing_pending()
    assert not server.killed


def test_servers_side_by_side_have_ports_of_their_own(files: Files) -> None:
    with http_server(files.directory) as one, http_server(files.directory) as other:
        assert one.port != other.port


def test_a_server_that_ends_at_once_fails_with_its_log() -> None:
    with pytest.raises(ServerFailed, match="out of order"):
        with run_server([sys.executable, "-c", "raise SystemExit('out of order')"]):
            pass


def test_a_server_that_never_gets_ready_is_stopped() -> None:
    argv = [sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(600)"]
    with pytest.raises(ServerFailed, match="not ready") as failure:
        with run_server(argv, timeout=1):
            pass
    assert not is_running(int(str(failure.value).split()[-1]))


def test_a_server_that_does_not_stop_is_killed_with_its_children() -> None:
    script = """
import os, signal, socket, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
listener = socket.create_server(("127.0.0.1", 0))
if os.fork():
    print(f"://127.0.0.1:{listener.getsockname()[1]}", flush=True)
time.sleep(600)
"""
    with run_server([sys.executable, "-c", script]) as server:
        children = workers(server.pid)
        assert len(children) == 1
        server.stop(timeout=0.2)
    assert server.killed
    assert server.returncode == -signal.SIGKILL
    wait_until(lambda: not any(is_running(child) for child in children))


def test_settings_of_the_outside_do_not_reach_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZCRESPONSE_SENDFILE", "off")
    monkeypatch.setenv("UVICORN_HTTP", "h11")
    env = servers._environment({"ZCRESPONSE_OTHER": "1"})
    assert {name for name in env if name.startswith(("ZCRESPONSE", "UVICORN"))} == {"ZCRESPONSE_OTHER"}


def test_descriptors_of_a_process_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "open me"
    before = open_descriptors(os.getpid())
    with path.open("wb") as file, socket.socket() as sock:
        now = open_descriptors(os.getpid())
        assert now[file.fileno()] == str(path)
        assert now[sock.fileno()].startswith("socket:[")
    assert open_descriptors(os.getpid()) == before


def test_memory_and_threads_of_a_process_are_seen() -> None:
    before = rss_bytes(os.getpid())
    block = bytearray(os.urandom(1)) * (64 * 1024 * 1024)
    assert rss_bytes(os.getpid()) - before > 32 * 1024 * 1024
    del block
    assert os.getpid() in thread_ids(os.getpid())


def test_waiting_ends_with_the_answer_or_a_failure() -> None:
    answers = iter([0, "", None, 7])
    assert wait_until(lambda: next(answers)) == 7
    with pytest.raises(AssertionError, match="rain"):
        wait_until(lambda: False, timeout=0.05, what="rain")


def test_a_descriptor_that_a_stalled_client_holds_is_seen_from_outside(files: Files) -> None:
    large = str(files.path("large.bin"))
    with uvicorn(APP, env={"TABLE_FILES": str(files.directory)}) as server:
        client = server.connect(receive_buffer=4096)
        client.send(format_request("GET", "/plain/large.bin"))
        assert client.read_head().status == 200
        wait_until(lambda: large in open_descriptors(server.pid).values(), what="the file to be open")
        client.reset()
        wait_until(lambda: large not in open_descriptors(server.pid).values(), what="the file to be closed")
        fetches(server, files)


def test_a_file_that_shrinks_is_a_short_body(tmp_path: Path) -> None:
    path = tmp_path / "shrinks.bin"
    path.write_bytes(bytes(50_000_000))
    with nginx(tmp_path) as server, server.connect(receive_buffer=4096) as client:
        client.send(format_request("GET", "/shrinks.bin"))
        assert client.read_head().length == 50_000_000
        os.truncate(path, 1_000_000)
        with pytest.raises(ShortBody):
            client.receive_exactly(50_000_000)


def test_stock_starlette_passes_some_cases_and_fails_others(files: Files) -> None:
    by_name = {case.name: case for case in CASES}
    with uvicorn(APP, env={"TABLE_FILES": str(files.directory)}) as server:
        with server.connect() as client:
            check_on_wire(client, by_name["POST is answered with the whole file"], files)
        with server.connect() as client, pytest.raises(AssertionError, match="status 400, not 200"):
            check_on_wire(client, by_name["an unknown unit is ignored"], files)
