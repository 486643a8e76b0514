"""A middleware takes Content-Length out: servers that send regions by themselves still send no more than the region."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import wsgi_servers
from tests.support.kernel import trace_sendfile
from tests.support.servers import Server, descendants, wait_until
from tests.support.table import Files
from tests.support.wire import WireResponse
from tests.support.wsgi_matrix import BIG, BIG_SIZE, big_content, holds, make_site
from tests.support.wsgi_servers import SERVERS
from tests.support.wsgi_table import expect_the_end

#: Each door's URLs, by the application that has it.
DOORS = {
    "tests.support.wsgi_doors:everything": ["/bare/plain/", "/werkzeug/plain/", "/flask/plain/", "/responses/plain/"],
    "tests.support.wsgi_stock:behind": ["/flask/", "/conditional/wrapper/", "/named/"],
    "tests.support.django_doors:wsgi_app": ["/plain/", "/opened/"],
    "tests.support.django_doors:stock_wsgi_app": ["/plain/"],
}
NAMES = ["gunicorn sync", "gunicorn gthread", "mod_wsgi embedded", "mod_wsgi daemon", "waitress"]

#: A part from the middle, which no end of the file stops.
FIRST, STOP = 10_000_003, 20_000_004
PART = ("Range", f"bytes={FIRST}-{STOP - 1}")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return make_site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture(scope="module", params=DOORS, ids=lambda app: app.removeprefix("tests.support."))
def app(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture(scope="module")
def server(name: str, app: str, site: Files) -> Iterator[Server]:
    args = ["WSGIEnableSendfile On"] if name.startswith("mod_wsgi") else []
    env = {"TABLE_FILES": str(site.directory), "STRIPPED_APP": app}
    if "stock_wsgi_app" in app:
        env["DJANGO_MIDDLEWARE"] = "zcresponse.django.ZeroCopyMiddleware"
    with wsgi_servers.start(name, "tests.support.stripped:app", *args, env=env) as server:
        yield server
        wait_until(lambda: not holds(server, site), timeout=30, what="the files to be closed")


def ask(server: Server, name: str, url: str, *fields: tuple[str, str]) -> tuple[WireResponse, int]:
    """Return the answer, after which the connection is good for another or ends, and what sendfile moved of it."""
    with trace_sendfile(*(descendants(server.pid) or {server.pid})) as trace, server.connect() as connection:
        response = connection.get(url, *fields)
        if SERVERS[name].keeps_alive and response.head.keeps_alive:
            assert connection.get(url, ("Range", "bytes=999999999-")).status == 416
        else:
            expect_the_end(connection)
    return response, trace.total


def test_a_part_without_its_length_is_that_part(name: str, app: str, server: Server) -> None:
    for door in DOORS[app]:
        response, _ = ask(server, name, f"{door}{BIG}?stripped", PART)
        assert response.status == 206, door
        # waitress asks the file for its length, and tells that.
        assert response.values("content-length") == (["10000001"] if name == "waitress" else []), door
        assert response.body == big_content()[FIRST:STOP], door


def test_a_whole_file_without_its_length_is_moved_by_the_kernel(name: str, app: str, server: Server) -> None:
    for door in DOORS[app]:
        response, moved = ask(server, name, f"{door}{BIG}?stripped")
        assert response.body == big_content(), door
        assert moved == BIG_SIZE, door


def test_a_part_with_its_length_is_moved_by_the_kernel(name: str, app: str, server: Server) -> None:
    for door in DOORS[app]:
        response, moved = ask(server, name, door + BIG, PART)
        assert response.body == big_content()[FIRST:STOP], door
        # Django's own handler does not say whose start_response it is.
        assert moved == (0 if "mod_wsgi" in name and "stock_wsgi" in app else STOP - FIRST), door
