"""Stock applications behind the middleware, on real servers: each byte, the next answer, what is left open."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import pytest

from tests.support import wsgi_servers
from tests.support.kernel import trace_sendfile
from tests.support.servers import Server, descendants, wait_until
from tests.support.table import FILES, Files
from tests.support.wire import format_request
from tests.support.wsgi_matrix import BIG, BIG_SIZE, big_content, holds, make_site
from tests.support.wsgi_servers import SERVERS
from tests.support.wsgi_table import expect_the_end

NAME = "data.bin"
CONTENT = FILES[NAME].content

#: One of each kind: regions by sendfile, regions that are read, whole files alone, none at all.
NAMES = ["gunicorn sync", "gunicorn gthread", "gunicorn gevent", "uwsgi http-socket", "waitress", "bjoern", "cheroot"]

STOCK = ["/flask/", "/flask/static/", "/django/stock/", "/whitenoise/", "/wrapper/", "/named/"]
RANGES = ["/flask/", "/flask/static/", "/whitenoise/", "/named/", "/conditional/django/stock/", "/conditional/wrapper/"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return make_site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


def running(name: str, site: Files) -> contextlib.AbstractContextManager[Server]:
    return wsgi_servers.start(name, "tests.support.wsgi_stock:behind", env={"TABLE_FILES": str(site.directory)})


@pytest.fixture(scope="module")
def server(name: str, site: Files) -> Iterator[Server]:
    with running(name, site) as server:
        yield server
        wait_until(lambda: not holds(server, site), timeout=30, what="the files to be closed")


def ask(server: Server, name: str, path: str, expected: tuple[int, bytes], *fields: tuple[str, str]) -> None:
    """Ask for the same twice, on one connection if the server keeps it."""
    with server.connect() as connection:
        for _ in range(2):
            response = connection.get(path, *fields)
            assert (response.status, response.body) == expected
            if not SERVERS[name].keeps_alive:
                break
            connection.assert_nothing_pending()


@pytest.mark.parametrize("path", STOCK)
def test_whole_files_are_exact(path: str, name: str, server: Server) -> None:
    ask(server, name, path + NAME, (200, CONTENT))
    if path in ("/flask/", "/django/stock/"):
        ask(server, name, path + BIG, (200, big_content()))


@pytest.mark.parametrize("path", RANGES)
def test_parts_are_exact(path: str, name: str, server: Server) -> None:
    ask(server, name, path + NAME, (206, CONTENT[5:1000]), ("Range", "bytes=5-999"))
    part = big_content()[10_000_003:20_000_004]
    ask(server, name, path + BIG, (206, part), ("Range", "bytes=10000003-20000003"))


def test_a_part_that_the_application_has_chosen_is_exact(name: str, server: Server) -> None:
    ask(server, name, f"/part/{NAME}", (206, CONTENT[5:1000]))


@pytest.mark.parametrize("path", STOCK)
def test_head_sends_nothing(path: str, name: str, server: Server) -> None:
    with server.connect() as connection:
        response = connection.request("HEAD", path + BIG)
        assert response.status == 200
        assert response.values("content-length") == [str(BIG_SIZE)]
        if SERVERS[name].keeps_alive:
            assert connection.get(path + NAME).body == CONTENT
        else:
            expect_the_end(connection)


@pytest.mark.parametrize("path", ["/conditional/django/stock/", "/conditional/wrapper/", "/named/"])
def test_conditions_of_others_are_answered(path: str, name: str, server: Server) -> None:
    tag = FILES[NAME].etag
    for status, field in [
        (304, ("If-None-Match", tag)),
        (412, ("If-Match", '"another"')),
        (416, ("Range", "bytes=300000-")),
    ]:
        with server.connect() as connection:
            response = connection.get(path + NAME, field)
            assert (response.status, response.body) == (status, b"")
            assert len(response.values("date")) == 1


def test_clients_that_leave_half_way_leave_nothing_open(server: Server, site: Files) -> None:
    for path in ("/flask/", "/django/stock/"):
        with server.connect(receive_buffer=4096) as connection:
            connection.send(format_request("GET", path + BIG))
            assert connection.read_head().status == 200
            connection.receive_exactly(1000)
            connection.reset()
    wait_until(lambda: not holds(server, site), timeout=30, what="the files to be closed")
    with server.connect() as connection:
        assert connection.get(f"/flask/{NAME}").body == CONTENT


@pytest.mark.parametrize(("name", "parts"), [("gunicorn gthread", True), ("uwsgi http-socket", False)])
def test_the_kernel_moves_what_it_can(name: str, parts: bool, site: Files) -> None:
    with running(name, site) as server:
        with server.connect() as connection:
            # Its workers may be forked after it listens.
            assert connection.get(f"/flask/{NAME}").body == CONTENT
        pids = descendants(server.pid)
        for path in RANGES:
            moved = {}
            for field in (), (("Range", "bytes=10000003-30000003"),):
                with trace_sendfile(*pids) as trace, server.connect() as connection:
                    body = connection.get(path + BIG, *field).body
                moved[len(body)] = trace.total_from(site.path(BIG))
            assert moved == {BIG_SIZE: BIG_SIZE, 20_000_001: 20_000_001 if parts else 0}, path


def test_the_way_is_told(name: str, server: Server) -> None:
    told: list[str] = []

    def is_told() -> bool:
        with server.connect() as connection:
            told.extend(transfer["way"] for transfer in json.loads(connection.get("/transfers").body))
        return bool(told)

    is_told()
    told.clear()
    with server.connect() as connection:
        connection.get(f"/flask/{BIG}", ("Range", "bytes=10000003-30000003"))
    wait_until(is_told, what="the account of the body")
    assert told == ["file_wrapper" if name in ("gunicorn sync", "gunicorn gthread", "waitress") else "chunks"]
