"""An exchange on a connection of uvicorn's: its socket, its framing, its input, its end.

uvicorn hands the application a `send` that is a bound method of the request's cycle, which knows the transport and the
parser's state. So an application in the outermost place can do all that a protocol class can, and `FileSender` serves
both `ZeroCopyProtocol` and `asgi.ZeroCopyMiddleware`.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Coroutine, Sequence
from typing import Any, Final

from zcresponse import events
from zcresponse.asgi.connection import transmit
from zcresponse.asgi.connection.hold import InputHold
from zcresponse.asgi.connection.pump import ClientLeft, Pump, ReaderStalled, reset
from zcresponse.asgi.exchange import JOINED, Account, Exchange, cached_bytes
from zcresponse.asgi.transport import OFFLOAD
from zcresponse.asgi.types import ASGIApp, Message, Receive, Scope, Send
from zcresponse.environment import Settings
from zcresponse.errors import DeliveryError, FileTruncatedError
from zcresponse.events import CLIENT_LEFT, logger
from zcresponse.plan import Segment
from zcresponse.plan.offload import offload_of
from zcresponse.sendfile import AVAILABLE

__all__ = ["CycleExchange", "FileSender", "serving_cycle"]


class FileSender:
    """An ASGI application that lets the one below hand files to uvicorn's socket.

    On anything but a clear-text HTTP/1.x request of uvicorn's httptools or h11 protocol it is not there.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.settings = settings
        # Asked for once: a look into the environment takes as long as opening a file.
        self._offload = offload_of() or False
        # Of the connection that was found fit for files.
        self._transport: Any = None

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Run the application below; files that it sends leave by the connection's own socket."""
        cycle: Any = getattr(send, "__self__", None)
        if cycle is None or scope["type"] != "http" or cycle.transport is not self._transport:
            cycle = serving_cycle(scope, send) if self.settings.pathsend and self.settings.sendfile else None
            if cycle is None:
                return self.app(scope, receive, send)
            self._transport = cycle.transport
        scope[OFFLOAD] = self._offload
        return CycleExchange(scope, self.settings, cycle).run(self.app, scope, receive)


def serving_cycle(scope: Scope, send: Send) -> Any | None:
    """Return uvicorn's request cycle behind `send` if files can be sent on its transport, else None."""
    if scope["type"] != "http" or not (AVAILABLE or transmit.loop_sends_files()):
        return None
    cycle: Any = getattr(send, "__self__", None)
    if type(cycle) not in _types and type(cycle) not in _find_types():
        return None
    transport = cycle.transport
    if transport.get_extra_info("sslcontext") is not None or transport.get_extra_info("socket") is None:
        return None
    return cycle


#: Up to here, in bytes, it takes less to put head and body into one than to give the kernel two.
_COPIED: Final = 16 * 1024

_HTTPTOOLS: Final = "uvicorn.protocols.http.httptools_impl"
_H11: Final = "uvicorn.protocols.http.h11_impl"
_types: tuple[type, ...] = ()


def _find_types() -> tuple[type, ...]:
    # Looked up among what is loaded, so that the middleware can run where there is no uvicorn. Only these two: an
    # HTTP/2 cycle shares its socket with other streams.
    global _types
    if len(_types) < 2:
        modules = (sys.modules.get(_HTTPTOOLS), sys.modules.get(_H11))
        _types = tuple(module.RequestResponseCycle for module in modules if module is not None)
    return _types


