"""Files by the loop's own `sendfile`, as on Windows; forced here on asyncio's selector loop."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.support import servers
from tests.support.kernel import trace_sendfile
from tests.support.sites import HUGE, LARGE, SMALL, Setup, Site, content, own_file, vault
from tests.support.table import parse_multipart
from tests.support.wire import PeerReset, ShortBody, format_request


@contextlib.contextmanager
def running(parser: str, how: str, **env: str) -> Iterator[Site]:
    setup = Setup("asyncio", parser)
    with servers.uvicorn(
        "uvicorn",
        setup.app,
        http=setup.http,
        module="tests.support.without_sendfile",
        env={"VAULT": str(vault()), "LOOP_SENDS_FILES": how, **env},
        python=("-X", "dev", "-W", "error"),
    ) as server:
        site = Site(server, setup)
        site.settle()
        yield site
    assert not server.killed


@pytest.fixture(scope="module", params=["h11", "httptools"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    with running(request.param, "yes") as site:
        yield site


def test_a_whole_file_is_sent_by_the_loop(site: Site) -> None:
    with site.unharmed(), trace_sendfile(site.pid) as trace, site.connect() as connection:
        for name in (LARGE, SMALL, LARGE):
            assert connection.get(f"/file/{name}").body == content(name)
        assert site.transfers(3)[-1]["way"] == "sendfile"
    assert trace.total_from(vault() / LARGE) == 2 * len(content(LARGE))


def test_a_range_is_sent_by_the_loop(site: Site) -> None:
    with site.unharmed(), trace_sendfile(site.pid) as trace, site.connect() as connection:
        response = connection.get(f"/file/{LARGE}", ("Range", "bytes=1000003-4999999"))
        assert (response.status, response.body) == (206, content(LARGE)[1_000_003:5_000_000])
    assert trace.total_from(vault() / LARGE) == 3_999_997


def test_several_ranges_are_sent_in_their_order(site: Site) -> None:
    with site.unharmed(), site.connect() as connection:
        for _ in range(2):
            response = connection.get(f"/file/{LARGE}", ("Range", "bytes=4000000-4999999, 7-2000006, -3"))
            parts = parse_multipart(response.values("content-type")[0], response.body)
            whole = content(LARGE)
            assert [part.data for part in parts] == [whole[4_000_000:5_000_000], whole[7:2_000_007], whole[-3:]]


def test_pipelined_requests_are_answered_one_after_the_other(site: Site) -> None:
    with site.unharmed(), site.connect() as connection:
        connection.send(format_request("GET", f"/file/{LARGE}") * 3)
        for _ in range(3):
            assert connection.read_response().body == content(LARGE)


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_client_that_leaves_is_no_error(site: Site, how: str) -> None:
    with site.unharmed():
        connection = site.stall(f"/file/{HUGE}")
        connection.reset() if how == "reset" else connection.close()
        report = site.transfers()[-1]
        # The selector loop takes a reset for a file that it cannot send, so that it is found out by writing.
        assert (report["completed"], report["reason"]) == (False, "the client left")


def test_a_file_that_is_cut_meanwhile_closes_the_connection(site: Site) -> None:
    with own_file(24 * 1024 * 1024) as (path, data), site.unharmed(faults=["FileTruncatedError"]):
        with site.stall(f"/file/{path.name}") as connection:
            with path.open("r+b") as file:
                file.truncate(20 * 1024 * 1024)
            with pytest.raises(ShortBody) as short:
                connection.receive_exactly(len(data))
        assert short.value.received == 20 * 1024 * 1024


def test_others_are_answered_during_a_download(site: Site) -> None:
    with site.stall(f"/file/{HUGE}"):
        site.serves(3)


def test_a_reader_that_stalls_is_cut() -> None:
    with running("httptools", "yes", ZCRESPONSE_STALL_TIMEOUT="0.5") as site:
        with site.stall(f"/file/{HUGE}") as connection:
            report = site.transfers()[-1]
            assert (report["completed"], report["reason"]) == (False, "the client took nothing for 0.5 s")
            with pytest.raises(PeerReset):
                connection.receive_exactly(len(content(HUGE)))


@pytest.mark.parametrize("how", ["refused", ""])
def test_where_the_loop_cannot_files_are_read(how: str) -> None:
    with running("h11", how) as site, trace_sendfile(site.pid) as trace, site.connect() as connection:
        for name in (LARGE, SMALL, LARGE):
            assert connection.get(f"/file/{name}").body == content(name)
        response = connection.get(f"/file/{LARGE}", ("Range", "bytes=4000000-4999999, 7-2000006, -3"))
        assert len(parse_multipart(response.values("content-type")[0], response.body)) == 3
        assert site.transfers(4)[0]["way"] == "chunks"
    assert trace.sendfiles == []
