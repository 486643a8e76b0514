"""Applications for the tests of transfers, served by real servers.

`app` is a bare ASGI application that does what the request tells it, so that a test says in one place what is sent and
what must arrive:

- `/script?steps=…` sends the messages of a JSON list, see `_run_steps`,
- `/file/NAME` answers with `zcresponse.asgi.send_file`,
- `/control/VERB/ARGUMENT` changes the process or another request, see `_CONTROLS`.

The others are the same few Starlette routes, bare and beneath middleware. Files come from the directory named by the
environment variable `VAULT`. Every transfer is told on standard error, in one line of JSON after the word `transfer`.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import json
import os
import sys
import threading
import zlib
from collections import defaultdict
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import anyio
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from zcresponse import events, loops
from zcresponse.asgi import ZeroCopyMiddleware, send_file
from zcresponse.asgi.transport import deliver, request_head
from zcresponse.events import Transfer
from zcresponse.files import open_file
from zcresponse.files.linux import Storage
from zcresponse.plan import plan_file_response
from zcresponse.starlette import ZeroCopyFileResponse, install

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]


def _vault() -> Path:
    return Path(os.environ["VAULT"])


def _tell(transfer: Transfer) -> None:
    sys.stderr.write(f"transfer {json.dumps(dataclasses.asdict(transfer))}\n")


_telling = contextlib.ExitStack()
_telling.enter_context(events.subscribe(_tell))


# --- the bare application ---------------------------------------------------------------------------------------------


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Do what the request tells."""
    if scope["type"] == "websocket":
        await _echo(receive, send)
        return
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    query = {name: values[-1] for name, values in parse_qs(scope["query_string"].decode()).items()}
    if "key" in query:
        _transports[query["key"]] = _transport_behind(send)
    _, kind, *rest = scope["path"].removeprefix(scope["root_path"]).split("/")
    if kind == "script":
        await _script(query, receive, send)
    elif kind == "file":
        await _file(rest[0], query, scope, receive, send)
    elif kind == "control":
        await _answer(send, await _CONTROLS[rest[0]](rest[1]))
    elif kind == "scope":
        described = {"client": scope["client"], "scheme": scope["scheme"], "root_path": scope["root_path"],
                     "extensions": sorted(scope.get("extensions") or {}), "pid": os.getpid()}  # fmt: skip
        await _answer(send, json.dumps(described))
    else:
        await _answer(send, "nothing here", 404)


async def _answer(send: Send, text: str, status: int = 200) -> None:
    body = text.encode()
    fields = [(b"content-length", b"%d" % len(body)), (b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def _lifespan(receive: Receive, send: Send) -> None:
    while (message := await receive())["type"] != "lifespan.shutdown":
        await send({"type": f"{message['type']}.complete"})
    await send({"type": "lifespan.shutdown.complete"})


async def _echo(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


async def _script(query: dict[str, str], receive: Receive, send: Send) -> None:
    """Run the steps, in a time limit of `within` seconds made by `timer` (asyncio or anyio) if there is one.

    With the timer `disconnect` they end when the client leaves.
    """
    steps = json.loads(query["steps"])
    within = float(query.get("within", "nan"))
    if query.get("timer") == "asyncio":
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                await _run_steps(steps, receive, send)
    elif query.get("timer") == "asyncio-raising":
        async with asyncio.timeout(within):
            await _run_steps(steps, receive, send)
    elif query.get("timer") == "anyio":
        with anyio.move_on_after(within):
            await _run_steps(steps, receive, send)
    elif query.get("timer") == "disconnect":
        await _run_until_disconnect(steps, receive, send)
    else:
        await _run_steps(steps, receive, send)


async def _run_until_disconnect(steps: list[list[Any]], receive: Receive, send: Send) -> None:
    """As many responses do: a second task listens for the client's leaving and cancels the first."""
    async with anyio.create_task_group() as group:

        async def listen() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            sys.stderr.write("heard the client leave\n")
            group.cancel_scope.cancel()

        group.start_soon(listen)
        await _run_steps(steps, receive, send)
        group.cancel_scope.cancel()


async def _run_steps(steps: list[list[Any]], receive: Receive, send: Send) -> None:
    """Send what the steps say.

    - `start STATUS FIELDS`: the head
    - `body TEXT COUNT MORE`: TEXT repeated COUNT times
    - `path NAME EXTRA`: `http.response.pathsend` with further keys
    - `descriptor NAME EXTRA`: `http.response.zerocopysend` of a file opened once for the request; the key `seek` moves
      the descriptor before
    - `gate NAME`: wait until `/control/open/NAME` was asked
    - `read`: read the request's body
    - `refused STEP`: this step has to raise
    """
    opened: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        for step in steps:
            await _run_step(step, receive, send, opened, stack)


async def _run_step(
    step: list[Any], receive: Receive, send: Send, opened: dict[str, Any], stack: contextlib.ExitStack
) -> None:
    kind, *rest = step
    if kind == "start":
        fields = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in rest[1]]
        await send({"type": "http.response.start", "status": rest[0], "headers": fields})
    elif kind == "body":
        text, count, more = rest
        await send({"type": "http.response.body", "body": text.encode("latin-1") * count, "more_body": more})
    elif kind == "path":
        await send({"type": "http.response.pathsend", "path": str(_vault() / rest[0]), **rest[1]})
    elif kind == "descriptor":
        name, extra = rest
        if name not in opened:
            file = (_vault() / name).open("rb", buffering=0)
            opened[name] = stack.enter_context(file)
        if "seek" in extra:
            opened[name].seek(extra.pop("seek"))
        await send({"type": "http.response.zerocopysend", "file": opened[name], **extra})
    elif kind == "gate":
        await _gates[rest[0]].wait()
    elif kind == "read":
        while (await receive()).get("more_body"):
            pass
    elif kind == "refused":
        try:
            await _run_step(rest[0], receive, send, opened, stack)
        except Exception as error:
            sys.stderr.write(f"refused {type(error).__name__}\n")
        else:
            sys.stderr.write("refused nothing\n")
    else:
        raise ValueError(kind)


async def _file(name: str, query: dict[str, str], scope: Scope, receive: Receive, send: Send) -> None:
    if query.get("storage") != "unknown":
        await send_file(scope, receive, send, _vault() / name)
        return
    # A network or FUSE mount is hard to have in a test. What is different there is what the library knows of the
    # file's storage, so that is what is changed.
    file = open_file(_vault() / name)
    file.storage = Storage.UNKNOWN
    plan = plan_file_response(request_head(scope), file)
    await deliver(plan, file, scope, receive, send)


# --- control ----------------------------------------------------------------------------------------------------------

_gates: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
_transports: dict[str, asyncio.Transport] = {}
_limits: list[tuple[int, int]] = []
_unblock = threading.Event()


def _transport_behind(send: Any) -> asyncio.Transport:
    owner = send.__self__
    transport: asyncio.Transport = getattr(owner, "_server", owner).transport
    return transport


async def _open_gate(name: str) -> str:
    _gates[name].set()
    return "open"


async def _abort(key: str) -> str:
    _transports.pop(key).abort()
    return "aborted"


async def _close(key: str) -> str:
    _transports.pop(key).close()
    return "closed"


async def _tell_buffer_limits(key: str) -> str:
    return json.dumps(_transports[key].get_write_buffer_limits())


async def _limit_descriptors(spare: str) -> str:
    """Let the process have so many descriptors more than now; `restore` takes it back."""
    import resource

    if spare == "restore":
        resource.setrlimit(resource.RLIMIT_NOFILE, _limits.pop())
        return "restored"
    _limits.append(resource.getrlimit(resource.RLIMIT_NOFILE))
    # Not from a list of /proc/self/fd, which would count the descriptor that lists.
    free = (number for number in itertools.count() if not os.path.exists(f"/proc/self/fd/{number}"))
    limit = next(itertools.islice(free, int(spare), None))
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, _limits[-1][1]))
    return str(limit)


