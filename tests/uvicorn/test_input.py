"""What a client sends while it is being answered, and answers that wait for each other: order and bytes are right."""

from __future__ import annotations

import json
import time

import pytest

from tests.support.kernel import trace_syscalls
from tests.support.servers import wait_until
from tests.support.sites import (
    HUGE,
    LARGE,
    MIDDLE,
    SMALL,
    Site,
    Step,
    content,
    of_length,
    own_file,
    script,
    site_fixture,
)
from tests.support.wire import Connection, PeerReset, ShortBody, TimedOut, format_request

site = site_fixture()

_GARBAGE = b"\x00\x01 what is this?\r\n\r\n"


# --- requests that come early -----------------------------------------------------------------------------------------


def test_pipelined_answers_come_in_order(site: Site) -> None:
    names = [SMALL, LARGE, MIDDLE, HUGE, SMALL, SMALL, LARGE, MIDDLE]
    with site.unharmed(), site.connect(receive_buffer=8192) as connection:
        connection.send(b"".join(format_request("GET", f"/file/{name}") for name in names))
        for name in names:
            assert connection.read_response().body == content(name)
        connection.assert_nothing_pending()


def test_a_file_waits_for_what_was_written_before_it(site: Site) -> None:
    # Three megabytes are in uvicorn's buffer and its flow is paused when each file begins.
    text = script(of_length(3_000_000), ["body", "abc", 1_000_000, False])
    targets = [text, f"/file/{MIDDLE}", text, f"/file/{LARGE}", text, f"/file/{SMALL}", text, script(["start", 200, []],
               ["path", LARGE, {}])]  # fmt: skip
    bodies = [b"abc" * 1_000_000, content(MIDDLE), b"abc" * 1_000_000, content(LARGE), b"abc" * 1_000_000,
              content(SMALL), b"abc" * 1_000_000, content(LARGE)]  # fmt: skip
    with site.unharmed(), site.connect(receive_buffer=4096) as connection:
        connection.send(b"".join(format_request("GET", target) for target in targets))
        for body in bodies:
            assert connection.read_response().body == body
        connection.assert_nothing_pending()
        assert connection.get(f"/file/{SMALL}").body == content(SMALL)


def test_the_buffer_limits_are_uvicorns_again_after_a_drain(site: Site) -> None:
    steps: list[Step] = [["start", 200, []], ["body", "x", 3_000_000, True], ["path", LARGE, {}]]
    with site.unharmed(), site.connect(receive_buffer=4096) as connection:
        assert connection.get(script(of_length(3), ["body", "abc", 1, False], key="limits")).body == b"abc"
        before = json.loads(site.control("buffers", "limits"))
        for _ in range(2):
            assert connection.get(script(*steps, key="limits")).status == 200
            assert json.loads(site.control("buffers", "limits")) == before


def test_an_answer_that_is_given_up_does_not_cut_the_one_before_it(site: Site) -> None:
    # The second answer waits behind the bytes of the first, and its time is over before its head has left.
    first = script(of_length(6_000_000), ["body", "x", 6_000_000, False])
    second = script(of_length(len(content(LARGE))), ["path", LARGE, {}], timer="anyio", within=0.3)
    with site.unharmed(), site.connect(receive_buffer=4096) as connection:
        connection.send(format_request("GET", first) + format_request("GET", second))
        assert connection.read_head().status == 200
        report = site.transfers()[-1]
        assert (report["completed"], report["bytes_sent"]) == (False, 0)
        assert connection.receive_exactly(6_000_000) == b"x" * 6_000_000
        # uvicorn answers for an application that said nothing.
        assert connection.read_to_end()[:12] in (b"", b"HTTP/1.1 500")
        assert "Traceback" not in site.log_since()
        site.forget_log()


def test_a_file_waits_for_the_body_before_it(site: Site) -> None:
    steps: list[Step] = [["start", 200, []], ["body", "x", 5_000_000, True], ["path", LARGE, {}]]
    with site.unharmed(), site.stall(script(*steps)) as connection:
        # The head was read by `stall`; its framing is chunked.
        connection._buffer[:0] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert connection.read_response().body == b"x" * 5_000_000 + content(LARGE)
        assert connection.get(f"/file/{SMALL}").body == content(SMALL)


@pytest.mark.parametrize("several", ["bytes=0-99999,200000-4000000", "bytes=4000000-,0-2999999"])
def test_pipelined_ranges_come_in_order(site: Site, several: str) -> None:
    fields = [("Range", "bytes=7-3000006"), ("Range", several), ("Range", "bytes=-70000")]
    with site.unharmed(), site.connect(receive_buffer=8192) as connection:
        connection.send(b"".join(format_request("GET", f"/file/{LARGE}", [field]) for field in fields))
        whole = content(LARGE)
        assert connection.read_response().body == whole[7:3_000_007]
        assert connection.read_response().status == 206
        assert connection.read_response().body == whole[-70_000:]
        connection.assert_nothing_pending()


