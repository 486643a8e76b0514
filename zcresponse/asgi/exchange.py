"""Stands between a server and an application that sends files: advertise, intercept, account, see the end.

What every server needs alike is here; how the bytes leave is the subclass's: on a connection of uvicorn
(`connection/cycle.py`), or in messages that any server takes (`relay.py`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from zcresponse import events
from zcresponse.asgi.dialect import KEY, PATHSEND, ZEROCOPYSEND, Offer, Shipment, extensions_with
from zcresponse.asgi.types import ASGIApp, Message, Receive, Scope
from zcresponse.environment import Settings
from zcresponse.errors import DeliveryError
from zcresponse.events import Way, logger
from zcresponse.files import FileRegion, OpenedFile, open_file, open_file_async, reading
from zcresponse.plan import Segment
from zcresponse.plan.segments import total_length

__all__ = ["JOINED", "Account", "Exchange", "cached_bytes"]

#: A body up to this size that is cached is read and leaves with its head: one packet instead of two, and at 1 KiB 0.85
#: of the processor time. Beyond 64 KiB nothing is gained.
JOINED: Final = 64 * 1024


class Exchange:
    """One request and its response: what of it was started, held back, promised and sent.

    Attributes:
        offer: what is put into the scope.
        entry: where it is put: into the entry of pathsend in the extensions.
        on_transfer: called with a `Transfer` at the end of each file that no response of zcresponse's sends.
    """

    # Of the class, not of each: there is one for every request.
    on_transfer: events.OnTransfer | None = None
    _answered = False  # all at once, with nothing left to be looked after
    _status = 0
    _promised: int | None = None  # by the response's Content-Length
    _held: Message | None = None
    _sending = False
    _arrived = False  # a message with a file

    def __init__(self, scope: Scope, settings: Settings, server: Any) -> None:
        """Begin with a request.

        Args:
            server: by what the subclass reaches the client.
        """
        self.offer = Offer()
        self._scope = scope
        # What it was: middleware may write into the scope.
        self._method: str = scope["method"]
        self._settings = settings
        self._server = server

    async def run(self, app: ASGIApp, scope: Scope, receive: Receive) -> None:
        """Run the application below, which is offered to send files."""
        # In place, for the scope is the server's own: what a middleware writes into it (the client's address behind a
        # proxy) has to reach the access log.
        scope["extensions"] = self._extensions(scope)
        try:
            await app(scope, receive, self.send)
        except BaseException as error:
            if self._has_ended_with(error):
                return
            self.forget_head()
            raise
        if not self._answered:
            await self.finish()

    def _extensions(self, scope: Scope) -> dict[str, Any]:
        extensions = extensions_with(scope, self.offer)
        self.entry: dict[str, Any] = extensions[PATHSEND]
        if self._settings.zerocopysend:
            extensions[ZEROCOPYSEND] = {}
        return extensions

    # --- what a server is -----------------------------------------------------------------------------------------

    async def _forward(self, message: Message) -> None:
        """Give the server a message."""
        raise NotImplementedError

    def _send_at_once(
        self,
        start: Message | None,
        segments: Sequence[Segment],
        length: int,
        on_transfer: events.OnTransfer | None,
        reason: str,
    ) -> bool:
        """Send a small body with its head, and report, if that takes no wait.

        Args:
            start: the head, if it was not sent yet.

        Returns:
            False: nothing was done.
        """
        return False

    async def _send_segments(self, segments: Sequence[Segment], length: int, account: Account, *, more: bool) -> bool:
        """Send the bytes, and the end of the body unless `more` follows; return False when the client left."""
        raise NotImplementedError

    def _is_gone(self) -> bool:
        """Whether the client is known to have left."""
        raise NotImplementedError

    def _is_complete(self) -> bool:
        """Whether the response has been sent to its end."""
        raise NotImplementedError

    def _has_ended_with(self, error: BaseException) -> bool:
        """Whether the application's error only says what has been dealt with."""
        return False

    def _look(self) -> None:
        """Learn what happened since the last message, and raise what the application has to hear of it."""

    def _may_hold(self) -> bool:
        """Whether the head may be held back.

        By default one that may be a file's, which has a length. It waits for what comes next, as in every server
        (asgiref, "Response Start": it must not start sending the response until it has received a body message); but
        not all do so, and a stream's need not.
        """
        return self._promised is not None

    def _schedule(self) -> None:
        """A head is held back: decide until when. By default until the next message."""

    # --- the application's `send` ----------------------------------------------------------------------------------

    async def send(self, message: Message) -> None:
        kind = message["type"]
        self._look()
        if self._sending:
            raise DeliveryError(f"{kind!r} was sent while a file was being sent")
        if kind == PATHSEND:
            await self._send_path(message)
        elif kind == ZEROCOPYSEND and self._settings.zerocopysend:
            await self._send_descriptor(message)
        elif kind == "http.response.start" and not self._status:
            self._status = message["status"]
            headers = message.get("headers", ())
            if type(headers) is not list and not isinstance(headers, list | tuple):
                # They may be given as an iterator, which can be read but once.
                message = {**message, "headers": list(headers)}
            self._promised = _content_length(message)
            if self._promised == 0 or self._has_no_body() or not self._may_hold():
                await self._forward(message)
            else:
                # A file usually follows at once: it can then leave in the head's write, and a path that cannot be
                # opened is an error of which the client hears by a 500.
                self._held = message
                self._schedule()
        else:
            await self._start()
            await self._forward(message)

    def take_descriptors(self) -> None:
        """Take `http.response.zerocopysend` too."""
        self._settings = replace(self._settings, zerocopysend=True)

    async def _start(self) -> None:
        """Send the head now, if it is held back."""
        if self._held is not None:
            start = self._held
            self.forget_head()
            await self._forward(start)

    def forget_head(self) -> None:
        """The application has failed: a head that was not sent yet gives way to the server's 500."""
        self._held = None

    async def finish(self) -> None:
        """The application has returned."""
        if not self._arrived and not self._is_gone() and not self._is_complete():
            if self.offer.announced:
                # Nothing can complete the response any more; without its head the client gets the server's 500.
                self.forget_head()
                self.offer.report_failure("some middleware swallowed the message")
            logger.error(
                "%s %s was not answered to its end%s; some middleware drops http.response.pathsend messages "
                "(compressors such as brotli-asgi and zstd-asgi do): ZCRESPONSE_PATHSEND=off withholds the extension",
                self._method,
                self._scope.get("path", ""),
                ": its file response was swallowed" if self.offer.announced else ", if it was a file",
            )
        if self._held is not None:
            await self._start()
        self._look()

    # --- files ----------------------------------------------------------------------------------------------------

    async def _send_path(self, message: Message) -> None:
        self._arrived = True
        shipment = message.get(KEY)
        if isinstance(shipment, Shipment):
            file, segments = shipment.file, shipment.segments
            on_transfer, reason = shipment.on_transfer, shipment.reason
        else:
            file = await self._open(message)
            on_transfer, reason = self.on_transfer, ""
            try:
                segments = (self._region(message, file),)
            except BaseException:
                file.close()
                raise
        with file:
            length = self._checked(total_length(segments))
            if not self._send_at_once(self._held, segments, length, on_transfer, reason):
                await self._deliver(segments, length, on_transfer, reason)

    def respond_at_once(
        self,
        start: Message,
        file: OpenedFile,
        segments: Sequence[Segment],
        on_transfer: events.OnTransfer | None,
        reason: str,
    ) -> bool:
        """`respond` where it takes no wait; False: nothing was done."""
        if self._status or self._sending:
            return False
        try:
            self._answered = self._send_at_once(start, segments, total_length(segments), on_transfer, reason)
        except BaseException:
            self._status = start["status"]
            self._arrived = True
            file.close()
            raise
        if self._answered:
            self._status = start["status"]
            file.close()
        return self._answered

    async def respond(
        self,
        start: Message,
        file: OpenedFile,
        segments: Sequence[Segment],
        on_transfer: events.OnTransfer | None,
        reason: str,
    ) -> None:
        """Take a start message and a shipment at once, from a response that holds this exchange's own `send`.

        It is the same as two messages without the making and reading of them, and the head need not be held back for
        what may come.
        """
        try:
            if self._status or self._sending:
                # It cannot be one any more; say so as ever.
                await self.send(start)
            self._status = start["status"]
            self._promised = length = total_length(segments)
            self._held = start
            self._arrived = True
            self._look()
            await self._deliver(segments, self._checked(length), on_transfer, reason)
        finally:
            file.close()

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
                self._schedule()

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

    def _has_no_body(self) -> bool:
        return self._method == "HEAD" or self._status in (204, 304)

    def _checked(self, length: int) -> int:
        """Refuse what cannot be framed, before any byte of it is sent, and return how many are to be."""
        if not self._status:
            raise DeliveryError(f"Expected ASGI message 'http.response.start', but got {PATHSEND!r}")
        if self._is_complete():
            raise DeliveryError(f"Unexpected ASGI message {PATHSEND!r} sent, after response already completed")
        if self._has_no_body():
            return 0
        if self._promised is not None and self._promised != length:
            raise DeliveryError(f"the file response has {length} bytes, its Content-Length is {self._promised}")
        return length

    async def _send_descriptor(self, message: Message) -> None:
        """`http.response.zerocopysend`: the application's own descriptor, which it closes."""
        if not self._status or self._is_complete():
            raise DeliveryError(f"Unexpected ASGI message {ZEROCOPYSEND!r}")
        given = message["file"]
        fd = given if isinstance(given, int) else given.fileno()
        offset, count = message.get("offset"), message.get("count")
        start = os.lseek(fd, 0, os.SEEK_CUR) if offset is None else offset
        # A descriptor of our own for as long as it is sent: the application may close its own.
        with open_file(fd, offset=start, count=count, closefd=False) as file:
            if offset is None:
                # As sendfile(2) does, by which the extension is defined.
                os.lseek(fd, file.size, os.SEEK_CUR)
            length = 0 if self._has_no_body() else file.size
            more = bool(message.get("more_body", False))
            segments = (file.region(),)
            if more or not self._send_at_once(self._held, segments, length, self.on_transfer, ""):
                await self._deliver(segments, length, self.on_transfer, more=more)

    async def _deliver(
        self,
        segments: Sequence[Segment],
        length: int,
        on_transfer: events.OnTransfer | None,
        reason: str = "",
        *,
        more: bool = False,
    ) -> None:
        """Send `length` bytes, end the response unless `more` follows, and report."""
        began = time.perf_counter()
        account = Account()
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
                        "; ".join(filter(None, (reason, account.reason))),
                        self._status,
                        length,
                        account.sent,
                        time.perf_counter() - began,
                        completed,
                    ),
                    on_transfer,
                )

    async def _end(self) -> None:
        await self._forward({"type": "http.response.body", "body": b"", "more_body": False})


class Account:
    """What is told of a body at the end."""

    __slots__ = ("reason", "sent", "way")

    def __init__(self) -> None:
        self.way: Way = "none"
        self.reason = ""
        self.sent = 0


def cached_bytes(segments: Sequence[Segment]) -> bytes | None:
    """Return the segments' bytes if all of them are in memory."""
    parts = []
    for segment in segments:
        if isinstance(segment, bytes):
            parts.append(segment)
            continue
        try:
            data = reading.read_cached(segment.file, segment.offset, segment.count)
        except OSError:
            # Whoever sends it meets that again, and tells of it.
            return None
        if data is None or len(data) != segment.count:
            return None
        parts.append(data)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _content_length(start: Message) -> int | None:
    for name, value in start.get("headers", ()):
        if len(name) == 14 and name.lower() == b"content-length":
            return int(value) if value.isdigit() else None
    return None
