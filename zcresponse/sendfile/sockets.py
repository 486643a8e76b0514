"""A file, a pipe or a socket to a socket: `socket.sendfile` with fewer gaps."""

from __future__ import annotations

import errno
import io
import os
import select
import socket
import stat
from functools import partial
from typing import Any, Final

from zcresponse.sendfile.calls import AVAILABLE, is_refusal
from zcresponse.sendfile.sources import (
    BLOCK,
    Source,
    accounted,
    check_binary,
    check_numbers,
    check_stream,
    flush,
    is_seekable,
    is_socket,
    plain_file,
    with_method,
)

__all__ = ["sendfile"]

#: What one call moves out of a file, so that Ctrl-C and whoever watches need not wait for a big one.
_STEP: Final = 64 * 1024 * 1024

#: What is taken out of a pipe or socket at once: as much as a pipe holds (pipe(7)).
_AT_ONCE: Final = 64 * 1024


def sendfile(sock: socket.socket, file: Source, offset: int = 0, count: int | None = None) -> int:
    """Send a file's bytes from `offset` on, until its end or `count` bytes, and return how many were sent.

    It does what `socket.sendfile` of the standard library does, refuses what that refuses with the same errors, and can
    stand in its place. It is not made of it, because of what it does better:

    - a descriptor will do, and so will an object with nothing but `fileno()`
    - a pipe or a socket as the source, such as a process's output, goes through splice(2); `socket.sendfile` takes it
      for an empty file and sends nothing, as it does with files of /proc, which have content but no size
    - what only its own `read` can tell (a GzipFile, a file in an archive or in memory) is read, although it may have a
      descriptor; `socket.sendfile` sends a GzipFile's compressed bytes
    - what was written to the file object and not flushed yet is sent too
    - where bytes have to be read (TLS, Windows, such files), by blocks of 256 KiB instead of 8 KiB
    - `offset` always counts from the file's beginning, and the position always tells what was sent: `socket.sendfile`
      leaves it 8 KiB too far when the peer has gone before the first byte, and unset when there was none to send

    Args:
        sock: a connected stream socket, blocking or with a timeout. The timeout is for each wait, not for the whole.
        file: where the bytes come from. It stays open, and its position, if it has one, is where sending ended, also
            when an error did, or a signal's handler that raised. A socket waits as its own timeout says.
        offset: first byte to send; 0 for a pipe or socket, which has no position.
        count: the most to send; None: all.

    Raises:
        ValueError: a text file, a socket that is non-blocking or not of SOCK_STREAM, a count below 1, an
            offset below 0.
        TypeError: `file` is nothing that can be sent, or a number is none.
        OverflowError: an offset beyond 2**63.
        TimeoutError: the socket took nothing for as long as its timeout.
        BlockingIOError: the source is non-blocking and has nothing just now.
        OSError: what the socket or the file said; `CLIENT_GONE` has the errnos of a peer that left. Of a pipe or a
            socket as the source, which has no position, a note (`__notes__`) tells how much was sent, and how much of
            what was taken out of it is lost: 64 KiB at most, or what a BufferedReader had read ahead.
    """
    check_numbers(offset, count)
    check_binary(file)
    if not sock.type & socket.SOCK_STREAM:
        raise ValueError("only SOCK_STREAM type sockets are supported")
    if sock.gettimeout() == 0:
        raise ValueError("non-blocking sockets are not supported")
    if is_socket(file):
        return _relay(sock, file, offset, count)
    plain = plain_file(file)
    if plain is None:
        return _send_read(sock, with_method(file, "read"), offset, count)
    flush(plain)
    found = os.fstat(plain.fileno())
    if stat.S_ISFIFO(found.st_mode) or stat.S_ISSOCK(found.st_mode):
        return _relay(sock, plain, offset, count)
    sent = 0
    if stat.S_ISREG(found.st_mode) and _is_bare(sock):
        sent, refused = _send_by_kernel(sock, plain, offset, count)
        # The kernel says that it ends here, as it also does of files of /proc, which have no size: reading tells.
        if not refused and (sent == count or 0 < found.st_size <= offset + sent):
            return sent
    return sent + _send_read(sock, plain, offset + sent, None if count is None else count - sent)


def _is_bare(sock: socket.socket) -> bool:
    """Whether the kernel may write to it: TLS and the like have a `send` of their own, past which no byte may go."""
    return AVAILABLE and getattr(type(sock), "send", None) is socket.socket.send


def _is_bare_source(file: Any) -> bool:
    """Whether what the kernel takes out of it is what reading gives: out of TLS's socket that would be cipher text."""
    return not is_socket(file) or getattr(type(file), "recv", None) is socket.socket.recv


def _send_by_kernel(sock: socket.socket, file: Any, offset: int, count: int | None) -> tuple[int, bool]:
    """Send what sendfile(2) gives, and tell how much that was, and whether it refused to give more."""
    sent = 0
    moved = -1
    try:
        while moved and (count is None or sent < count):
            most = _STEP if count is None else min(_STEP, count - sent)
            try:
                for moved in accounted(os.sendfile, sock.fileno(), file.fileno(), offset + sent, most):
                    sent += moved
            except BlockingIOError:
                _wait(sock.fileno(), select.POLLOUT, sock.gettimeout())
            except OSError as error:
                if is_refusal(error):
                    return sent, True
                raise
    finally:
        file.seek(offset + sent)
    return sent, False


