"""A plan to an ASGI server: choose how to deliver it, and say why."""

from __future__ import annotations

import asyncio
import time
import types
from collections.abc import AsyncIterator, Generator, Iterable
from contextlib import asynccontextmanager, nullcontext
from typing import Any, Final, NamedTuple, Unpack

from zcresponse import events, loops
from zcresponse.asgi.dialect import KEY, PATHSEND, Offer, Shipment, offer_in
from zcresponse.asgi.types import Message, Receive, Scope, Send
from zcresponse.environment import read_switch
from zcresponse.events import OnTransfer, Transfer, Way
from zcresponse.files import FileRegion, OpenedFile, open_file_async, reading
from zcresponse.files.opened import FileSource
from zcresponse.http.request import RequestHead
from zcresponse.plan import PlanOptions, ResponsePlan, Segment, plan_file_response

__all__ = ["Delivery", "choose_delivery", "deliver", "request_head", "send_file"]

#: The first body message of the chunk way, in bytes. A reader that stalls at once costs no more than this.
FIRST_CHUNK: Final = 64 * 1024
#: The largest ones together, of all bodies that are sent in chunks, and the least that each may grow to. Beyond 1 MiB
#: nothing is gained, and other requests wait for as long as one takes: with 4 downloads at 1 MiB each their p99 was 1.7
#: times that behind 64 KiB chunks, at 256 KiB it was the same.
LARGEST_CHUNK: Final = 1024 * 1024
CHUNK_SHARE: Final = 256 * 1024
#: A chunk may grow to one part in this many of what was taken without a wait. The socket buffers of a reader that
#: stalls hold some megabytes; with 32, what then lies in the server's memory stays below 0.3 MiB.
GROWTH: Final = 32

#: What one body may send before everything else on the loop gets a turn.
TURN: Final = 256 * 1024

# How many bodies are being sent in chunks.
_chunking = 0

# Names of the fields that plans make, ready for the wire.
_RAW_NAMES: dict[str, bytes] = {}


class Delivery(NamedTuple):
    """How a body will travel, and why not in a better way."""

    way: Way
    reason: str
    #: Who takes a Shipment; without it the message is plain.
    offer: Offer | None = None


def choose_delivery(
    scope: Scope,
    plan: ResponsePlan,
    file: OpenedFile | None,
    *,
    sendfile: bool | None = None,
    removed_later: bool = False,
) -> Delivery:
    """Choose among what the server of `scope` offers.

    Args:
        sendfile: whether zero-copy may be used; None: as `ZCRESPONSE_SENDFILE` says, else yes.
        removed_later: whether the file may be gone once `send` has returned. Some servers open a path only after that.
    """
    if not plan.segments:
        return Delivery("none", "")
    if file is None:
        return Delivery("chunks", "the body is not a file")
    if sendfile is False:
        return Delivery("chunks", "switched off")
    entry = (scope.get("extensions") or {}).get(PATHSEND)
    if entry is None:
        return Delivery("chunks", "the server offers no http.response.pathsend")
    offer = offer_in(scope)
    if offer is not None:
        # Whoever made the offer has asked the environment.
        return Delivery("sendfile", "", offer)
    if sendfile is None and not read_switch("ZCRESPONSE_SENDFILE", default=True):
        return Delivery("chunks", "switched off")
    if len(plan.segments) != 1:
        return Delivery("chunks", "plain pathsend cannot send several ranges")
    (region,) = plan.segments
    if not isinstance(region, FileRegion) or file.path is None:
        return Delivery("chunks", "plain pathsend needs a path, and the file was given open")
    if removed_later:
        return Delivery("chunks", "a file that may be removed after sending needs its descriptor")
    whole = region.offset == 0 and region.count == file.stat.st_size
    if not whole and not (isinstance(entry, dict) and entry.get("ranges") is True):
        return Delivery("chunks", "plain pathsend cannot send a part of a file")
    return Delivery("pathsend", "the server opens and moves the file")


def request_head(scope: Scope) -> RequestHead:
    """Return the part of the request that file responses read."""
    return RequestHead.from_raw_fields(scope["method"], scope["headers"])


