"""uvicorn's own features are what they were: WebSockets, limits, proxies, workers, reload, Unix sockets; gunicorn."""

from __future__ import annotations

import base64
import hashlib
import http.client
import itertools
import json
import os
import re
import signal
import socket
import struct
import sys
import tempfile
from pathlib import Path

import pytest

from tests.support import servers
from tests.support.kernel import trace_sendfile
from tests.support.servers import ROOT, wait_until
from tests.support.sites import (
    COMBINATIONS,
    HUGE,
    LARGE,
    MIDDLE,
    SMALL,
    Setup,
    Site,
    content,
    running,
    site_fixture,
    vault,
)
from tests.support.wire import Connection, format_request

site = site_fixture()


# --- WebSockets -------------------------------------------------------------------------------------------------------


def _websocket(site: Site) -> Connection:
    connection = site.connect()
    key = base64.b64encode(os.urandom(16)).decode()
    fields = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Key", key),
              ("Sec-WebSocket-Version", "13")]  # fmt: skip
    connection.send(format_request("GET", "/socket", fields))
    head = connection.read_head()
    assert head.status == 101
    accept = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
    assert ("sec-websocket-accept", base64.b64encode(accept).decode()) in head.fields
    return connection


def _frame(opcode: int, payload: bytes) -> bytes:
    mask = b"abcd"
    masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    return struct.pack("!BB", 0x80 | opcode, 0x80 | len(payload)) + mask + masked


def test_a_websocket_is_upgraded(site: Site) -> None:
    with site.unharmed(), _websocket(site) as connection:
        for text in (b"hello", b"again"):
            connection.send(_frame(1, text))
            assert connection.receive_exactly(2 + len(text)) == bytes([0x81, len(text)]) + text
        connection.send(_frame(8, struct.pack("!H", 1000)))
        assert connection.receive_exactly(2)[0] == 0x88


def test_an_upgrade_to_something_else_is_answered_plainly(site: Site) -> None:
    with site.unharmed(), site.connect() as connection:
        response = connection.get(f"/file/{LARGE}", ("Upgrade", "h2c"), ("Connection", "Upgrade"))
        assert (response.status, response.body) == (200, content(LARGE))


# --- the access log ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [SMALL, MIDDLE, LARGE])
def test_each_answer_stands_in_the_access_log_once(site: Site, name: str) -> None:
    with site.unharmed(), site.connect() as connection:
        connection.get(f"/file/{name}")
        connection.get(f"/file/{name}", ("Range", "bytes=1-5"))
        log = site.log_since()
        assert log.count(f'"GET /file/{name} HTTP/1.1" 200 OK') == 1
        assert log.count(f'"GET /file/{name} HTTP/1.1" 206 Partial Content') == 1


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setup", COMBINATIONS, ids=str)
def test_a_concurrency_limit_answers_503(setup: Setup) -> None:
    with running(setup, "--limit-concurrency", "3") as site, site.unharmed():
        with site.stall(f"/file/{HUGE}"), site.stall(f"/file/{HUGE}"), site.connect() as connection:
            assert connection.get(f"/file/{SMALL}").status == 503


@pytest.mark.parametrize("setup", COMBINATIONS, ids=str)
def test_proxy_fields_and_the_root_path_reach_the_application(setup: Setup) -> None:
    options = ("--proxy-headers", "--forwarded-allow-ips", "*", "--root-path", "/mounted", "--header", "X-Server:mine")
    with running(setup, *options) as site, site.unharmed(), site.connect() as connection:
        fields = [("X-Forwarded-For", "192.0.2.7"), ("X-Forwarded-Proto", "https")]
        described = json.loads(connection.get("/scope", *fields).body)
        assert described["client"] == ["192.0.2.7", 0]
        assert described["scheme"] == "https"
        assert described["root_path"] == "/mounted"
        response = connection.get(f"/file/{LARGE}", *fields)
        assert response.body == content(LARGE)
        assert response.values("x-server") == ["mine"]
        assert f'192.0.2.7:0 - "GET /mounted/file/{LARGE} HTTP/1.1" 200 OK' in site.log_since()


@pytest.mark.parametrize("setup", [COMBINATIONS[0], COMBINATIONS[3]], ids=str)
def test_a_limit_of_requests_ends_the_process_after_the_last_answer(setup: Setup) -> None:
    with servers.uvicorn(
        setup.app,
        "--limit-max-requests",
        "2",
        loop=setup.loop,
        http=setup.http,
        env={"VAULT": str(vault())},
        python=("-X", "dev", "-W", "error"),
    ) as server:
        with server.connect() as connection:
            assert connection.get(f"/file/{LARGE}").body == content(LARGE)
            assert connection.get(f"/file/{LARGE}").body == content(LARGE)
        assert server.process.wait(10) == 0
    assert "Traceback" not in server.log()


@pytest.mark.parametrize("setup", [COMBINATIONS[0], COMBINATIONS[3]], ids=str)
def test_a_quiet_keep_alive_connection_is_closed_in_time(setup: Setup) -> None:
    with running(setup, "--timeout-keep-alive", "1") as site, site.unharmed():
        with site.stall(f"/file/{HUGE}") as connection, site.connect() as idle:
            assert idle.get(f"/file/{LARGE}").body == content(LARGE)
            idle.assert_closed()
            # The timer is for quiet connections: this one was answered all the time.
            assert connection.receive_exactly(len(content(HUGE))) == content(HUGE)
            assert connection.get(f"/file/{SMALL}").body == content(SMALL)
            connection.assert_closed()


