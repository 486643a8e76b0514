"""Clients that cost as little as a client can; each function runs in a process of its own.

Bodies are thrown away by the kernel: with MSG_TRUNC a TCP socket drops the bytes that it is asked for (tcp(7)).
"""

from __future__ import annotations

import os
import re
import selectors
import socket
import time
from pathlib import Path

__all__ = ["connect", "download", "load", "probe", "request"]

_TIMEOUT_S = 60.0
_HEAD = re.compile(rb"HTTP/1\.1 20[06] .*\r\ncontent-length: *(\d+)\r\n", re.DOTALL | re.IGNORECASE)
# Never written to, so it takes no memory.
_nowhere = bytearray(4 * 1024 * 1024)


def connect(port: int) -> socket.socket:
    """Connect to a server of this machine."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def request(connection: socket.socket, path: str, byte_range: str = "") -> None:
    """Send a GET."""
    field = f"Range: bytes={byte_range}\r\n" if byte_range else ""
    connection.sendall(f"GET /{path} HTTP/1.1\r\nHost: localhost\r\n{field}\r\n".encode())


def _read_head(connection: socket.socket) -> tuple[int, int]:
    """Read the head of an answer and return its Content-Length and how much of the body is still to come."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(16 * 1024)
        if not more:
            raise ConnectionError(f"closed after {data!r}")
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    found = _HEAD.match(head + b"\r\n")
    if found is None:
        raise ConnectionError(f"answered {head!r}")
    return int(found[1]), int(found[1]) - len(body)


def _discard(connection: socket.socket, remaining: int) -> int:
    """Throw away what is there, at most `remaining` bytes, and return how much that was."""
    dropped = connection.recv_into(_nowhere, min(remaining, len(_nowhere)), socket.MSG_TRUNC)
    if not dropped:
        raise ConnectionError(f"closed, {remaining} bytes before the end")
    return dropped


def download(port: int, path: str, byte_range: str = "") -> tuple[int, float]:
    """Fetch a file, or a range of it, and return its bytes and the seconds from the request to the last byte."""
    with connect(port) as connection:
        began = time.perf_counter()
        request(connection, path, byte_range)
        length, remaining = _read_head(connection)
        while remaining:
            remaining -= _discard(connection, remaining)
        return length, time.perf_counter() - began


def load(port: int, file: Path, connections: int, until: float, *, cold: bool) -> int:
    """Download a file on several connections again and again, and return the bytes that came.

    Args:
        port: The server's.
        file: Its name is the path asked for.
        connections: How many.
        until: When to stop, by `time.monotonic`, which all processes of the machine share.
        cold: Drop the file from the page cache at the start and whenever the first connection starts anew.
    """
    total = 0
    with selectors.DefaultSelector() as selector:
        remaining: dict[socket.socket, int] = {}
        for _ in range(connections):
            connection = connect(port)
            remaining[connection] = 0
            selector.register(connection, selectors.EVENT_READ)
        first = next(iter(remaining))
        try:
            for connection in remaining:
                _start(connection, file, cold=cold and connection is first)
            while time.monotonic() < until:
                for key, _ in selector.select(0.1):
                    assert isinstance(key.fileobj, socket.socket)
                    connection = key.fileobj
                    if remaining[connection]:
                        dropped = _discard(connection, remaining[connection])
                        remaining[connection] -= dropped
                        total += dropped
                        if not remaining[connection]:
                            _start(connection, file, cold=cold and connection is first)
                    else:
                        length, remaining[connection] = _read_head(connection)
                        total += length - remaining[connection]
        finally:
            for connection in remaining:
                connection.close()
    return total


def _start(connection: socket.socket, file: Path, *, cold: bool) -> None:
    if cold:
        drop(file)
    request(connection, file.name)


def drop(file: Path) -> None:
    """Let the page cache forget a file."""
    fd = os.open(file, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def probe(port: int, path: str, start: float, until: float, pause_s: float = 0.001) -> list[float]:
    """Fetch a small file on one connection, with pauses, and return how many seconds each answer took.

    Args:
        port, path: The server's and the file's.
        start, until: When to begin and to stop, by `time.monotonic`.
        pause_s: Seconds between an answer and the next request.
    """
    times = []
    with connect(port) as connection:
        time.sleep(max(0.0, start - time.monotonic()))
        while time.monotonic() < until:
            began = time.perf_counter()
            request(connection, path)
            _, remaining = _read_head(connection)
            while remaining:
                remaining -= _discard(connection, remaining)
            times.append(time.perf_counter() - began)
            time.sleep(pause_s)
    return times
