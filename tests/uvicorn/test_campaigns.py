"""Long runs: a file of 1 GiB by every way a client may ask for it, and clients that leave at any moment.

By default both are run smaller, with nothing else changed.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.big import MIB, Comparison, write_big
from tests.support.kernel import SendfileTrace, trace_sendfile
from tests.support.sites import COMBINATIONS, HUGE, LARGE, MIDDLE, SMALL, Site, content, own_file, site_fixture
from tests.support.table import parse_multipart
from tests.support.wire import Connection, format_request

# A client that has half a GiB to put together keeps the connection idle for longer than uvicorn's own 5 s.
site = site_fixture("--timeout-keep-alive", "60")

# The largest with each loop and each parser once.
_FILES = [(setup, size) for setup in COMBINATIONS for size in (64, 1024) if size == 64 or setup in COMBINATIONS[::3]]
of_big_files = pytest.mark.parametrize(
    ("site", "big"),
    [
        pytest.param(setup, size * MIB, id=f"{setup}-{size} MiB", marks=[pytest.mark.campaign] if size == 1024 else [])
        for setup, size in _FILES
    ],
    indirect=True,
)


@pytest.fixture(scope="module")
def big(request: pytest.FixtureRequest) -> Iterator[tuple[Path, int]]:
    """A big file, and its size."""
    with own_file(0) as (path, _):
        write_big(path, request.param)
        yield path, request.param


def _is_by_sendfile(trace: SendfileTrace, path: Path, length: int) -> None:
    moved = trace.total_from(path)
    assert length * 0.999 <= moved <= length, f"sendfile moved {moved} of {length} bytes"


@of_big_files
def test_a_big_file_comes_whole(site: Site, big: tuple[Path, int]) -> None:
    path, size = big
    received = Comparison(path)
    with site.unharmed(), trace_sendfile(site.pid) as trace, site.connect() as connection:
        answer = connection.stream(f"/file/{path.name}", take=received.take)
        assert connection.get(f"/file/{SMALL}").body == content(SMALL)
    assert (answer.status, received.count, received.same) == (200, size, True)
    _is_by_sendfile(trace, path, size)


@of_big_files
def test_a_big_range_comes(site: Site, big: tuple[Path, int]) -> None:
    path, size = big
    start, stop = 1_000_003, size - 2_000_001
    received = Comparison(path, start)
    with site.unharmed(), trace_sendfile(site.pid) as trace, site.connect() as connection:
        answer = connection.stream(f"/file/{path.name}", ("Range", f"bytes={start}-{stop - 1}"), take=received.take)
        assert connection.get(f"/file/{SMALL}").body == content(SMALL)
    assert (answer.status, received.count, received.same) == (206, stop - start, True)
    _is_by_sendfile(trace, path, stop - start)


@of_big_files
def test_several_big_ranges_come(site: Site, big: tuple[Path, int]) -> None:
    path, size = big
    ranges = [(size - size // 8, size - 7), (11, size // 16), (size // 4 + 1, size // 2 - size // 8)]
    asked = ",".join(f"{start}-{stop - 1}" for start, stop in ranges)
    with site.unharmed(), trace_sendfile(site.pid) as trace, site.connect() as connection:
        response = connection.get(f"/file/{path.name}", ("Range", f"bytes={asked}"))
        assert response.status == 206
        # At once: looking at the parts may take longer than uvicorn keeps an idle connection.
        assert connection.get(f"/file/{SMALL}").body == content(SMALL)
    parts = parse_multipart(response.values("content-type")[0], response.body)
    assert [(part.start, part.stop) for part in parts] == ranges
    for part in parts:
        received = Comparison(path, part.start)
        received.take(part.data)
        assert (received.count, received.same) == (part.stop - part.start, True)
    _is_by_sendfile(trace, path, sum(stop - start for start, stop in ranges))


@of_big_files
def test_a_broken_download_is_resumed(site: Site, big: tuple[Path, int]) -> None:
    path, size = big
    received = Comparison(path)
    with site.unharmed():
        with site.connect() as connection:
            connection.send(format_request("GET", f"/file/{path.name}"))
            (tag,) = [value for name, value in connection.read_head().fields if name == "etag"]
            while received.count < size // 3:
                received.take(connection.receive(MIB))
        rest = received.count
        with trace_sendfile(site.pid) as trace, site.connect() as connection:
            fields = [("Range", f"bytes={rest}-"), ("If-Range", tag)]
            answer = connection.stream(f"/file/{path.name}", *fields, take=received.take)
            assert (answer.status, answer.head.length) == (206, size - rest)
            assert connection.get(f"/file/{SMALL}").body == content(SMALL)
    assert (received.count, received.same) == (size, True)
    _is_by_sendfile(trace, path, size - rest)


# --- clients that leave -----------------------------------------------------------------------------------------------


def _leave_somewhere(site: Site, dice: random.Random) -> None:
    """Ask for something, read some of the answer, and go."""
    name = dice.choice([SMALL, MIDDLE, LARGE, HUGE, HUGE])
    request = format_request("GET", f"/file/{name}", dice.choice([[], [("Range", "bytes=500-")],
                                                                  [("Range", "bytes=0-99,200-")]]))  # fmt: skip
    request *= dice.choice([1, 1, 1, 3])
    request += dice.choice([b"", b"", b"", b"\x00garbage\r\n\r\n", b"GET /file/small.bin HTTP/1.1\r\nHo"])
    connection = site.connect(receive_buffer=dice.choice([None, 4096, 65536]))
    whole = dice.random() < 0.9
    connection.send(request if whole else request[: dice.randrange(len(request))])
    if dice.random() < 0.2:
        connection.half_close()
    elif whole:
        # Never more than comes: waiting for the connection's end would take the server's keep-alive time.
        wanted = min(dice.choice([0, 0, 1, 100, 5000, 70_000, 1_000_000, 6_000_000]), len(content(name)) - 600)
        while wanted > 0 and (data := connection.receive(min(wanted, 65536))):
            wanted -= len(data)
    dice.choice([Connection.close, Connection.reset])(connection)


@pytest.mark.parametrize("clients", [200, pytest.param(2000, marks=pytest.mark.campaign)])
def test_clients_that_leave_at_random_points_leave_nothing_behind(site: Site, clients: int) -> None:
    failures: list[BaseException] = []

    def leave(seed: int, count: int) -> None:
        dice = random.Random(seed)
        try:
            for _ in range(count):
                try:
                    _leave_somewhere(site, dice)
                except AssertionError as error:
                    # The server may reset a connection that sent garbage.
                    if "reset" not in str(error):
                        raise
        except BaseException as error:
            failures.append(error)

    with site.unharmed(serves=50):
        threads = [threading.Thread(target=leave, args=(seed, clients // 20)) for seed in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
