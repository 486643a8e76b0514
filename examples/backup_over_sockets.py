"""A backup of a file over a plain socket, its compressed twin straight from gzip, and a copy on this machine.

python examples/backup_over_sockets.py FILE COPY
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from pathlib import Path

from zcresponse.sendfile import copy_file, sendfile


def receive(sock: socket.socket, kept: bytearray) -> None:
    while data := sock.recv(65536):
        kept += data


def back_up(path: Path, copy: Path) -> tuple[bytes, bytes]:
    """Copy a file, and return it as it came over one socket and its gzip as it came over another."""
    arrived = []
    for compressed in (False, True):
        near, far = socket.socketpair()
        near.settimeout(30)
        kept = bytearray()
        receiver = threading.Thread(target=receive, args=(far, kept))
        receiver.start()
        with near:
            if compressed:
                with subprocess.Popen(["gzip", "-c", path], stdout=subprocess.PIPE) as gzip:
                    assert gzip.stdout is not None
                    sendfile(near, gzip.stdout)
            else:
                with path.open("rb") as file:
                    sendfile(near, file)
        receiver.join()
        far.close()
        arrived.append(bytes(kept))
    with path.open("rb") as source, copy.open("wb") as target:
        copy_file(source, target, on_progress=lambda copied: print(f"{copied} bytes copied"))
    return arrived[0], arrived[1]


if __name__ == "__main__":
    plain, compressed = back_up(Path(sys.argv[1]), Path(sys.argv[2]))
    print(f"{len(plain)} bytes sent, {len(compressed)} compressed")
