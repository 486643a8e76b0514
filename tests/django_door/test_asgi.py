"""Under ASGI: whose a file is while its message is on the way, clients that leave, memory, threads."""

# mypy: allow-subclassing-any

from __future__ import annotations

import asyncio
import gc
import gzip
import os
import tempfile
import threading
import tracemalloc
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import django
import pytest
from django.core import asgi
from django.core.files.base import File
from django.http import FileResponse, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from tests.support.django_project import (
    DATA,
    MIDDLEWARE,
    STOCK_FILES,
    AsgiServer,
    ask,
    descriptors_of,
    project,
    scope_of,
    serve_asgi,
)
from zcresponse.asgi.dialect import KEY, PATHSEND, Offer, extensions_with
from zcresponse.django import ZeroCopyFileResponse, get_asgi_application
from zcresponse.errors import FileTruncatedError
from zcresponse.testing import PathsendServer

PLAIN: dict[str, Any] = {PATHSEND: {}}

needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="looks at descriptors through /proc")


# --- who owns the file ------------------------------------------------------------------------------------------------


@needs_proc
@pytest.mark.parametrize("kind", ["ours", *STOCK_FILES])
def test_a_message_that_is_delivered_late_has_its_own_descriptor(kind: str, path: Path, finished: list[Any]) -> None:
    async def go() -> Any:
        server = AsgiServer()
        scope = scope_of()
        await get_asgi_application()(
            {**scope, "extensions": extensions_with(scope, Offer())}, server.receive, server.send
        )
        return server.messages[-1][KEY]

    with project(STOCK_FILES[kind](path) if kind != "ours" else lambda request: ZeroCopyFileResponse(path)):
        shipment = asyncio.run(go())
    assert len(finished) == 1
    [region] = shipment.segments
    assert os.pread(shipment.file.fileno(), region.count, region.offset) == DATA
    shipment.file.close()
    assert descriptors_of(path) == 0


@needs_proc
@pytest.mark.parametrize("kind", ["ours", *STOCK_FILES])
def test_a_message_that_is_dropped_closes_its_file(kind: str, path: Path) -> None:
    async def swallow(message: Any) -> None:
        pass

    async def go() -> None:
        server = AsgiServer()
        scope = scope_of()
        await get_asgi_application()({**scope, "extensions": extensions_with(scope, Offer())}, server.receive, swallow)

    with project(STOCK_FILES[kind](path) if kind != "ours" else lambda request: ZeroCopyFileResponse(path)):
        asyncio.run(go())
    gc.collect()
    assert descriptors_of(path) == 0


def deleting(path: Path) -> HttpResponseBase:
    response = ZeroCopyFileResponse(path)
    response._resource_closers.append(lambda: path.unlink())
    return response


def deleting_by_a_method(path: Path) -> HttpResponseBase:
    response = ZeroCopyFileResponse(path)
    response._resource_closers.append(path.unlink)
    return response


def deleting_itself(path: Path) -> HttpResponseBase:
    file = tempfile.NamedTemporaryFile(dir=path.parent)  # noqa: SIM115 - the response closes it
    file.write(DATA)
    file.seek(0)
    return ZeroCopyFileResponse(file)


class Leased(File):
    """Is given back when it is closed."""

    def close(self) -> None:
        super().close()
        os.unlink(self.name)


def deleting_by_its_own_close(path: Path) -> HttpResponseBase:
    return ZeroCopyFileResponse(Leased(path.open("rb")))


def stock_deleting(path: Path) -> Any:
    response = FileResponse(path.open("rb"))
    response._resource_closers.append(lambda: path.unlink())
    return response


def stock_deleting_by_its_own_close(path: Path) -> Any:
    return FileResponse(Leased(path.open("rb")))


