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

from zcresponse.sendfile.calls import AVAILABLE, MAX_COUNT, is_refusal
from zcresponse.sendfile.sources import (
    BLOCK,
    Source,
    check_binary,
    check_numbers,
    flush,
    is_seekable,
    plain_file,
    with_method,
)

__all__ = ["sendfile"]

#: What a pipe is asked to take from a socket at once; Linux lets anybody have that much (pipe-max-size, pipe(7)).
_PIPE: Final = 1024 * 1024


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
            when an error did.
        offset: first byte to send; 0 for a pipe or socket, which has no position.
        count: the most to send; None: all.

    Raises:
        ValueError: a text file, a socket that is non-blocking or not of SOCK_STREAM, a count below 1, an
            offset below 0.
        TypeError: `file` is nothing that can be sent, or a number is none.
        TimeoutError: the socket took nothing for as long as its timeout.
        OSError: what the socket or the file said; `CLIENT_GONE` has the errnos of a peer that left.
    """
    check_numbers(offset, count)
    check_binary(file)
    if not sock.type & socket.SOCK_STREAM:
        raise ValueError("only SOCK_STREAM type sockets are supported")
    if sock.gettimeout() == 0:
        raise ValueError("non-blocking sockets are not supported")
    if isinstance(file, socket.socket):
        return _relay(sock, file, offset, count)
    plain = plain_file(file)
    if plain is None:
        return _send_read(sock, with_method(file, "read"), offset, count)
    flush(plain)
    mode = os.fstat(plain.fileno()).st_mode
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
        return _relay(sock, plain, offset, count)
    sent = _send_by_kernel(sock, plain, offset, count) if stat.S_ISREG(mode) and _is_bare(sock) else 0
    # The kernel has refused it, or says that it ends here, as it does of files of /proc: reading tells.
    return sent + _send_read(sock, plain, offset + sent, None if count is None else count - sent)


def _is_bare(sock: socket.socket) -> bool:
    """Whether the kernel may write to it: TLS and the like have a `send` of their own, past which no byte may go."""
    return AVAILABLE and type(sock).send is socket.socket.send


def _is_bare_source(file: Any) -> bool:
    """Whether what the kernel takes out of it is what reading gives: out of TLS's socket that would be cipher text."""
    return not isinstance(file, socket.socket) or type(file).recv is socket.socket.recv


def _send_by_kernel(sock: socket.socket, file: Any, offset: int, count: int | None) -> int:
    """Send what sendfile(2) gives: all, or nothing of what it cannot read."""
    sent = 0
    try:
        while count is None or sent < count:
            most = MAX_COUNT if count is None else min(MAX_COUNT, count - sent)
            try:
                moved = os.sendfile(sock.fileno(), file.fileno(), offset + sent, most)
            except BlockingIOError:
                _wait(sock.fileno(), select.POLLOUT, sock.gettimeout())
                continue
            except OSError as error:
                if is_refusal(error):
                    break
                raise
            if not moved:
                break
            sent += moved
    finally:
        file.seek(offset + sent)
    return sent


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
                taken = sock.send(left)
                sent += taken
                left = left[taken:]
    finally:
        if seekable:
            file.seek(offset + sent)
    return sent


def _relay(sock: socket.socket, file: Any, offset: int, count: int | None) -> int:
    """Send what comes out of a pipe or a socket, until its end or `count` bytes."""
    if offset:
        raise ValueError("offset: a pipe or socket can only be read from where it stands")
    sent = 0
    if isinstance(file, io.BufferedReader):
        # What it has read ahead comes first. Reading just that leaves nothing in its buffer.
        ahead = len(file.peek())
        sent = _send_all(sock, file.read1(ahead if count is None else min(ahead, count)))
    if hasattr(os, "splice") and _is_bare(sock) and _is_bare_source(file):
        sent += _splice(sock, file, None if count is None else count - sent)
    read = file.recv if isinstance(file, socket.socket) else partial(os.read, file.fileno())
    while count is None or sent < count:
        data = read(BLOCK if count is None else min(BLOCK, count - sent))
        if not data:
            break
        sent += _send_all(sock, data)
    return sent


def _send_all(sock: socket.socket, data: bytes) -> int:
    left = memoryview(data)
    while left:
        left = left[sock.send(left) :]
    return len(data)


def _splice(sock: socket.socket, file: Any, count: int | None) -> int:
    """Let the kernel move what comes out of a pipe or a socket as far as it can; what then is left is to be read.

    splice(2) needs a pipe at one end, so what comes out of a socket takes its way through one.
    """
    source = file.fileno()
    if stat.S_ISFIFO(os.fstat(source).st_mode):
        return _splice_pipe(sock, source, count)
    timeout = file.gettimeout() if isinstance(file, socket.socket) else None
    sent = 0
    outlet, inlet = os.pipe()
    try:
        while count is None or sent < count:
            try:
                moved = os.splice(source, inlet, _PIPE if count is None else min(_PIPE, count - sent))
            except BlockingIOError:
                _wait(source, select.POLLIN, timeout)
                continue
            except OSError as error:
                if is_refusal(error):
                    break
                raise
            if not moved:
                break
            sent += moved
            left = moved - _splice_pipe(sock, outlet, moved)
            while left:
                left -= _send_all(sock, os.read(outlet, left))
    finally:
        os.close(outlet)
        os.close(inlet)
    return sent


def _splice_pipe(sock: socket.socket, pipe: int, count: int | None) -> int:
    sent = 0
    while count is None or sent < count:
        try:
            moved = os.splice(pipe, sock.fileno(), _PIPE if count is None else min(_PIPE, count - sent))
        except BlockingIOError:
            # One of the two ends is not ready; which, it does not say.
            _wait(pipe, select.POLLIN, None)
            _wait(sock.fileno(), select.POLLOUT, sock.gettimeout())
            continue
        except OSError as error:
            if is_refusal(error):
                break
            raise
        if not moved:
            break
        sent += moved
    return sent


def _wait(fd: int, event: int, timeout: float | None) -> None:
    poll = select.poll()
    poll.register(fd, event)
    if not poll.poll(None if timeout is None else timeout * 1000):
        raise TimeoutError("timed out")
