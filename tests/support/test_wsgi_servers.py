"""Every WSGI server starts around an application, serves it, stops when it is asked to, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path

import httpx
import pytest

from tests.support import wsgi_servers
from tests.support.servers import ROOT, Server, ServerFailed, certificate, descendants, is_running, wait_until
from tests.support.wsgi_servers import SERVERS, UNAVAILABLE, start, version

APP = "tests.support.wsgi_servers:hello"


def says_hello(server: Server, word: str, *, keeps_alive: bool) -> None:
    expected = f"{word} from {sys.prefix}\n".encode()
    with server.connect() as client:
        assert client.get("/").body == expected
        if keeps_alive:
            response = client.get("/")
            assert response.head.keeps_alive
            assert response.body == expected
            client.assert_nothing_pending()
        else:
            client.assert_closed()


@pytest.mark.parametrize("name", SERVERS)
def test_every_server_serves_with_this_interpreter_and_stops_when_asked(name: str) -> None:
    kind = SERVERS[name]
    with start(name, APP, env={"WSGI_HELLO": name}) as server:
        says_hello(server, name, keeps_alive=kind.keeps_alive)
        assert (server.tls is not None) == kind.tls
        pids = {server.pid, *descendants(server.pid)}
    assert not server.killed
    # Some end by the signal once they have cleaned up.
    assert server.returncode in (0, -signal.SIGTERM)
    wait_until(lambda: not any(is_running(pid) for pid in pids), what="its processes to end")
    assert "Traceback" not in server.log()


def test_gunicorn_speaks_http2() -> None:
    with (
        start("gunicorn http2", APP) as server,
        httpx.Client(http2=True, verify=certificate().client_context()) as client,
    ):
        response = client.get(f"https://localhost:{server.port}/")
        assert (response.http_version, response.status_code) == ("HTTP/2", 200)


@pytest.mark.parametrize("name", ["uwsgi router", "mod_wsgi embedded"])
def test_servers_that_share_a_held_port_have_one_of_their_own(name: str) -> None:
    with start(name, APP, env={"WSGI_HELLO": "one"}) as one, start(name, APP, env={"WSGI_HELLO": "other"}) as other:
        assert one.port != other.port
        says_hello(one, "one", keeps_alive=True)
        says_hello(other, "other", keeps_alive=True)


def test_apache_takes_more_lines_of_configuration() -> None:
    with start("mod_wsgi daemon", APP, "ServerTokens Prod") as server, server.connect() as client:
        assert client.get("/").fields[1] == ("server", "Apache")


@pytest.mark.parametrize("name", ["uwsgi http-socket", "bjoern"])
def test_an_application_that_is_not_there_fails_with_the_log(name: str) -> None:
    with pytest.raises(ServerFailed, match="no_such_module"), start(name, "no_such_module:app"):
        pass


@pytest.mark.parametrize("name", SERVERS)
def test_every_server_has_a_version(name: str) -> None:
    assert version(name)[0].isdecimal()


def test_what_is_unavailable_is_not_in_the_table() -> None:
    assert not UNAVAILABLE.keys() & SERVERS.keys()
    assert all(UNAVAILABLE.values())


def test_a_distribution_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SERVERS, "other", wsgi_servers.Kind(wsgi_servers.wsgiref, "no-such-distribution"))
    with pytest.raises(ServerFailed, match="no-such-distribution"):
        version("other")


def test_apache_reads_what_its_tests_have_written_and_is_not_root(tmp_path: Path) -> None:
    (tmp_path / "secret.py").write_text("from tests.support.wsgi_servers import hello\n")
    tmp_path.chmod(0o700)
    env = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    with start("mod_wsgi embedded", "secret:hello", env=env) as server:
        says_hello(server, "hello", keeps_alive=True)
        for pid in {server.pid, *descendants(server.pid)}:
            assert not re.search(r"(?m)^Uid:\t0\b", Path(f"/proc/{pid}/status").read_text())