@pytest.mark.parametrize(
    "make",
    [
        deleting,
        deleting_by_a_method,
        deleting_itself,
        deleting_by_its_own_close,
        stock_deleting,
        stock_deleting_by_its_own_close,
    ],
)
def test_a_server_is_not_told_the_path_of_a_file_that_is_deleted(make: Callable[[Path], Any], path: Path) -> None:
    async def go() -> AsgiServer:
        server = AsgiServer()
        await get_asgi_application()(scope_of(extensions=PLAIN), server.receive, server.send)
        return server

    with project(lambda request: make(path)):
        server = asyncio.run(go())
    assert all(message["type"] != PATHSEND for message in server.messages)
    assert server.body == DATA


def test_a_server_is_told_the_path_of_any_other(path: Path) -> None:
    async def go() -> AsgiServer:
        server = AsgiServer()
        await get_asgi_application()(scope_of(extensions=PLAIN), server.receive, server.send)
        return server

    with project(lambda request: ZeroCopyFileResponse(path)):
        server = asyncio.run(go())
    assert server.messages[1] == {"type": PATHSEND, "path": str(path)}


@pytest.mark.parametrize("way", ["asgi", "pathsend", "moving wsgi", "client"])
def test_what_was_given_is_closed_where_django_closes_it(way: str, path: Path) -> None:
    threads: list[int] = []

    class Watched(File):
        def close(self) -> None:
            threads.append(threading.get_ident())
            super().close()

    def view(request: HttpRequest) -> HttpResponseBase:
        threads.append(threading.get_ident())
        return ZeroCopyFileResponse(Watched(path.open("rb")))

    with project(view):
        assert ask(way).body == DATA
    # Not in the event loop: it may ask a database, or a network.
    assert len(threads) == 2
    assert threads[0] == threads[1]


@pytest.mark.parametrize("way", ["asgi", "pathsend", "plain pathsend", "moving wsgi", "wsgi", "client"])
def test_an_error_in_closing_what_was_given_spoils_nothing(way: str, path: Path) -> None:
    class Failing(File):
        def close(self) -> None:
            super().close()
            raise RuntimeError

    with project(lambda request: ZeroCopyFileResponse(Failing(path.open("rb")))):
        assert ask(way).body == DATA


# --- who leaves -------------------------------------------------------------------------------------------------------


@needs_proc
@pytest.mark.parametrize("kind", ["ours", "stock", "wrapped"])
def test_a_client_that_leaves_in_the_middle_closes_the_file(kind: str, path: Path, finished: list[Any]) -> None:
    closed: list[str] = []
    os.truncate(path, 20 << 20)

    def view(request: HttpRequest) -> HttpResponseBase:
        response = FileResponse(path.open("rb")) if kind == "stock" else ZeroCopyFileResponse(path)
        if kind == "wrapped":
            response.streaming_content = map(bytes, response.streaming_content)
        response._resource_closers.append(lambda: closed.append("once"))
        return response

    async def go() -> AsgiServer:
        async def on_send(message: Any) -> None:
            if len(server.messages) == 3:
                server.leave()
                await asyncio.sleep(10)

        server = AsgiServer(on_send)
        await asyncio.wait_for(get_asgi_application()(scope_of(), server.receive, server.send), 10)
        return server

    with project(view):
        server = asyncio.run(go())
    assert 0 < len(server.body) < 20 << 20
    assert (closed, len(finished), descriptors_of(path)) == (["once"], 1, 0)


@needs_proc
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_client_that_leaves_before_the_answer_leaves_nothing_open(kind: str, path: Path) -> None:
    entered = threading.Event()
    go_on = threading.Event()

    def view(request: HttpRequest) -> HttpResponseBase:
        entered.set()
        go_on.wait(10)
        return ZeroCopyFileResponse(path)

    async def async_view(request: HttpRequest) -> HttpResponseBase:
        response = ZeroCopyFileResponse(path)
        entered.set()
        await asyncio.sleep(10)
        return response

    async def go() -> None:
        server = AsgiServer()
        running = asyncio.ensure_future(get_asgi_application()(scope_of(), server.receive, server.send))
        await asyncio.to_thread(entered.wait, 10)
        server.leave()
        await asyncio.sleep(0.05)
        go_on.set()
        await asyncio.wait_for(running, 10)
        assert not server.messages

    with project(view if kind == "sync" else async_view):
        asyncio.run(go())


