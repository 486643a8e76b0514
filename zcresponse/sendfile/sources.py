"""What bytes can come from and go to, and how to tell whether its descriptor has the very bytes that reading gives."""

from __future__ import annotations

import io
import tempfile
from typing import Any, Final, Protocol, TypeAlias

__all__ = [
    "BLOCK",
    "PLAIN",
    "Destination",
    "Source",
    "check_binary",
    "check_numbers",
    "flush",
    "is_seekable",
    "plain_file",
    "real_file",
    "with_method",
]

#: What is read at once where the kernel does not move the bytes: it stays in the processor's cache until it is sent.
BLOCK: Final = 256 * 1024


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
    if count is not None and not isinstance(count, int):
        raise TypeError(f"count must be a positive integer (got {count!r})")
    if count is not None and count <= 0:
        raise ValueError(f"count must be a positive integer (got {count!r})")


def check_binary(file: object) -> None:
    mode = getattr(file, "mode", "b")
    # A GzipFile's mode was a number before Python 3.13.
    if isinstance(file, io.TextIOBase) or (isinstance(mode, str) and "b" not in mode):
        raise ValueError("file should be opened in binary mode")


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
