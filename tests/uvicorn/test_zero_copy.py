"""The kernel moves the bytes: what sendfile(2) returned, traced in server processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import starlette

from tests.support.kernel import trace_sendfile
from tests.support.sites import COMBINATIONS, LARGE, MIDDLE, SMALL, Setup, Site, content, running, vault
from tests.support.table import parse_multipart

_SHOPS = [
    *(Setup(each.loop, each.parser, "tests.support.apps:shop") for each in COMBINATIONS),
    *(Setup(each.loop, each.parser, "tests.support.apps:shop_wrapped", stock=True) for each in COMBINATIONS),
    Setup("asyncio", "h11", "tests.support.apps:shop_installed", stock=True),
    Setup("uvloop", "httptools", "tests.support.apps:shop_installed", stock=True),
    # Both at once do no more than one.
    Setup("asyncio", "httptools", "tests.support.apps:shop_wrapped"),
    Setup("uvloop", "h11", "tests.support.apps:shop_installed"),
]


@pytest.fixture(scope="module", params=_SHOPS, ids=str)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    with running(request.param) as made:
        yield made


@pytest.mark.parametrize("folder", ["ours", "stock", "static"])
def test_the_kernel_moves_a_whole_file(site: Site, folder: str) -> None:
    with site.unharmed(), trace_sendfile(site.pid) as trace, site.connect() as connection:
        response = connection.get(f"/{folder}/{LARGE}")
        assert response.status == 200
        assert response.body == content(LARGE)
        assert connection.get(f"/{folder}/{SMALL}").body == content(SMALL)
    assert trace.total_from(vault() / LARGE) == len(content(LARGE))


def test_the_kernel_moves_a_range(site: Site) -> None:
    with site.unharmed(), trace_sendfile(site.pid) as trace, site.connect() as connection:
        response = connection.get(f"/ours/{LARGE}", ("Range", "bytes=1000003-4999999"))
        assert response.status == 206
        assert response.body == content(LARGE)[1_000_003:5_000_000]
        assert connection.get(f"/ours/{SMALL}").body == content(SMALL)
    assert trace.total_from(vault() / LARGE) == 3_999_997


def test_the_kernel_moves_several_ranges(site: Site) -> None:
    with site.unharmed(), trace_sendfile(site.pid) as trace, site.connect() as connection:
        response = connection.get(f"/ours/{LARGE}", ("Range", "bytes=4000000-4999999, 7-2000006, -3"))
        assert response.status == 206
        (kind,) = response.values("content-type")
        parts = parse_multipart(kind, response.body)
        assert connection.get(f"/ours/{SMALL}").body == content(SMALL)
    whole = content(LARGE)
    assert [part.data for part in parts] == [whole[4_000_000:5_000_000], whole[7:2_000_007], whole[-3:]]
    assert trace.total_from(vault() / LARGE) == 3_000_003


#: Before 1.0 its multipart bodies are 31 bytes shorter than it promises, on every server.
STOCK_SENDS_SEVERAL = int(starlette.__version__.split(".")[0]) >= 1


@pytest.mark.parametrize(
    "fields",
    [
        (),
        (("Range", "bytes=5-99999"),),
        *([(("Range", "bytes=0-1,50000-90000"),)] if STOCK_SENDS_SEVERAL else []),
    ],
)
def test_a_stock_range_is_right_though_it_is_read(site: Site, fields: tuple[tuple[str, str], ...]) -> None:
    with site.unharmed(), site.connect() as connection:
        response = connection.get(f"/stock/{MIDDLE}", *fields)
        assert response.status == (206 if fields else 200)
        assert connection.get(f"/stock/{SMALL}").body == content(SMALL)


def test_a_small_file_leaves_in_one_write(site: Site) -> None:
    with site.unharmed(), trace_sendfile(site.pid) as trace, site.connect() as connection:
        assert connection.get(f"/ours/{SMALL}").body == content(SMALL)
        assert connection.get(f"/stock/{SMALL}").body == content(SMALL)
    assert trace.total == 0


@pytest.mark.parametrize("setup", [_SHOPS[0], _SHOPS[3], _SHOPS[7], _SHOPS[9]], ids=str)
@pytest.mark.parametrize("switch", ["ZCRESPONSE_SENDFILE", "ZCRESPONSE_PATHSEND"])
def test_a_switch_takes_sendfile_away(setup: Setup, switch: str) -> None:
    with running(setup, env={switch: "off"}) as site, trace_sendfile(site.pid) as trace, site.connect() as connection:
        for folder in ("ours", "stock", "static"):
            assert connection.get(f"/{folder}/{LARGE}").body == content(LARGE)
            assert connection.get(f"/{folder}/{SMALL}").body == content(SMALL)
    assert trace.sendfiles == []
