"""Segments to a socket that an event loop's transport owns: drain the transport, then sendfile, in fair turns.

Works on asyncio's selector transports and uvloop's alike, without either's `loop.sendfile` (uvloop has none, asyncio's
may never return and may starve the others). The transport's own descriptor number is used for a first bounded send;
what needs waiting uses a duplicate of it, because a loop refuses `add_writer` for a number that a transport holds.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
import sys
import time
from collections.abc import Iterable
from concurrent.futures import Future
from enum import Enum, auto
from typing import Any, Final

from zcresponse.asgi.connection.hold import InputHold
from zcresponse.errors import FileTruncatedError
from zcresponse.events import logger
from zcresponse.files import FileRegion, reading
from zcresponse.files.linux import Storage
from zcresponse.plan import Segment
from zcresponse.sendfile import CLIENT_GONE, is_refusal, send_region

__all__ = ["ClientLeft", "Pump", "ReaderStalled", "reset"]

#: What all running transfers may send together in one turn of the loop, and the least that one is given. Latency of
#: other requests grows with what a turn sends. With 4 downloads, beside nginx doing the same: 1 MiB shared gave a small
#: request 0.5 of nginx's p99 at 0.8 to 1.2 of its throughput, 512 KiB 0.3 to 0.7 of the p99 at 0.6 to 0.7.
TURN: Final = 1024 * 1024
SHARE: Final = 256 * 1024

#: How much a thread pages in while what lies before it is sent, so that the disk and the socket work at the same time.
AHEAD: Final = 4 * 1024 * 1024

#: The same where nothing tells what is cached: larger, because most of it is, and each time costs a change of threads.
UNTOLD: Final = 8 * 1024 * 1024

#: How much of a region is read at once where the kernel cannot send it.
READ_SIZE: Final = 256 * 1024

# With this limit on unsent bytes the socket turns writable in small steps, so that a slow reader's progress is seen
# about every second instead of every dozen seconds.
_NOTSENT_LOWAT: Final = 128 * 1024

_LINGER_RESET: Final = struct.pack("ii", 1, 0)
_TIOCOUTQ: Final = 0x5411 if sys.platform == "linux" else None


class ClientLeft(Exception):
    """The connection is gone."""


class ReaderStalled(Exception):
    """The client took no byte for too long."""


class _Next(Enum):
    """What a push waits for."""

    DONE = auto()
    TURN = auto()  # the budget is used up
    SOCKET = auto()  # the socket takes no more
    PAGES = auto()  # the file's next pages are not in memory
    BYTES = auto()  # the file's next bytes must be read: the kernel cannot send them


class Pump:
    """One body on its way to one connection.

    Attributes:
        sent: bytes that the socket has taken.
        read: how many of them were read by us rather than moved by the kernel.
        reason: why they were read.
    """

    #: How many transfers used up their share in their last turn; they divide `TURN`.
    busy = 0

    def __init__(
        self, transport: asyncio.Transport, segments: Iterable[Segment], *, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.sent = 0
        self.read = 0
        self.reason = ""
        self._loop = loop
        self._transport = transport
        self._segments = [segment for segment in segments if len(segment)]
        self._index = 0
        self._position = 0  # in the current segment
        self._chunk = memoryview(b"")  # bytes of the current region that were read because the kernel cannot send them
        self._present_until = -1  # the current region's pages before this position have been paged in
        self._ahead: Future[Any] | None = None  # pages in what follows, until `_ahead_until`
        self._ahead_until = -1
        self._is_busy = False
        self._fd = -1
        self._done: asyncio.Future[None] | None = None
        self._writing = False
        self._job: asyncio.Future[Any] | None = None

    # --- sending -------------------------------------------------------------------------------------------------

    def push(self, fd: int) -> _Next:
        """Send one bounded turn's worth to the socket `fd`.

        Raises:
            FileTruncatedError: the file ends before its region does.
            OSError: the socket's or the file's error.
        """
        budget = max(SHARE, TURN // (Pump.busy + (not self._is_busy)))
        while self._index < len(self._segments):
            segment = self._segments[self._index]
            left = len(segment) - self._position
            if isinstance(segment, bytes):
                wanted = left
                taken = _write(fd, memoryview(segment)[self._position :])
            elif self._chunk:
                wanted = len(self._chunk)
                taken = _write(fd, self._chunk)
                if taken:
                    self._chunk = self._chunk[taken:]
                    self.read += taken
            else:
                if self.reason or segment.file.storage is Storage.UNKNOWN:
                    return _Next.BYTES
                wanted = min(left, budget)
                start = segment.offset + self._position
                if start + wanted > self._present_until and not self._are_there(segment, start, wanted):
                    return _Next.PAGES
                try:
                    taken = send_region(fd, segment.file.fileno(), start, wanted)
                except OSError as error:
                    if not is_refusal(error):
                        raise
                    self.reason = f"the kernel cannot send this file: {error.strerror}"
                    return _Next.BYTES
                if taken == 0:
                    raise self._truncated(segment)
            if taken is None:
                return _Next.SOCKET
            self.sent += taken
            self._position += taken
            budget -= taken
            if taken == left:
                self._index += 1
                self._position = 0
                self._present_until = -1
                self._ahead = None
            elif taken < wanted:
                return _Next.SOCKET
            if budget <= 0 and self._index < len(self._segments):
                return _Next.TURN
        return _Next.DONE

    def _are_there(self, region: FileRegion, start: int, count: int) -> bool:
        """Whether sending so many bytes, which nobody has paged in yet, waits for no disk."""
        if self._ahead is None:
            return reading.are_cached(region.file, start, count)
        if not self._ahead.done():
            # What it began with may be there.
            return region.file.storage is Storage.PROBED and reading.are_cached(region.file, start, count)
        self._pages_came(region)
        return start + count <= self._present_until

    def _pages_came(self, region: FileRegion) -> None:
        """Take over what was paged in ahead, and let a thread go on behind it."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and (ahead.cancelled() or ahead.exception() is not None):
            # Whoever needs the pages meets that again.
            return
        if ahead is not None:
            self._present_until = self._ahead_until
        start = self._present_until
        told = region.file.storage is Storage.PROBED
        count = min(region.offset + region.count - start, AHEAD if told else UNTOLD)
        if count <= 0:
            return
        if told and reading.are_cached(region.file, start, count):
            # Somebody else has read on.
            self._present_until = start + count
            return
        try:
            self._ahead = reading.submit(region.file, reading.page_in, start, count)
            self._ahead_until = start + count
        except OSError:
            # No descriptor or thread is left for it: it is paged in when it is needed, or waited for.
            return

    @property
    def finished(self) -> bool:
        """Whether the socket has taken everything."""
        return self._index == len(self._segments)

    def _truncated(self, segment: FileRegion) -> FileTruncatedError:
        return FileTruncatedError(
            f"{segment.file.path or 'the file'} ended at byte {segment.offset + self._position}, "
            f"{segment.count - self._position} before the promised end"
        )

    def at_once(self) -> bool:
        """Try to send all of it now, on the transport's own number; return whether that was enough.

        Only to be called while the transport's buffer is empty. Nothing waits, so the number cannot change hands.

        Raises:
            ClientLeft, FileTruncatedError, OSError
        """
        try:
            return self.push(self._transport.get_extra_info("socket").fileno()) is _Next.DONE
        except OSError as error:
            if _means_gone(error):
                raise ClientLeft from error
            raise

    async def run(self, stall_timeout_s: float, input_hold: InputHold) -> None:
        """Send the rest, in turns with everything else on the loop.

        Raises:
            ClientLeft: the client closed or reset the connection, or the transport was closed.
            ReaderStalled: no byte left for `stall_timeout_s` seconds.
            FileTruncatedError, OSError
        """
        self._done = self._loop.create_future()
        input_hold.on_lost = self._lost
        sock = self._transport.get_extra_info("socket")
        _prepare(sock)
        watch = _Watch(self, stall_timeout_s)
        try:
            await self._drain(input_hold)
            if self._transport.is_closing():
                raise ClientLeft
            try:
                self._fd = os.dup(sock.fileno())
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE):
                    raise
                self.reason = "no descriptor was left to wait with"
                await self._write_rest(input_hold)
                return
            self._resume()
            await self._done
        finally:
            watch.stop()
            self._release()
            input_hold.on_lost = None

    async def _drain(self, input_hold: InputHold) -> None:
        """Wait until the transport has written all that was given to it: a sendfile must not overtake it."""
        transport = self._transport
        if transport.get_write_buffer_size() == 0:
            return
        low, high = transport.get_write_buffer_limits()
        input_hold.on_resume = self._set_drained
        self._drained = self._loop.create_future()
        transport.set_write_buffer_limits(0)
        try:
            while transport.get_write_buffer_size() and not transport.is_closing():
                assert self._done is not None
                await asyncio.wait((self._drained, self._done), return_when=asyncio.FIRST_COMPLETED)
                if self._done.done():
                    self._done.result()
                self._drained = self._loop.create_future()
        finally:
            input_hold.on_resume = None
            if not transport.is_closing():
                transport.set_write_buffer_limits(high, low)

    def _set_drained(self) -> None:
        if not self._drained.done():
            self._drained.set_result(None)

    # --- waiting -------------------------------------------------------------------------------------------------

    def _resume(self) -> None:
        """Wait for the socket. Registered once, not for each wait: adding and removing costs 7 to 10 us."""
        if not self._writing:
            self._writing = True
            self._loop.add_writer(self._fd, self._on_writable)

    def _pause(self) -> None:
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._fd)

    def _on_writable(self) -> None:
        assert self._done is not None
        if self._done.done():
            return
        try:
            then = self.push(self._fd)
        except BaseException as error:
            self._finish(ClientLeft() if _means_gone(error) else error)
            return
        self._mark_busy(then is _Next.TURN)
        if then is _Next.DONE:
            self._finish(None)
        elif then in (_Next.PAGES, _Next.BYTES):
            self._pause()
            self._fetch(then)

    def _fetch(self, what: _Next) -> None:
        """Let a thread page in or read what comes next; it never sees the socket."""
        segment = self._segments[self._index]
        assert isinstance(segment, FileRegion)
        start = segment.offset + self._position
        left = segment.count - self._position
        job: Future[Any]
        try:
            if what is _Next.PAGES and self._ahead is not None:
                job = self._ahead
            elif what is _Next.PAGES:
                # Little at first: the client waits for it.
                count = min(left, TURN)
                job = self._ahead = reading.submit(segment.file, reading.page_in, start, count)
                self._ahead_until = start + count
            else:
                self.reason = self.reason or "the file system may wait: read in a thread"
                job = reading.submit(segment.file, reading.read_blocking, start, min(left, READ_SIZE))
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE, errno.EAGAIN):
                self._finish(error)
                return
            # No descriptor or thread is left for it: rather wait here than fail.
            if what is _Next.PAGES:
                self._present_until = start + min(left, TURN)
                self._resume()
            else:
                self._take(reading.read_blocking(segment.file.fileno(), start, min(left, READ_SIZE)))
            return
        self._job = asyncio.wrap_future(job, loop=self._loop)
        self._job.add_done_callback(self._fetched)

    def _fetched(self, job: asyncio.Future[Any]) -> None:
        assert self._done is not None
        if job.cancelled() or self._done.done():
            return
        error = job.exception()
        if self._ahead is not None and self._ahead.done():
            segment = self._segments[self._index]
            assert isinstance(segment, FileRegion)
            self._pages_came(segment)
        if error is not None:
            self._finish(error)
            return
        self._take(job.result())

    def _take(self, data: bytes | None) -> None:
        """Go on with what was read, or with pages that are there now."""
        if data is not None:
            if not data:
                segment = self._segments[self._index]
                assert isinstance(segment, FileRegion)
                self._finish(self._truncated(segment))
                return
            self._chunk = memoryview(data)
        self._resume()

    def _mark_busy(self, busy: bool) -> None:
        if busy is not self._is_busy:
            self._is_busy = busy
            Pump.busy += 1 if busy else -1

    def _finish(self, error: BaseException | None) -> None:
        assert self._done is not None
        if not self._done.done():
            if error is None:
                self._done.set_result(None)
            else:
                self._done.set_exception(error)

    def _lost(self) -> None:
        self._finish(ClientLeft())

    def _release(self) -> None:
        """Give everything back. The only place, and in this order: a loop that still watches a closed number aborts
        the process (uvloop) or spins (asyncio)."""
        self._mark_busy(False)
        self._pause()
        if self._job is not None:
            self._job.cancel()
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
        if self._done is not None and not self._done.done():
            self._done.cancel()
        elif self._done is not None:
            # Seen here, should the waiter have been cancelled in the same turn.
            self._done.cancelled() or self._done.exception()

    async def _write_rest(self, input_hold: InputHold) -> None:
        """Read the rest and write it through the transport: no descriptor is left for anything better."""
        while self._index < len(self._segments):
            segment = self._segments[self._index]
            if isinstance(segment, bytes):
                data = segment[self._position :]
            else:
                start = segment.offset + self._position
                length = min(READ_SIZE, segment.count - self._position)
                cached = reading.read_cached(segment.file, start, length)
                # A thread would need a duplicate of the file's descriptor, which there is not.
                data = reading.read_blocking(segment.file.fileno(), start, length) if cached is None else cached
                if not data:
                    raise self._truncated(segment)
                self.read += len(data)
            self._transport.write(data)
            self.sent += len(data)
            self._position += len(data)
            if self._position == len(segment):
                self._index += 1
                self._position = 0
            await self._drain(input_hold)
            if self._transport.is_closing():
                raise ClientLeft

    def progress(self) -> tuple[int, int, int]:
        """Return numbers that change whenever the client has taken a byte.

        What sendfile has accepted is not enough: a socket of a slow reader takes nothing for a dozen seconds while
        the client reads what is queued.
        """
        if self._transport.is_closing():
            return self.sent, 0, 0
        sock = self._transport.get_extra_info("socket")
        return self.sent, _queued(sock.fileno()), self._transport.get_write_buffer_size()


