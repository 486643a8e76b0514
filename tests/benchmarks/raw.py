"""The least that can send a file: one blocking `socket.sendfile` per request, one connection at a time.

`python -m tests.benchmarks.raw DIRECTORY`; it tells its port on standard output and knows `Range: bytes=A-B`.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from pathlib import Path

_REQUEST = re.compile(rb"(?is)GET /([\w.-]+) HTTP/1\.1\r\n(?:.*\r\nrange: bytes=(\d+)-(\d+)\r\n)?")


def _answer(connection: socket.socket, directory: Path, request: bytes) -> None:
    found = _REQUEST.match(request)
    if found is None:
        raise SystemExit(f"cannot read {request!r}")
    with Path(directory, found[1].decode()).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        start, last = (int(found[2]), int(found[3])) if found[2] else (0, size - 1)
        status = "206 Partial Content" if found[2] else "200 OK"
        connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: {last + 1 - start}\r\n\r\n".encode())
        connection.sendfile(file, start, last + 1 - start)


def main() -> None:
    """Serve until killed."""
    directory = Path(sys.argv[1])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        while True:
            connection, _ = listener.accept()
            with connection:
                try:
                    while request := connection.recv(4096):
                        _answer(connection, directory, request)
                except (BrokenPipeError, ConnectionResetError):
                    continue


if __name__ == "__main__":
    main()
