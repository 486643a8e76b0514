"""What the middleware makes of files for a server in memory: which messages, in which order, and what it refuses."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support.memory import Client
from tests.support.table import FILES, Files
from zcresponse import Transfer
from zcresponse.asgi import ZeroCopyMiddleware, send_file
from zcresponse.asgi.dialect import PATHSEND, ZEROCOPYSEND, offer_in
from zcresponse.asgi.middleware import MiddlewareOptions
from zcresponse.asgi.relay import PIECE
from zcresponse.asgi.servers import Honoured, honoured_by
from zcresponse.asgi.types import ASGIApp, Message, Receive, Scope, Send
from zcresponse.errors import DeliveryError, FileTruncatedError
from zcresponse.files import open_file
from zcresponse.testing import record_transfers

LARGE = FILES["large.bin"]


class Stream:
    """A server whose `send` belongs to a class of nonecorn's; it takes descriptors of either type."""

    __module__ = "hypercorn.protocol.http_stream"

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.body = b""

    async def app_send(self, message: Message) -> None:
        self.messages.append(dict(message))
        if message["type"] == ZEROCOPYSEND:
            assert message["file"] == message["file"].fileno()
            assert message["count"] > 0
            self.body += os.pread(message["file"], message["count"], message["offset"])
            await asyncio.sleep(0)
        self.body += message.get("body", b"")


BOTH: dict[str, Any] = {PATHSEND: {}, ZEROCOPYSEND: {}}


def scope_of(method: str = "GET", extensions: dict[str, Any] | None = None, **fields: bytes) -> dict[str, Any]:
    headers = [(name.encode(), value) for name, value in fields.items()]
    return {"type": "http", "method": method, "path": "/", "headers": headers, "extensions": extensions or {},
            "asgi": {"spec_version": "2.1"}}  # fmt: skip


def run(app: ASGIApp, scope: Scope, send: Send, receive: Receive | None = None, **options: Any) -> None:
    async def main() -> None:
        await ZeroCopyMiddleware(app, **options)(scope, receive or Client().receive, send)

    asyncio.run(main())


def sending(path: Path, **options: Any) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send_file(scope, receive, send, path, **options)

    return app


def saying(*messages: Message) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


def start(length: int | None = None, status: int = 200) -> Message:
    headers = [] if length is None else [(b"content-length", b"%d" % length)]
    return {"type": "http.response.start", "status": status, "headers": headers}


@pytest.fixture(autouse=True)
def nothing_is_left_open() -> Iterator[None]:
    before = set(os.listdir("/proc/self/fd"))
    yield
    gc.collect()
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_server_that_takes_descriptors_gets_the_file_in_pieces(files: Files) -> None:
    server = Stream()
    with record_transfers() as transfers:
        run(sending(files.path("large.bin")), scope_of(extensions=BOTH), server.app_send)
    head, *pieces, end = server.messages
    assert head["type"] == "http.response.start"
    assert [(m["type"], m["offset"], m["count"], m["more_body"]) for m in pieces] == [
        (ZEROCOPYSEND, start, PIECE, True) for start in range(0, LARGE.size, PIECE)
    ]
    assert end == {"type": "http.response.body", "body": b"", "more_body": False}
    assert server.body == LARGE.content
    assert [(t.way, t.bytes_sent, t.completed) for t in transfers] == [("sendfile", LARGE.size, True)]


def test_several_ranges_are_bytes_and_descriptors(files: Files) -> None:
    server = Stream()
    scope = scope_of(extensions=BOTH, range=b"bytes=0-99999,200000-299999")
    run(sending(files.path("data.bin")), scope, server.app_send)
    kinds = [message["type"].rpartition(".")[2] for message in server.messages]
    assert kinds == ["start", "body", "zerocopysend", "body", "zerocopysend", "body", "body"]
    assert dict(server.messages[0]["headers"])[b"content-length"] == b"%d" % len(server.body)


def test_a_small_file_in_memory_is_read(files: Files) -> None:
    server = Stream()
    run(sending(files.path("small.bin")), scope_of(extensions=BOTH), server.app_send)
    assert [message["type"] for message in server.messages] == ["http.response.start", "http.response.body"]
    assert server.body == FILES["small.bin"].content


