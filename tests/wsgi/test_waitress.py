"""waitress, whose bodies leave by sendfile(2): what the tests of all servers cannot ask."""

from __future__ import annotations

import signal
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from wsgiref.types import StartResponse, WSGIEnvironment

import pytest

from tests.support import wsgi_servers
from tests.support.kernel import trace_syscalls
from tests.support.servers import Server, run_server, wait_until
from tests.support.table import FILES, Files
from tests.support.wire import format_request
from tests.support.wsgi_doors import bare
from tests.support.wsgi_matrix import BIG, BIG_SIZE, big_content, holds, make_site

SMALL = FILES["small.bin"].content
MIB = 1024 * 1024


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The plain door, and what others may do with its bodies."""
    _, way, rest = environ["PATH_INFO"].split("/", 2)
    body = bare({**environ, "PATH_INFO": f"/plain/{rest}"}, start_response)
    if way == "read":
        return (bytes(block) for block in body)
    if way == "dropped":
        return [b"x" * BIG_SIZE]
    return body


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return make_site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def server(site: Files) -> Iterator[Server]:
    env = {"TABLE_FILES": str(site.directory)}
    with wsgi_servers.start("waitress", "tests.wsgi.test_waitress:app", env=env) as server:
        yield server
        wait_until(lambda: not holds(server, site), timeout=30, what="the files to be closed")


def test_pipelined_answers_come_one_after_the_other(server: Server) -> None:
    big = big_content()
    with server.connect(receive_buffer=65536) as connection:
        connection.send(
            format_request("GET", f"/sent/{BIG}")
            + format_request("GET", "/sent/small.bin")
            + format_request("GET", f"/read/{BIG}", [("Range", "bytes=5-9999999")])
            + format_request("GET", f"/sent/{BIG}", [("Range", "bytes=-20000000")])
        )
        for expected in (big, SMALL, big[5:10_000_000], big[-20_000_000:]):
            assert connection.read_response().body == expected
        connection.assert_nothing_pending()


@pytest.mark.parametrize("wanted", [None, "bytes=10000003-30000003"])
def test_where_the_kernel_refuses_the_file_is_read(wanted: str | None, server: Server) -> None:
    expected = big_content()[10_000_003:30_000_004] if wanted else big_content()
    with trace_syscalls(server.pid, names=["sendfile"], refused="sendfile:error=EINVAL") as trace:
        with server.connect() as connection:
            for _ in range(2):
                assert connection.get(f"/sent/{BIG}", *([("Range", wanted)] if wanted else [])).body == expected
            connection.assert_nothing_pending()
    assert {call.errno for call in trace.calls} == {"EINVAL"}


def test_a_reader_that_keeps_up_leaves_the_others_their_turn(server: Server) -> None:
    """A send of nothing lets waitress look after the other connections: so often that nobody waits for a whole file."""
    with trace_syscalls(server.pid, names=["sendfile", "sendto"]) as trace, server.connect() as connection:
        assert len(connection.get(f"/sent/{BIG}").body) == BIG_SIZE
    at_a_time: Counter[tuple[int, int]] = Counter()
    turns: Counter[int] = Counter()
    for call in trace.calls:
        if call.name == "sendto":
            turns[call.pid] += 1
        elif not call.errno:
            at_a_time[call.pid, turns[call.pid]] += call.returned or 0
    assert sum(at_a_time.values()) == BIG_SIZE
    assert max(at_a_time.values()) <= 2 * MIB


def test_a_body_that_nobody_sends_leaves_no_file_open(server: Server, site: Files) -> None:
    with server.connect() as connection:
        assert connection.get(f"/dropped/{BIG}").body == b"x" * BIG_SIZE
        assert not holds(server, site)


def test_where_there_is_no_sendfile_the_file_is_read(site: Files) -> None:
    argv = [sys.executable, "-m", "tests.support.without_sendfile", "waitress", "--listen=127.0.0.1:0"]
    env = {"TABLE_FILES": str(site.directory)}
    with run_server([*argv, "tests.wsgi.test_waitress:app"], env=env, how_to_stop=signal.SIGINT) as server:
        with trace_syscalls(server.pid, names=["sendfile"]) as trace, server.connect() as connection:
            assert connection.get(f"/sent/{BIG}").body == big_content()
            assert connection.get(f"/sent/{BIG}", ("Range", "bytes=-5")).body == big_content()[-5:]
    assert trace.calls == []
