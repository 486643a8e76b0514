"""The least that can send a file: a blocking socket, one connection at a time, and a loop of one's own choice.

`python -m zcresponse.bench.raw WAY DIRECTORY`; it tells its port on standard output and knows `Range: bytes=A-B`.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final

from zcresponse.errors import FileTruncatedError
from zcresponse.sendfile import sendfile

__all__ = ["WAYS", "main", "send"]

_REQUEST = re.compile(rb"(?is)GET /([\w.-]+) HTTP/1\.1\r\n(?:.*\r\nrange: bytes=(\d+)-(\d+)\r\n)?")


def _in_blocks(size: int) -> Callable[[socket.socket, BinaryIO, int, int], None]:
    def send_blocks(sock: socket.socket, file: BinaryIO, offset: int, count: int) -> None:
        file.seek(offset)
        while count and (data := file.read(min(size, count))):
            sock.sendall(data)
            count -= len(data)

    return send_blocks


def _copyfileobj(sock: socket.socket, file: BinaryIO, offset: int, count: int) -> None:
    # It knows no end but the file's.
    file.seek(offset)
    with sock.makefile("wb") as stream:
        shutil.copyfileobj(file, stream)


def _sendfile(sock: socket.socket, file: BinaryIO, offset: int, count: int) -> None:
    sendfile(sock, file, offset, count)


def _socket_sendfile(sock: socket.socket, file: BinaryIO, offset: int, count: int) -> None:
    sock.sendfile(file, offset, count)


#: By name, what sends `count` bytes of a file from `offset` on.
WAYS: Final[dict[str, Callable[[socket.socket, BinaryIO, int, int], None]]] = {
    "read-8KiB": _in_blocks(8 * 1024),
    "read-64KiB": _in_blocks(64 * 1024),
    "read-1MiB": _in_blocks(1024 * 1024),
    "copyfileobj": _copyfileobj,
    "socket.sendfile": _socket_sendfile,
    "sendfile": _sendfile,
}


def send(way: str, connection: socket.socket, directory: Path, request: bytes) -> None:
    """Answer one request.

    Raises:
        ValueError: The request is none that this module's clients make.
        FileTruncatedError: The file has become shorter; the connection has to be closed.
        OSError: What the file or the connection said.
    """
    found = _REQUEST.match(request)
    if found is None:
        raise ValueError(f"cannot read {request!r}")
    # Unbuffered, so that a block is what is read at once.
    with Path(directory, found[1].decode()).open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        start, last = (int(found[2]), int(found[3])) if found[2] else (0, size - 1)
        status = "206 Partial Content" if found[2] else "200 OK"
        count = last + 1 - start
        connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: {count}\r\n\r\n".encode())
        if count:
            WAYS[way](connection, file, start, count)
        if (short := start + count - os.fstat(file.fileno()).st_size) > 0:
            raise FileTruncatedError(f"{file.name} ended {short} bytes before the promised end")


def main() -> None:
    """Serve until killed."""
    way, directory = sys.argv[1], Path(sys.argv[2])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                try:
                    while request := connection.recv(4096):
                        send(way, connection, directory, request)
                except (BrokenPipeError, ConnectionResetError, FileTruncatedError):
                    continue


if __name__ == "__main__":
    main()
