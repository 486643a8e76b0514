"""One sendfile(2) for an event loop, and what its errors mean."""

from __future__ import annotations

import errno
import os
import sys
from typing import Final

__all__ = ["AVAILABLE", "CLIENT_GONE", "MAX_COUNT", "is_refusal", "send_region"]

#: Whether this platform can send a file to a non-blocking socket in the kernel.
AVAILABLE: Final = hasattr(os, "sendfile") and sys.platform != "win32"

#: The peer, the network or the socket is gone: the ordinary end of many downloads, not a fault.
CLIENT_GONE: Final = frozenset(
    getattr(errno, name)
    for name in (
        "EPIPE ECONNRESET ECONNABORTED ENOTCONN ESHUTDOWN ETIMEDOUT EHOSTUNREACH ENETUNREACH ENETDOWN EHOSTDOWN"
    ).split()
    if hasattr(errno, name)
)

#: One call moves at most 2,147,479,552 bytes on Linux, whatever it is asked for.
MAX_COUNT: Final = 0x7FFFF000


def is_refusal(error: OSError) -> bool:
    """Whether an error of a call that moves bytes in the kernel may only mean that they have to be read and written.

    True of all but those of `CLIENT_GONE` and a call to be made again. sendfile(2) has errors for files and sockets
    that it cannot take, and a sandbox answers with whatever it was told to (EPERM, EACCES). If the file or the
    socket is really at fault, reading or writing says so.
    """
    return not isinstance(error, BlockingIOError | InterruptedError) and error.errno not in CLIENT_GONE


def send_region(socket_fd: int, file_fd: int, offset: int, count: int) -> int | None:
    """Let the kernel copy up to `count` bytes at `offset` of a file to a non-blocking socket.

    The file's own position is neither used nor moved.

    Returns:
        How many bytes the socket took (0: the file ends at `offset`), or None when it takes none just now.

    Raises:
        OSError: see `is_refusal`.
    """
    if not count:
        # To macOS it would be all that there is.
        return 0
    try:
        return os.sendfile(socket_fd, file_fd, offset, min(count, MAX_COUNT))
    except BlockingIOError:
        return None