@pytest.mark.parametrize(
    ("method", "status", "name"), [("HEAD", 200, "large.bin"), ("GET", 304, "large.bin"), ("GET", 200, "empty.bin")]
)
def test_a_foreign_file_that_has_no_body_is_one_empty_message(
    method: str, status: int, name: str, files: Files
) -> None:
    server = Stream()
    app = saying(start(FILES[name].size, status), {"type": PATHSEND, "path": str(files.path(name))})
    run(app, scope_of(method, BOTH), server.app_send)
    assert [message["type"] for message in server.messages] == ["http.response.start", "http.response.body"]
    assert server.body == b""


def test_a_file_that_becomes_shorter_is_never_ended(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(3 * PIECE))

    class Cutting(Stream):
        __module__ = Stream.__module__

        async def app_send(self, message: Message) -> None:
            if message.get("offset") == PIECE:
                os.truncate(path, PIECE + 5)
            await super().app_send(message)

    server = Cutting()
    with record_transfers() as transfers, pytest.raises(FileTruncatedError):
        run(sending(path), scope_of(extensions=BOTH), server.app_send)
    assert all(message.get("more_body", True) for message in server.messages)
    assert [(t.bytes_sent, t.completed) for t in transfers] == [(PIECE, False)]


@pytest.mark.parametrize("error", [ConnectionResetError(), OSError(32, "gone"), ConnectionError("closed by peer")])
def test_a_client_that_leaves_is_no_error(error: OSError, files: Files) -> None:
    class Leaving(Stream):
        __module__ = Stream.__module__

        async def app_send(self, message: Message) -> None:
            if message["type"] == ZEROCOPYSEND:
                raise error

    with record_transfers() as transfers:
        run(sending(files.path("large.bin")), scope_of(extensions=BOTH), Leaving().app_send)
    assert [(t.way, t.reason, t.completed) for t in transfers] == [("sendfile", "the client left", False)]


def test_another_error_of_the_server_reaches_the_application(files: Files) -> None:
    class Failing(Stream):
        __module__ = Stream.__module__

        async def app_send(self, message: Message) -> None:
            if message["type"] == ZEROCOPYSEND:
                raise OSError(5, "the disk")

    with record_transfers() as transfers, pytest.raises(OSError, match="the disk"):
        run(sending(files.path("large.bin")), scope_of(extensions=BOTH), Failing().app_send)
    assert [transfer.completed for transfer in transfers] == [False]


def test_a_server_that_takes_nothing_gets_chunks(files: Files) -> None:
    client = Client()
    with record_transfers() as transfers:
        run(sending(files.path("large.bin")), scope_of(), client.send)
    assert b"".join(client.bodies) == LARGE.content
    assert [(t.way, t.reason) for t in transfers] == [("chunks", "the server has no way to send files")]


@pytest.mark.parametrize("extensions", [{}, BOTH])
@pytest.mark.parametrize("conditional", [False, True])
def test_the_listener_hears_of_foreign_files(files: Files, extensions: dict[str, Any], conditional: bool) -> None:
    heard: list[Transfer] = []
    foreign = saying(start(LARGE.size), {"type": PATHSEND, "path": str(files.path("large.bin"))})
    options: dict[str, Any] = {"conditional": conditional, "on_transfer": heard.append}
    run(foreign, scope_of(extensions=extensions), Stream().app_send, **options)
    assert [(t.status, t.bytes_sent, t.completed) for t in heard] == [(200, LARGE.size, True)]


def test_the_listener_hears_of_named_files_and_not_of_our_own_responses(files: Files) -> None:
    heard: list[Transfer] = []
    path = files.path("data.bin")
    named = start(0)
    named["headers"].append((b"x-sendfile", str(path).encode()))
    body = {"type": "http.response.body", "body": b""}
    run(saying(named, body), scope_of(), Stream().app_send, x_sendfile=[path.parent], on_transfer=heard.append)
    run(sending(path), scope_of(), Stream().app_send, on_transfer=heard.append)
    assert [(t.way, t.bytes_sent) for t in heard] == [("chunks", path.stat().st_size)]


def test_a_listener_that_cannot_be_called_is_named() -> None:
    with pytest.raises(TypeError, match="on_transfer"):
        ZeroCopyMiddleware(saying(), on_transfer=3)  # type: ignore[arg-type]


