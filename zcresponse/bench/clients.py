"""Clients that cost as little as a client can.

On Linux the kernel throws bodies away: with MSG_TRUNC a TCP socket drops the bytes that it is asked for (tcp(7)).
"""

from __future__ import annotations

import os
import re
import selectors
import socket
import ssl
import sys
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["connect", "download", "drop", "load", "probe", "read_ranges", "repeat", "request"]

_TIMEOUT_S = 60.0
_HEAD = re.compile(rb"HTTP/1\.1 20[06] .*\r\ncontent-length: *(\d+)\r\n", re.DOTALL | re.IGNORECASE)
_DISCARD = socket.MSG_TRUNC if sys.platform == "linux" else 0
# Where the kernel discards it is never written to, so it takes no memory.
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
    # What is encrypted has to be read.
    flags = 0 if isinstance(connection, ssl.SSLSocket) else _DISCARD
    dropped = connection.recv_into(_nowhere, min(remaining, len(_nowhere)), flags)
    if not dropped:
        raise ConnectionError(f"closed, {remaining} bytes before the end")
    return dropped


def download(port: int, path: str, byte_range: str = "", *, tls: bool = False) -> tuple[int, float]:
    """Fetch a file, or a range of it, and return its bytes and the seconds from the request to the last byte."""
    with _encrypted(connect(port)) if tls else connect(port) as connection:
        began = time.perf_counter()
        request(connection, path, byte_range)
        length, remaining = _read_head(connection)
        while remaining:
            remaining -= _discard(connection, remaining)
        return length, time.perf_counter() - began


def _encrypted(connection: socket.socket) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Whom it speaks to is known: a server on this machine, started to be measured.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(connection)


def repeat(port: int, path: str, times: int) -> float:
    """Fetch a file again and again on one connection, and return the seconds that an answer took on average."""
    with connect(port) as connection:
        began = time.perf_counter()
        for _ in range(times):
            request(connection, path)
            _, remaining = _read_head(connection)
            while remaining:
                remaining -= _discard(connection, remaining)
        return (time.perf_counter() - began) / times


def load(port: int, file: Path, connections: int, until: float, *, cold: bool = False) -> int:
    """Download a file on several connections again and again, and return the bytes that came.

    Args:
        port: The server's.
        file: Its name is the path asked for.
        connections: How many.
        until: When to stop, by `time.monotonic`, which all processes of the machine share.
        cold: Drop the file from the page cache at the start and whenever the first connection starts anew.
    """

    def ask(connection: socket.socket, number: int, answered: int) -> None:
        if cold and number == 0:
            drop(file)
        request(connection, file.name)

    return _keep_asking(port, connections, until, ask)


def read_ranges(port: int, path: str, size: int, connections: int, count: int, until: float) -> int:
    """Read a file as consumers of a log do: each connection asks for one range after the other from a place of its own.

    Args:
        port, path: The server's and the file's.
        size: The file's, in bytes. Whoever comes to its end goes on at its beginning.
        connections: How many; their places are spread over the file.
        count: Bytes of each range, at most `size`.
        until: When to stop, by `time.monotonic`.

    Returns:
        The bytes that came.
    """
    ranges = size // count

    def ask(connection: socket.socket, number: int, answered: int) -> None:
        start = (number * ranges // connections + answered) % ranges * count
        request(connection, path, f"{start}-{start + count - 1}")

    return _keep_asking(port, connections, until, ask)


def _keep_asking(port: int, connections: int, until: float, ask: Callable[[socket.socket, int, int], None]) -> int:
    """Have `ask` make a request on each connection, with its number and how many it had, whenever one is answered."""
    total = 0
    with selectors.DefaultSelector() as selector:
        opened: list[socket.socket] = []
        try:
            for _ in range(connections):
                opened.append(connect(port))
            remaining = [0] * connections
            answered = [0] * connections
            for number, connection in enumerate(opened):
                selector.register(connection, selectors.EVENT_READ, number)
                ask(connection, number, 0)
            while time.monotonic() < until:
                for key, _ in selector.select(0.1):
                    number = key.data
                    connection = opened[number]
                    if remaining[number]:
                        dropped = _discard(connection, remaining[number])
                        remaining[number] -= dropped
                    else:
                        length, remaining[number] = _read_head(connection)
                        dropped = length - remaining[number]
                    total += dropped
                    if not remaining[number]:
                        answered[number] += 1
                        ask(connection, number, answered[number])
        finally:
            for connection in opened:
                connection.close()
    return total


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
