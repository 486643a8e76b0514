"""Which row a server's environ is told by."""

from __future__ import annotations

import json
import socket
from typing import Any

import h2.connection
import h2.events
import pytest
from gunicorn.http.wsgi import FileWrapper as GunicornFileWrapper

from tests.support import servers, wsgi_matrix
from tests.support.servers import Server, wait_until
from tests.support.table import Files, make_files
from zcresponse.wsgi.servers import Takes, server_behind

Environ = dict[str, Any]


def of(module: str) -> object:
    """An object of a class in a module."""
    return type("Made", (), {"__module__": module})()


def gunicorn(module: str = "socket", **more: str) -> Environ:
    return {"gunicorn.socket": of(module), "SERVER_SOFTWARE": "gunicorn/27.0.1", "SERVER_PROTOCOL": "HTTP/1.1", **more}


def read_by(module: str) -> Environ:
    return {"wsgi.input": of(module)}


@pytest.mark.parametrize(
    ("environ", "name", "takes", "reason"),
    [
        ({}, "the server", Takes.NOTHING, "offers no wsgi.file_wrapper"),
        ({"wsgi.file_wrapper": GunicornFileWrapper}, "the server", Takes.NOTHING, "it is not known"),
        (gunicorn(), "gunicorn", Takes.REGION, ""),
        (gunicorn(SERVER_PROTOCOL="HTTP/1.0"), "gunicorn", Takes.REGION, ""),
        (gunicorn(SERVER_PROTOCOL="HTTP/2.0"), "gunicorn", Takes.NOTHING, "over HTTP/2"),
        (gunicorn("ssl"), "gunicorn", Takes.NOTHING, "over TLS"),
        (gunicorn("ssl", SERVER_PROTOCOL="HTTP/2.0"), "gunicorn", Takes.NOTHING, "over TLS"),
        (gunicorn("gevent._socket3"), "gunicorn", Takes.NOTHING, "on gevent"),
        (gunicorn(SERVER_SOFTWARE="gunicorn/20.1.0"), "gunicorn", Takes.NOTHING, "before 21"),
        ({"mod_wsgi.version": (6, 1, 1)}, "mod_wsgi", Takes.REGION, ""),
        ({"asgi.scope": {"type": "http"}}, "a2wsgi", Takes.NOTHING, "ASGI takes bytes"),
        (read_by("cheroot.server"), "cheroot", Takes.NOTHING, "cheroot has no file_wrapper"),
        (read_by("granian._granian"), "granian", Takes.NOTHING, "granian has no file_wrapper"),
        (read_by("twisted.web.wsgi"), "Twisted", Takes.NOTHING, "Twisted has no file_wrapper"),
        (read_by("gevent.pywsgi"), "gevent.pywsgi", Takes.NOTHING, "gevent.pywsgi has no file_wrapper"),
    ],
)
def test_a_server_is_told_by_its_environ(environ: Environ, name: str, takes: Takes, reason: str) -> None:
    row = server_behind(environ)
    assert (row.name, row.takes) == (name, takes)
    assert reason in row.reason
    assert bool(row.reason) == (takes is Takes.NOTHING)


def test_mod_wsgi_hears_what_its_own_start_response_is_told() -> None:
    row = server_behind({"mod_wsgi.version": (6, 1, 1)})
    # A method of a class that is written in C, as its own is.
    assert row.hears([].append)
    assert not row.hears(lambda status, fields: None)
    assert not row.hears(None)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return make_files(tmp_path_factory.mktemp("site"))


def told(server: Server) -> list[str]:
    """The reasons that the last bodies gave."""
    with server.connect() as connection:
        return [transfer["reason"] for transfer in json.loads(connection.get("/transfers").body)]


@pytest.mark.parametrize("name", ["cheroot", "a2wsgi", "granian", "twisted", "gevent"])
def test_a_real_server_is_told_by_its_environ(name: str, site: Files) -> None:
    with wsgi_matrix.running(name, site) as server:
        with server.connect() as connection:
            connection.get("/bare/plain/small.bin")
        (reason,) = wait_until(lambda: told(server), what="the account of the body")
    assert reason.lower().startswith(name)
    assert "has no file_wrapper" in reason


def ask_by_http2(server: Server, path: str) -> bytes:
    """Ask without an upgrade, as a proxy that knows the server."""
    body, client = b"", h2.connection.H2Connection()
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        client.initiate_connection()
        head = {":method": "GET", ":path": path, ":scheme": "http", ":authority": "localhost"}
        client.send_headers(1, list(head.items()), end_stream=True)
        while True:
            connection.sendall(client.data_to_send())
            for event in client.receive_data(connection.recv(65536)):
                if isinstance(event, h2.events.DataReceived):
                    body += event.data
                    client.acknowledge_received_data(event.flow_controlled_length, 1)
                elif isinstance(event, h2.events.StreamEnded):
                    return body


def test_gunicorn_is_given_blocks_over_http2_in_clear_text(site: Files) -> None:
    args = ["--http-protocols", "h2,h1", "--http2-cleartext", "prior-knowledge"]
    env = {"TABLE_FILES": str(site.directory)}
    app = "tests.support.wsgi_doors:everything"
    with servers.gunicorn(app, *args, worker_class="gthread", env=env) as server:
        assert ask_by_http2(server, "/bare/plain/data.bin") == site.content("data.bin")
        (transfer,) = wait_until(lambda: json.loads(ask_by_http2(server, "/transfers")), what="the account of the body")
    assert (transfer["way"], transfer["reason"]) == ("chunks", "gunicorn cannot use sendfile over HTTP/2")
