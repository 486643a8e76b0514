"""How much work an answer is: counted, not timed, so that a step that is added to every request is seen.

The bounds are what is needed today and a little more. Whoever raises one says in the commit what for.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Final, cast

import pytest
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from uvicorn.config import Config
from uvicorn.server import ServerState

from tests.support.django_project import project
from tests.support.kernel import Call, trace_syscalls
from tests.support.servers import Server, gunicorn, workers
from tests.support.sites import SMALL, Setup, Site, content, own_file, running, site_fixture, vault
from zcresponse import Transfer, django
from zcresponse.asgi.types import ASGIApp, Message, Receive, Scope, Send
from zcresponse.starlette import ZeroCopyFileResponse
from zcresponse.uvicorn import ZeroCopyHttpToolsProtocol

site = site_fixture()

#: Calls for the file and for the answer. What waits for requests and reads them, and what writes logs, is not ours.
_FILE = ("openat2", "openat", "open", "newfstatat", "fstat", "statx", "fstatfs", "lseek", "close", "dup", "fcntl")
_READ = ("preadv2", "preadv", "pread64", "read", "readv")
_SEND = (
    "sendfile",
    "sendfile64",
    "sendto",
    "sendmsg",
    "write",
    "writev",
    "splice",
    "ioctl",
    "setsockopt",
    "getsockopt",
)
#: For a socket that has to be waited for, because the client does not keep up, or an older uvloop writes the head late:
#: it is duplicated, an option set, the queue's length asked for twice, and the duplicate closed.
_WAIT: Final = 5
#: What only threads need: to be made, to be woken up.
_THREADS = ("clone", "clone3", "futex", "eventfd2")
REQUESTS = 50


def _calls_of(
    server: Server, target: str, *fields: tuple[str, str], status: int = 200, process: int = 0
) -> Counter[str]:
    """The system calls of `REQUESTS` answers on one connection."""
    with server.connect() as connection:
        for _ in range(3):
            # The first learns what the file lies on, by a thread.
            assert connection.get(target, *fields).status == status
        with trace_syscalls(process or server.pid, names=(*_FILE, *_READ, *_SEND, *_THREADS)) as trace:
            for _ in range(REQUESTS):
                assert connection.get(target, *fields).status == status
    return Counter(call.name for call in trace.calls if _is_for_an_answer(call))


def _is_for_an_answer(call: Call) -> bool:
    if call.name in ("read", "write", "writev"):
        # Loops and logs use these too.
        return call.name != "read" and ("<socket:" in call.arguments or "<TCP:" in call.arguments)
    # asyncio's debug mode looks at the source of whoever makes a handle or a task.
    return '.py", ' not in call.arguments


def _check_threads(calls: Counter[str]) -> None:
    # Other threads of the server may wake up now and then; one that is needed does for every answer.
    assert sum(calls[name] for name in _THREADS) < REQUESTS / 2, calls


def test_a_small_cached_file_takes_five_calls_and_no_thread(site: Site) -> None:
    calls = _calls_of(site.server, f"/file/{SMALL}")
    # By the plain call for as long as its name was just seen in the kernel's cache.
    assert calls["openat2"] + calls["openat"] == REQUESTS
    # It is opened, looked at, read, closed, and sent with its head.
    assert sum(calls[name] for name in (*_FILE, *_READ, *_SEND)) <= 5 * REQUESTS + 5, calls
    _check_threads(calls)


def test_a_cached_file_of_a_mebibyte_is_sent_by_a_few_calls_and_not_read(site: Site) -> None:
    with own_file(1024 * 1024) as (path, _):
        calls = _calls_of(site.server, f"/file/{path.name}")
    waits = calls["fcntl"] + calls["dup"]
    # Once, unless the socket takes less.
    assert REQUESTS <= calls["sendfile"] + calls["sendfile64"] <= REQUESTS + 8 * waits, calls
    # Probes read a byte each, nine for the whole file, and nothing else is read.
    assert calls["preadv2"] <= 10 * REQUESTS + 16 * waits, calls
    assert sum(calls[name] for name in _READ if name != "preadv2") < 5, calls
    # It is opened, looked at and closed; the head is sent.
    sent = calls["sendfile"] + calls["sendfile64"]
    others = sum(calls[name] for name in (*_FILE, *_SEND)) - sent
    assert others <= 5 * REQUESTS + _WAIT * waits + 5, calls
    _check_threads(calls)


def test_a_range_takes_seven_calls_and_no_thread(site: Site) -> None:
    with own_file(1024 * 1024) as (path, _):
        fields = ("Range", "bytes=500000-565535")
        calls = _calls_of(site.server, f"/file/{path.name}", fields, status=206)
    # Opened, looked at, probed at its two ends, closed; head and range are sent.
    waits = calls["fcntl"] + calls["dup"]
    assert sum(calls[name] for name in (*_FILE, *_READ, *_SEND)) <= 7 * REQUESTS + _WAIT * waits + 5, calls
    _check_threads(calls)


def test_nothing_is_sent_behind_an_answer(site: Site) -> None:
    with own_file(40 * 1024) as (path, data), site.connect() as connection:
        assert connection.get(f"/file/{path.name}").body == data
        with trace_syscalls(site.server.pid, names=_SEND) as trace:
            time.sleep(0.3)
    assert [call for call in trace.calls if _is_for_an_answer(call)] == []


def test_a_file_that_the_client_has_is_looked_at_and_not_read(site: Site) -> None:
    with own_file(64 * 1024) as (path, _):
        (tag,) = site.get(f"/file/{path.name}").values("etag")
        calls = _calls_of(site.server, f"/file/{path.name}", ("If-None-Match", tag), status=304)
    assert sum(calls[name] for name in (*_FILE, *_READ, *_SEND)) <= 4 * REQUESTS + 5, calls
    assert not any(calls[name] for name in _READ), calls
    _check_threads(calls)


@pytest.mark.parametrize("parser", ["h11", "httptools"])
def test_a_cached_file_leaves_stock_uvicorn_in_a_few_reads_and_no_thread(parser: str) -> None:
    with running(Setup("asyncio", parser, stock=True)) as site, own_file(1024 * 1024) as (path, _):
        calls = _calls_of(site.server, f"/file/{path.name}")
    # 16 messages of 64 KiB, each read by one call and sent by one.
    assert sum(calls[name] for name in _READ) <= 16 * REQUESTS + 5, calls
    assert sum(calls[name] for name in _SEND) <= 17 * REQUESTS + 5, calls
    assert sum(calls[name] for name in _FILE) <= 3 * REQUESTS + 5, calls
    _check_threads(calls)


@pytest.fixture(scope="module")
def flask_on_gunicorn() -> Iterator[Server]:
    args = ("--threads", "2", "--keep-alive", "30")
    env = {"ZCRESPONSE_BENCH_FILES": str(vault())}
    with gunicorn("zcresponse.bench.apps.flask:zero_copy", *args, worker_class="gthread", env=env) as server:
        yield server


def test_flask_on_gunicorn_answers_with_a_small_file_in_five_calls(flask_on_gunicorn: Server) -> None:
    (worker,) = workers(flask_on_gunicorn.pid)
    calls = _calls_of(flask_on_gunicorn, f"/{SMALL}", process=worker)
    # In one write with its head.
    assert calls["sendto"] == REQUESTS, calls
    # It is opened, looked at, read and closed. (gunicorn makes the socket one that blocks, and back.)
    assert sum(calls[name] for name in (*_FILE, *_READ, *_SEND) if name != "ioctl") <= 5 * REQUESTS + 5, calls


def test_flask_on_gunicorn_hands_over_a_file_in_a_few_calls(flask_on_gunicorn: Server) -> None:
    (worker,) = workers(flask_on_gunicorn.pid)
    with own_file(1024 * 1024) as (path, _):
        calls = _calls_of(flask_on_gunicorn, f"/{path.name}", process=worker)
    assert calls["sendfile"] <= REQUESTS, calls
    assert not any(calls[name] for name in _READ), calls
    # gunicorn asks where the file stands and how large it is, and makes the socket one that blocks and back. Each time
    # that it asks for the descriptor we look whether the file has grown.
    assert sum(calls[name] for name in (*_FILE, *_SEND)) <= 19 * REQUESTS + 10, calls


# --- in this process --------------------------------------------------------------------------------------------------


class _Socket:
    family = 2

    def __init__(self) -> None:
        self._fd = os.open(os.devnull, os.O_WRONLY)

    def fileno(self) -> int:
        return self._fd

    def getsockname(self) -> tuple[str, int]:
        return ("127.0.0.1", 2)

    def getpeername(self) -> tuple[str, int]:
        return ("127.0.0.1", 1)

    def close(self) -> None:
        os.close(self._fd)


class _Transport(asyncio.Transport):
    """Keeps what is written: what a request costs beside the network."""

    def __init__(self, sock: _Socket) -> None:
        super().__init__({"socket": sock})
        self.written: list[bytes] = []
        #: Blocks of memory in use when something was written.
        self.blocks: list[int] = []

    def write(self, data: Any) -> None:
        self.blocks.append(sys.getallocatedblocks())
        self.written.append(bytes(data))

    def close(self) -> None:
        pass

    def get_protocol(self) -> asyncio.BaseProtocol:
        return asyncio.Protocol()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.bin"
    path.write_bytes(content(SMALL)[:1024])
    # Written long ago: its validators are strong.
    os.utime(path, (1_600_000_000, 1_600_000_000))
    return path


def _plain(path: Path) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await ZeroCopyFileResponse(str(path))(cast("Any", scope), receive, cast("Any", send))

    return app


def _routed(path: Path) -> ASGIApp:
    async def view(request: Request) -> Response:
        return ZeroCopyFileResponse(str(path))

    return cast("ASGIApp", Starlette(routes=[Route("/", view)]))


def _djangos(path: Path) -> ASGIApp:
    async def view(request: HttpRequest) -> HttpResponseBase:
        return django.ZeroCopyFileResponse(str(path))

    made: list[ASGIApp] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with project(view):
            if not made:
                made.append(cast("ASGIApp", django.get_asgi_application()))
            await made[0](scope, receive, send)

    return app


async def _ask(app: ASGIApp, rounds: int, profile: Any, taken: list[int] | None = None) -> list[bytes]:
    """Make requests, and return what was written; `taken` gets how many blocks of memory each had taken by then."""
    config = Config(app, http=ZeroCopyHttpToolsProtocol, access_log=False, log_level="warning", lifespan="off")
    config.load()
    protocol: Any = ZeroCopyHttpToolsProtocol(config=config, server_state=ServerState(), app_state={})
    sock = _Socket()
    transport = _Transport(sock)
    try:
        protocol.connection_made(transport)
        for turn in range(5 + rounds):
            if turn == 5:
                transport.written.clear()
                sys.setprofile(profile)
            before = sys.getallocatedblocks()
            protocol.data_received(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            while protocol.tasks:
                await asyncio.wait(protocol.tasks)
                await asyncio.sleep(0)
            assert protocol.cycle.response_complete
            if taken is not None and turn >= 5:
                taken.append(transport.blocks[-1] - before)
    finally:
        sys.setprofile(None)
        protocol.connection_lost(None)
        sock.close()
    return transport.written


@pytest.mark.parametrize(("make", "bound"), [(_plain, 58), (_routed, 78), (_djangos, 96)])
def test_a_small_cached_file_takes_so_many_function_calls(
    make: Callable[[Path], ASGIApp], bound: int, small: Path
) -> None:
    counted = Counter[str]()

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and "zcresponse" in frame.f_code.co_filename.split(os.sep):
            counted[f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_name}"] += 1

    written = asyncio.run(_ask(make(small), REQUESTS, profile))
    # In one write with its head.
    assert len(written) == REQUESTS
    assert all(answer.endswith(small.read_bytes()) for answer in written)
    per_request = {name: count for name, count in counted.items() if count >= REQUESTS}
    assert sum(counted.values()) <= bound * REQUESTS, per_request


@pytest.mark.parametrize(("make", "bound"), [(_plain, 66), (_routed, 112), (_djangos, 285)])
def test_a_small_cached_file_takes_so_many_blocks_of_memory(
    make: Callable[[Path], ASGIApp], bound: int, small: Path
) -> None:
    taken: list[int] = []
    gc.collect()
    gc.disable()
    try:
        # In debug mode (-X dev) asyncio keeps where each handle comes from.
        asyncio.run(_ask(make(small), REQUESTS, None, taken), debug=False)
    finally:
        gc.enable()
    # The same for each, but for a block or two.
    assert max(taken) <= bound, Counter(taken)


def test_answers_leave_nothing_for_the_garbage_collector(small: Path) -> None:
    gc.collect()
    gc.disable()
    try:
        before = set(map(id, gc.get_objects()))
        asyncio.run(_ask(_plain(small), REQUESTS, None))
        left = [each for each in gc.get_objects() if id(each) not in before]
        # What is told of a transfer is kept by whoever hears of it.
        ours = [each for each in left if type(each).__module__.startswith("zcresponse") and type(each) is not Transfer]
        found = Counter(type(each).__name__ for each in ours)
        collected = gc.collect()
    finally:
        gc.enable()
    # What a connection leaves, whatever the number of its requests.
    assert collected < 5 * REQUESTS, found
    assert max(found.values(), default=0) < REQUESTS, found


def test_the_head_of_a_file_on_its_way_waits_for_what_comes_in_its_place(small: Path) -> None:
    transports: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def replacing_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                await asyncio.sleep(0.1)
                transports.append(len(written()))
            else:
                await send({"type": "http.response.body", "body": bytes(1024)})

        def written() -> list[bytes]:
            cycle: Any = cast("Any", send).__self__._server
            return cast("list[bytes]", cycle.transport.written)

        await ZeroCopyFileResponse(str(small))(cast("Any", scope), receive, cast("Any", replacing_send))

    answer = b"".join(asyncio.run(_ask(app, 1, None)))
    assert transports[-1] == 0
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\n" + bytes(1024))