@pytest.mark.parametrize("setup", [COMBINATIONS[1], COMBINATIONS[2]], ids=str)
def test_the_most_talkative_log_changes_nothing(setup: Setup) -> None:
    with running(setup, "--log-level", "trace") as site, trace_sendfile(site.pid) as trace:
        with site.unharmed(), site.connect() as connection:
            assert connection.get(f"/file/{LARGE}").body == content(LARGE)
    assert trace.total_from(vault() / LARGE) == len(content(LARGE))


# --- processes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setup", COMBINATIONS, ids=str)
def test_workers_serve(setup: Setup) -> None:
    with servers.uvicorn(
        setup.app, loop=setup.loop, http=setup.http, workers=2, env={"VAULT": str(vault())}, python=("-X", "dev")
    ) as server:
        pids = {json.loads(_get(server.port, "/scope"))["pid"] for _ in range(20)}
        assert pids <= servers.workers(server.pid)
        with trace_sendfile(server.pid) as trace:
            for _ in range(4):
                assert _get(server.port, f"/file/{LARGE}") == content(LARGE)
        assert trace.total_from(vault() / LARGE) == 4 * len(content(LARGE))
    assert "Traceback" not in server.log()


def _get(port: int, target: str) -> bytes:
    with Connection(port) as connection:
        return connection.get(target).body


@pytest.mark.parametrize("setup", [COMBINATIONS[0], COMBINATIONS[3]], ids=str)
def test_a_reloading_server_serves_before_and_after(setup: Setup) -> None:
    with tempfile.TemporaryDirectory(prefix="reload-") as directory:
        module = Path(directory, "reloaded.py")
        module.write_text("from tests.support.apps import app\n")
        argv = [sys.executable, "-X", "dev", "-m", "uvicorn", "reloaded:app", "--host", "127.0.0.1", "--port", "0"]
        argv += ["--loop", setup.loop, "--http", setup.http, "--reload", "--reload-dir", directory]
        env = {"VAULT": str(vault()), "PYTHONPATH": f"{ROOT}{os.pathsep}{directory}"}
        with servers.run_server(
            argv, env=env, ready=lambda server: "Application startup complete" in server.log(), cwd=Path(directory)
        ) as server:
            assert _get(server.port, f"/file/{LARGE}") == content(LARGE)
            before = json.loads(_get(server.port, "/scope"))["pid"]
            times = itertools.count(2_000_000_000)

            def is_noticed() -> bool:
                # A change before uvicorn has looked for the first time is none to it.
                os.utime(module, (next(times),) * 2)
                return "Reloading" in server.log()

            wait_until(is_noticed, 30, what="the change to be noticed")
            wait_until(lambda: server.log().count("Application startup complete") >= 2, 30, what="the reload")
            assert _get(server.port, f"/file/{LARGE}") == content(LARGE)
            assert json.loads(_get(server.port, "/scope"))["pid"] != before
        assert "Traceback" not in server.log()


@pytest.mark.parametrize("setup", COMBINATIONS, ids=str)
def test_a_unix_socket_serves(setup: Setup) -> None:
    with tempfile.TemporaryDirectory(prefix="uds-") as directory:
        path = str(Path(directory, "socket"))
        argv = [sys.executable, "-X", "dev", "-W", "error", "-m", "uvicorn", setup.app, "--uds", path]
        argv += ["--loop", setup.loop, "--http", setup.http]
        with servers.run_server(
            argv, port=-1, env={"VAULT": str(vault())}, ready=lambda server: "running on unix socket" in server.log()
        ) as server:
            with trace_sendfile(server.pid) as trace:
                for target, wanted in ((LARGE, content(LARGE)), (SMALL, content(SMALL)), (HUGE, content(HUGE))):
                    with socket.socket(socket.AF_UNIX) as client:
                        client.connect(path)
                        client.sendall(format_request("GET", f"/file/{target}", [("Connection", "close")]))
                        response = http.client.HTTPResponse(client)
                        response.begin()
                        assert response.read() == wanted
            assert trace.total_from(vault() / HUGE) == len(content(HUGE))
            before = len(servers.open_descriptors(server.pid))
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(path)
                client.sendall(format_request("GET", f"/file/{HUGE}"))
                assert client.recv(10) == b"HTTP/1.1 2"
            wait_until(lambda: len(servers.open_descriptors(server.pid)) <= before, what="descriptors to go")
        assert "Traceback" not in server.log()


# --- gunicorn ---------------------------------------------------------------------------------------------------------

_WORKERS = {
    setup: f"tests.support.workers.{name}"
    for setup, name in zip(
        COMBINATIONS, ("AsyncioH11", "AsyncioHttpTools", "UvloopH11", "UvloopHttpTools"), strict=True
    )
}


@pytest.mark.parametrize("setup", COMBINATIONS, ids=str)
def test_gunicorn_serves_by_a_worker_class_of_two_lines(setup: Setup) -> None:
    with servers.gunicorn(setup.app, worker_class=_WORKERS[setup], workers=2, env={"VAULT": str(vault())}) as server:
        wait_until(lambda: server.log().count("Application startup complete") == 2, what="the workers")
        with trace_sendfile(server.pid) as trace:
            for _ in range(4):
                assert _get(server.port, f"/file/{LARGE}") == content(LARGE)
            with server.connect() as connection:
                response = connection.get(f"/file/{LARGE}", ("Range", "bytes=9-3000008"))
                assert response.body == content(LARGE)[9:3_000_009]
                assert connection.get(f"/file/{SMALL}").body == content(SMALL)
        assert trace.total_from(vault() / LARGE) == 4 * len(content(LARGE)) + 3_000_000
        assert server.stop(signal.SIGTERM) == 0
    assert not re.search("Traceback", server.log())
