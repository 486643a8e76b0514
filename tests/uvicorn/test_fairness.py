"""A fast download never takes the loop for itself: bounded calls, shared between the transfers that run."""

from __future__ import annotations

import threading

from tests.support.kernel import trace_sendfile
from tests.support.sites import HUGE, MIDDLE, Site, content, own_file, site_fixture
from tests.support.wire import format_request
from zcresponse.asgi.connection.pump import SHARE, TURN

site = site_fixture()


def test_no_call_takes_more_than_a_turn(site: Site) -> None:
    with site.unharmed(), trace_sendfile(site.pid) as trace, site.connect() as connection:
        assert connection.stream(f"/file/{HUGE}").count == len(content(HUGE))
    assert max(call.asked for call in trace.sendfiles) <= TURN
    assert max(call.sent for call in trace.sendfiles) <= TURN


def test_running_transfers_share_a_turn(site: Site) -> None:
    # Reads that never end before all have begun: nobody is done before the others share with it.
    together = threading.Barrier(4, timeout=20)
    counts: list[int] = []

    def download() -> None:
        with site.connect() as connection:
            connection.send(format_request("GET", f"/file/{HUGE}"))
            head = connection.read_head()
            together.wait()
            assert head.length is not None
            counts.append(len(connection.receive_exactly(head.length)))

    with site.unharmed(), trace_sendfile(site.pid) as trace:
        threads = [threading.Thread(target=download) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert counts == [len(content(HUGE))] * 4
    calls = [call for call in trace.sendfiles if call.in_file.endswith(HUGE)]
    # The end of a file asks for what is left: only calls in the middle tell of the share.
    shares = {call.asked for call in calls if (call.offset or 0) + call.asked < len(content(HUGE))}
    assert SHARE <= min(shares) <= TURN // 2
    assert max(shares) <= TURN


def test_ended_transfers_give_their_share_back(site: Site) -> None:
    with site.unharmed():
        for _ in range(20):
            with site.connect() as connection:
                connection.send(format_request("GET", f"/file/{HUGE}"))
                connection.read_head()
                connection.receive_exactly(3_000_000)
        with trace_sendfile(site.pid) as trace, site.connect() as connection:
            assert connection.stream(f"/file/{HUGE}").count == len(content(HUGE))
    # The transfers before may still be about to end when this one begins, not when it ends.
    asked = [call.asked for call in trace.sendfiles if call.offset and call.offset > len(content(HUGE)) // 2]
    assert max(asked) == TURN


def test_a_fast_download_lets_others_through(site: Site) -> None:
    size = 256 * 1024 * 1024
    read = 0
    enough = threading.Event()

    def download() -> None:
        nonlocal read
        with site.connect() as connection:
            connection.send(format_request("GET", f"/file/{path.name}"))
            connection.read_head()
            while not enough.is_set() and (data := connection.receive(1024 * 1024)):
                read += len(data)

    with own_file(0) as (path, _), site.unharmed():
        with path.open("ab") as file:
            file.truncate(size)
        thread = threading.Thread(target=download)
        thread.start()
        try:
            while not read:
                assert thread.is_alive()
            with site.connect() as connection:
                for _ in range(5):
                    assert connection.get(f"/file/{MIDDLE}").body == content(MIDDLE)
            at_the_answer = read
        finally:
            enough.set()
            thread.join()
        assert at_the_answer < size
        report = site.transfers(6)[-1]
        assert report["way"] == "sendfile"
