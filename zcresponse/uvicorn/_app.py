"""Stands between uvicorn's protocol and the application: advertise, intercept, account, hold input, see the end.

uvicorn hands the application a `send` that is a bound method of the request's cycle, which knows the transport and the
parser's state. So an application in the outermost place can do all that a protocol class can, and `FileSender` serves
both `ZeroCopyProtocol` and `asgi.ZeroCopyMiddleware`.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

from zcresponse import events
from zcresponse.asgi.dialect import KEY, PATHSEND, ZEROCOPYSEND, Offer, Shipment, extensions_with
from zcresponse.asgi.types import ASGIApp, Message, Receive, Scope, Send
from zcresponse.environment import Settings
from zcresponse.errors import DeliveryError, FileTruncatedError
from zcresponse.events import CLIENT_LEFT, Way, logger
from zcresponse.files import FileRegion, OpenedFile, open_file, open_file_async, reading
from zcresponse.plan import Segment
from zcresponse.plan.segments import total_length
from zcresponse.sendfile import AVAILABLE
from zcresponse.uvicorn._input import InputHold
from zcresponse.uvicorn._transfer import ClientLeft, Pump, ReaderStalled, reset

__all__ = ["FileSender"]

#: A body up to this size that is cached leaves in one write with its head: one packet instead of two, and at 1 KiB
#: 0.85 of the processor time. From 64 KiB on nothing is gained.
JOINED: Final = 32 * 1024


class FileSender:
    """An ASGI application that lets the one below hand files to uvicorn's socket.

    On anything but a clear-text HTTP/1.x request of uvicorn's httptools or h11 protocol it is not there.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application below; files that it sends leave by the connection's own socket."""
        cycle = serving_cycle(scope, send) if self.settings.pathsend and self.settings.sendfile else None
        if cycle is None:
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(cycle, self.settings, scope["method"])
        # In place, for the scope is the cycle's own: what a middleware writes into it (the client's address behind a
        # proxy) has to reach the access log.
        scope["extensions"] = extensions_with(scope, exchange.offer)
        if self.settings.zerocopysend:
            scope["extensions"][ZEROCOPYSEND] = {}
        try:
            await self.app(scope, receive, exchange.send)
        except asyncio.CancelledError:
            # uvicorn cancels what is left when its time to shut down is over. The connection is ended already;
            # uvicorn's traceback would say nothing more.
            if not exchange.cut:
                raise
        except BaseException:
            exchange.forget_head()
            raise
        await exchange.finish()


def serving_cycle(scope: Scope, send: Send) -> Any | None:
    """Return uvicorn's request cycle behind `send` if files can be sent on its transport, else None."""
    if scope["type"] != "http" or not AVAILABLE:
        return None
    cycle: Any = getattr(send, "__self__", None)
    if type(cycle) not in _cycle_types():
        return None
    transport = cycle.transport
    if transport.get_extra_info("sslcontext") is not None or transport.get_extra_info("socket") is None:
        return None
    return cycle


_HTTPTOOLS: Final = "uvicorn.protocols.http.httptools_impl"
_H11: Final = "uvicorn.protocols.http.h11_impl"
_types: tuple[type, ...] = ()


def _cycle_types() -> tuple[type, ...]:
    # Looked up among what is loaded, so that the middleware can run where there is no uvicorn. Only these two: an
    # HTTP/2 cycle shares its socket with other streams.
    global _types
    if len(_types) < 2:
        modules = (sys.modules.get(_HTTPTOOLS), sys.modules.get(_H11))
        _types = tuple(module.RequestResponseCycle for module in modules if module is not None)
    return _types