# --- requests that come during a transfer -----------------------------------------------------------------------------


def test_requests_during_a_transfer_are_answered_after_it(site: Site) -> None:
    with site.unharmed(), site.stall(f"/file/{HUGE}") as connection:
        for name in (MIDDLE, SMALL, LARGE):
            connection.send(format_request("GET", f"/file/{name}"))
        assert connection.receive_exactly(len(content(HUGE))) == content(HUGE)
        for name in (MIDDLE, SMALL, LARGE):
            assert connection.read_response().body == content(name)
        connection.assert_nothing_pending()


def test_a_request_in_pieces_during_a_transfer_is_whole_after_it(site: Site) -> None:
    request = format_request("GET", f"/file/{MIDDLE}")
    with site.unharmed(), site.stall(f"/file/{HUGE}") as connection:
        received = b""
        for at in range(0, len(request), 7):
            connection.send(request[at : at + 7])
            received += connection.receive_exactly(100_000)
        received += connection.receive_exactly(len(content(HUGE)) - len(received))
        assert received == content(HUGE)
        assert connection.read_response().body == content(MIDDLE)


def test_garbage_during_a_transfer_is_refused_after_it(site: Site) -> None:
    with site.unharmed(), site.stall(f"/file/{HUGE}") as connection:
        connection.send(_GARBAGE)
        assert connection.receive_exactly(len(content(HUGE))) == content(HUGE)
        assert connection.read_response().status == 400
        connection.assert_closed()


