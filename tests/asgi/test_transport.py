from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.memory import Client, scope
from tests.support.table import FILES, Files
from zcresponse import OpenedFile, RequestHead, Transfer, open_file, plan_file_response
from zcresponse.asgi import send_file
from zcresponse.asgi.dialect import KEY, PATHSEND, Offer, Shipment, extensions_with, offer_in
from zcresponse.asgi.transport import choose_delivery
from zcresponse.testing import record_transfers

MIB = 1024 * 1024

OFFERS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "plain": {PATHSEND: {}},
    "ranges": {PATHSEND: {"ranges": True}},
    "shipments": {PATHSEND: {"ranges": True, KEY: Offer()}},
}


@pytest.mark.parametrize(
    ("offer", "wanted", "arguments", "way", "reason"),
    [
        ("nothing", "", {}, "chunks", "the server offers no http.response.pathsend"),
        ("plain", "", {}, "pathsend", "the server opens"),
        ("plain", "bytes=0-9", {}, "chunks", "a part of a file"),
        ("plain", "bytes=0-9,20-29", {}, "chunks", "several ranges"),
        ("plain", "", {"removed_later": True}, "chunks", "may be removed"),
        ("ranges", "bytes=0-9", {}, "pathsend", "the server opens"),
        ("ranges", "bytes=0-9", {"removed_later": True}, "chunks", "may be removed"),
        ("ranges", "bytes=0-9,20-29", {}, "chunks", "several ranges"),
        ("shipments", "", {}, "sendfile", ""),
        ("shipments", "bytes=0-9", {"removed_later": True}, "sendfile", ""),
        ("shipments", "bytes=0-9,20-29", {}, "sendfile", ""),
        ("shipments", "", {"sendfile": False}, "chunks", "switched off by sendfile=False"),
        ("shipments", "bytes=999999-", {}, "none", ""),
    ],
)
def test_the_best_way_that_the_server_offers_is_chosen_and_told(
    offer: str, wanted: str, arguments: dict[str, bool], way: str, reason: str, files: Files
) -> None:
    with open_file(files.path("data.bin")) as file:
        plan = plan_file_response(RequestHead("GET", range=wanted or None), file)
        delivery = choose_delivery({"extensions": OFFERS[offer]}, plan, file, **arguments)
    assert delivery.way == way
    assert reason in delivery.reason
    assert (delivery.offer is not None) == (way == "sendfile")


def test_a_file_given_open_cannot_be_sent_by_its_path(files: Files) -> None:
    with open_file(os.open(files.path("data.bin"), os.O_RDONLY)) as file:
        plan = plan_file_response(RequestHead("GET"), file)
        assert choose_delivery({"extensions": OFFERS["plain"]}, plan, file).way == "chunks"


@pytest.mark.parametrize("extensions", [None, {}, {"other": {}}])
def test_a_server_without_extensions_gets_chunks(extensions: Any, files: Files) -> None:
    scope = {} if extensions is None else {"extensions": extensions}
    assert offer_in(scope) is None
    with open_file(files.path("data.bin")) as file:
        plan = plan_file_response(RequestHead("GET"), file)
        assert choose_delivery(scope, plan, file).way == "chunks"


def test_an_offer_leaves_the_callers_scope_as_it_was() -> None:
    offer = Offer()
    before: dict[str, Any] = {"extensions": {"other": {}}, "path": "/"}
    extensions = extensions_with(before, offer)
    assert offer_in({"extensions": extensions}) is offer
    assert set(extensions) == {"other", PATHSEND}
    assert before == {"extensions": {"other": {}}, "path": "/"}


def fetch(path: Path, client: Client, **arguments: Any) -> None:
    asyncio.run(send_file(scope(), client.receive, client.send, path, **arguments))


@pytest.mark.parametrize(
    ("method", "fields", "status"),
    [
        ("HEAD", (), 200),
        ("GET", ((b"if-none-match", b"*"),), 304),
        ("GET", ((b"if-match", b'"other"'),), 412),
        ("GET", ((b"range", b"bytes=999999-"),), 416),
    ],
)
@pytest.mark.parametrize("offer", OFFERS)
def test_an_answer_without_a_body_is_one_empty_message(
    method: str, fields: tuple[tuple[bytes, bytes], ...], status: int, offer: str, files: Files
) -> None:
    async def main() -> Client:
        client = Client()
        await send_file(
            {**scope(method, *fields), "extensions": OFFERS[offer]},
            client.receive,
            client.send,
            files.path("data.bin"),
        )
        return client

    with record_transfers() as transfers:
        start, body = asyncio.run(main()).messages
    assert start["status"] == status
    assert body == {"type": "http.response.body", "body": b"", "more_body": False}
    assert [(t.way, t.status, t.bytes_promised, t.completed) for t in transfers] == [("none", status, 0, True)]


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@pytest.fixture
def nothing_is_left_open() -> Iterator[None]:
    before = descriptors()
    yield
    assert descriptors() == before


