"""What bytes can come from and go to, and how to tell whether its descriptor has the very bytes that reading gives."""

from __future__ import annotations

import io
import os
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol, TypeAlias, TypeVar

__all__ = [
    "BLOCK",
    "PLAIN",
    "Destination",
    "Source",
    "accounted",
    "check_binary",
    "check_numbers",
    "check_stream",
    "flush",
    "is_seekable",
    "is_socket",
    "plain_file",
    "real_file",
    "with_method",
]

T = TypeVar("T")

#: What is read at once where the kernel does not move the bytes: it stays in the processor's cache until it is sent.
BLOCK: Final = 256 * 1024


#: The last position that a file can have (off_t).
_LAST: Final = 2**63 - 1


class HasFileno(Protocol):
    """What stands for a descriptor."""

    def fileno(self) -> int: ...


class Readable(Protocol):
    """What bytes can be read from."""

    def read(self, size: int, /) -> bytes: ...


class Writable(Protocol):
    """What bytes can be written to."""

    def write(self, data: memoryview, /) -> int | None: ...


#: A descriptor, a binary file object, or an object that has a descriptor and nothing else.
Source: TypeAlias = int | HasFileno | Readable
Destination: TypeAlias = int | HasFileno | Writable

#: The file objects whose bytes are those of their descriptor.
PLAIN: Final = (io.FileIO, io.BufferedReader, io.BufferedWriter, io.BufferedRandom)


def plain_file(file: object, *, writing: bool = False) -> Any:
    """Return the standard library's own file object behind `file`, or None if only `file` itself knows its bytes.

    A descriptor, and an object that has one and can neither be read nor written, gets a file object that does not close
    it.

    Args:
        writing: whether it is to be written to, rather than read from.
    """
    mode = "wb" if writing else "rb"
    if isinstance(file, int):
        return io.FileIO(file, mode, closefd=False)
    real = real_file(file)
    if real is None and hasattr(file, "fileno") and not hasattr(file, "read") and not hasattr(file, "write"):
        return io.FileIO(file.fileno(), mode, closefd=False)
    return real


def real_file(file: object) -> Any:
    """Return the standard library's own file object that a file object is or wraps, or None."""
    # tempfile's wrappers keep the real file in `.file`; a SpooledTemporaryFile in `._file`, which is on disk once it
    # has rolled over. Another's `.file` may well hold what its own `read` decodes.
    if isinstance(file, tempfile._TemporaryFileWrapper):
        file = file.file
    elif isinstance(file, tempfile.SpooledTemporaryFile):
        file = file._file
    # By the exact types: a GzipFile has the descriptor of the compressed bytes, a text file decodes, and a class of
    # somebody's own may do either.
    return file if type(file) in PLAIN and type(getattr(file, "raw", file)) is io.FileIO else None


def check_numbers(offset: int, count: int | None) -> None:
    if not isinstance(offset, int):
        raise TypeError(f"offset must be a non-negative integer (got {offset!r})")
    if offset < 0:
        raise ValueError(f"offset must be a non-negative integer (got {offset!r})")
    if offset > _LAST:
        raise OverflowError(f"offset must be a position in a file (got {offset!r})")
    if count is not None and not isinstance(count, int):
        raise TypeError(f"count must be a positive integer (got {count!r})")
    if count is not None and count <= 0:
        raise ValueError(f"count must be a positive integer (got {count!r})")


def check_binary(file: object) -> None:
    """Refuse a text file, as the standard library does.

    Raises:
        ValueError: It is one.
    """
    text = isinstance(file, io.TextIOBase)
    mode = getattr(file, "mode", "b")
    if not text and isinstance(mode, str) and "b" not in mode:
        # A mode alone does not tell: that of a file in a zip archive was "r" before Python 3.13. Who wraps a text file
        # has its mode too, and reads text.
        try:
            text = not isinstance(getattr(file, "read", bytes)(0), bytes)
        except (OSError, ValueError):
            text = True
    if text:
        raise ValueError("file should be opened in binary mode")


def is_socket(file: object) -> bool:
    """Whether it is a socket, or one of gevent's and the like, which are no `socket.socket`."""
    return isinstance(file, socket.socket) or (hasattr(file, "recv_into") and hasattr(file, "send"))


def check_stream(file: Any) -> None:
    """Refuse a socket that keeps messages apart, also one behind a descriptor.

    Raises:
        ValueError: It is one.
    """
    if is_socket(file):
        kind = getattr(file, "type", socket.SOCK_STREAM)
    elif isinstance(file, PLAIN) and stat.S_ISSOCK(os.fstat(file.fileno()).st_mode):
        blocking = os.get_blocking(file.fileno())
        with socket.socket(fileno=os.dup(file.fileno())) as behind:
            kind = behind.type
            # `socket.setdefaulttimeout` has made it one that does not block, and with it the caller's.
            os.set_blocking(file.fileno(), blocking)
    else:
        return
    if not kind & socket.SOCK_STREAM:
        raise ValueError("only SOCK_STREAM type sockets are supported")


def accounted(call: Callable[..., T], *args: Any) -> Iterator[T]:
    """Make a call whose result no signal can hide: `for moved in accounted(os.sendfile, ...): sent += moved`.

    A signal's handler that raises, as Ctrl-C's does, runs where a call returns, before its result is stored: bytes
    would be on their way of which nobody knows. Between the steps of a `for` over what is written in C none runs.
    """
    return map(call, *((argument,) for argument in args))


def with_method(file: object, method: str) -> Any:
    if not hasattr(file, method):
        raise TypeError(f"a descriptor or a binary file is needed, not {type(file).__name__}")
    return file


def flush(file: Any) -> None:
    if hasattr(file, "flush") and file.writable():
        file.flush()


def is_seekable(file: Any) -> bool:
    if hasattr(file, "seekable"):
        return bool(file.seekable())
    return hasattr(file, "seek")