def test_a_bad_chunk_of_the_request_during_a_transfer_is_not_the_applications_fault(site: Site) -> None:
    # `unharmed` judges the log: an error of the application would stand in it.
    with site.unharmed(), site.connect(receive_buffer=64 * 1024) as connection:
        connection.send(f"POST /file/{HUGE} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        head = connection.read_head()
        assert head.status == 200
        connection.send(b"zz\r\n")
        assert connection.receive_exactly(head.length or 0) == content(HUGE)


def test_garbage_pipelined_with_the_request_is_refused_after_the_answer(site: Site) -> None:
    with site.unharmed(), site.connect() as connection:
        connection.send(format_request("GET", f"/file/{MIDDLE}"))
        connection.send(_GARBAGE)
        _one_answer_and_the_end(connection, content(MIDDLE))


def _one_answer_and_the_end(connection: Connection, body: bytes) -> None:
    # When the garbage comes before the answer has begun, uvicorn answers it alone; mixed they must never be.
    first = connection.read_response()
    if first.status == 200:
        assert first.body == body
        assert connection.read_response().status == 400
    else:
        assert first.status == 400
    connection.assert_closed()


def test_garbage_during_a_transfer_of_a_cut_file_does_not_complete_the_body(site: Site) -> None:
    # What the answer to the garbage is long would be what the file lost: a body of the right length and wrong bytes.
    with own_file(24 * 1024 * 1024) as (path, data), site.unharmed(faults=["FileTruncatedError"]):
        with site.stall(f"/file/{path.name}") as connection:
            connection.send(_GARBAGE)
            with path.open("r+b") as file:
                file.truncate(len(data) - 100)
            received = connection.read_to_end()
        assert received == data[:-100]


def test_a_request_during_a_transfer_of_a_cut_file_is_not_answered(site: Site) -> None:
    with own_file(24 * 1024 * 1024) as (path, data), site.unharmed(faults=["FileTruncatedError"]):
        with site.stall(f"/file/{path.name}") as connection:
            connection.send(format_request("GET", f"/file/{SMALL}") * 3)
            with path.open("r+b") as file:
                file.truncate(len(data) - 100)
            received = connection.read_to_end()
        assert received == data[:-100]


def test_much_input_during_a_transfer_is_all_used(site: Site) -> None:
    request = format_request("GET", f"/file/{SMALL}", [("X-Filling", "f" * 3000)])
    count = 200_000 // len(request) + 1
    with site.unharmed(), site.stall(f"/file/{HUGE}") as connection:
        connection.send(request * count)
        assert connection.receive_exactly(len(content(HUGE))) == content(HUGE)
        for _ in range(count):
            assert connection.read_response().body == content(SMALL)
        connection.assert_nothing_pending()


def test_input_during_a_transfer_is_not_hoarded(site: Site) -> None:
    names = ("recvfrom", "recvmsg", "read", "readv")
    with site.unharmed(), trace_syscalls(site.pid, names=names) as trace:
        with site.stall(f"/file/{HUGE}") as connection:
            connection.socket.settimeout(0.5)
            with pytest.raises(TimedOut):
                # A server that reads on takes all of it; the kernel's own buffers hold a few megabytes.
                connection.send(b"GET / HTTP/1.1\r\nX-Endless: " + b"x" * 32_000_000)
            connection.reset()
    most = sum(call.returned or 0 for call in trace.calls if "socket" in call.arguments and (call.returned or 0) > 0)
    assert most < 64 * 1024 + 2 * 256 * 1024


# --- request bodies ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [10, 50_000, 300_000])
def test_an_unread_request_body_does_not_disturb_the_next_request(site: Site, length: int) -> None:
    target = script(of_length(len(content(LARGE))), ["path", LARGE, {}])
    with site.unharmed(), site.connect() as connection:
        assert connection.request("POST", target, body=b"b" * length).body == content(LARGE)
        assert connection.get(f"/file/{MIDDLE}").body == content(MIDDLE)


@pytest.mark.parametrize("length", [10, 300_000])
def test_a_read_request_body_does_not_disturb_the_next_request(site: Site, length: int) -> None:
    target = script(["read"], of_length(len(content(LARGE))), ["path", LARGE, {}])
    with site.unharmed(), site.connect() as connection:
        assert connection.request("POST", target, body=b"b" * length).body == content(LARGE)
        assert connection.get(f"/file/{MIDDLE}").body == content(MIDDLE)


def test_a_request_body_that_comes_during_the_transfer_is_dropped(site: Site) -> None:
    target = script(of_length(len(content(HUGE))), ["path", HUGE, {}])
    with site.unharmed(), site.connect(receive_buffer=4096) as connection:
        connection.send(format_request("POST", target, body=b"b" * 20_000)[:-20_000])
        assert connection.read_head().status == 200
        for _ in range(4):
            connection.send(b"b" * 5_000)
        connection.send(format_request("GET", f"/file/{SMALL}"))
        assert connection.receive_exactly(len(content(HUGE))) == content(HUGE)
        assert connection.read_response().body == content(SMALL)


@pytest.mark.parametrize("name", [SMALL, LARGE])
def test_expect_continue_is_answered_when_the_body_is_read(site: Site, name: str) -> None:
    target = script(["read"], of_length(len(content(name))), ["path", name, {}])
    head = format_request("POST", target, [("Expect", "100-continue")], body=b"12345")[:-5]
    with site.unharmed(), site.connect() as connection:
        connection.send(head)
        assert connection.read_head().status == 100
        connection.send(b"12345")
        response = connection.read_response()
        assert (response.interim, response.status, response.body) == ([], 200, content(name))
        assert connection.get(f"/file/{SMALL}").body == content(SMALL)


@pytest.mark.parametrize("name", [SMALL, LARGE])
def test_expect_continue_is_not_answered_when_the_body_is_not_read(site: Site, name: str) -> None:
    target = script(of_length(len(content(name))), ["path", name, {}])
    head = format_request("POST", target, [("Expect", "100-continue")], body=b"12345")[:-5]
    with site.unharmed(), site.connect() as connection:
        connection.send(head)
        response = connection.read_response()
        assert (response.interim, response.status, response.body) == ([], 200, content(name))


# --- a client that half-closes ----------------------------------------------------------------------------------------


def test_a_request_before_a_half_close_during_a_transfer_ends_with_it(site: Site) -> None:
    with site.unharmed(), site.stall(f"/file/{HUGE}") as connection:
        connection.send(format_request("GET", f"/file/{SMALL}"))
        connection.half_close()
        assert connection.receive_exactly(len(content(HUGE))) == content(HUGE)
        # Nobody promised to answer what came before the end; whatever comes is an answer and the end.
        rest = connection.read_to_end()
        assert rest == b"" or rest.endswith(content(SMALL))


# --- readers of all speeds --------------------------------------------------------------------------------------------


def test_a_stop_and_go_reader_gets_every_byte(site: Site) -> None:
    with site.unharmed(), site.stall(f"/file/{LARGE}") as connection:
        received = b""
        while len(received) < len(content(LARGE)):
            received += connection.receive_exactly(min(700_001, len(content(LARGE)) - len(received)))
            time.sleep(0.01)
        assert received == content(LARGE)
        assert connection.get(f"/file/{SMALL}").body == content(SMALL)


def test_a_client_that_only_writes_is_cut_short_by_nobody(site: Site) -> None:
    with site.unharmed():
        connection = site.stall(f"/file/{HUGE}")
        connection.send(_GARBAGE * 10)
        connection.close()
        wait_until(lambda: site.transfers(), what="the end")


def test_garbage_before_a_reset_is_quiet(site: Site) -> None:
    with site.unharmed():
        for _ in range(10):
            connection = site.stall(f"/file/{HUGE}")
            connection.send(_GARBAGE)
            connection.reset()
        with pytest.raises((PeerReset, ShortBody)):
            with site.stall(f"/file/{HUGE}?key=garbage") as connection:
                connection.send(_GARBAGE)
                site.control("abort", "garbage")
                connection.receive_exactly(len(content(HUGE)))
