from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.memory import Client, scope
from zcresponse.asgi import chunks, send_file
from zcresponse.errors import FileTruncatedError
from zcresponse.files.linux import Storage
from zcresponse.testing import record_transfers

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("big") / "file"
    path.write_bytes(os.urandom(40 * MIB + 7))
    return path


def fetch(path: Path, client: Client, **arguments: Any) -> None:
    asyncio.run(send_file(scope(), client.receive, client.send, path, **arguments))


def test_chunks_grow_while_nothing_waits_and_end_with_the_last_byte(big: Path) -> None:
    client = Client()
    fetch(big, client)
    sizes = [len(body) for body in client.bodies]
    assert b"".join(client.bodies) == big.read_bytes()
    assert sizes[0] == 64 * 1024
    assert max(sizes) == MIB
    assert sizes[:-1] == sorted(sizes[:-1])
    assert [m["more_body"] for m in client.messages if m["type"] == "http.response.body"][-2:] == [True, False]
    # A reader that stalls after the 8 MiB that socket buffers may hold has at most 0.3 MiB in the server.
    taken = 0
    for size in sizes:
        if taken < 8 * MIB:
            assert size <= 0.3 * MIB
        taken += size


def test_chunks_of_several_bodies_share_what_one_may_have(big: Path) -> None:
    async def main() -> list[Client]:
        clients = [Client() for _ in range(3)]
        await asyncio.gather(*(send_file(scope(), client.receive, client.send, big) for client in clients))
        return clients

    for client in asyncio.run(main()):
        assert b"".join(client.bodies) == big.read_bytes()
        assert 256 * 1024 <= max(map(len, client.bodies)) <= MIB // 2


def test_chunks_shrink_when_the_client_makes_us_wait(big: Path) -> None:
    client = Client(waits=lambda total: total > 35 * MIB)
    fetch(big, client)
    sizes = [len(body) for body in client.bodies]
    assert max(sizes) == MIB
    assert set(sizes[-20:-1]) == {64 * 1024}


def test_no_chunk_is_held_while_a_large_one_waits_to_be_taken(big: Path) -> None:
    async def main() -> Any:
        client = Client()
        stalled = asyncio.Event()
        send = client.send

        async def stalling(message: Any) -> None:
            # What servers do: take what they are given, and let the next call wait until it has left.
            if client.total > 36 * MIB:
                client.messages.append(message)
                stalled.set()
                await asyncio.Event().wait()
            await send(message)

        task = asyncio.ensure_future(send_file(scope(), client.receive, stalling, big))
        await stalled.wait()
        task.cancel()
        await asyncio.wait([task])
        return client.messages[-2:]

    taken, waiting = asyncio.run(main())
    assert len(taken["body"]) == MIB
    assert waiting == {"type": "http.response.body", "body": b"", "more_body": True}


def test_others_get_turns_although_nothing_makes_us_wait(big: Path) -> None:
    turns = 0

    async def main() -> None:
        nonlocal turns
        client = Client()
        task = asyncio.ensure_future(send_file(scope(), client.receive, client.send, big))
        while not task.done():
            turns += 1
            await asyncio.sleep(0)
        await task

    asyncio.run(main())
    assert turns >= 40 * MIB // chunks.LARGEST_CHUNK


def test_a_client_that_left_is_noticed_without_being_waited_for(big: Path) -> None:
    async def main() -> Client:
        client = Client()
        send = client.send

        async def leaving(message: Any) -> None:
            await send(message)
            if client.total > 2 * MIB:
                client.gone.set()

        await send_file(scope(), client.receive, leaving, big)
        return client

    with record_transfers() as transfers:
        client = asyncio.run(main())
    assert 2 * MIB < client.total < 5 * MIB
    assert [(transfer.completed, transfer.bytes_sent) for transfer in transfers] == [(False, client.total)]


@pytest.mark.parametrize("storage", Storage)
def test_every_storage_gives_the_same_bytes(big: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zcresponse.files.places.storage_behind", lambda fd, stat: storage)
    monkeypatch.setattr("zcresponse.files.places._local_folders", {})
    client = Client()
    fetch(big, client)
    assert b"".join(client.bodies) == big.read_bytes()


def test_a_file_that_is_cut_while_it_is_sent_is_an_error_and_no_byte_more(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 4 * MIB)

    async def main() -> Client:
        client = Client()
        send = client.send

        async def cutting(message: Any) -> None:
            await send(message)
            if client.total >= MIB:
                os.truncate(path, 2 * MIB + 11)

        with pytest.raises(FileTruncatedError, match=f"ended at byte {2 * MIB + 11}"):
            await send_file(scope(), client.receive, cutting, path)
        return client

    with record_transfers() as transfers:
        client = asyncio.run(main())
    assert client.messages[-1]["more_body"]
    assert client.total <= 2 * MIB + 11
    assert [transfer.completed for transfer in transfers] == [False]


def test_a_file_that_grows_is_sent_as_promised(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 2 * MIB)

    async def main() -> Client:
        client = Client()
        send = client.send

        async def growing(message: Any) -> None:
            await send(message)
            with path.open("ab") as file:
                file.write(b"y" * 1000)

        await send_file(scope(), client.receive, growing, path)
        return client

    assert b"".join(asyncio.run(main()).bodies) == b"x" * 2 * MIB


def test_a_receive_that_replays_the_request_is_not_asked_for_ever(big: Path) -> None:
    # What middleware does that has read the body and lets others read it again: it never waits.
    asked = 0

    async def replay() -> Any:
        nonlocal asked
        asked += 1
        return {"type": "http.request", "body": b"body", "more_body": False}

    client = Client()
    asyncio.run(send_file(scope(), replay, client.send, big))
    assert client.total == big.stat().st_size
    assert asked <= 2


def test_a_long_request_body_is_passed_over_while_the_answer_is_sent(big: Path) -> None:
    messages = [{"type": "http.request", "body": b"x", "more_body": n < 99} for n in range(100)]

    async def main() -> Client:
        client = Client()

        async def receive() -> Any:
            if messages:
                return messages.pop(0)
            return await client.receive()

        await send_file(scope(), receive, client.send, big)
        return client

    assert asyncio.run(main()).total == big.stat().st_size
    assert len(messages) < 98


def test_a_receive_that_fails_does_not_mean_that_the_client_left(big: Path) -> None:
    async def failing() -> Any:
        raise RuntimeError

    client = Client()
    asyncio.run(send_file(scope(), failing, client.send, big))
    assert client.total == big.stat().st_size


@pytest.mark.parametrize("failing", ["http.response.start", "http.response.body"])
@pytest.mark.parametrize("size", [0, 10, 300_000])
def test_a_send_that_fails_means_that_the_client_left_since_asgi_2_4(tmp_path: Path, failing: str, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * size)

    async def send(message: Any) -> None:
        if message["type"] == failing:
            raise BrokenPipeError("gone")

    def answer(version: str) -> None:
        asyncio.run(send_file({**scope(), "asgi": {"spec_version": version}}, Client().receive, send, path))

    with record_transfers() as transfers:
        answer("2.4")
        with pytest.raises(BrokenPipeError):
            answer("2.3")
    assert [transfer.completed for transfer in transfers] == [False, False]
    assert [transfer.reason.rpartition("; ")[2] for transfer in transfers] == ["the client left", "gone"]
