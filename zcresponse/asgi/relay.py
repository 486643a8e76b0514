"""An exchange with any server: files leave in the messages that it takes, descriptors or chunks."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any, Final

from zcresponse import events, loops
from zcresponse.asgi.chunks import Count, SendFailed, marking, send_chunks
from zcresponse.asgi.daphne import paced
from zcresponse.asgi.dialect import PATHSEND, ZEROCOPYSEND
from zcresponse.asgi.exchange import JOINED, Account, Exchange, cached_bytes
from zcresponse.asgi.servers import Honoured
from zcresponse.asgi.transport import part_in_chunks, reports_departure
from zcresponse.asgi.types import ASGIApp, Message, Receive, Scope, Send
from zcresponse.environment import Settings
from zcresponse.errors import DeliveryError, FileTruncatedError
from zcresponse.events import CLIENT_LEFT
from zcresponse.files import FileRegion, reading
from zcresponse.files.linux import Storage
from zcresponse.plan import Segment
from zcresponse.sendfile import CLIENT_GONE

__all__ = ["Relay"]

#: What one message lets the server send, in bytes. Between two of them others get a turn, the next pages are brought
#: in, and a file that has become shorter is seen while the response can still be told from a whole one.
PIECE: Final = 1024 * 1024

#: How much a thread brings in ahead of a cold file's position.
_READAHEAD: Final = 4 * 1024 * 1024


class Relay(Exchange):
    """An exchange with the server behind `send`, as far as its extensions can be trusted."""

    __slots__ = (
        "_complete",
        "_departed",
        "_honoured",
        "_left",
        "_listeners",
        "_receive",
        "_reports_departure",
        "_taken",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send, settings: Settings, honoured: Honoured) -> None:
        super().__init__(scope, settings, send)
        self._receive = receive
        self._honoured = honoured
        self._reports_departure = reports_departure(scope)
        self._complete = False
        self._taken = 0  # bytes of the body
        self._left = False
        self._listeners = 0  # of the application's, waiting for what the client sends
        self._departed: asyncio.Event | None = None

    async def run(self, app: ASGIApp, scope: Scope, receive: Receive) -> None:
        with paced(self._server) as self._server:
            await super().run(app, scope, self.receive)

    def _extensions(self, scope: Scope) -> dict[str, Any]:
        extensions = super()._extensions(scope)
        if self._honoured.pathsend:
            # Its own offer, which says what it takes.
            extensions[PATHSEND] = scope["extensions"][PATHSEND]
        if not self._settings.zerocopysend:
            extensions.pop(ZEROCOPYSEND, None)
        return extensions

    async def _forward(self, message: Message) -> None:
        await self._server(message)
        if message["type"] == "http.response.body":
            self._taken += len(message.get("body", b""))
            self._complete = not message.get("more_body", False)

    async def finish(self) -> None:
        await super().finish()
        if self._arrived or self._complete or self._left:
            return
        if self.offer.announced or not self._status:
            # Not every server answers an application that says nothing (daphne never does), but all do one that fails.
            raise DeliveryError(f"{self._method} {self._scope.get('path', '')} was not answered")

    def _is_gone(self) -> bool:
        return self._left

    def _is_complete(self) -> bool:
        return self._complete

    # --- what the client says -------------------------------------------------------------------------------------

    async def receive(self) -> Message:
        """The application's `receive`."""
        self._listeners += 1
        try:
            message = await self._receive()
        finally:
            self._listeners -= 1
        if message["type"] == "http.disconnect":
            self._left = True
            if self._departed is not None:
                self._departed.set()
        return message

    async def _listen(self) -> Message:
        """`receive` for a body in chunks: of two who listen at once, each would hear a part."""
        if self._listeners and not self._left:
            if self._departed is None:
                self._departed = asyncio.Event()
            await self._departed.wait()
        if self._left:
            return {"type": "http.disconnect"}
        return await self.receive()

    # --- files ----------------------------------------------------------------------------------------------------

    async def _send_path(self, message: Message) -> None:
        if not self._honoured.pathsend:
            await super()._send_path(message)
            return
        self._arrived = True
        await self._start()
        await self._forward(message)
        self._complete = True

    async def _send_segments(self, segments: Sequence[Segment], length: int, account: Account, *, more: bool) -> bool:
        self._check_total(length, more=more)
        self._sending = True
        forward = marking(self._forward)
        try:
            moves = self._moves(segments, length)
            if self._held is not None:
                start = self._held
                self.forget_head()
                await forward(start if moves else part_in_chunks(start, self._scope))
            if moves:
                account.way = "sendfile"
                await self._send_descriptors(segments, forward, account)
                if not more:
                    await forward(_body(b"", more=False))
                return True
            account.way, account.reason = "chunks", self._honoured.reason
            return await self._send_chunks(segments, length, forward, account, more=more)
        except SendFailed as failure:
            if not (self._reports_departure or _means_gone(failure.error)):
                account.reason = events.reason_of(failure.error)
                raise failure.error
            self._left = True
            account.reason = CLIENT_LEFT
            return False
        except BaseException as error:
            account.reason = events.reason_of(error)
            raise
        finally:
            self._sending = False

    def _check_total(self, length: int, *, more: bool) -> None:
        """Refuse what does not fit the promised length, which not every server checks."""
        if self._promised is None:
            return
        total = self._taken + length
        if total > self._promised or (total < self._promised and not more):
            raise DeliveryError(f"the response has {total} bytes, its Content-Length is {self._promised}")

    def _moves(self, segments: Sequence[Segment], length: int) -> bool:
        """Whether the server is given descriptors: not for a small body that is in memory, nor for a file that may
        wait."""
        if not self._honoured.zerocopysend or (length <= JOINED and cached_bytes(segments) is not None):
            return False
        return not any(
            isinstance(segment, FileRegion) and segment.file.storage is Storage.UNKNOWN for segment in segments
        )

    async def _send_descriptors(self, segments: Sequence[Segment], forward: Send, account: Account) -> None:
        for segment in segments:
            if isinstance(segment, bytes):
                await forward(_body(segment, more=True))
                account.sent += len(segment)
                continue
            file = segment.file
            position, stop = segment.offset, segment.offset + segment.count
            while position < stop:
                count = min(PIECE, stop - position)
                if not reading.are_cached(file, position, count):
                    ahead = min(_READAHEAD, stop - position) - count
                    await loops.result_of(reading.submit(file, reading.page_in, position, count, max(0, ahead)))
                # The servers that take it have sent it when `send` returns, so the file can be closed after that.
                await forward(
                    {
                        "type": ZEROCOPYSEND,
                        "file": _Descriptor(file.fileno()),
                        "offset": position,
                        "count": count,
                        "more_body": True,
                    }
                )
                if os.fstat(file.fileno()).st_size < position + count:
                    # What the server has sent instead nobody knows. It takes a short count for the whole, so the end
                    # of the body is withheld: then it ends the connection.
                    raise FileTruncatedError(f"{file.path or 'the file'} ended before byte {stop}, its promised end")
                position += count
                account.sent += count
                self._taken += count
                if position < stop:
                    await loops.turn()

    async def _send_chunks(
        self, segments: Sequence[Segment], length: int, forward: Send, account: Account, *, more: bool
    ) -> bool:
        async def forward_more(message: Message) -> None:
            await forward({**message, "more_body": True})

        count = Count()
        try:
            completed = await send_chunks(segments, length, self._listen, forward_more if more else forward, count)
        finally:
            account.sent = count.bytes
        if not completed:
            account.reason = CLIENT_LEFT
        return completed


class _Descriptor(int):
    """A descriptor for servers that want a number (nonecorn) and for those that want a file (anycorn)."""

    def fileno(self) -> int:
        return int(self)


def _means_gone(error: OSError) -> bool:
    # asyncio's own have no number.
    return isinstance(error, ConnectionError) or error.errno in CLIENT_GONE


def _body(data: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}