def test_the_client_is_listened_for_while_chunks_are_sent(files: Files) -> None:
    def leave(total: int) -> bool:
        if total > 200_000:
            client.gone.set()
        return True

    client = Client(waits=leave)
    with record_transfers() as transfers:
        run(sending(files.path("large.bin")), scope_of(), client.send, client.receive)
    assert client.total < LARGE.size
    assert [(t.reason, t.completed) for t in transfers] == [("the client left", False)]


def test_an_application_that_listens_too_is_not_deprived_of_what_it_hears(files: Files) -> None:
    heard: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def listen() -> None:
            heard.append((await receive())["type"])

        listener = asyncio.create_task(listen())
        await asyncio.sleep(0)
        await send_file(scope, receive, send, files.path("large.bin"))
        await listener

    def leave(total: int) -> bool:
        if total > 200_000 and queue.empty():
            queue.put_nowait({"type": "http.disconnect"})
        return True

    queue: asyncio.Queue[Message] = asyncio.Queue()
    client = Client(waits=leave)
    run(app, scope_of(), client.send, queue.get)
    assert heard == ["http.disconnect"]
    assert client.total < LARGE.size


# --- what the application is offered ----------------------------------------------------------------------------------


def offered(extensions: dict[str, Any], send: Send, **options: Any) -> tuple[set[str], bool]:
    """The extensions that an application sees, and whether our own dialect is among them."""
    seen: list[tuple[set[str], bool]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append((set(scope["extensions"]), offer_in(scope) is not None))
        await send(start(0))
        await send({"type": "http.response.body"})

    run(app, scope_of(extensions=extensions), send, **options)
    return seen[0]


def test_who_passes_its_keywords_on_knows_all_of_them() -> None:
    keywords = [
        name for name, p in inspect.signature(ZeroCopyMiddleware).parameters.items() if p.kind is p.KEYWORD_ONLY
    ]
    assert sorted(MiddlewareOptions.__annotations__) == sorted(keywords)


def test_every_server_offers_the_same() -> None:
    plain = Client().send
    assert offered({}, plain) == ({PATHSEND}, True)
    assert offered(BOTH, Stream().app_send) == ({PATHSEND}, True)
    assert offered({}, plain, zerocopysend=True) == ({PATHSEND, ZEROCOPYSEND}, True)
    assert offered(BOTH, Stream().app_send, zerocopysend=True) == ({PATHSEND, ZEROCOPYSEND}, True)
    # Its own offer is the best that it has.
    assert offered({PATHSEND: {}}, plain) == ({PATHSEND}, False)
    assert offered({PATHSEND: {}}, plain, zerocopysend=True) == ({PATHSEND, ZEROCOPYSEND}, False)
    assert offered({PATHSEND: {}}, plain, sendfile=False) == ({PATHSEND}, True)


def test_a_switch_withholds_the_offer_on_every_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZCRESPONSE_PATHSEND", "off")
    for extensions, send in (({}, Client().send), ({PATHSEND: {}}, Client().send), (BOTH, Stream().app_send)):
        assert offered(extensions, send) == (set(), False)


def test_anycorn_on_asyncio_is_not_believed(monkeypatch: pytest.MonkeyPatch, files: Files) -> None:
    async def ask(send: Send) -> Honoured:
        return honoured_by(scope_of(extensions=BOTH), send)

    class Anycorns(Stream):
        __module__ = "anycorn.protocol.http_stream"

    no = (False, False, "anycorn on asyncio cuts bodies")
    assert asyncio.run(ask(Anycorns().app_send)) == no
    # From below something that wraps its `send`, or without the middleware, by what is loaded.
    assert asyncio.run(ask(Client().send)) == (False, True, "")
    monkeypatch.setitem(sys.modules, "anycorn", ModuleType("anycorn"))
    assert asyncio.run(ask(Client().send)) == no
    client = Client()
    scope = scope_of(extensions=BOTH)
    asyncio.run(send_file(scope, client.receive, client.send, files.path("large.bin")))
    assert b"".join(client.bodies) == LARGE.content


def test_a_server_that_is_not_known_is_not_given_descriptors() -> None:
    assert honoured_by(scope_of(extensions=BOTH), Client().send) == (False, True, "")
    assert honoured_by(scope_of(extensions={ZEROCOPYSEND: {}}), Client().send)[:2] == (False, False)
    # nonecorn over TLS or on uvloop would read the file on the event loop.
    assert honoured_by(scope_of(extensions={PATHSEND: {}}), Stream().app_send)[:2] == (False, False)


# --- messages that cannot be delivered --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "extra", [{"offset": -1}, {"offset": 1025}, {"count": 1025}, {"count": -1}, {"offset": 5, "count": 1024}]
)
def test_a_part_that_is_not_there_is_refused_before_the_head(extra: dict[str, int], files: Files) -> None:
    server = Stream()
    app = saying(start(10), {"type": PATHSEND, "path": str(files.path("small.bin")), **extra})
    with pytest.raises(DeliveryError, match="do not lie in"):
        run(app, scope_of(extensions=BOTH), server.app_send)
    assert server.messages == []