class _Exchange:
    """One request and its response: what of it was started, held back, promised and sent."""

    __slots__ = (
        "_arrived",
        "_cycle",
        "_failure",
        "_flush",
        "_held",
        "_loop",
        "_method",
        "_promised",
        "_sending",
        "_settings",
        "_status",
        "cut",
        "offer",
    )

    def __init__(self, cycle: Any, settings: Settings, method: str) -> None:
        self.offer = Offer()
        #: Whether the connection was ended in the middle of a body.
        self.cut = False
        self._cycle = cycle
        self._settings = settings
        self._method = method
        self._loop = asyncio.get_running_loop()
        self._status = 0
        self._promised: int | None = None  # by the response's Content-Length
        self._held: Message | None = None
        self._flush: asyncio.Handle | None = None
        self._failure: BaseException | None = None
        self._sending = False
        self._arrived = False  # a message with a file

    # --- the application's `send` ----------------------------------------------------------------------------------

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        if self._cycle.transport.is_closing() and not self._cycle.response_complete:
            # uvicorn marks but the newest of pipelined requests, and that a turn later.
            self._mark_disconnected()
        if self._sending:
            raise DeliveryError(f"{kind!r} was sent while a file was being sent")
        if kind == PATHSEND:
            await self._send_path(message)
        elif kind == ZEROCOPYSEND and self._settings.zerocopysend:
            await self._send_descriptor(message)
        elif kind == "http.response.start" and not self._status:
            self._status = message["status"]
            headers = message.get("headers", ())
            if not isinstance(headers, list | tuple):
                # They may be given as an iterator, which can be read but once.
                message = {**message, "headers": list(headers)}
            self._promised = _content_length(message)
            if self._promised == 0 or self._has_no_body():
                await self._cycle.send(message)
            else:
                self._hold(message)
        else:
            await self._start()
            await self._cycle.send(message)

    def _hold(self, start: Message) -> None:
        """Keep the head back for the rest of this turn of the loop.

        A file usually follows at once: it can then leave in the head's write, and a path that cannot be opened is an
        error of which the client hears by a 500.
        """
        self._held = start
        if self.offer.announced:
            # The file is on its way, through whatever middleware; but some may send another answer in its place.
            self._flush = self._loop.call_later(0.05, self._start_soon)
        else:
            self._flush = self._loop.call_soon(self._start_soon)

    def _start_soon(self) -> None:
        """Send the head: the application keeps the body waiting."""
        if self._held is None or self._sending:
            return
        if self._cycle.flow.write_paused:
            # The head of a pipelined response behind a slow one: it could not leave now anyway.
            self._loop.call_later(0.1, self._start_soon)
            return
        start, self._held = self._held, None
        step = self._cycle.send(start)
        try:
            step.send(None)
        except StopIteration:
            pass
        except BaseException as failure:
            self._failure = failure
        else:
            raise AssertionError("uvicorn's send waited although nothing was paused")

    async def _start(self) -> None:
        """Send the head now, if it is held back."""
        if self._held is not None:
            start, self._held = self._held, None
            if self._flush is not None:
                self._flush.cancel()
            await self._cycle.send(start)

    def forget_head(self) -> None:
        """The application has failed: a head that was not sent yet gives way to uvicorn's 500."""
        self._held = None
        if self._flush is not None:
            self._flush.cancel()

    async def finish(self) -> None:
        """The application has returned."""
        cycle = self._cycle
        if not self._arrived and not cycle.disconnected and not cycle.response_complete:
            if self.offer.announced:
                # Nothing can complete the response any more; without its head the client gets uvicorn's 500.
                self.forget_head()
                self.offer.report_failure("some middleware swallowed the message")
            logger.error(
                "%s %s was not answered to its end%s; some middleware drops http.response.pathsend messages "
                "(compressors such as brotli-asgi and zstd-asgi do): ZCRESPONSE_PATHSEND=off withholds the extension",
                self._method,
                cycle.scope["path"],
                ": its file response was swallowed" if self.offer.announced else ", if it was a file",
            )
        await self._start()
        if self._failure is not None:
            raise self._failure

    # --- files ----------------------------------------------------------------------------------------------------

    async def _send_path(self, message: Message) -> None:
        self._arrived = True
        shipment = message.get(KEY)
        if isinstance(shipment, Shipment):
            file, segments, on_transfer = shipment.file, shipment.segments, shipment.on_transfer
        else:
            file = await self._open(message)
            on_transfer = None
            try:
                segments = (self._region(message, file),)
            except BaseException:
                file.close()
                raise
        with file:
            length = total_length(segments)
            self._check(length)
            await self._deliver(segments, 0 if self._has_no_body() else length, on_transfer)

    async def _open(self, message: Message) -> OpenedFile:
        if not self._status:
            raise DeliveryError(f"Expected ASGI message 'http.response.start', but got {PATHSEND!r}")
        # The head would leave while a thread opens the file.
        self._sending = True
        try:
            return await open_file_async(message["path"])
        finally:
            self._sending = False
            if self._held is not None:
                self._flush = self._loop.call_soon(self._start_soon)

    def _region(self, message: Message, file: OpenedFile) -> FileRegion:
        offset = message.get("offset") or 0
        count = message.get("count")
        size = file.stat.st_size
        if offset < 0 or offset > size or (count is not None and (count < 0 or offset + count > size)):
            raise DeliveryError(f"offset {offset}, count {count} do not lie in {file.path}, which has {size} bytes")
        if count is None:
            count = size - offset
            # A file that has grown since its length was promised: exactly what was promised.
            if self._promised is not None and self._promised < count:
                count = self._promised
        return FileRegion(file, offset, count)

    def _gone(self) -> bool:
        return bool(self._cycle.disconnected)

    def _has_no_body(self) -> bool:
        return self._method == "HEAD" or self._status in (204, 304)

    def _check(self, length: int) -> None:
        """Refuse what cannot be framed, before any byte of it is sent."""
        if not self._status:
            raise DeliveryError(f"Expected ASGI message 'http.response.start', but got {PATHSEND!r}")
        if self._cycle.response_complete:
            raise DeliveryError(f"Unexpected ASGI message {PATHSEND!r} sent, after response already completed")
        if not self._has_no_body() and self._promised not in (None, length):
            raise DeliveryError(f"the file response has {length} bytes, its Content-Length is {self._promised}")

    async def _deliver(
        self, segments: Sequence[Segment], length: int, on_transfer: events.OnTransfer | None, *, more: bool = False
    ) -> None:
        """Send `length` bytes, end the response unless `more` follows, and report."""
        began = time.perf_counter()
        account = _Account()
        completed = False
        try:
            if length:
                completed = await self._send_segments(segments, length, account, more=more)
            else:
                await self._start()
                if not more:
                    await self._end()
                completed = True
        finally:
            if events.wanted(on_transfer):
                events.report(
                    events.Transfer(
                        account.way,
                        account.reason,
                        self._status,
                        length,
                        account.sent,
                        time.perf_counter() - began,
                        completed,
                    ),
                    on_transfer,
                )

    async def _end(self) -> None:
        await self._cycle.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_segments(self, segments: Sequence[Segment], length: int, account: _Account, *, more: bool) -> bool:
        """Send the bytes, and the end of the body unless `more` follows; return False when the client left."""
        cycle = self._cycle
        account.way = "sendfile"
        if self._has_left(account):
            return False
        if length <= JOINED and self._held is not None and not cycle.flow.write_paused:
            data = _cached_bytes(segments)
            if data is not None:
                account.way, account.sent = "joined", length
                await self._send_joined(data)
                if not more:
                    await self._end()
                return not self._gone()
        self._sending = True
        delimited = True
        pump = None
        try:
            await self._start()
            if self._has_left(account):
                return False
            transport = cycle.transport
            before, after = self._framing(length)
            delimited = self._promised is not None or bool(after)
            pump = Pump(transport, (before, *segments, after), loop=self._loop)
            try:
                if transport.get_write_buffer_size() == 0 and pump.at_once():
                    if not more:
                        await self._end()
                    return True
                with InputHold(transport) as hold:
                    await pump.run(self._settings.stall_timeout_s, hold)
                    if hold.half_closed:
                        cycle.keep_alive = False
                    if not more:
                        await self._end()
            finally:
                account.take(pump, len(before), length)
        except ClientLeft:
            account.reason = CLIENT_LEFT
            self._end_connection()
            return False
        except ReaderStalled:
            account.reason = f"the client took nothing for {self._settings.stall_timeout_s:g} s"
            logger.info("cut a reader of %s: %s", cycle.scope["path"], account.reason)
            self._end_connection()
            return False
        except BaseException as error:
            account.reason = events.reason_of(error)
            if pump is None:
                # Nothing of the body is on its way; uvicorn answers as it does without us.
                pass
            elif pump.finished or (isinstance(error, FileTruncatedError) and delimited):
                # Closed, not reset: what is queued still reaches the client, and the framing shows that something is
                # missing. Without framing only a reset can show it.
                self._mark_disconnected()
                cycle.transport.close()
            else:
                self._end_connection()
            raise
        finally:
            self._sending = False
        return True

    def _has_left(self, account: _Account) -> bool:
        """Whether nobody listens any more, before a byte of the body was sent."""
        if not self._gone() and not self._cycle.transport.is_closing():
            return False
        # Not a reset: what uvicorn has written may still be on its way.
        self._mark_disconnected()
        account.reason = CLIENT_LEFT
        return True

    def _mark_disconnected(self) -> None:
        cycle = self._cycle
        self.cut = True
        cycle.disconnected = True
        cycle.message_event.set()

    def _end_connection(self) -> None:
        self._mark_disconnected()
        reset(self._cycle.transport)

    async def _send_joined(self, data: bytes) -> None:
        """Let uvicorn write head and body into one buffer, then write that."""
        cycle = self._cycle
        transport = cycle.transport
        buffer = cycle.transport = _Buffer(transport)
        try:
            await self._start()
            await cycle.send({"type": "http.response.body", "body": data, "more_body": True})
        finally:
            cycle.transport = transport
            if buffer.parts:
                # Nothing was written when the client has left; uvloop refuses any write then.
                transport.write(b"".join(buffer.parts))

    def _framing(self, length: int) -> tuple[bytes, bytes]:
        """Account for the body in uvicorn's cycle and return what has to stand before and after it."""
        cycle = self._cycle
        if hasattr(cycle, "conn"):
            import h11

            body = _Sized(length)
            pieces = cycle.conn.send_with_data_passthrough(h11.Data(data=body))  # type: ignore[arg-type]
            place = next(index for index, piece in enumerate(pieces) if piece is body)
            return b"".join(pieces[:place]), b"".join(pieces[place + 1 :])
        if cycle.chunked_encoding:
            return b"%x\r\n" % length, b"\r\n"
        if length > cycle.expected_content_length:
            raise DeliveryError("Response content longer than Content-Length")
        cycle.expected_content_length -= length
        return b"", b""

    async def _send_descriptor(self, message: Message) -> None:
        """`http.response.zerocopysend`: the application's own descriptor, which it closes."""
        if not self._status or self._cycle.response_complete:
            raise DeliveryError(f"Unexpected ASGI message {ZEROCOPYSEND!r}")
        given = message["file"]
        fd = given if isinstance(given, int) else given.fileno()
        offset, count = message.get("offset"), message.get("count")
        file = open_file(
            fd, offset=os.lseek(fd, 0, os.SEEK_CUR) if offset is None else offset, count=count, closefd=False
        )
        if offset is None:
            # As sendfile(2) does, by which the extension is defined.
            os.lseek(fd, file.size, os.SEEK_CUR)
        length = 0 if self._has_no_body() else file.size
        await self._deliver((file.region(),), length, None, more=bool(message.get("more_body", False)))


