"""Files beneath middleware: right bytes, still moved by the kernel; and what a compressor that drops pathsend does."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator

import pytest

from tests.support.kernel import trace_sendfile
from tests.support.sites import COMBINATIONS, HUGE, LARGE, MIDDLE, SMALL, Setup, Site, content, running, vault
from tests.support.table import parse_multipart
from tests.support.wire import Connection

_STACKS = ("gzipped", "based", "stacked", "decorated")
_SETUPS = [
    Setup(each.loop, each.parser, f"tests.support.apps:{stack}")
    for each, stacks in zip(COMBINATIONS, (_STACKS, ("stacked",), ("decorated",), _STACKS), strict=True)
    for stack in stacks
]


@pytest.fixture(scope="module", params=_SETUPS, ids=str)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    with running(request.param) as made:
        yield made


_ACCEPT = ("Accept-Encoding", "gzip, br")


def _has_passed(site: Site, values: list[str]) -> None:
    assert bool(values) == (not site.setup.app.endswith(":gzipped"))


@pytest.mark.parametrize("folder", ["ours", "stock", "static"])
@pytest.mark.parametrize("fields", [(), (_ACCEPT,)], ids=["plain", "accepting gzip"])
def test_the_kernel_moves_a_file_beneath_middleware(
    site: Site, folder: str, fields: tuple[tuple[str, str], ...]
) -> None:
    with site.unharmed(), trace_sendfile(site.pid) as trace, site.connect() as connection:
        response = connection.get(f"/{folder}/{LARGE}", *fields)
        assert (response.status, response.body) == (200, content(LARGE))
        assert response.values("content-encoding") == []
        _has_passed(site, response.values("x-passed"))
        for name in (SMALL, MIDDLE):
            assert connection.get(f"/{folder}/{name}", *fields).body == content(name)
    assert trace.total_from(vault() / LARGE) == len(content(LARGE))


def test_ranges_beneath_middleware_are_moved_by_the_kernel(site: Site) -> None:
    whole = content(LARGE)
    with site.unharmed(), trace_sendfile(site.pid) as trace, site.connect() as connection:
        response = connection.get(f"/ours/{LARGE}", _ACCEPT, ("Range", "bytes=1000000-3999999"))
        assert (response.status, response.body) == (206, whole[1_000_000:4_000_000])
        response = connection.get(f"/ours/{LARGE}", _ACCEPT, ("Range", "bytes=4000000-4999999,5-9"))
        parts = parse_multipart(response.values("content-type")[0], response.body)
        assert [part.data for part in parts] == [whole[4_000_000:5_000_000], whole[5:10]]
        assert connection.get(f"/ours/{SMALL}").body == content(SMALL)
    assert trace.total_from(vault() / LARGE) == 4_000_005


def test_other_answers_are_still_compressed(site: Site) -> None:
    with site.unharmed(), site.connect() as connection:
        response = connection.get("/text", _ACCEPT)
        compresses = site.setup.app.endswith((":gzipped", ":stacked"))
        assert response.values("content-encoding") == (["gzip"] if compresses else [])
        assert (gzip.decompress(response.body) if compresses else response.body) == b"text " * 1000
        assert connection.get(f"/ours/{SMALL}").body == content(SMALL)


@pytest.mark.parametrize("folder", ["ours", "stock"])
def test_head_beneath_middleware_has_no_body(site: Site, folder: str) -> None:
    with site.unharmed(), site.connect() as connection:
        response = connection.request("HEAD", f"/{folder}/{LARGE}", [_ACCEPT])
        assert (response.status, response.body) == (200, b"")
        assert connection.get(f"/{folder}/{SMALL}").body == content(SMALL)


def test_a_not_modified_answer_beneath_middleware_keeps_the_connection(site: Site) -> None:
    with site.unharmed(), site.connect() as connection:
        (tag,) = connection.request("HEAD", f"/ours/{LARGE}").values("etag")
        for _ in range(2):
            assert connection.get(f"/ours/{LARGE}", ("If-None-Match", tag), _ACCEPT).status == 304
        assert connection.get(f"/ours/{SMALL}").body == content(SMALL)


@pytest.mark.parametrize("folder", ["ours", "stock"])
def test_a_client_leaves_beneath_middleware(site: Site, folder: str) -> None:
    with site.unharmed(serves=10):
        for how in (Connection.reset, Connection.close) * 5:
            how(site.stall(f"/{folder}/{HUGE}", _ACCEPT))


def test_pipelined_requests_beneath_middleware_come_in_order(site: Site) -> None:
    names = [SMALL, LARGE, MIDDLE, HUGE, SMALL]
    with site.unharmed(), site.connect(receive_buffer=8192) as connection:
        for name in names:
            connection.send(f"GET /ours/{name} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        for name in names:
            assert connection.read_response().body == content(name)


# --- a compressor that drops what it does not know --------------------------------------------------------------------


def _dropping(setup: Setup) -> Setup:
    return Setup(setup.loop, setup.parser, "tests.support.apps:dropping")


@pytest.mark.parametrize("setup", COMBINATIONS, ids=str)
def test_a_dropped_file_is_a_500_that_names_the_cause(setup: Setup) -> None:
    with running(_dropping(setup), settle=False) as site:
        for _ in range(2):
            with site.connect() as connection:
                response = connection.get(f"/ours/{LARGE}")
                assert (response.status, response.body) == (500, b"Internal Server Error")
                connection.assert_closed()
        log = site.server.log()
        assert log.count("was swallowed") == 2
        assert "ZCRESPONSE_PATHSEND=off" in log
        assert "Traceback" not in log
        # Applications that were not changed need the hint most.
        site.forget_log()
        with site.connect() as connection:
            assert connection.get(f"/stock/{LARGE}").status == 500
        site.wait_idle()
        assert "ZCRESPONSE_PATHSEND=off" in site.log_since()
        site.forget_log()


@pytest.mark.parametrize("setup", COMBINATIONS, ids=str)
def test_a_compressor_works_where_pathsend_is_withheld(setup: Setup) -> None:
    with running(_dropping(setup), settle=False, env={"ZCRESPONSE_PATHSEND": "off"}) as site:
        with site.connect() as connection:
            for folder in ("ours", "stock", "static"):
                for name in (SMALL, LARGE):
                    response = connection.get(f"/{folder}/{name}")
                    assert response.status == 200
                    assert zlib.decompress(response.body) == content(name)
        site.wait_idle()
