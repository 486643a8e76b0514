"""daphne, which would keep whatever its clients have not taken yet."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support import servers
from tests.support.big import MIB, write_big
from tests.support.paced import PART, PARTS
from tests.support.servers import Server, rss_bytes, wait_until
from tests.support.wire import TimedOut, format_request
from zcresponse.asgi.daphne import paced


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    # So that Twisted's complaints reach the log.
    with servers.daphne("tests.support.paced:app", "-v", "2") as server:
        yield server


def _told(server: Server) -> tuple[int, int]:
    """How many parts were sent, and how many bodies are being sent."""
    with server.connect() as connection:
        sent, running = connection.get("/").body.split()
    return int(sent), int(running)


def test_a_body_waits_for_its_reader_and_then_goes_on(server: Server) -> None:
    with server.connect(receive_buffer=4096) as connection:
        connection.send(format_request("GET", "/long"))
        connection.receive_exactly(1000)
        sent = -1
        # Until it has come to a stop.
        while sent != (sent := _told(server)[0]):
            pass
        assert sent < PARTS // 4
        connection.receive_exactly(PART * PARTS - 1000)
    wait_until(lambda: _told(server)[1] == 0, what="the end of the body")


def test_the_connection_takes_another_request(server: Server) -> None:
    with server.connect() as connection:
        for _ in range(3):
            assert connection.get("/long").body == bytes(PART * PARTS)
        assert connection.get("/").status == 200
    assert "Producer" not in server.log()


def test_a_client_that_leaves_lets_the_body_end(server: Server) -> None:
    for _ in range(3):
        with server.connect(receive_buffer=4096) as connection:
            connection.send(format_request("GET", "/long"))
            connection.receive_exactly(1000)
            connection.reset()
    wait_until(lambda: _told(server)[1] == 0, what="the end of the bodies")
    assert "Producer" not in server.log()


def test_a_body_that_breaks_off_leaves_no_producer(server: Server) -> None:
    # It lets the client wait for the rest.
    with server.connect(timeout=1) as connection, pytest.raises(TimedOut):
        connection.get("/failing")
    assert "Producer" not in server.log()


@pytest.mark.parametrize("app", ["sending", "wrapped"])
def test_a_file_takes_no_memory_while_its_reader_stalls(app: str, tmp_path: Path) -> None:
    big = tmp_path / "big.bin"
    write_big(big, 256 * MIB)
    with servers.daphne(f"tests.support.paced:{app}", env={"PACED_FILE": str(big)}) as server:
        with server.connect() as connection:
            # Threads and what else is made at first need.
            assert connection.get("/", ("Range", "bytes=0-99")).status == 206
        before = rss_bytes(server.pid)
        with server.connect(receive_buffer=4096) as connection:
            connection.send(format_request("GET", "/"))
            connection.receive_exactly(1000)
            until = time.monotonic() + 1
            while time.monotonic() < until:
                assert rss_bytes(server.pid) - before <= 16 * MIB
                time.sleep(0.05)


def test_any_other_send_is_left_as_it_is() -> None:
    async def send(message: Any) -> None: ...

    async def go() -> None:
        for given in send, partial(send), partial(partial(send), {"type": "x"}):
            with paced(given) as got:
                assert got is given

    asyncio.run(go())
