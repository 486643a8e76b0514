"""A body as a row of messages, for servers that take nothing better: never stop the loop, never hold much."""

from __future__ import annotations

import asyncio
import types
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from zcresponse import loops
from zcresponse.asgi.types import Message, Receive, Send
from zcresponse.files import reading
from zcresponse.plan import Segment

__all__ = ["Count", "SendFailed", "marking", "send_chunks"]

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


class Count:
    """How many bytes of a body the server has taken."""

    __slots__ = ("bytes",)

    def __init__(self) -> None:
        self.bytes = 0


class SendFailed(Exception):
    """The server's `send` raised an OSError: told apart from those of reading the file."""

    def __init__(self, error: OSError) -> None:
        self.error = error


def marking(send: Send) -> Send:
    """Return a `send` whose OSErrors come out as SendFailed."""

    async def marking_send(message: Message) -> None:
        try:
            await send(message)
        except OSError as error:
            raise SendFailed(error) from error

    return marking_send


async def send_chunks(segments: Sequence[Segment], remaining: int, receive: Receive, send: Send, sent: Count) -> bool:
    """Send the segments, `remaining` bytes in all, and end the body.

    Returns:
        Whether all of it was taken; False when the client left.

    Raises:
        FileTruncatedError: a file ends before its region does; nothing but what it had was sent.
    """
    if remaining <= FIRST_CHUNK:
        data = b"".join([await _bytes_of(segment, 0, len(segment)) for segment in segments])
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
                    if size > FIRST_CHUNK and not await _taken_at_once(send(_body(b""))):
                        # An empty message waits until the server takes more, so that a stalled reader does not hold
                        # the chunk that would be read next.
                        size, streak = FIRST_CHUNK, 0
                    if client_left():
                        return False
                    data = await _bytes_of(segment, position, min(size, stop - position))
                    position += len(data)
                    remaining -= len(data)
                    at_once = await _taken_at_once(send(_body(data, more=remaining > 0)))
                    sent.bytes += len(data)
                    if not at_once:
                        size, streak, since_turn = FIRST_CHUNK, 0, 0
                        continue
                    streak += len(data)
                    since_turn += len(data)
                    most = max(CHUNK_SHARE, LARGEST_CHUNK // _chunking)
                    size = max(FIRST_CHUNK, min(most, streak // GROWTH))
                    if since_turn >= TURN and remaining:
                        # A client as fast as we are never makes `send` wait; others want the loop too.
                        since_turn = 0
                        await loops.turn()
    finally:
        _chunking -= 1
    return True


def _body(data: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def _bytes_of(segment: Segment, start: int, count: int) -> bytes:
    if isinstance(segment, bytes):
        return segment[start : start + count]
    return await reading.read(segment.file, segment.offset + start, count)


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
async def _departure(receive: Receive) -> AsyncIterator[Callable[[], bool]]:
    """Give a function that says whether the client has left.

    A server of ASGI 2.3 and older does not tell a sender that nobody listens; only `receive` does. On trio a task
    needs a nursery around it, and the servers there let `send` fail instead.
    """
    if loops.running_on_trio():
        yield lambda: False
        return
    left = False

    async def watch() -> None:
        nonlocal left
        left = await _until_disconnect(receive)

    watcher = asyncio.ensure_future(watch())
    try:
        yield lambda: left
    finally:
        watcher.cancel()
        # A `receive` that fails says nothing of the client; its error must be seen, or asyncio complains.
        await asyncio.wait([watcher])
        if not watcher.cancelled():
            watcher.exception()


async def _until_disconnect(receive: Receive) -> bool:
    """Return True when the client has left, False when this `receive` will never tell."""
    ended = False
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return True
        if ended:
            # One that a middleware has put together to replay a body goes on replaying it, without ever waiting.
            return False
        ended = not message.get("more_body", False)
        await asyncio.sleep(0)
