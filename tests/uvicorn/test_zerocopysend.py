"""`http.response.zerocopysend`, where it was switched on: several descriptors and bodies in one answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.kernel import trace_sendfile
from tests.support.sites import (
    COMBINATIONS,
    HUGE,
    LARGE,
    MIDDLE,
    SMALL,
    Setup,
    Site,
    Step,
    content,
    of_length,
    own_file,
    running,
    script,
    vault,
)
from tests.support.wire import PeerReset, ShortBody, format_request

_SETUPS = [*COMBINATIONS, Setup("asyncio", "h11", "tests.support.apps:wrapped", stock=True),
           Setup("uvloop", "httptools", "tests.support.apps:wrapped", stock=True)]  # fmt: skip


@pytest.fixture(scope="module", params=_SETUPS, ids=str)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    with running(request.param, env={"ZCRESPONSE_ZEROCOPYSEND": "on"}) as made:
        yield made


def _descriptor(name: str, **extra: Any) -> Step:
    return ["descriptor", name, extra]


def test_it_is_offered(site: Site) -> None:
    assert "http.response.zerocopysend" in json.loads(site.get("/scope").body)["extensions"]


@pytest.mark.parametrize("name", [SMALL, MIDDLE, LARGE, HUGE])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_whole_descriptor_is_sent(site: Site, name: str, chunked: bool) -> None:
    start: Step = ["start", 200, []] if chunked else of_length(len(content(name)))
    with site.unharmed(), site.connect() as connection:
        for _ in range(2):
            assert connection.get(script(start, _descriptor(name))).body == content(name)
        assert connection.get(f"/file/{SMALL}").body == content(SMALL)


def test_the_kernel_moves_a_descriptor(site: Site) -> None:
    target = script(of_length(4_000_000), _descriptor(LARGE, offset=1_000_000, count=4_000_000))
    with site.unharmed(), trace_sendfile(site.pid) as trace, site.connect() as connection:
        assert connection.get(target).body == content(LARGE)[1_000_000:5_000_000]
        assert connection.get(f"/file/{SMALL}").body == content(SMALL)
    assert trace.total_from(vault() / LARGE) == 4_000_000


@pytest.mark.parametrize("chunked", [False, True])
def test_messages_may_be_mixed(site: Site, chunked: bool) -> None:
    large, middle, small = content(LARGE), content(MIDDLE), content(SMALL)
    body = b"a" * 10 + large[5:3_000_005] + b"b" * 200_000 + middle[:7] + small + large[-1_000_000:] + b"end"
    steps: list[Step] = [
        ["start", 200, []] if chunked else of_length(len(body)),
        ["body", "a", 10, True],
        _descriptor(LARGE, offset=5, count=3_000_000, more_body=True),
        ["body", "b", 200_000, True],
        _descriptor(MIDDLE, offset=0, count=7, more_body=True),
        _descriptor(SMALL, offset=0, more_body=True),
        _descriptor(LARGE, offset=len(large) - 1_000_000, more_body=True),
        ["body", "end", 1, False],
    ]
    with site.unharmed(), site.connect(receive_buffer=4096) as connection:
        assert connection.get(script(*steps)).body == body
        assert connection.get(f"/file/{SMALL}").body == content(SMALL)


@pytest.mark.parametrize("seek", [0, 10, 99_999, 100_000])
def test_the_offset_defaults_to_the_descriptors_position(site: Site, seek: int) -> None:
    length = 100_000 - seek
    with site.unharmed(), site.connect() as connection:
        assert connection.get(script(of_length(length), _descriptor(MIDDLE, seek=seek))).body == content(MIDDLE)[seek:]
        assert connection.get(f"/file/{SMALL}").body == content(SMALL)


@pytest.mark.parametrize("count", [1000, 50_000])
def test_messages_without_an_offset_go_on_where_the_last_one_ended(site: Site, count: int) -> None:
    # As sendfile(2) without an offset does, which the extension is defined by.
    steps: list[Step] = [of_length(2 * count), _descriptor(MIDDLE, count=count, more_body=True),
                         _descriptor(MIDDLE, count=count)]  # fmt: skip
    with site.unharmed(), site.connect() as connection:
        assert connection.get(script(*steps)).body == content(MIDDLE)[: 2 * count]
        assert connection.get(f"/file/{SMALL}").body == content(SMALL)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_count_of_nothing_sends_nothing(site: Site, chunked: bool) -> None:
    steps: list[Step] = [["start", 200, []] if chunked else of_length(4), _descriptor(MIDDLE, count=0, more_body=True),
                         ["body", "1234", 1, True], _descriptor(MIDDLE, count=0)]  # fmt: skip
    with site.unharmed(), site.connect() as connection:
        assert connection.get(script(*steps)).body == b"1234"
        assert connection.get(f"/file/{SMALL}").body == content(SMALL)


def test_head_gets_the_head_alone(site: Site) -> None:
    steps: list[Step] = [of_length(101_024), _descriptor(MIDDLE, more_body=True), _descriptor(SMALL)]
    with site.unharmed(), site.connect() as connection:
        assert connection.request("HEAD", script(*steps)).body == b""
        assert connection.get(f"/file/{SMALL}").body == content(SMALL)


@pytest.mark.parametrize("name", [SMALL, LARGE])
def test_more_than_the_length_is_refused_before_a_byte_of_it(site: Site, name: str) -> None:
    fault = "LocalProtocolError" if site.setup.parser == "h11" else "DeliveryError"
    steps: list[Step] = [of_length(2000), ["body", "12345", 1, True], _descriptor(LARGE, count=1996)]
    with site.unharmed(faults=[fault]), site.connect() as connection:
        connection.send(format_request("GET", script(*steps)))
        connection.read_head()
        assert connection.read_to_end() == b"12345"


def test_less_than_the_length_closes_the_connection(site: Site) -> None:
    fault = "LocalProtocolError" if site.setup.parser == "h11" else "RuntimeError"
    with site.unharmed(faults=[fault]), site.connect() as connection:
        connection.send(format_request("GET", script(of_length(200_000), _descriptor(MIDDLE))))
        connection.read_head()
        assert connection.read_to_end() == content(MIDDLE)


@pytest.mark.parametrize("extra", [{"offset": 200_000}, {"count": 100_001}, {"offset": -1}, {"count": -1}])
def test_a_part_that_is_not_there_is_refused(site: Site, extra: dict[str, int]) -> None:
    with site.unharmed(faults=["ValueError"]), site.connect() as connection:
        assert connection.get(script(of_length(10), _descriptor(MIDDLE, **extra))).status == 500


def test_a_client_leaves_in_the_middle(site: Site) -> None:
    steps: list[Step] = [["start", 200, []], _descriptor(HUGE, offset=0, more_body=True), ["body", "x", 10, True],
                         _descriptor(HUGE, offset=0)]  # fmt: skip
    with site.unharmed(serves=25):
        for _ in range(5):
            site.stall(script(*steps)).reset()
            site.stall(script(*steps)).close()


def test_requests_during_several_messages_are_answered_after_them(site: Site) -> None:
    steps: list[Step] = [["start", 200, []], _descriptor(HUGE, offset=0, more_body=True), ["body", "x", 100_000, True],
                         _descriptor(LARGE, offset=0)]  # fmt: skip
    with site.unharmed(), site.connect(receive_buffer=4096) as connection:
        connection.send(format_request("GET", script(*steps)))
        first = connection.receive_exactly(1_000_000)
        connection.send(format_request("GET", f"/file/{MIDDLE}") + format_request("GET", f"/file/{SMALL}"))
        connection._buffer[:0] = first
        assert connection.read_response().body == content(HUGE) + b"x" * 100_000 + content(LARGE)
        assert connection.read_response().body == content(MIDDLE)
        assert connection.read_response().body == content(SMALL)


def test_a_half_closed_client_gets_all_messages(site: Site) -> None:
    steps: list[Step] = [["start", 200, []], _descriptor(HUGE, offset=0, more_body=True), ["body", "x", 100_000, True],
                         _descriptor(LARGE, offset=0)]  # fmt: skip
    with site.unharmed(), site.connect(receive_buffer=4096) as connection:
        connection.send(format_request("GET", script(*steps)))
        first = connection.receive_exactly(1_000_000)
        connection.half_close()
        connection._buffer[:0] = first
        assert connection.read_response().body == content(HUGE) + b"x" * 100_000 + content(LARGE)
        connection.assert_closed()


def test_a_file_cut_in_the_middle_closes_the_connection(site: Site) -> None:
    with own_file(24 * 1024 * 1024) as (path, data), site.unharmed(faults=["FileTruncatedError"]):
        with site.stall(script(of_length(len(data)), _descriptor(path.name))) as connection:
            with path.open("r+b") as file:
                file.truncate(20 * 1024 * 1024)
            with pytest.raises((ShortBody, PeerReset)):
                connection.receive_exactly(len(data))
