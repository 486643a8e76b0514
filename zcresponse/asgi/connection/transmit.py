"""Segments to a socket by the loop's own `sendfile`: where there is no sendfile(2), but a loop that has TransmitFile.

That is asyncio's proactor loop on Windows. It was not run there: the tests force it on asyncio's selector loop.
"""

from __future__ import annotations

import asyncio
import io
import sys
import time
from collections.abc import Awaitable
from typing import Final, TypeVar

from zcresponse import loops
from zcresponse.asgi.connection.hold import InputHold
from zcresponse.asgi.connection.pump import READ_SIZE, ClientLeft, Pump, ReaderStalled
from zcresponse.files import FileRegion, reading
from zcresponse.sendfile import CLIENT_GONE

__all__ = ["LoopPump", "loop_sends_files"]

T = TypeVar("T")

#: What one call of the loop sends. It begins with the least, is doubled after a call that took less than `_QUICK_S`
#: seconds, and halved after a slow one, so that a slow reader that lives is not taken for a stalled one.
_LEAST: Final = 64 * 1024
_MOST: Final = 1024 * 1024
_QUICK_S: Final = 0.1


def loop_sends_files() -> bool:
    """Whether the running loop can send a file without reading it, on a platform that has no sendfile(2)."""
    if sys.platform != "win32":
        return False
    return isinstance(asyncio.get_running_loop(), asyncio.ProactorEventLoop)


class LoopPump(Pump):
    """One body on its way to one connection, by `loop.sendfile`; with a turn of the loop after each piece."""

    _piece = _LEAST

    def at_once(self) -> bool:
        """Nothing can be sent without a wait."""
        return False

    async def run(self, stall_timeout_s: float, input_hold: InputHold) -> None:
        self._done = self._loop.create_future()
        input_hold.on_lost = self._lost
        try:
            while self._index < len(self._segments):
                if self._transport.is_closing():
                    raise ClientLeft
                segment = self._segments[self._index]
                if isinstance(segment, bytes):
                    self._transport.write(segment)
                    self._advance(len(segment))
                elif self.reason:
                    await self._limited(self._read_and_write(segment, input_hold), stall_timeout_s)
                else:
                    await self._send_piece(segment, stall_timeout_s)
                await asyncio.sleep(0)
            await self._limited(self._drain(input_hold), stall_timeout_s)
            if self._transport.is_closing():
                raise ClientLeft
        finally:
            self._release()
            input_hold.on_lost = None

    async def _send_piece(self, segment: FileRegion, stall_timeout_s: float) -> None:
        wanted = min(self._piece, segment.count - self._position)
        start = segment.offset + self._position
        began = time.monotonic()
        with io.FileIO(segment.file.fileno(), closefd=False) as file:
            try:
                sending = self._loop.sendfile(self._transport, file, start, wanted, fallback=False)
                sent = await self._limited(sending, stall_timeout_s)
            except (NotImplementedError, RuntimeError, asyncio.SendfileNotAvailableError) as error:
                if self._transport.is_closing():
                    raise ClientLeft from error
                self.reason = f"the event loop cannot send this file: {error}"
                return
        self._advance(sent)
        if sent < wanted:
            raise self._truncated(segment)
        quick = time.monotonic() - began < _QUICK_S
        self._piece = min(_MOST, self._piece * 2) if quick else max(_LEAST, self._piece // 2)

    async def _read_and_write(self, segment: FileRegion, input_hold: InputHold) -> None:
        start = segment.offset + self._position
        count = min(READ_SIZE, segment.count - self._position)
        data = await loops.result_of(reading.submit(segment.file, reading.read_blocking, start, count))
        if not data:
            raise self._truncated(segment)
        if not self._transport.is_closing():
            self._transport.write(data)
            self.read += len(data)
            self._advance(len(data))
            await self._drain(input_hold)

    def _advance(self, count: int) -> None:
        self.sent += count
        self._position += count
        if self._position == len(self._segments[self._index]):
            self._index += 1
            self._position = 0

    async def _limited(self, step: Awaitable[T], stall_timeout_s: float) -> T:
        """Wait for a step, but no longer than the client is there and may take nothing.

        asyncio's `loop.sendfile` does not end when the connection does.

        Raises:
            ClientLeft, ReaderStalled
        """
        assert self._done is not None
        task = asyncio.ensure_future(step)
        try:
            await asyncio.wait((task, self._done), timeout=stall_timeout_s or None, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                # Raises, if the client has left.
                if self._done.done():
                    self._done.result()
                raise ReaderStalled
            return task.result()
        except OSError as error:
            if isinstance(error, ConnectionError) or error.errno in CLIENT_GONE:
                raise ClientLeft from error
            raise
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait((task,), timeout=1)
            if not task.cancelled() and task.done():
                # Seen here, should this have been cancelled in the same turn.
                task.exception()