def raw_fields(fields: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """Return header fields as ASGI wants them: lower-case names, bytes."""
    raw = []
    for name, value in fields:
        key = _RAW_NAMES.get(name)
        if key is None:
            key = name.lower().encode("latin-1")
            if len(_RAW_NAMES) < 256:
                _RAW_NAMES[name] = key
        raw.append((key, value.encode("latin-1")))
    return raw


async def send_file(
    scope: Scope,
    receive: Receive,
    send: Send,
    path_or_file: FileSource,
    *,
    status: int = 200,
    headers: Iterable[tuple[str, str]] = (),
    offset: int = 0,
    count: int | None = None,
    closefd: bool = True,
    on_transfer: OnTransfer | None = None,
    sendfile: bool | None = None,
    removed_later: bool = False,
    **options: Unpack[PlanOptions],
) -> None:
    """Answer an HTTP request with a file: conditions, ranges and the best way to move the bytes that the server has.

    Args:
        path_or_file, offset, count, closefd: as for `zcresponse.open_file`.
        status: status of a plain answer.
        headers: further header fields; see `plan_file_response` for which win.
        on_transfer: called with a `Transfer` at the end.
        sendfile: False: read and send chunks, whatever the server offers.
        removed_later: the file may be deleted once this has returned, so no server is merely told its path.
        options: `PlanOptions`.

    Raises:
        FileNotFoundError, PermissionError, NotARegularFileError: nothing was sent yet.
        FileTruncatedError: the file ended before the promised length; the server ends the connection.
    """
    file = await open_file_async(path_or_file, offset=offset, count=count, closefd=closefd)
    try:
        plan = plan_file_response(request_head(scope), file, status=status, fields=headers, **options)
    except BaseException:
        file.close()
        raise
    await deliver(
        plan,
        file,
        scope,
        receive,
        send,
        on_transfer=on_transfer,
        sendfile=sendfile,
        removed_later=removed_later,
    )


async def deliver(
    plan: ResponsePlan,
    file: OpenedFile | None,
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    on_transfer: OnTransfer | None = None,
    sendfile: bool | None = None,
    removed_later: bool = False,
) -> None:
    """Send a planned response. Takes `file` over: it is closed here, or by whoever the message reaches.

    A plan without a file (an error, a redirect, a listing) holds its whole body as bytes.
    """
    delivery = choose_delivery(scope, plan, file, sendfile=sendfile, removed_later=removed_later)
    if delivery.offer is not None and file is not None:
        # Said first: the head is then kept for the file's first write.
        delivery.offer.announced = True
        try:
            await send(_start(plan))
        except BaseException:
            file.close()
            raise
        # From here on the file is the message's: `send` may return, or fail, before or after it was delivered.
        await send({"type": PATHSEND, "path": file.path or "", KEY: Shipment(file, plan.segments, on_transfer)})
        return
    began = time.perf_counter()
    promised = plan.body_length
    sent = _Counter()
    completed: bool | None = False
    try:
        with file or nullcontext():
            await send(_start(plan))
            if delivery.way == "none":
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                completed = True
            elif delivery.way == "pathsend" and file is not None:
                await send(_plain_pathsend(plan, file))
                # The server does not say how it went, nor when.
                completed = None
            else:
                completed = await _send_chunks(plan.segments, promised, scope, receive, send, sent)
    finally:
        if events.wanted(on_transfer):
            told = completed is not None
            events.report(
                Transfer(
                    delivery.way,
                    delivery.reason,
                    plan.status,
                    promised,
                    sent.bytes if told else None,
                    time.perf_counter() - began if told else None,
                    completed,
                ),
                on_transfer,
            )


def _start(plan: ResponsePlan) -> Message:
    return {"type": "http.response.start", "status": plan.status, "headers": raw_fields(plan.fields)}


def _plain_pathsend(plan: ResponsePlan, file: OpenedFile) -> Message:
    (region,) = plan.segments
    assert isinstance(region, FileRegion)
    message: Message = {"type": PATHSEND, "path": file.path}
    if region.offset != 0 or region.count != file.stat.st_size:
        message["offset"] = region.offset
        message["count"] = region.count
    return message


class _Counter:
    __slots__ = ("bytes",)

    def __init__(self) -> None:
        self.bytes = 0


async def _send_chunks(
    segments: Iterable[Segment], remaining: int, scope: Scope, receive: Receive, send: Send, sent: _Counter
) -> bool:
    """Send the segments as body messages; return whether all of it was taken, False when the client left."""
    if remaining <= FIRST_CHUNK:
        data = b"".join([part async for part in _small(segments)])
        await send({"type": "http.response.body", "body": data, "more_body": False})
        sent.bytes = remaining
        return True
    global _chunking
    size = FIRST_CHUNK
    streak = 0  # bytes that were taken one after another without a wait
    since_turn = 0
    _chunking += 1
    try:
        async with _departure(receive) as client_left:
            for segment in segments:
                position, stop = 0, len(segment)
                while position < stop:
                    if size > FIRST_CHUNK and not await _taken_at_once(_body(send, b"")):
                        # An empty message waits until the server takes more, so that a stalled reader does not hold
                        # the chunk that would be read next.
                        size, streak = FIRST_CHUNK, 0
                    if client_left():
                        return False
                    length = min(size, stop - position)
                    if isinstance(segment, bytes):
                        data = segment[position : position + length]
                    else:
                        data = await reading.read(segment.file, segment.offset + position, length)
                    position += length
                    remaining -= length
                    at_once = await _taken_at_once(_body(send, data, more=remaining > 0))
                    sent.bytes += length
                    if not at_once:
                        size, streak, since_turn = FIRST_CHUNK, 0, 0
                        continue
                    streak += length
                    since_turn += length
                    most = max(CHUNK_SHARE, LARGEST_CHUNK // _chunking)
                    size = max(FIRST_CHUNK, min(most, streak // GROWTH))
                    if since_turn >= TURN and remaining:
                        # A client as fast as we are never makes `send` wait; others want the loop too.
                        since_turn = 0
                        await loops.turn()
    except _SendFailed as failure:
        if _reports_departure(scope):
            return False
        raise failure.error
    finally:
        _chunking -= 1
    return True


class _SendFailed(Exception):
    def __init__(self, error: OSError) -> None:
        self.error = error


async def _body(send: Send, data: bytes, *, more: bool = True) -> None:
    try:
        await send({"type": "http.response.body", "body": data, "more_body": more})
    except OSError as error:
        raise _SendFailed(error) from error


def _reports_departure(scope: Scope) -> bool:
    """Whether an OSError of `send` means that the client has left (ASGI 2.4, "Disconnected Client")."""
    version = scope.get("asgi", {}).get("spec_version", "2.0")
    return tuple(map(int, version.split("."))) >= (2, 4)


async def _small(segments: Iterable[Segment]) -> AsyncIterator[bytes]:
    for segment in segments:
        if isinstance(segment, bytes):
            yield segment
        else:
            yield await reading.read(segment.file, segment.offset, segment.count)


@types.coroutine
def _taken_at_once(awaitable: Any) -> Generator[Any, Any, bool]:
    """Await and return whether it finished without waiting for anything."""
    steps = awaitable.__await__()
    try:
        wish = steps.send(None)
    except StopIteration:
        return True
    while True:
        try:
            answer = yield wish
        except BaseException as error:
            try:
                wish = steps.throw(error)
            except StopIteration:
                return False
        else:
            try:
                wish = steps.send(answer)
            except StopIteration:
                return False


@asynccontextmanager
async def _departure(receive: Receive) -> AsyncIterator[Any]:
    """Give a function that says whether the client has left.

    A server of ASGI 2.3 and older does not tell a sender that nobody listens; only `receive` does. On trio a task
    needs a nursery around it, and the servers there let `send` fail instead.
    """
    if loops.running_on_trio():
        yield lambda: False
        return
    watcher = asyncio.ensure_future(_until_disconnect(receive))
    try:
        yield watcher.done
    finally:
        watcher.cancel()
        # Its outcome is of no interest, but must be seen, or asyncio complains.
        await asyncio.wait([watcher])
        if not watcher.cancelled():
            watcher.exception()


async def _until_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