def test_messages_out_of_order_are_refused(files: Files) -> None:
    path = {"type": PATHSEND, "path": str(files.path("small.bin"))}
    for messages in ((path,), (start(1024), path, path)):
        with pytest.raises(DeliveryError, match="ASGI message"):
            run(saying(*messages), scope_of(), Client().send)


def test_a_file_that_has_grown_since_its_length_was_promised_is_sent_so_far(files: Files) -> None:
    client = Client()
    run(saying(start(1000), {"type": PATHSEND, "path": str(files.path("data.bin"))}), scope_of(), client.send)
    assert b"".join(client.bodies) == FILES["data.bin"].content[:1000]


def test_a_file_that_has_fewer_bytes_than_were_promised_is_refused_before_the_head(files: Files) -> None:
    client = Client()
    with pytest.raises(DeliveryError, match="1024 bytes, its Content-Length is 1025"):
        run(saying(start(1025), {"type": PATHSEND, "path": str(files.path("small.bin"))}), scope_of(), client.send)
    assert client.messages == []


def test_descriptors_are_taken_where_that_is_switched_on(files: Files) -> None:
    server = Stream()
    with open(files.path("data.bin"), "rb") as file:
        part = {"type": ZEROCOPYSEND, "file": file, "offset": 100_000, "count": 100_000, "more_body": True}
        rest = {"type": ZEROCOPYSEND, "file": file.fileno()}
        run(saying(start(400_000), part, rest), scope_of(extensions=BOTH), server.app_send, zerocopysend=True)
        assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == 300_000
    content = FILES["data.bin"].content
    assert server.body == content[100_000:200_000] + content


def test_descriptors_must_keep_to_the_length(files: Files) -> None:
    for length, count in ((1000, 1001), (1000, 999)):
        client = Client()
        with open(files.path("data.bin"), "rb") as file:
            message = {"type": ZEROCOPYSEND, "file": file, "offset": 0, "count": count}
            with pytest.raises(DeliveryError, match=f"{count} bytes, its Content-Length is 1000"):
                run(saying(start(length), message), scope_of(), client.send, zerocopysend=True)
        assert client.messages == []


def test_a_swallowed_file_is_an_error_that_names_the_switch(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    told: list[Transfer] = []

    async def swallowing(scope: Scope, receive: Receive, send: Send) -> None:
        async def swallow(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)

        await send_file(scope, receive, swallow, files.path("large.bin"), on_transfer=told.append)

    client = Client()
    with pytest.raises(DeliveryError, match="GET / was not answered"):
        run(swallowing, scope_of(), client.send)
    assert client.messages == []
    assert "its file response was swallowed" in caplog.text
    assert "ZCRESPONSE_PATHSEND=off" in caplog.text
    assert [(t.reason, t.completed) for t in told] == [("some middleware swallowed the message", False)]


def test_an_application_that_hears_the_client_leave_may_say_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def listening(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "http.disconnect"

    client = Client()
    client.gone.set()
    run(listening, scope_of(), client.send, client.receive)
    assert client.messages == []
    assert caplog.text == ""


def test_a_shipment_that_cannot_be_sent_closes_its_file(files: Files) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with contextlib.suppress(DeliveryError):
            await send_file(scope, receive, send, open_file(files.path("small.bin")))
        await send_file(scope, receive, send, open_file(files.path("small.bin")))

    with pytest.raises(DeliveryError):
        run(app, scope_of(), Client().send)
