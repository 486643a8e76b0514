"""Our bodies on every WSGI server, over a raw socket: each byte, the next answer, what is left open, what moved it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from tests.support import wsgi_matrix, wsgi_servers
from tests.support.servers import Server, wait_until
from tests.support.table import CASES, Files
from tests.support.wire import format_request
from tests.support.wsgi_matrix import BIG, BIG_SIZE, big_content, holds
from tests.support.wsgi_servers import SERVERS
from tests.support.wsgi_table import expect_the_end, wrong_rows


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return wsgi_matrix.make_site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module", params=SERVERS)
def name(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    if chosen in wsgi_servers.UNAVAILABLE:
        pytest.skip(wsgi_servers.UNAVAILABLE[chosen])
    return chosen


@pytest.fixture(scope="module")
def server(name: str, site: Files) -> Iterator[Server]:
    with wsgi_matrix.running(name, site) as server:
        yield server


@pytest.fixture(autouse=True)
def nothing_is_left_open(server: Server, site: Files) -> Iterator[None]:
    assert not holds(server, site)
    yield
    # A server may close a body after the client has its last byte.
    wait_until(lambda: not holds(server, site), timeout=30, what="the files to be closed")


@pytest.mark.parametrize("door", ["bare", "werkzeug", "flask", "responses", "upgraded"])
def test_the_table_passes_over_a_socket(door: str, name: str, server: Server, site: Files) -> None:
    """Every row behind the plain door, some behind the others, which give the server the same kinds of bodies."""
    rows = [case for case in CASES if not (door == "upgraded" and case.dressed)]
    wrong = wrong_rows(server, name, rows if door == "bare" else rows[::7], site, f"/{door}")
    assert not wrong, f"{len(wrong)} rows:\n" + "\n".join(wrong[:10])


def test_what_was_seen_of_a_server_is_what_the_documentation_says(name: str, server: Server, site: Files) -> None:
    assert wsgi_matrix.observe(name, server, site) == wsgi_matrix.documented()[name]


@pytest.mark.parametrize("wanted", ["bytes=50000000-", "bytes=-20000000"])
def test_a_part_at_the_end_travels_as_any_other(wanted: str, name: str, server: Server, site: Files) -> None:
    assert wsgi_matrix.travel(server, site, ("Range", wanted)) == wsgi_matrix.documented()[name].part


@pytest.mark.parametrize(
    "wanted", [None, "bytes=0-0", "bytes=10000003-30000003", "bytes=-20000000", "bytes=5-9999999,20000000-30000000"]
)
def test_large_bodies_are_exact(wanted: str | None, name: str, server: Server, site: Files) -> None:
    content = big_content()
    with server.connect() as connection:
        for _ in range(2):
            response = connection.get(f"/flask/plain/{BIG}", *([("Range", wanted)] if wanted else []))
            if wanted is None:
                assert response.status == 200
                assert response.body == content
            else:
                assert response.status == 206
                first = wanted.removeprefix("bytes=").split(",")[0]
                start, _, last = first.partition("-")
                part = content[int(start) : int(last) + 1] if start else content[-int(last) :]
                assert part in response.body if "," in wanted else response.body == part
            if not SERVERS[name].keeps_alive:
                break
            connection.assert_nothing_pending()


@pytest.mark.parametrize("door", ["bare", "flask", "upgraded"])
@pytest.mark.parametrize("tag", ['"another"', "*"])
def test_an_answer_has_one_date(door: str, tag: str, server: Server) -> None:
    with server.connect() as connection:
        response = connection.get(f"/{door}/plain/small.bin", ("If-None-Match", tag))
        assert response.status == (304 if tag == "*" else 200)
        assert len(response.values("date")) == 1


def test_head_of_a_large_file_sends_nothing(name: str, server: Server) -> None:
    with server.connect() as connection:
        response = connection.request("HEAD", f"/flask/plain/{BIG}", [("Range", "bytes=5-9")])
        assert response.status == 200
        assert response.values("content-length") == [str(BIG_SIZE)]
        if SERVERS[name].keeps_alive:
            assert connection.get("/flask/plain/small.bin").status == 200
        else:
            expect_the_end(connection)


def test_a_file_that_grows_is_sent_as_promised(name: str, server: Server, site: Files) -> None:
    content = big_content()
    path = site.path(BIG)
    try:
        with server.connect() as connection:
            connection.send(format_request("GET", f"/flask/plain/{BIG}"))
            assert connection.read_head().length == BIG_SIZE
            begun = connection.receive_exactly(1000)
            with path.open("ab") as file:
                file.write(b"more" * 500_000)
            assert begun + connection.receive_exactly(BIG_SIZE - 1000) == content
            if SERVERS[name].keeps_alive:
                assert connection.get("/flask/plain/small.bin").status == 200
            else:
                expect_the_end(connection)
    finally:
        os.truncate(path, BIG_SIZE)
        os.utime(path, (1_700_000_000, 1_700_000_000))


@pytest.mark.parametrize("fields", [(), (("Range", "bytes=1000-"),)], ids=["whole", "part"])
def test_clients_that_leave_half_way_leave_nothing_open(
    fields: tuple[tuple[str, str], ...], server: Server, site: Files
) -> None:
    for _ in range(10):
        with server.connect(receive_buffer=4096) as connection:
            connection.send(format_request("GET", f"/flask/plain/{BIG}", fields))
            assert connection.read_head().status in (200, 206)
            connection.receive_exactly(1000)
            connection.reset()
    wait_until(lambda: not holds(server, site), timeout=30, what="the files to be closed")
    with server.connect() as connection:
        assert connection.get("/flask/plain/small.bin").body == site.content("small.bin")


def test_readers_at_the_same_time_get_their_own_bytes(name: str, server: Server) -> None:
    content = big_content()
    wrong: list[str] = []

    def read(number: int) -> None:
        start = number * 5_000_011
        try:
            with server.connect() as connection:
                body = connection.get(f"/flask/plain/{BIG}", ("Range", f"bytes={start}-{start + 9_999_999}")).body
            if body != content[start : start + 10_000_000]:
                wrong.append(f"reader {number}: {len(body)} bytes, not those at {start}")
        except AssertionError as error:
            wrong.append(f"reader {number}: {error}")

    threads = [threading.Thread(target=read, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
