"""A file system that lets everybody wait: `python -m tests.support.slow_files MOUNTPOINT GATE`.

It holds one file, `slow.bin`. While a file exists at GATE, whoever opens, reads or closes it waits, as on a network
file system whose server does not answer. To mount it needs root or `fusermount3`.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import time
from pathlib import Path
from typing import Any

import mfusepy

__all__ = ["CONTENT", "NAME"]

NAME = "slow.bin"
CONTENT = bytes(i % 251 for i in range(1_000_000))


class SlowFiles(mfusepy.Operations):
    """The file system's calls, each in a thread of its own."""

    use_ns = True

    def __init__(self, gate: Path) -> None:
        self._gate = gate

    def _wait(self) -> None:
        while self._gate.exists():
            time.sleep(0.005)

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        if path == "/":
            return {"st_mode": stat.S_IFDIR | 0o755, "st_nlink": 2}
        if path != f"/{NAME}":
            raise mfusepy.FuseOSError(errno.ENOENT)
        return {"st_mode": stat.S_IFREG | 0o444, "st_nlink": 1, "st_size": len(CONTENT), "st_mtime": 10**18}

    def readdir(self, path: str, fh: int) -> list[str]:
        return [".", "..", NAME]

    def open(self, path: str, flags: int) -> int:
        self._wait()
        return 0

    def flush(self, path: str, fh: int) -> int:
        self._wait()
        return 0

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        self._wait()
        return CONTENT[offset : offset + size]


if __name__ == "__main__":
    mountpoint, gate = sys.argv[1:]
    # direct_io: the kernel keeps no pages, so every read comes here.
    mfusepy.FUSE(SlowFiles(Path(gate)), os.fspath(mountpoint), foreground=True, direct_io=True, max_threads=16)
