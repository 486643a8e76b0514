"""A Django project on real servers: the common table, what moved the bytes, what is left open, what memory it takes."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import pytest

from tests.support import servers, wsgi_matrix, wsgi_servers
from tests.support.kernel import trace_sendfile
from tests.support.servers import Server, descendants, rss_bytes, wait_until
from tests.support.table import CASES, Files
from tests.support.wire import PeerReset, ShortBody, check_on_wire, format_request
from tests.support.wsgi_matrix import BIG, BIG_SIZE, big_content, holds
from tests.support.wsgi_table import wrong_rows

_MIDDLEWARE = {"DJANGO_MIDDLEWARE": "zcresponse.django.ZeroCopyMiddleware"}
_OURS = "zcresponse.uvicorn:ZeroCopyHttpToolsProtocol"


@dataclass(frozen=True)
class Setup:
    """One way to run the project.

    Attributes:
        server: A name in `wsgi_servers.SERVERS`, or an ASGI server's.
        app: The application in `tests.support.django_doors`.
        way: How a whole file and a part of it travel.
    """

    server: str
    app: str
    way: tuple[str, str]

    def __str__(self) -> str:
        return f"{self.server} {self.app}"

    @property
    def is_wsgi(self) -> bool:
        return "wsgi" in self.app

    @property
    def keeps_alive(self) -> bool:
        return not self.is_wsgi or wsgi_servers.SERVERS[self.server].keeps_alive

    def start(self, files: Files) -> AbstractContextManager[Server]:
        """Run it."""
        app = f"tests.support.django_doors:{self.app}"
        env = {"TABLE_FILES": str(files.directory), **(_MIDDLEWARE if "stock" in self.app else {})}
        if self.is_wsgi:
            return wsgi_servers.start(self.server, app, env=env)
        kind, _, rest = self.server.partition(" ")
        if kind == "uvicorn":
            loop, _, http = rest.partition(" ")
            return servers.uvicorn(app, loop=loop, http=_OURS if http == "ours" else "httptools", env=env)
        if kind == "hypercorn":
            return servers.hypercorn(app, env=env)
        return {"granian": servers.granian, "daphne": servers.daphne}[kind](app, env=env)


SETUPS = [
    *(
        Setup(name, app, ways)
        for name, ways in (
            ("gunicorn sync", ("sendfile", "sendfile")),
            ("gunicorn gthread", ("sendfile", "sendfile")),
            ("uwsgi http-socket", ("sendfile", "blocks")),
            ("uwsgi http11-socket", ("blocks", "blocks")),
            ("waitress", ("sendfile", "sendfile")),
        )
        for app in ("wsgi_app", "stock_wsgi_app")
    ),
    Setup("uvicorn asyncio ours", "asgi_app", ("sendfile", "sendfile")),
    Setup("uvicorn uvloop ours", "asgi_app", ("sendfile", "sendfile")),
    Setup("uvicorn uvloop stock", "asgi_app", ("blocks", "blocks")),
    Setup("uvicorn asyncio stock", "stock_asgi_app", ("blocks", "blocks")),
    Setup("granian", "asgi_app", ("the server reads", "blocks")),
    Setup("hypercorn", "asgi_app", ("blocks", "blocks")),
    Setup("daphne", "asgi_app", ("blocks", "blocks")),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return wsgi_matrix.make_site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module", params=SETUPS, ids=str)
def setup(request: pytest.FixtureRequest) -> Setup:
    chosen: Setup = request.param
    return chosen


@pytest.fixture(scope="module")
def server(setup: Setup, site: Files) -> Iterator[Server]:
    with setup.start(site) as server:
        yield server


def test_the_table_passes_over_a_socket(setup: Setup, server: Server, site: Files) -> None:
    if setup.is_wsgi:
        wrong = wrong_rows(server, setup.server, CASES, site)
        assert not wrong, f"{len(wrong)} rows:\n" + "\n".join(wrong[:10])
    else:
        with server.connect() as connection:
            for case in CASES:
                check_on_wire(connection, case, site)


@pytest.mark.parametrize("view", ["async", "opened"])
@pytest.mark.parametrize("name", ["small.bin", BIG])
def test_other_views_send_the_same(view: str, name: str, server: Server, site: Files) -> None:
    content = site.path(name).read_bytes()
    for fields, part in ((), content), ((("Range", "bytes=100-999"),), content[100:1000]):
        with server.connect() as connection:
            assert connection.get(f"/{view}/{name}", *fields).body == part


def _ways(server: Server) -> list[str]:
    with server.connect() as connection:
        return [told["way"] for told in json.loads(connection.get("/transfers").body)]


@pytest.mark.parametrize("part", [False, True], ids=["whole", "part"])
@pytest.mark.parametrize("view", ["plain", "opened"])
def test_the_best_way_that_the_server_has_is_taken(
    view: str, part: bool, setup: Setup, server: Server, site: Files
) -> None:
    _ways(server)
    fields = [("Range", "bytes=10000003-30000003")] if part else []
    expected = big_content()[10_000_003:30_000_004] if part else big_content()
    with trace_sendfile(*(descendants(server.pid) or {server.pid})) as trace, server.connect() as connection:
        assert connection.get(f"/{view}/{BIG}", *fields).body == expected
    moved = trace.total_from(site.path(BIG))
    told: list[str] = []

    def is_told() -> bool:
        told.extend(_ways(server))
        return bool(told)

    if setup.app == "stock_asgi_app":
        # Django's own handler iterates over the response, and nobody tells.
        assert moved == 0
        return
    wait_until(is_told, what="the account of the body")
    way = "sendfile" if moved >= 0.999 * len(expected) else "blocks" if told == ["chunks"] else "the server reads"
    assert way == setup.way[part]
    assert way == "sendfile" or moved == 0


@pytest.mark.parametrize("query", ["", "?stock"])
def test_an_upload_is_sent_back_by_its_path_before_it_is_gone(query: str, setup: Setup, server: Server) -> None:
    content = bytes(range(256)) * 4096
    part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n\r\n%b\r\n--x--\r\n' % content
    form = [("Content-Type", "multipart/form-data; boundary=x")]
    for _ in range(5):
        with server.connect() as connection:
            answer = connection.request("POST", f"/uploaded/file{query}", form, part)
            assert (answer.status, answer.body) == (200, content)


@pytest.mark.parametrize("view", ["stock", "static"])
def test_djangos_own_responses_are_right_too(view: str, setup: Setup, server: Server, site: Files) -> None:
    if setup.is_wsgi:
        pytest.skip("there they are Django's and the server's alone")
    with trace_sendfile(server.pid) as trace, server.connect() as connection:
        assert connection.get(f"/{view}/{BIG}").body == big_content()
        response = connection.request("HEAD", f"/{view}/{BIG}")
        assert response.values("content-length") == [str(BIG_SIZE)]
        assert connection.get("/plain/small.bin").body == site.content("small.bin")
    assert trace.total_from(site.path(BIG)) == (BIG_SIZE if setup.way[0] == "sendfile" else 0)


@pytest.mark.parametrize("view", ["plain", "gzip", "elsewhere", "stock"])
def test_head_sends_no_byte_of_a_body_and_reads_none(view: str, setup: Setup, server: Server, site: Files) -> None:
    if view == "stock" and "stock" in setup.app:
        pytest.skip("there it is Django's and the server's alone")
    with server.connect() as connection:
        head = connection.request("HEAD", f"/{view}/{BIG}", [("Accept-Encoding", "gzip")]).head
        assert head.status == 200
        assert ("content-encoding", "gzip") in head.fields or ("content-length", str(BIG_SIZE)) in head.fields
        if setup.keeps_alive and head.keeps_alive:
            assert connection.get("/plain/small.bin").body == site.content("small.bin")
        else:
            # waitress ends the chunks that it has said are coming.
            assert connection.read_to_end() in (b"", b"0\r\n\r\n")
    with server.connect() as connection:
        assert connection.get("/fetched").body == b"0"


@pytest.mark.parametrize("fields", [(), (("Range", "bytes=1000-"),)], ids=["whole", "part"])
def test_clients_that_leave_half_way_leave_nothing_open(
    fields: tuple[tuple[str, str], ...], server: Server, site: Files
) -> None:
    for view in ("plain", "opened", "stock"):
        for _ in range(5):
            with server.connect(receive_buffer=4096) as connection:
                connection.send(format_request("GET", f"/{view}/{BIG}", fields))
                assert connection.read_head().status in (200, 206)
                connection.receive_exactly(1000)
                connection.reset()
    wait_until(lambda: not holds(server, site), timeout=30, what="the files to be closed")
    with server.connect() as connection:
        assert connection.get("/plain/small.bin").body == site.content("small.bin")


@pytest.mark.parametrize("http", ["h11", "httptools", _OURS])
def test_a_body_that_turns_out_too_short_ends_the_connection_and_is_told(http: str, site: Files) -> None:
    """What the server says of it must not be lost while the response is closed."""
    env = {"TABLE_FILES": str(site.directory)}
    with servers.uvicorn("tests.support.django_doors:asgi_app", http=http, env=env) as server:
        with server.connect(timeout=5) as connection:
            connection.send(format_request("GET", "/short/small.bin"))
            connection.read_head()
            with pytest.raises((ShortBody, PeerReset)):
                connection.receive_exactly(1024)
        wait_until(lambda: "Traceback" in server.log(), what="the error to be told")


# --- memory -----------------------------------------------------------------------------------------------------------

_HUGE = 512 * 1024 * 1024
_READERS = 10


@pytest.fixture(scope="module")
def huge(tmp_path_factory: pytest.TempPathFactory) -> Files:
    directory = tmp_path_factory.mktemp("huge")
    with (directory / "huge.bin").open("wb") as file:
        for number in range(_HUGE // 2**20):
            file.write(number.to_bytes(8, "big") * (2**20 // 8))
    return Files(directory)


@pytest.mark.campaign
@pytest.mark.parametrize("view", ["plain", "async", "stock"])
@pytest.mark.parametrize("setup", [each for each in SETUPS if each.server.startswith(("uvicorn", "daphne"))], ids=str)
def test_stalled_readers_of_a_huge_file_take_no_memory(view: str, setup: Setup, huge: Files) -> None:
    if view == "stock" and setup.app == "stock_asgi_app":
        pytest.skip("Django reads all of it, as it says")
    with setup.start(huge) as server, contextlib.ExitStack() as stack:
        with server.connect() as connection:
            # Threads and what else is made at first need.
            assert connection.get(f"/{view}/huge.bin", ("Range", "bytes=0-99")).status in (200, 206)
        before = rss_bytes(server.pid)
        for _ in range(_READERS):
            connection = stack.enter_context(server.connect(receive_buffer=4096))
            connection.send(format_request("GET", f"/{view}/huge.bin"))
            connection.receive_exactly(1000)
        most = 0
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            most = max(most, rss_bytes(server.pid) - before)
            time.sleep(0.05)
        assert most <= 10 * 2**20
