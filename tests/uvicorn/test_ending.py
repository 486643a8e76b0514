"""Transfers that end too early: each leaves no descriptor, no registration with the loop, no traceback."""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import ExitStack

import pytest

from tests.support.servers import wait_until
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
    site_fixture,
)
from tests.support.wire import Connection, PeerReset, ShortBody, WireError, format_request

site = site_fixture()

_WHOLE: tuple[Step, ...] = (of_length(24 * 1024 * 1024), ["path", HUGE, {}])
_TARGETS = [f"/file/{HUGE}", script(*_WHOLE)]


def _ended(site: Site) -> None:
    report = site.transfers()[-1]
    assert report["way"] == "sendfile"
    assert report["completed"] is False
    assert 0 <= report["bytes_sent"] < report["bytes_promised"] == len(content(HUGE))


# --- the client leaves ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", _TARGETS, ids=["ours", "plain pathsend"])
def test_a_reset_ends_a_transfer_quietly(site: Site, target: str) -> None:
    with site.unharmed(serves=25):
        site.stall(target).reset()
        _ended(site)


def test_a_close_ends_a_transfer_quietly(site: Site) -> None:
    with site.unharmed(serves=25):
        site.stall(f"/file/{HUGE}").close()
        _ended(site)


def test_a_fast_reader_leaves_quietly(site: Site) -> None:
    with site.unharmed():
        with site.connect() as connection:
            connection.send(format_request("GET", f"/file/{HUGE}"))
            connection.read_head()
            connection.receive_exactly(9_000_000)
        _ended(site)


@pytest.mark.parametrize("name", [SMALL, MIDDLE, LARGE, HUGE])
def test_a_client_leaves_before_the_answer(site: Site, name: str) -> None:
    with site.unharmed():
        for how in (Connection.close, Connection.reset):
            for _ in range(20):
                connection = site.connect()
                connection.send(format_request("GET", f"/file/{name}"))
                how(connection)


@pytest.mark.parametrize("name", [SMALL, MIDDLE, HUGE])
def test_a_client_half_closes_with_its_request(site: Site, name: str) -> None:
    with site.unharmed():
        for _ in range(20):
            with site.connect() as connection:
                connection.send(format_request("GET", f"/file/{name}"))
                connection.half_close()
                # Whether the answer comes is a matter of turns, as it is in uvicorn; never more than the answer does.
                answer = connection.read_to_end()
                assert content(name).startswith(answer.partition(b"\r\n\r\n")[2])


@pytest.mark.parametrize("name", [SMALL, MIDDLE, HUGE])
@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_client_leaves_while_the_application_prepares(site: Site, name: str, how: str) -> None:
    with site.unharmed():
        connection = site.connect()
        length = len(content(name))
        target = script(["gate", f"prepared-{how}-{name}"], of_length(length), ["path", name, {}])
        connection.send(format_request("GET", target))
        _is_served(site, connection)
        getattr(connection, how)()
        site.wait_idle()
        site.control("open", f"prepared-{how}-{name}")


@pytest.mark.parametrize("name", [SMALL, MIDDLE, HUGE])
def test_a_client_leaves_with_a_second_request_waiting(site: Site, name: str) -> None:
    # uvicorn's httptools protocol tells only the newest request that the client has left.
    with site.unharmed():
        connection = site.connect()
        gate = f"second-waits-{name}"
        first = script(["gate", gate], of_length(len(content(name))), ["path", name, {}])
        connection.send(format_request("GET", first) + format_request("GET", f"/file/{MIDDLE}"))
        _is_served(site, connection)
        connection.reset()
        # A paused connection does not see the reset; the answer does.
        site.control("open", gate)


def test_a_client_leaves_a_transfer_with_a_second_request_waiting(site: Site) -> None:
    with site.unharmed():
        connection = site.connect(receive_buffer=4096)
        connection.send(format_request("GET", f"/file/{HUGE}") + format_request("GET", f"/file/{HUGE}"))
        connection.read_head()
        connection.reset()
        _ended(site)


def test_a_half_closed_client_gets_its_whole_body(site: Site) -> None:
    with site.unharmed():
        with site.stall(f"/file/{HUGE}") as connection:
            connection.half_close()
            assert connection.receive_exactly(len(content(HUGE))) == content(HUGE)
            connection.assert_closed()
        report = site.transfers()[-1]
        assert (report["completed"], report["bytes_sent"]) == (True, len(content(HUGE)))


