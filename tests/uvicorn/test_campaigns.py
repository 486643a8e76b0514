"""Long runs: a file of 1 GiB by every way a client may ask for it, and clients that leave at any moment.

By default both are run smaller, with nothing else changed.
"""

from __future__ import annotations

import hashlib
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.kernel import SendfileTrace, trace_sendfile
from tests.support.sites import HUGE, LARGE, MIDDLE, SMALL, Site, content, own_file, site_fixture
from tests.support.table import parse_multipart
from tests.support.wire import Connection, format_request

site = site_fixture()

_MIB = 1024 * 1024


@pytest.fixture(
    scope="module",
    params=[pytest.param(64 * _MIB, id="64 MiB"), pytest.param(1024 * _MIB, id="1 GiB", marks=pytest.mark.campaign)],
)
def big(request: pytest.FixtureRequest) -> Iterator[tuple[Path, int]]:
    """A big file of bytes that do not repeat, written piece by piece."""
    with own_file(0) as (path, _):
        source = random.Random(request.param)
        with path.open("wb") as file:
            for _ in range(request.param // (16 * _MIB)):
                file.write(source.randbytes(16 * _MIB))
        # A file that was written just now has a weak validator, with which nothing can be resumed.
        os.utime(path, (1_700_000_000, 1_700_000_000))
        yield path, request.param


def _sha256(path: Path, start: int = 0, stop: int | None = None) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(start)
        left = (path.stat().st_size if stop is None else stop) - start
        while left:
            data = file.read(min(_MIB, left))
            digest.update(data)
            left -= len(data)
    return digest.hexdigest()


def _is_by_sendfile(trace: SendfileTrace, path: Path, length: int) -> None:
    moved = trace.total_from(path)
    assert length * 0.999 <= moved <= length, f"sendfile moved {moved} of {length} bytes"


def test_a_big_file_comes_whole(site: Site, big: tuple[Path, int]) -> None:
    path, size = big
    with site.unharmed(), trace_sendfile(site.pid) as trace, site.connect() as connection:
        answer = connection.stream(f"/file/{path.name}")
        assert (answer.status, answer.count, answer.sha256) == (200, size, _sha256(path))
        assert connection.get(f"/file/{SMALL}").body == content(SMALL)
    _is_by_sendfile(trace, path, size)


def test_a_big_range_comes(site: Site, big: tuple[Path, int]) -> None:
    path, size = big
    start, stop = 1_000_003, size - 2_000_001
    with site.unharmed(), trace_sendfile(site.pid) as trace, site.connect() as connection:
        answer = connection.stream(f"/file/{path.name}", ("Range", f"bytes={start}-{stop - 1}"))
        assert (answer.status, answer.count, answer.sha256) == (206, stop - start, _sha256(path, start, stop))
        assert connection.get(f"/file/{SMALL}").body == content(SMALL)
    _is_by_sendfile(trace, path, stop - start)


def test_several_big_ranges_come(site: Site, big: tuple[Path, int]) -> None:
    path, size = big
    ranges = [(size // 2 + 5, size - 7), (11, size // 4), (size // 4 + 1, size // 2)]
    asked = ",".join(f"{start}-{stop - 1}" for start, stop in ranges)
    with site.unharmed(), trace_sendfile(site.pid) as trace, site.connect() as connection:
        response = connection.get(f"/file/{path.name}", ("Range", f"bytes={asked}"))
        assert response.status == 206
        parts = parse_multipart(response.values("content-type")[0], response.body)
        assert [(part.start, part.stop) for part in parts] == ranges
        for part in parts:
            assert hashlib.sha256(part.data).hexdigest() == _sha256(path, part.start, part.stop)
        assert connection.get(f"/file/{SMALL}").body == content(SMALL)
    _is_by_sendfile(trace, path, sum(stop - start for start, stop in ranges))


def test_a_broken_download_is_resumed(site: Site, big: tuple[Path, int]) -> None:
    path, size = big
    digest = hashlib.sha256()
    received = 0
    with site.unharmed():
        with site.connect() as connection:
            connection.send(format_request("GET", f"/file/{path.name}"))
            (tag,) = [value for name, value in connection.read_head().fields if name == "etag"]
            while received < size // 3:
                data = connection.receive(_MIB)
                digest.update(data)
                received += len(data)
        with trace_sendfile(site.pid) as trace, site.connect() as connection:
            fields = [("Range", f"bytes={received}-"), ("If-Range", tag)]
            connection.send(format_request("GET", f"/file/{path.name}", fields))
            head = connection.read_head()
            assert (head.status, head.length) == (206, size - received)
            rest = received
            while received < size:
                data = connection.receive(_MIB)
                assert data
                digest.update(data)
                received += len(data)
            assert connection.get(f"/file/{SMALL}").body == content(SMALL)
    assert digest.hexdigest() == _sha256(path)
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