class _Watch:
    """Cuts a reader that makes no progress."""

    def __init__(self, pump: Pump, timeout_s: float) -> None:
        self._pump = pump
        self._timeout_s = timeout_s
        self._seen = pump.progress()
        self._since = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None
        if timeout_s > 0:
            self._arm()

    def _arm(self) -> None:
        self._timer = self._pump._loop.call_later(self._timeout_s / 4, self._look)

    def _look(self) -> None:
        if self._pump._transport.is_closing():
            # close() on a transport that waits for a stalled client tells nobody.
            self._pump._finish(ClientLeft())
            return
        now = time.monotonic()
        progress = self._pump.progress()
        if progress != self._seen or (self._pump._job is not None and not self._pump._job.done()):
            self._seen, self._since = progress, now
        elif now - self._since >= self._timeout_s:
            self._pump._finish(ReaderStalled())
            return
        self._arm()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def reset(transport: asyncio.Transport) -> None:
    """End the connection by a reset: the client must not take what it has for the whole, and nothing stays queued."""
    sock = transport.get_extra_info("socket")
    if sock is not None and not transport.is_closing():
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
        except OSError:
            logger.debug("no reset: the socket is gone already")
    transport.abort()


def _means_gone(error: BaseException) -> bool:
    """Whether an error is that of a socket whose client left, which is no fault."""
    return isinstance(error, OSError) and error.errno in CLIENT_GONE


def _write(fd: int, data: memoryview) -> int | None:
    try:
        return os.write(fd, data)
    except BlockingIOError:
        return None


def _prepare(sock: socket.socket) -> None:
    if hasattr(socket, "TCP_NOTSENT_LOWAT") and sock.family in (socket.AF_INET, socket.AF_INET6):
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _NOTSENT_LOWAT)
        except OSError:
            logger.debug("TCP_NOTSENT_LOWAT was refused")


def _queued(fd: int) -> int:
    """Return how many bytes of the socket the client has not acknowledged; 0 where the system does not tell."""
    if fd < 0 or _TIOCOUTQ is None:
        return 0
    import fcntl

    try:
        return int(struct.unpack("i", fcntl.ioctl(fd, _TIOCOUTQ, b"\0\0\0\0"))[0])
    except OSError:
        return 0