def _is_served(site: Site, connection: Connection) -> None:
    """Wait until the server has taken a connection and read from it."""
    port = connection.socket.getsockname()[1]

    def taken() -> bool:
        with open("/proc/net/tcp") as table:
            for line in table:
                fields = line.split()
                if fields[2].endswith(f":{port:04X}") and fields[1].endswith(f":{site.server.port:04X}"):
                    # An inode: somebody has accepted it. No queue: the request was read.
                    return fields[9] != "0" and fields[4].endswith(":00000000")
        return False

    wait_until(taken, what="the server to read the request")


@pytest.mark.parametrize("name", [SMALL, LARGE, HUGE])
def test_an_application_that_listens_for_the_end_answers(site: Site, name: str) -> None:
    target = script(of_length(len(content(name))), ["path", name, {}], timer="disconnect")
    with site.unharmed(), site.connect() as connection:
        for _ in range(3):
            assert connection.get(target).body == content(name)


@pytest.mark.parametrize("how", ["close", "reset"])
def test_an_application_that_listens_hears_that_the_client_left(site: Site, how: str) -> None:
    with site.unharmed(serves=25):
        for _ in range(5):
            getattr(site.stall(script(*_WHOLE, timer="disconnect")), how)()
        wait_until(lambda: site.log_since().count("heard the client leave") == 5, what="the application to hear")
        assert all(report["completed"] is False for report in site.transfers(5))


# --- the application ends it ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["abort", "close"])
def test_the_transport_is_ended_in_the_middle(site: Site, verb: str) -> None:
    with site.unharmed(serves=50):
        with site.stall(f"/file/{HUGE}?key=ended") as connection:
            before = site.control(verb, "ended")
            assert before
            received = _read_what_comes(connection)
            assert received < len(content(HUGE))
        _ended(site)


@pytest.mark.parametrize("verb", ["abort", "close"])
def test_the_transport_is_ended_while_it_drains(site: Site, verb: str) -> None:
    steps: list[Step] = [
        ["start", 200, []], ["body", "x", 8_000_000, True], ["path", HUGE, {}],
    ]  # fmt: skip
    with site.unharmed(serves=25):
        with site.stall(script(*steps, key="draining")) as connection:
            site.control(verb, "draining")
            if verb == "abort":
                _read_what_comes(connection)
            # After a close what was written before still goes to the client.
        site.wait_idle()


def test_the_next_connection_on_the_number_works_after_an_abort(site: Site) -> None:
    with site.unharmed(), ExitStack() as stack:
        stalled = [stack.enter_context(site.stall(f"/file/{HUGE}?key=number-{each}")) for each in range(4)]
        for each in range(4):
            site.control("abort", f"number-{each}")
        # Numbers are given out again from the lowest: these get those of the aborted ones.
        fresh = [stack.enter_context(site.connect()) for _ in range(8)]
        for _ in range(3):
            for connection in fresh:
                assert connection.get(f"/file/{MIDDLE}").body == content(MIDDLE)
        for connection in stalled:
            _read_what_comes(connection)


@pytest.mark.parametrize("timer", ["asyncio", "anyio"])
def test_a_time_limit_ends_a_transfer(site: Site, timer: str) -> None:
    with site.unharmed(serves=25):
        with site.stall(script(*_WHOLE, timer=timer, within=0.3)) as connection:
            _ended(site)
            with pytest.raises(PeerReset):
                connection.receive_exactly(len(content(HUGE)))


@pytest.mark.parametrize("timer", ["asyncio", "anyio"])
def test_a_time_limit_ends_a_drain(site: Site, timer: str) -> None:
    steps: list[Step] = [["start", 200, []], ["body", "x", 8_000_000, True], ["path", HUGE, {}]]
    with site.unharmed(serves=25):
        with site.stall(script(*steps, timer=timer, within=0.3)) as connection:
            assert site.transfers()[-1]["completed"] is False
            with pytest.raises(PeerReset):
                connection.read_to_end()


def test_a_time_limit_that_raises_is_the_applications_own_error(site: Site) -> None:
    with site.unharmed(faults=["TimeoutError"]):
        with site.stall(script(*_WHOLE, timer="asyncio-raising", within=0.3)) as connection:
            _ended(site)
            with pytest.raises(PeerReset):
                connection.receive_exactly(len(content(HUGE)))


def _read_what_comes(connection: Connection) -> int:
    count = 0
    try:
        while data := connection.receive(1024 * 1024):
            count += len(data)
    except PeerReset:
        pass
    return count