@needs_proc
@pytest.mark.parametrize("kind", ["ours", "stock"])
@pytest.mark.parametrize("at", ["start", "body"])
def test_an_error_of_the_servers_send_closes_the_file(at: str, kind: str, path: Path) -> None:
    async def go() -> None:
        async def on_send(message: Any) -> None:
            if message["type"].endswith(at):
                raise RuntimeError

        server = AsgiServer(on_send)
        await get_asgi_application()(scope_of(), server.receive, server.send)

    with project(STOCK_FILES["FileResponse"](path) if kind == "stock" else lambda request: ZeroCopyFileResponse(path)):
        with pytest.raises(RuntimeError):
            asyncio.run(go())
    assert descriptors_of(path) == 0


@needs_proc
@pytest.mark.parametrize("kind", ["ours", "stock"])
def test_a_file_that_shrinks_while_it_is_sent_ends_the_answer(kind: str, path: Path, finished: list[Any]) -> None:
    closed: list[str] = []

    def view(request: HttpRequest) -> HttpResponseBase:
        response = FileResponse(path.open("rb")) if kind == "stock" else ZeroCopyFileResponse(path)
        response._resource_closers.append(lambda: closed.append("once"))
        return response

    async def go() -> None:
        async def on_send(message: Any) -> None:
            os.truncate(path, 100_000)

        server = AsgiServer(on_send)
        await get_asgi_application()(scope_of(), server.receive, server.send)

    with project(view), pytest.raises(FileTruncatedError):
        asyncio.run(go())
    assert (descriptors_of(path), closed, len(finished)) == (0, ["once"], 1)


@needs_proc
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_wrapped_file_that_shrinks_closes_everything(kind: str, path: Path, finished: list[Any]) -> None:
    closed: list[str] = []

    async def in_turn(parts: Any) -> AsyncIterator[bytes]:
        for part in parts:
            yield part

    def view(request: HttpRequest) -> HttpResponseBase:
        response = ZeroCopyFileResponse(path)
        parts: Any = response.streaming_content
        body: Any = map(bytes, parts) if kind == "sync" else in_turn(parts)
        response.streaming_content = body
        response._resource_closers.append(lambda: closed.append("once"))
        os.truncate(path, 100_000)
        return response

    with project(view), pytest.raises(FileTruncatedError):
        ask("asgi")
    assert (descriptors_of(path), closed, len(finished)) == (0, ["once"], 1)


@pytest.mark.skipif(django.VERSION >= (6, 1), reason="Django makes a class for each request there, which is a circle")
@pytest.mark.parametrize("kind", ["empty", "file"])
def test_a_request_is_freed_at_once_though_the_server_says_that_it_is_over(kind: str, path: Path) -> None:
    seen: list[weakref.ref[HttpRequest]] = []

    def view(request: HttpRequest) -> HttpResponseBase:
        seen.append(weakref.ref(request))
        return HttpResponse() if kind == "empty" else ZeroCopyFileResponse(path)

    async def go() -> None:
        async def on_send(message: Any) -> None:
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                # As uvicorn does when all is sent. Django hears of it before it is done.
                server.leave()
                await asyncio.sleep(0.01)

        server = AsgiServer(on_send)
        await get_asgi_application()(scope_of(), server.receive, server.send)
        server.messages.clear()
        await asyncio.sleep(0.01)
        assert [request() for request in seen] == [None]

    gc.collect()
    gc.disable()
    try:
        with project(view):
            asyncio.run(go())
    finally:
        gc.enable()


# --- memory and threads -----------------------------------------------------------------------------------------------


class Swapping(ZeroCopyFileResponse):
    def __iter__(self) -> Iterator[bytes]:
        return (part.swapcase() for part in super().__iter__())