class CycleExchange(Exchange):
    """An exchange on a connection of uvicorn, whose request cycle is the server."""

    _cut = False  # the connection was ended in the middle of a body
    _flush: asyncio.Handle | None = None
    _failure: BaseException | None = None

    async def _forward(self, message: Message) -> None:
        await self._server.send(message)

    def _is_gone(self) -> bool:
        return bool(self._server.disconnected)

    def _is_complete(self) -> bool:
        return bool(self._server.response_complete)

    def _has_ended_with(self, error: BaseException) -> bool:
        # uvicorn cancels what is left when its time to shut down is over. The connection is ended already; uvicorn's
        # traceback would say nothing more.
        return self._cut and isinstance(error, asyncio.CancelledError)

    def _look(self) -> None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        if self._server.transport.is_closing() and not self._server.response_complete:
            # uvicorn marks but the newest of pipelined requests, and that a turn later.
            self._mark_disconnected()

    # --- the head -------------------------------------------------------------------------------------------------

    def _may_hold(self) -> bool:
        return True

    def _schedule(self) -> None:
        """Keep the head back for the rest of this turn of the loop: uvicorn's own `send` would not keep it at all.

        The head of a file that is on its way, through whatever middleware, waits for the next message.
        """
        if not self.offer.announced:
            self._flush = asyncio.get_running_loop().call_soon(self._start_soon)

    def _start_soon(self) -> None:
        """Send the head: the application keeps the body waiting."""
        if self._held is None or self._sending:
            return
        if self._server.flow.write_paused:
            # The head of a pipelined response behind a slow one: it could not leave now anyway.
            asyncio.get_running_loop().call_later(0.1, self._start_soon)
            return
        start, self._held = self._held, None
        try:
            _run(self._server.send(start))
        except BaseException as failure:
            self._failure = failure

    def forget_head(self) -> None:
        self._held = None
        if self._flush is not None:
            self._flush.cancel()

    # --- files ----------------------------------------------------------------------------------------------------

    def _send_at_once(
        self,
        start: Message | None,
        segments: Sequence[Segment],
        length: int,
        on_transfer: events.OnTransfer | None,
        reason: str,
    ) -> bool:
        # The way of most answers, so all of it is here: a call more takes a hundredth of what it takes.
        cycle = self._server
        transport = cycle.transport
        if (
            start is None
            or not 0 < length <= JOINED
            or cycle.disconnected
            or cycle.flow.write_paused
            or transport.is_closing()
        ):
            return False
        told = events.wanted(on_transfer)
        began = time.perf_counter() if told else 0.0
        data = cached_bytes(segments)
        if data is None:
            return False
        if self._held is not None:
            self.forget_head()
        completed = False
        buffer = cycle.transport = _Buffer()
        try:
            # Into one buffer, and that to the client.
            _run(cycle.send(start))
            _run(cycle.send({"type": "http.response.body", "body": data}))
            completed = True
        finally:
            cycle.transport = transport
            if length <= _COPIED:
                transport.write(b"".join(buffer.parts))
            else:
                # Nothing empty among them, as h11's end of a body is: since 3.12 asyncio would try for ever to send it.
                transport.writelines([part for part in buffer.parts if part])
            if buffer.closed:
                transport.close()
            if told:
                sent = length if completed else 0
                seconds = time.perf_counter() - began
                events.report(
                    events.Transfer("joined", reason, start["status"], length, sent, seconds, completed), on_transfer
                )
        return True

    async def _send_segments(self, segments: Sequence[Segment], length: int, account: Account, *, more: bool) -> bool:
        """Send the bytes, and the end of the body unless `more` follows; return False when the client left."""
        cycle = self._server
        account.way = "sendfile"
        if self._has_left(account):
            return False
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
            make = Pump if AVAILABLE else transmit.LoopPump
            pump = make(transport, (before, *segments, after), loop=asyncio.get_running_loop())
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
                _take_account(account, pump, len(before), length)
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

    def _has_left(self, account: Account) -> bool:
        """Whether nobody listens any more, before a byte of the body was sent."""
        if not self._is_gone() and not self._server.transport.is_closing():
            return False
        # Not a reset: what uvicorn has written may still be on its way.
        self._mark_disconnected()
        account.reason = CLIENT_LEFT
        return True

    def _mark_disconnected(self) -> None:
        cycle = self._server
        self._cut = True
        cycle.disconnected = True
        cycle.message_event.set()

    def _end_connection(self) -> None:
        self._mark_disconnected()
        reset(self._server.transport)

    def _framing(self, length: int) -> tuple[bytes, bytes]:
        """Account for the body in uvicorn's cycle and return what has to stand before and after it."""
        cycle = self._server
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


def _run(step: Coroutine[Any, Any, None]) -> None:
    """Run a `send` of uvicorn's, which waits only where writing is paused."""
    try:
        step.send(None)
    except StopIteration:
        return
    step.close()
    raise AssertionError("uvicorn's send waited although nothing was paused")


def _take_account(account: Account, pump: Pump, before: int, length: int) -> None:
    """Take over what a pump did for a body of `length` bytes that `before` bytes of framing preceded."""
    account.sent = min(max(pump.sent - before, 0), length)
    account.reason = pump.reason
    if pump.read:
        account.way = "chunks"


class _Buffer:
    """Takes what a cycle writes in its transport's place."""

    closed = False

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.write = self.parts.append

    def close(self) -> None:
        # uvicorn closes behind the last message; what is kept here has to leave before.
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


class _Sized:
    """Stands for a body of some length in h11's bookkeeping."""

    __slots__ = ("length",)

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length