async def _block_threads(verb: str) -> str:
    """Keep all the library's threads busy, as a file system that does not answer would."""
    if verb == "free":
        _unblock.set()
        return "free"
    _unblock.clear()
    for _ in range(loops.MAX_THREADS):
        loops.LOCAL.submit(_unblock.wait)
    return "blocked"


_CONTROLS: dict[str, Callable[[str], Awaitable[str]]] = {
    "open": _open_gate,
    "abort": _abort,
    "close": _close,
    "buffers": _tell_buffer_limits,
    "descriptors": _limit_descriptors,
    "threads": _block_threads,
}

# --- Starlette, bare and beneath middleware ---------------------------------------------------------------------------


async def _ours(request: Request) -> Response:
    return ZeroCopyFileResponse(_vault() / request.path_params["name"])


async def _stock(request: Request) -> Response:
    return FileResponse(_vault() / request.path_params["name"])


async def _text(request: Request) -> Response:
    return PlainTextResponse("text " * 1000)


def _shop(*middleware: Middleware) -> Starlette:
    return Starlette(
        routes=[
            Route("/ours/{name}", _ours),
            Route("/stock/{name}", _stock),
            Route("/text", _text),
            Mount("/static", StaticFiles(directory=os.environ.get("VAULT", "."))),
        ],
        middleware=middleware,
    )


class Passing(BaseHTTPMiddleware):
    """Starlette's base class for middleware, adding a field."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers["x-passed"] = "yes"
        return response


class Dropping:
    """Compresses as brotli-asgi does: holds the start back, understands body messages and drops everything else."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start: Message = {}
        squeeze = zlib.compressobj()

        async def compress(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            elif message["type"] == "http.response.body":
                if start:
                    fields = [field for field in start["headers"] if field[0] != b"content-length"]
                    await send({**start, "headers": [*fields, (b"content-encoding", b"deflate")]})
                    start.clear()
                more = message.get("more_body", False)
                data = squeeze.compress(message.get("body", b"")) + (b"" if more else squeeze.flush())
                await send({"type": "http.response.body", "body": data, "more_body": more})

        await self.app(scope, receive, compress if scope["type"] == "http" else send)


shop = _shop()
shop_wrapped = ZeroCopyMiddleware(_shop())
shop_installed = _shop()
install(shop_installed)
gzipped = _shop(Middleware(GZipMiddleware, minimum_size=500))
based = _shop(Middleware(Passing))
stacked = _shop(Middleware(GZipMiddleware, minimum_size=500), Middleware(Passing), Middleware(Passing))
dropping = Dropping(_shop())
wrapped = ZeroCopyMiddleware(app)


def _decorated() -> Any:
    decorated: Any = _shop()

    async def pass_on(request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers["x-passed"] = "yes"
        return response

    decorated.add_middleware(BaseHTTPMiddleware, dispatch=pass_on)
    return decorated


decorated = _decorated()