class _Account:
    """What is told of a body at the end."""

    __slots__ = ("reason", "sent", "way")

    def __init__(self) -> None:
        self.way: Way = "none"
        self.reason = ""
        self.sent = 0

    def take(self, pump: Pump, before: int, length: int) -> None:
        """Take over what a pump did for a body of `length` bytes that `before` bytes of framing preceded."""
        self.sent = min(max(pump.sent - before, 0), length)
        self.reason = pump.reason
        if pump.read:
            self.way = "chunks"


class _Buffer:
    """Takes what a cycle writes in its transport's place."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self.parts: list[bytes] = []
        self.is_closing = transport.is_closing
        self.close = transport.close
        self.write = self.parts.append


class _Sized:
    """Stands for a body of some length in h11's bookkeeping."""

    __slots__ = ("length",)

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length


def _content_length(start: Message) -> int | None:
    for name, value in start.get("headers", ()):
        if len(name) == 14 and name.lower() == b"content-length":
            return int(value) if value.isdigit() else None
    return None


def _cached_bytes(segments: Sequence[Segment]) -> bytes | None:
    """Return the segments' bytes if all of them are in memory."""
    parts = []
    for segment in segments:
        if isinstance(segment, bytes):
            parts.append(segment)
            continue
        data = reading.read_cached(segment.file, segment.offset, segment.count)
        if data is None or len(data) != segment.count:
            return None
        parts.append(data)
    return parts[0] if len(parts) == 1 else b"".join(parts)
