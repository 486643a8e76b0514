"""Files by sendfile(2) under waitress, whose `wsgi.file_wrapper` reads them.

waitress asks the wrapper for as many bytes as the socket may take, gives them to the connection's `send`, and tells the
wrapper how many of them were taken. So the wrapper can name a part of the file instead of reading it, when `send`
knows what to do with the name: the server itself keeps the account of what was sent, as with any other bytes.
"""

from __future__ import annotations

import socket
import weakref
from collections.abc import Callable
from typing import Any, Final

from zcresponse.files.positioned import PositionedFile
from zcresponse.sendfile import AVAILABLE, is_refusal, send_region
from zcresponse.wsgi.types import Environ

__all__ = ["sending_wrapper"]

#: How many bytes of one file leave before the other connections have their turn.
_SHARE: Final = 2 * 1024 * 1024


def sending_wrapper(environ: Environ, wrapper: Callable[..., Any]) -> Callable[..., Any]:
    """Return a `wsgi.file_wrapper` that has our files sent by sendfile(2), or the server's where that cannot be."""
    # A bound method of the connection that is there to be called; waitress tells of the connection in no other way.
    channel = getattr(environ.get("waitress.client_disconnected"), "__self__", None)
    if not AVAILABLE or type(getattr(channel, "socket", None)) is not socket.socket or "send" in vars(channel):
        return wrapper
    return _SendingWrapper(wrapper, channel)


class _SendingWrapper:
    def __init__(self, wrapper: Callable[..., Any], channel: Any) -> None:
        self._wrapper = wrapper
        self._channel = channel

    def __call__(self, filelike: Any, blksize: int = 32768) -> Any:
        body = self._wrapper(filelike, blksize)
        if type(filelike) is PositionedFile and hasattr(body, "get"):
            body.get = _Sender(body, self._channel, filelike).get
        return body


class _Part:
    """Stands for bytes that nobody has read; whoever takes it for bytes gets an error."""

    def __init__(self, count: int) -> None:
        self.count = count


class _Sender:
    """Sends one file on one connection."""

    def __init__(self, body: Any, channel: Any, file: PositionedFile) -> None:
        # The body keeps this one.
        self._body = weakref.ref(body)
        self._channel = channel
        self._file = file
        self._part = _Part(0)
        self._share = _SHARE

    def get(self, numbytes: int = -1, skip: bool = False) -> bytes | _Part:
        """Return what `send` is given next, at most `numbytes`."""
        body: Any = self._body()
        if skip or numbytes < 0:
            return self._read(numbytes, skip)
        if self._share <= 0:
            # When nothing of it is taken, waitress looks after the others first.
            self._share = _SHARE
            return b""
        self._part = _Part(min(numbytes, body.remain, self._share))
        # For this one call: pipelined answers share the connection.
        self._channel.send = self._send
        return self._part

    def _read(self, numbytes: int, skip: bool = False) -> bytes:
        body: Any = self._body()
        data: bytes = type(body).get(body, numbytes, skip)
        return data

    def _send(self, data: Any, **options: Any) -> int:
        channel = self._channel
        del channel.send
        if data is not self._part:
            return int(channel.send(data, **options))
        try:
            sent = send_region(channel.socket.fileno(), self._file.fileno(), self._file.tell(), data.count)
        except OSError as error:
            # The client has left, or this file can only be read. waitress finds out, and knows what to do.
            if is_refusal(error):
                # From here on the body's own `get` reads.
                body: Any = self._body()
                del body.get
            sent = 0
        else:
            if sent is None:
                return 0
        if sent == 0:
            return int(channel.send(self._read(data.count), **options))
        self._share -= sent
        return sent