def wrapped(response: Any) -> Any:
    response.streaming_content = map(bytes, response.streaming_content)
    return response


LARGE: dict[str, Callable[[Path], Any]] = {
    "ours": ZeroCopyFileResponse,
    "ours, wrapped": lambda path: wrapped(ZeroCopyFileResponse(path)),
    "ours, of a subclass": Swapping,
    "ours, of a stream": lambda path: ZeroCopyFileResponse(iter(lambda: bytes(1 << 18), None), content_type="a/b"),
    "stock": lambda path: FileResponse(path.open("rb")),
    "stock, wrapped": lambda path: wrapped(FileResponse(path.open("rb"))),
    "stock, of a reader": lambda path: FileResponse(gzip.open(path)),  # noqa: SIM115
}


@pytest.mark.parametrize("app", ["ours", "stock"])
@pytest.mark.parametrize("kind", LARGE)
def test_memory_stays_flat(kind: str, app: str, path: Path) -> None:
    if app == "stock" and "stock" in kind:
        pytest.skip("Django's own of Django's own")
    size = 64 << 20
    if "reader" in kind:
        with gzip.open(path, "wb", compresslevel=1) as file:
            for _ in range(64):
                file.write(bytes(1 << 20))
    else:
        os.truncate(path, size)

    def view(request: HttpRequest) -> Any:
        return LARGE[kind](path)

    sent = largest = 0

    async def go() -> int:
        async def on_send(message: Any) -> None:
            nonlocal sent, largest
            sent += len(message.get("body", b""))
            largest = max(largest, len(message.get("body", b"")))
            server.messages.clear()
            if sent >= size:
                server.leave()

        server = AsgiServer(on_send)
        application = get_asgi_application() if app == "ours" else asgi.get_asgi_application()
        tracemalloc.start()
        await application(scope_of(), server.receive, server.send)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    with project(view):
        peak = asyncio.run(go())
    assert sent >= size
    assert largest <= 1 << 20
    assert peak < 8 << 20


def test_a_synchronous_stream_is_read_in_the_thread_of_its_view(path: Path) -> None:
    threads: list[int] = []

    def parts() -> Iterator[bytes]:
        threads.append(threading.get_ident())
        yield DATA

    def view(request: HttpRequest) -> HttpResponseBase:
        threads.append(threading.get_ident())
        response = ZeroCopyFileResponse(parts())
        response._resource_closers.append(lambda: threads.append(threading.get_ident()))
        return response

    with project(view):
        assert ask("asgi").body == DATA
    assert len(threads) == 3
    assert len(set(threads)) == 1
    assert threads[0] != threading.get_ident()


@pytest.mark.parametrize(
    "way", ["asgi", "pathsend", "plain pathsend", "stock asgi", "wsgi", "moving wsgi", "async client"]
)
def test_an_asynchronous_view_is_as_good(way: str, path: Path) -> None:
    async def view(request: HttpRequest) -> HttpResponseBase:
        await asyncio.sleep(0)
        response = ZeroCopyFileResponse(path)
        response.set_cookie("seen", "yes")
        return response

    with project(view, MIDDLEWARE):
        answer = ask(way, Range="bytes=5-99")
    assert (answer.status, answer.body) == (206, DATA[5:100])
    assert [cookie.strip() for cookie in answer.values("Set-Cookie")] == ["seen=yes; Path=/"]


def test_many_at_once_do_not_disturb_each_other(path: Path) -> None:
    async def go() -> list[bytes]:
        app = PathsendServer(get_asgi_application())
        ranges = [{"Range": f"bytes={start}-{start + 999}"} for start in range(0, 50_000, 1000)]
        answers = await asyncio.gather(*[serve_asgi(app, scope_of("GET", fields)) for fields in ranges])
        return [answer.body for answer in answers]

    with project(lambda request: ZeroCopyFileResponse(path)):
        assert b"".join(asyncio.run(go())) == DATA[:50_000]