def _send_read(sock: socket.socket, file: Any, offset: int, count: int | None) -> int:
    """Send what `file.read` gives."""
    seekable = is_seekable(file)
    if seekable:
        file.seek(offset)
    elif offset:
        raise ValueError(f"offset: {type(file).__name__} can only be read from where it stands")
    sent = 0
    try:
        while count is None or sent < count:
            data = file.read(BLOCK if count is None else min(BLOCK, count - sent))
            if data is None:
                raise BlockingIOError(errno.EAGAIN, "the file is non-blocking and has nothing just now")
            if not data:
                break
            left = memoryview(data)
            while left:
                # Not `sendall`: it does not say how much was sent when it fails, and its timeout is for the whole.
                for taken in accounted(sock.send, left):
                    sent += taken
                    left = left[taken:]
    finally:
        if seekable:
            file.seek(offset + sent)
    return sent


# --- pipes and sockets ------------------------------------------------------------------------------------------------


def _relay(sock: socket.socket, file: Any, offset: int, count: int | None) -> int:
    """Send what comes out of a pipe or a socket, until its end or `count` bytes."""
    if offset:
        raise ValueError("offset: a pipe or socket can only be read from where it stands")
    check_stream(file)
    relay = _Relay(sock, file, count)
    try:
        relay.run()
    except OSError as error:
        error.add_note(f"sent: {relay.sent} bytes; taken out of the source and lost: {relay.taken - relay.sent} bytes")
        raise
    return relay.sent


class _Relay:
    """Bytes out of what has no position.

    What was taken cannot be put back. So the socket is waited for before something is taken, and little at a time is.

    Attributes:
        taken, sent: How many bytes came out of the source, and how many the socket has.
    """

    def __init__(self, sock: socket.socket, file: Any, count: int | None) -> None:
        self.taken = self.sent = 0
        self._sock = sock
        self._file = file
        self._count = count

    def _most(self, at_once: int = _AT_ONCE) -> int:
        return at_once if self._count is None else min(at_once, self._count - self.sent)

    def run(self) -> None:
        file = self._file
        if isinstance(file, io.BufferedReader):
            # What it has read ahead comes first. Reading just that leaves nothing in its buffer.
            ahead = len(file.peek())
            self._send(file.read1(ahead if self._count is None else min(ahead, self._count)))
        if hasattr(os, "splice") and _is_bare(self._sock) and _is_bare_source(file):
            if stat.S_ISFIFO(os.fstat(file.fileno()).st_mode):
                self._splice(file.fileno())
            else:
                self._splice_socket()
        read = file.recv if is_socket(file) else partial(os.read, file.fileno())
        while most := self._most():
            self._wait_for_socket()
            data = read(most)
            if not data:
                break
            self._send(data)

    def _wait_for_socket(self) -> None:
        # Others than the standard library's wait in a way of their own.
        if hasattr(select, "poll") and isinstance(self._sock, socket.socket):
            _wait(self._sock.fileno(), select.POLLOUT, self._sock.gettimeout())

    def _send(self, data: bytes) -> None:
        self.taken += len(data)
        left = memoryview(data)
        while left:
            for taken in accounted(self._sock.send, left):
                self.sent += taken
                left = left[taken:]

    def _splice(self, pipe: int) -> None:
        """Let the kernel move what comes out of a pipe, as far as it can: what the socket does not take stays in it."""
        while most := self._most(_STEP):
            try:
                moved = os.splice(pipe, self._sock.fileno(), most)
            except BlockingIOError:
                # One of the two ends is not ready; which, it does not say.
                if not _is_ready(pipe):
                    if not os.get_blocking(pipe):
                        raise
                    _wait(pipe, select.POLLIN, None)
                self._wait_for_socket()
                continue
            except OSError as error:
                if is_refusal(error):
                    return
                raise
            if not moved:
                return
            self.taken += moved
            self.sent += moved

    def _splice_socket(self) -> None:
        """The same with a socket: splice(2) needs a pipe at one end, so the bytes take their way through one."""
        source = self._file.fileno()
        outlet, inlet = os.pipe()
        try:
            while most := self._most():
                self._wait_for_socket()
                try:
                    moved = os.splice(source, inlet, most)
                except BlockingIOError:
                    self._wait_for_source()
                    continue
                except OSError as error:
                    if is_refusal(error):
                        return
                    raise
                if not moved:
                    return
                self.taken += moved
                self._empty(outlet)
        finally:
            os.close(outlet)
            os.close(inlet)

    def _wait_for_source(self) -> None:
        """Wait as the source's own timeout says."""
        source = self._file
        if not is_socket(source):
            if not os.get_blocking(source.fileno()):
                raise BlockingIOError(errno.EAGAIN, "the source is non-blocking and has nothing just now")
            timeout = None
        else:
            timeout = source.gettimeout()
            if timeout == 0:
                raise BlockingIOError(errno.EAGAIN, "the source is non-blocking and has nothing just now")
        _wait(source.fileno(), select.POLLIN, timeout)

    def _empty(self, outlet: int) -> None:
        """Send what the pipe between has, which is `taken` less `sent`."""
        while left := self.taken - self.sent:
            try:
                self.sent += os.splice(outlet, self._sock.fileno(), left)
            except BlockingIOError:
                self._wait_for_socket()
            except OSError as error:
                if not is_refusal(error):
                    raise
                data = os.read(outlet, left)
                self.taken -= len(data)
                self._send(data)


def _is_ready(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def _wait(fd: int, event: int, timeout: float | None) -> None:
    poll = select.poll()
    poll.register(fd, event)
    if not poll.poll(None if timeout is None else timeout * 1000):
        raise TimeoutError("timed out")
