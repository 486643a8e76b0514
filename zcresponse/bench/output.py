"""Where reports and plots go: into a file, whole or not at all, or into whatever else a path names."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import sys
from pathlib import Path
from typing import TextIO

__all__ = ["check_writable", "is_same", "standard_stream", "write_whole"]


def check_writable(path: Path) -> None:
    """Tell what surely cannot be written, without writing anything.

    Raises:
        OSError: As `write_whole` would, as far as can be known before.
    """
    mode = _mode(path)
    if mode is not None and stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "a directory, not a file", str(path))
    if mode is not None and stat.S_ISSOCK(mode):
        raise OSError(errno.ENXIO, "a socket, not a file", str(path))
    if mode is not None and not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    if mode is not None and not stat.S_ISREG(mode):
        return
    # The new file is made beside the one that it replaces.
    directory = _resolved(path).parent
    if not directory.is_dir():
        raise FileNotFoundError(errno.ENOENT, "no such directory", str(path))
    if not os.access(directory, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, f"no file can be made in {directory}", str(path))


def write_whole(path: Path, data: bytes) -> None:
    """Write a file; whoever reads has the one before, or this.

    A symbolic link stays, and what it leads to is replaced. What is no regular file, such as a FIFO or a terminal, is
    opened and written to; so are standard output and error, whatever name they are given.

    Raises:
        OSError: It cannot be written. A file that was there is as before.
    """
    mode = _mode(path)
    if stream := standard_stream(path):
        stream.flush()
        stream.buffer.write(data)
        stream.flush()
    elif mode is not None and not stat.S_ISREG(mode):
        with path.open("wb") as target:
            target.write(data)
    else:
        _replace(_resolved(path), data, mode)


def _replace(path: Path, data: bytes, mode: int | None) -> None:
    temporary = path.with_name(f".zcresponse-{secrets.token_hex(8)}.tmp")
    # In the way of whoever makes files: with the permissions that the process's umask leaves.
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        with open(fd, "wb") as target:
            target.write(data)
        if mode is not None:
            temporary.chmod(stat.S_IMODE(mode))
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def is_same(first: Path, second: Path) -> bool:
    """Whether two paths lead to one regular file, be it there already or not."""
    modes = _mode(first), _mode(second)
    if None not in modes:
        return all(stat.S_ISREG(mode or 0) for mode in modes) and os.path.samefile(first, second)
    return modes == (None, None) and _resolved(first) == _resolved(second)


def _mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None


def _resolved(path: Path) -> Path:
    return Path(os.path.realpath(path))


def standard_stream(path: Path) -> TextIO | None:
    """The stream of this process that a path leads to: /dev/stdout, or the file that a shell was told to put it in."""
    for stream in sys.stdout, sys.stderr:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if os.path.samestat(path.stat(), os.fstat(stream.fileno())):
                return stream
    return None