def test_each_unfinished_transfer_says_the_reason(site: Site) -> None:
    reasons = []
    with own_file(24 * 1024 * 1024) as (path, data), site.unharmed(faults=["FileTruncatedError"]):
        site.stall(f"/file/{HUGE}").reset()
        reasons.append(site.transfers(1)[-1]["reason"])
        with site.stall(f"/file/{HUGE}?key=reason"):
            site.control("abort", "reason")
            reasons.append(site.transfers(2)[-1]["reason"])
        with site.stall(script(*_WHOLE, timer="anyio", within=0.2)):
            reasons.append(site.transfers(3)[-1]["reason"])
        with site.stall(f"/file/{path.name}") as connection:
            with path.open("r+b") as file:
                file.truncate(20 * 1024 * 1024)
            with pytest.raises(ShortBody):
                connection.receive_exactly(len(data))
            reasons.append(site.transfers(4)[-1]["reason"])
    assert all(reasons), reasons


# --- the server stops -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setup", COMBINATIONS, ids=str)
def test_a_stop_with_a_time_limit_ends_a_stalled_transfer(setup: Setup) -> None:
    with running(setup, "--timeout-graceful-shutdown", "1") as site, site.stall(f"/file/{HUGE}") as connection:
        site.server.process.send_signal(signal.SIGTERM)
        site.server.process.wait(10)
        with pytest.raises((PeerReset, ShortBody)):
            connection.receive_exactly(len(content(HUGE)))
        assert site.transfers()[-1]["completed"] is False
    assert "Traceback" not in site.server.log()


@pytest.mark.parametrize("setup", COMBINATIONS, ids=str)
def test_two_interrupts_end_a_stalled_transfer(setup: Setup) -> None:
    with running(setup) as site, site.stall(f"/file/{HUGE}") as connection:
        site.server.process.send_signal(signal.SIGINT)
        wait_until(lambda: "Waiting for connections to close" in site.server.log(), what="the server to stop")
        site.server.process.send_signal(signal.SIGINT)
        if sys.version_info >= (3, 12) and setup.loop == "asyncio":
            # asyncio's own Server.wait_closed() waits for all connections, whatever uvicorn was told.
            connection.close()
        site.server.process.wait(10)
    assert "Traceback" not in site.server.log()


@pytest.mark.parametrize("setup", COMBINATIONS, ids=str)
def test_a_stop_lets_a_transfer_end(setup: Setup) -> None:
    with running(setup) as site, site.stall(f"/file/{HUGE}") as connection:
        site.server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "Shutting down" in site.server.log(), what="the server to stop")
        assert connection.receive_exactly(len(content(HUGE))) == content(HUGE)
        connection.assert_closed()
        site.server.process.wait(10)
        assert site.transfers()[-1]["completed"] is True


# --- the file changes -------------------------------------------------------------------------------------------------


def test_a_file_cut_in_mid_transfer_closes_the_connection(site: Site) -> None:
    with own_file(24 * 1024 * 1024) as (path, data), site.unharmed(faults=["FileTruncatedError"]):
        with site.stall(f"/file/{path.name}") as connection:
            with path.open("r+b") as file:
                file.truncate(20 * 1024 * 1024)
            # A close, not a reset: what was queued still arrives.
            with pytest.raises(ShortBody) as short:
                connection.receive_exactly(len(data))
        assert short.value.received == 20 * 1024 * 1024
        report = site.transfers()[-1]
        assert (report["way"], report["completed"]) == ("sendfile", False)
        assert report["bytes_sent"] == short.value.received < report["bytes_promised"]


def test_a_file_cut_in_a_chunked_answer_leaves_the_last_chunk_out(site: Site) -> None:
    with own_file(24 * 1024 * 1024) as (path, data), site.unharmed(faults=["FileTruncatedError"]):
        with site.connect(receive_buffer=4096) as connection:
            connection.send(format_request("GET", script(["start", 200, []], ["path", path.name, {}])))
            assert connection.read_head().framing == "chunked"
            # The file is open once its first byte is here.
            received = connection.receive_exactly(10)
            assert received.startswith(b"1800000\r\n")
            with path.open("r+b") as file:
                file.truncate(20 * 1024 * 1024)
            received += connection.read_to_end()
        assert received == b"1800000\r\n" + data[: 20 * 1024 * 1024]


