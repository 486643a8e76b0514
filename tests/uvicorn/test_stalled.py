"""Readers that take nothing are cut, by a reset; readers that are merely slow are not."""

from __future__ import annotations

import errno
import socket
import threading
import time

import pytest

from tests.support.servers import ServerFailed, wait_until
from tests.support.sites import (
    COMBINATIONS,
    HUGE,
    LARGE,
    SMALL,
    Setup,
    Site,
    Step,
    content,
    of_length,
    running,
    script,
    site_fixture,
)
from tests.support.wire import Connection, WireError, format_request

_TIMEOUT_S = 0.5
_STALLED = "the client took nothing for 0.5 s"

site = site_fixture(env={"ZCRESPONSE_STALL_TIMEOUT": str(_TIMEOUT_S)})


def _await_reset(connection: Connection) -> None:
    """Wait for the reset without reading, which would be progress."""
    wait_until(
        lambda: connection.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET, what="a reset"
    )


@pytest.mark.parametrize("how", ["ours", "plain", "chunked"])
def test_a_reader_that_takes_nothing_is_reset(site: Site, how: str) -> None:
    steps: dict[str, list[Step]] = {
        "plain": [of_length(len(content(HUGE))), ["path", HUGE, {}]],
        "chunked": [["start", 200, []], ["path", HUGE, {}]],
    }
    target = f"/file/{HUGE}" if how == "ours" else script(*steps[how])
    with site.unharmed(serves=25):
        with site.stall(target) as connection:
            _await_reset(connection)
        report = site.transfers()[-1]
        assert (report["way"], report["completed"], report["reason"]) == ("sendfile", False, _STALLED)
        assert 0 < report["bytes_sent"] < len(content(HUGE))
        assert report["duration_s"] >= _TIMEOUT_S


def test_a_reader_that_stalls_in_the_middle_is_reset(site: Site) -> None:
    with site.unharmed(), site.stall(f"/file/{HUGE}") as connection:
        connection.receive_exactly(10_000_000)
        _await_reset(connection)
        assert site.transfers()[-1]["reason"] == _STALLED


def test_a_reader_that_stalls_while_the_transport_drains_is_reset(site: Site) -> None:
    steps: list[Step] = [["start", 200, []], ["body", "x", 8_000_000, True], ["path", HUGE, {}]]
    with site.unharmed(), site.stall(script(*steps)) as connection:
        _await_reset(connection)
        report = site.transfers()[-1]
        assert (report["bytes_sent"], report["reason"]) == (0, _STALLED)


def test_a_half_closed_reader_that_stalls_is_reset(site: Site) -> None:
    with site.unharmed(), site.stall(f"/file/{HUGE}") as connection:
        connection.half_close()
        _await_reset(connection)
        assert site.transfers()[-1]["reason"] == _STALLED


def test_a_stalled_reader_with_garbage_is_reset(site: Site) -> None:
    with site.unharmed(), site.stall(f"/file/{HUGE}") as connection:
        connection.send(b"\x00\x00 nonsense\r\n\r\n")
        _await_reset(connection)
        assert site.transfers()[-1]["reason"] == _STALLED


def test_a_stalled_reader_of_a_closed_transport_is_let_go(site: Site) -> None:
    steps: list[Step] = [["start", 200, []], ["body", "x", 8_000_000, True], ["path", HUGE, {}]]
    with site.unharmed():
        with site.stall(script(*steps, key="closed")) as connection:
            site.control("close", "closed")
            assert site.transfers()[-1]["completed"] is False
            with pytest.raises(WireError):
                connection.receive_exactly(20_000_000)


@pytest.mark.parametrize("setup", [COMBINATIONS[0], COMBINATIONS[3]], ids=str)
def test_a_slow_reader_is_not_cut(setup: Setup) -> None:
    # 100 kB/s in steps, for several times the limit. sendfile takes nothing for longer than that when much is queued.
    limit_s = 1.5
    results: list[bool] = []

    def read_slowly(receive_buffer: int | None) -> None:
        with slow.connect(receive_buffer=receive_buffer) as connection:
            connection.send(format_request("GET", f"/file/{HUGE}"))
            connection.read_head()
            # What came with the head is taken from the connection's own buffer, which is no progress on the socket.
            received = connection.receive(1024 * 1024)
            began = time.monotonic()
            while time.monotonic() - began < 3 * limit_s:
                received += connection.receive(10_000)
                time.sleep(0.1)
            received += connection.receive_exactly(len(content(HUGE)) - len(received))
            results.append(received == content(HUGE))
            results.append(connection.get(f"/file/{SMALL}").body == content(SMALL))

    with running(setup, env={"ZCRESPONSE_STALL_TIMEOUT": str(limit_s)}) as slow, slow.unharmed():
        readers = [threading.Thread(target=read_slowly, args=(size,)) for size in (4096, 32_768, 65_536, None)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        assert results == [True] * 8


def test_many_stalled_readers_do_not_hold_up_a_living_one(site: Site) -> None:
    with site.unharmed(serves=25):
        stalled = [site.stall(f"/file/{HUGE}") for _ in range(20)]
        for _ in range(5):
            with site.connect() as connection:
                assert connection.get(f"/file/{LARGE}").body == content(LARGE)
        waiting = [threading.Thread(target=_await_reset, args=(connection,)) for connection in stalled]
        for thread in waiting:
            thread.start()
        for thread in waiting:
            thread.join()
        for connection in stalled:
            connection.close()
        assert sum(report["reason"] == _STALLED for report in site.transfers(25)) == 20


@pytest.mark.parametrize("setup", [COMBINATIONS[0], COMBINATIONS[3]], ids=str)
def test_without_a_limit_nobody_is_cut(setup: Setup) -> None:
    with running(setup, env={"ZCRESPONSE_STALL_TIMEOUT": "0"}) as site, site.unharmed():
        with site.stall(f"/file/{HUGE}") as connection:
            time.sleep(1.5)
            assert connection.receive_exactly(len(content(HUGE))) == content(HUGE)


@pytest.mark.parametrize("setup", [COMBINATIONS[0], COMBINATIONS[3]], ids=str)
def test_a_very_long_time_will_do(setup: Setup) -> None:
    with running(setup, env={"ZCRESPONSE_STALL_TIMEOUT": "1e300"}) as site, site.unharmed():
        with site.connect(receive_buffer=4096) as connection:
            assert connection.get(f"/file/{HUGE}").body == content(HUGE)


@pytest.mark.parametrize("limit", ["inf", "nan", "-1", "soon"])
def test_what_is_no_number_of_seconds_is_told_at_the_start(limit: str) -> None:
    with pytest.raises(ServerFailed, match="ZCRESPONSE_STALL_TIMEOUT"):
        with running(COMBINATIONS[0], env={"ZCRESPONSE_STALL_TIMEOUT": limit}):
            pass