@pytest.mark.usefixtures("nothing_is_left_open")
@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("failing", ["http.response.start", "http.response.body", PATHSEND])
def test_the_file_is_closed_when_a_message_cannot_be_sent(offer: str, failing: str, files: Files) -> None:
    async def main() -> None:
        client = Client()

        async def send(message: Any) -> None:
            if message["type"] == failing:
                raise ZeroDivisionError

        await send_file({**scope(), "extensions": OFFERS[offer]}, client.receive, send, files.path("data.bin"))

    with contextlib.suppress(ZeroDivisionError):
        asyncio.run(main())
    gc.collect()  # the failed task and its frames refer to each other


@pytest.mark.usefixtures("nothing_is_left_open")
def test_the_file_is_closed_when_a_header_cannot_be_made(files: Files) -> None:
    client = Client()
    with pytest.raises(ValueError, match="etag"):
        fetch(files.path("data.bin"), client, etag='bro"ken')
    with pytest.raises(UnicodeEncodeError):
        fetch(files.path("data.bin"), client, headers=[("X-Name", "\u2713")])
    assert client.messages == []


@pytest.mark.usefixtures("nothing_is_left_open")
def test_a_shipment_that_is_dropped_closes_its_file(files: Files) -> None:
    kept: list[Any] = []

    async def main() -> None:
        client = Client()

        async def send(message: Any) -> None:
            kept.append(message)

        await send_file({**scope(), "extensions": OFFERS["shipments"]}, client.receive, send, files.path("data.bin"))

    asyncio.run(main())
    shipment = kept[-1][KEY]
    assert isinstance(shipment, Shipment)
    assert not shipment.file.closed
    assert kept[-1]["path"] == str(files.path("data.bin"))
    del shipment
    kept.clear()


def test_a_part_for_a_server_that_takes_ranges_says_which(files: Files) -> None:
    async def main() -> Any:
        client = Client()
        await send_file(
            {**scope("GET", (b"range", b"bytes=5-9")), "extensions": OFFERS["ranges"]},
            client.receive,
            client.send,
            files.path("data.bin"),
        )
        return client.messages[-1]

    with record_transfers() as transfers:
        message = asyncio.run(main())
    assert message == {"type": PATHSEND, "path": str(files.path("data.bin")), "offset": 5, "count": 5}
    assert transfers == [
        Transfer("pathsend", "the server opens and moves the file", 206, 5, None, None, None),
    ]


def test_the_environment_switches_sendfile_off_unless_the_caller_says_otherwise(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_file(files.path("data.bin")) as file:
        plan = plan_file_response(RequestHead("GET"), file)

        def way(sendfile: bool | None) -> str:
            return choose_delivery({"extensions": OFFERS["plain"]}, plan, file, sendfile=sendfile).way

        assert [way(None), way(True), way(False)] == ["pathsend", "pathsend", "chunks"]
        monkeypatch.setenv("ZCRESPONSE_SENDFILE", "off")
        assert [way(None), way(True), way(False)] == ["chunks", "pathsend", "chunks"]


def test_a_log_line_tells_how(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="zcresponse")

    async def main() -> None:
        client = Client()
        await send_file(scope(), client.receive, client.send, files.path("data.bin"))

    asyncio.run(main())
    assert caplog.messages == [
        f"200 by chunks (the server offers no http.response.pathsend): {FILES['data.bin'].size} of "
        f"{FILES['data.bin'].size} bytes"
    ]


def test_an_opened_file_can_be_sent(files: Files) -> None:
    async def main() -> tuple[Client, OpenedFile]:
        client = Client()
        file = open_file(files.path("data.bin"), offset=10, count=20)
        await send_file(scope(), client.receive, client.send, file)
        return client, file

    client, file = asyncio.run(main())
    assert client.bodies == [files.content("data.bin")[10:30]]
    assert file.closed