@pytest.mark.parametrize("setup", [each for each in COMBINATIONS if each.parser == "h11"], ids=str)
def test_a_file_cut_in_a_close_delimited_answer_resets(setup: Setup) -> None:
    with running(setup) as site, own_file(24 * 1024 * 1024) as (path, data):
        with site.unharmed(faults=["FileTruncatedError"]), site.connect(receive_buffer=4096) as connection:
            target = script(["start", 200, []], ["path", path.name, {}])
            connection.send(format_request("GET", target, version="1.0"))
            assert connection.read_head().framing == "close"
            assert connection.receive_exactly(1) == data[:1]
            with path.open("r+b") as file:
                file.truncate(20 * 1024 * 1024)
            with pytest.raises(PeerReset):
                connection.receive_exactly(len(data))


def test_a_file_that_grows_is_sent_as_promised(site: Site) -> None:
    with own_file(24 * 1024 * 1024) as (path, data), site.unharmed():
        with site.stall(f"/file/{path.name}") as connection:
            with path.open("ab") as file:
                file.write(b"more" * 1000)
            assert connection.receive_exactly(len(data)) == data
            assert connection.get(f"/file/{SMALL}").body == content(SMALL)


def test_a_file_that_has_grown_is_sent_as_promised(site: Site) -> None:
    target = script(of_length(70_000), ["path", MIDDLE, {}])
    with site.unharmed(), site.connect() as connection:
        assert connection.get(target).body == content(MIDDLE)[:70_000]
        assert connection.get(f"/file/{SMALL}").body == content(SMALL)


def test_a_file_removed_in_mid_transfer_is_sent(site: Site) -> None:
    with own_file(24 * 1024 * 1024) as (path, data), site.unharmed():
        with site.stall(f"/file/{path.name}") as connection:
            path.unlink()
            assert connection.receive_exactly(len(data)) == data


# --- no descriptor is left --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [LARGE, HUGE])
def test_a_body_is_sent_without_a_spare_descriptor(site: Site, name: str) -> None:
    # The connection is there already; one more for the file, and none to wait with.
    steps: list[Step] = [["gate", f"opened-{name}"], of_length(len(content(name))), ["path", name, {}]]
    with site.unharmed(), site.connect(receive_buffer=4096) as connection, site.connect() as control:
        connection.send(format_request("GET", script(*steps)))
        _is_served(site, connection)
        assert control.get("/control/descriptors/1").status == 200
        assert control.get(f"/control/open/opened-{name}").status == 200
        assert connection.read_head().status == 200
        received = connection.receive_exactly(len(content(name)))
        assert control.get("/control/descriptors/restore").status == 200
        assert received == content(name)
        assert connection.get(f"/file/{SMALL}").body == content(SMALL)
        report = site.transfers()[0]
        assert (report["way"], report["completed"], report["bytes_sent"]) == ("chunks", True, len(content(name)))
        assert report["reason"]


def test_a_client_leaves_a_body_that_has_no_spare_descriptor(site: Site) -> None:
    steps: list[Step] = [["gate", "leaves-poor"], of_length(len(content(HUGE))), ["path", HUGE, {}]]
    with site.unharmed(), site.connect(receive_buffer=4096) as connection, site.connect() as control:
        connection.send(format_request("GET", script(*steps)))
        _is_served(site, connection)
        assert control.get("/control/descriptors/1").status == 200
        assert control.get("/control/open/leaves-poor").status == 200
        assert connection.read_head().status == 200
        connection.reset()
        assert control.get("/control/descriptors/restore").status == 200
        _ended_by_reading(site)


def _ended_by_reading(site: Site) -> None:
    report = site.transfers()[-1]
    assert report["completed"] is False
    assert report["reason"]


# --- many at once -----------------------------------------------------------------------------------------------------


def test_many_transfers_end_at_once(site: Site) -> None:
    with site.unharmed(serves=50):
        stalled = [site.stall(f"/file/{HUGE}") for _ in range(30)]
        threads = [
            threading.Thread(target=connection.reset if number % 2 else connection.close)
            for number, connection in enumerate(stalled)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(report["completed"] is False for report in site.transfers(30))


def test_a_strict_reader_sees_no_stray_byte(site: Site) -> None:
    # All of the above in one connection's life: an ended transfer next to a live one.
    with site.unharmed(), site.connect() as living:
        for _ in range(5):
            site.stall(f"/file/{HUGE}").reset()
            assert living.get(f"/file/{LARGE}").body == content(LARGE)
            living.assert_nothing_pending(grace=0)
        with pytest.raises(WireError):
            living.send(b"nonsense\r\n\r\n")
            assert living.read_response().status == 400
            living.assert_closed()
            living.read_head()
