"""Open once, `fstat` the same descriptor, close exactly once; regular files only."""

from __future__ import annotations

import errno
import inspect
import io
import os
import stat as stat_module
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, BinaryIO, Final, TypeAlias

from zcresponse import loops
from zcresponse.errors import NotARegularFileError
from zcresponse.files import linux, places
from zcresponse.files.linux import Storage

__all__ = [
    "FileRegion",
    "FileSource",
    "OpenedFile",
    "check_source",
    "check_window",
    "close_in_thread",
    "open_file",
    "open_file_async",
]

#: What can be opened: a path, an open binary file, a descriptor, or what `open_file` has returned.
FileSource: TypeAlias = "str | bytes | os.PathLike[str] | os.PathLike[bytes] | BinaryIO | int | OpenedFile"

# O_NONBLOCK: without it, opening a FIFO waits for a writer. It changes nothing for a regular file once it is open.
# O_NOCTTY: opening a terminal must not make it ours.
READ_FLAGS: Final = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_CLOEXEC", 0)
)


class OpenedFile:
    """A regular file held by one descriptor, or a window of it.

    Reading it never moves the descriptor's position, so several responses may share a descriptor.

    Attributes:
        fd: the descriptor; -1 once closed.
        path: absolute path it was opened by, or None when it was given as a descriptor or file object.
        stat: `os.fstat` of the descriptor, taken when it was opened.
        offset: first byte of the window in the file.
        size: bytes in the window (of the whole file by default).
        windowed: whether `offset` or `count` was asked for.
        storage: what is known of the file system (internal).

    Closing is the holder's duty, by `close()` or `with`. When the file rides in a message its ownership rides along
    (`hand_over`): whoever delivers closes, and a message that is dropped on the way closes it by its finalizer.
    """

    __slots__ = ("_close", "_handed_over", "_keeps", "fd", "offset", "path", "size", "stat", "storage", "windowed")

    def __init__(
        self,
        fd: int,
        stat: os.stat_result,
        storage: Storage,
        *,
        path: str | None = None,
        offset: int = 0,
        count: int | None = None,
        close: Callable[[int], object] | None = os.close,
    ) -> None:
        self.fd = fd
        self.path = path
        self.stat = stat
        self.storage = storage
        self.offset = offset
        self.size = stat.st_size - offset if count is None else count
        self.windowed = offset != 0 or count is not None
        self._close = close
        self._handed_over = False
        self._keeps: object = None  # whose descriptor it is

    @property
    def mtime_ns(self) -> int:
        """When the content last changed: nanoseconds since the epoch."""
        return self.stat.st_mtime_ns

    @property
    def closed(self) -> bool:
        return self.fd < 0

    def fileno(self) -> int:
        """Return the descriptor.

        Raises:
            ValueError: the file is closed.
        """
        if self.fd < 0:
            raise ValueError("I/O operation on closed file")
        return self.fd

    def region(self, start: int = 0, stop: int | None = None) -> FileRegion:
        """Return bytes `[start, stop)` of the window as a region of the descriptor."""
        return FileRegion(self, self.offset + start, (self.size if stop is None else stop) - start)

    def hand_over(self) -> None:
        """Say that ownership now rides in a message: should the message be dropped, the finalizer closes quietly."""
        self._handed_over = True

    def close(self) -> None:
        """Close the descriptor, if it is ours to close. Further calls do nothing."""
        fd, self.fd = self.fd, -1
        close, self._close = self._close, None
        if fd >= 0 and close is not None:
            close(fd)

    def __enter__(self) -> OpenedFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # An instance whose __init__ did not finish has no fd.
        if getattr(self, "fd", -1) >= 0 and self._close is not None:
            if not self._handed_over:
                warnings.warn(f"unclosed file {self!r}", ResourceWarning, stacklevel=2, source=self)
            self.close()

    def __repr__(self) -> str:
        return f"<OpenedFile fd={self.fd} path={self.path!r} offset={self.offset} size={self.size}>"


@dataclass(frozen=True, slots=True)
class FileRegion:
    """`count` bytes at `offset` of an opened file; `offset` counts from the beginning of the file itself."""

    file: OpenedFile
    offset: int
    count: int

    def __len__(self) -> int:
        return self.count


def open_file(
    path_or_file: FileSource, *, offset: int = 0, count: int | None = None, closefd: bool = True
) -> OpenedFile:
    """Open a regular file, or adopt one that is already open, without reading it.

    Args:
        path_or_file: a path (`str`, `bytes` or `os.PathLike`), an open binary file that stands for a real one (its
            position is neither used nor moved; what it has buffered for writing is flushed), a descriptor, or an
            OpenedFile, whose window stays as it is.
        offset: first byte to send, from the beginning of the file.
        count: how many bytes to send; None: to the end of the file as it is now.
        closefd: for a file object or descriptor: whether the result owns it and closes it. On an error it is the
            caller's still.

    Raises:
        FileNotFoundError, PermissionError, OSError: as `os.open`.
        NotARegularFileError: a directory, FIFO, socket or device. A FIFO is refused without waiting for a writer.
        TypeError, ValueError: an argument that cannot be meant; it is named.
    """
    check_window(offset, count)
    if isinstance(path_or_file, OpenedFile):
        return _again(path_or_file, offset, count, closefd)
    if isinstance(path_or_file, str | bytes | os.PathLike):
        path = os.fspath(path_or_file)
        return _adopt(_open_path(path), path, offset, count, os.close)
    if isinstance(path_or_file, int) and not isinstance(path_or_file, bool):
        if path_or_file < 0:
            raise ValueError(f"path_or_file: {path_or_file} is not a descriptor")
        _check_readable(path_or_file)
        return _adopt(path_or_file, None, offset, count, os.close if closefd else None)
    file: Any = path_or_file
    fd = _descriptor_of(file)
    # The object is kept alive: were it collected, its descriptor would be closed under us.
    adopted = _adopt(fd, None, offset, count, (lambda _fd: file.close()) if closefd else None)
    adopted._keeps = file
    return adopted


async def open_file_async(
    path_or_file: FileSource, *, offset: int = 0, count: int | None = None, closefd: bool = True
) -> OpenedFile:
    """`open_file` that never lets the event loop wait: what is not cached, or not local, is opened in a thread."""
    if isinstance(path_or_file, str | bytes | os.PathLike):
        check_window(offset, count)
        path = os.fspath(path_or_file)
        fd = _open_cached(path)
        if fd >= 0:
            stat = os.fstat(fd)
            storage = places.local_storage(path, stat)
            if storage is not None:
                return _adopt(fd, path, offset, count, os.close, stat, storage)
            os.close(fd)
        job = places.threads_for(path).submit(_open_in_thread, path, offset, count)
        return await loops.result_of(job, discard=OpenedFile.close)
    if not isinstance(path_or_file, OpenedFile):
        fd = path_or_file if isinstance(path_or_file, int) else _descriptor_of(path_or_file)
        if fd >= 0 and not places.is_known(os.fstat(fd)):
            await loops.result_of(loops.submit_with(fd, _learn_storage))
    return open_file(path_or_file, offset=offset, count=count, closefd=closefd)


def check_source(path_or_file: object) -> None:
    """Tell what can never be opened, before it is tried.

    Raises:
        TypeError, ValueError: as `open_file`.
    """
    if not isinstance(path_or_file, str | bytes | os.PathLike | int | OpenedFile) or isinstance(path_or_file, bool):
        _descriptor_of(path_or_file)


def _learn_storage(fd: int) -> None:
    places.storage_behind(fd, os.fstat(fd))


def check_window(offset: int, count: int | None) -> None:
    """Tell a window that cannot be.

    Raises:
        TypeError, ValueError: naming the argument.
    """
    if type(offset) is int and offset == 0 and count is None:
        return
    for name, value in (("offset", offset), ("count", count)):
        if value is None and name == "count":
            continue
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name}: an int is needed, not {type(value).__name__}")
        if value < 0:
            raise ValueError(f"{name}: must not be negative, got {value}")


def _again(file: OpenedFile, offset: int, count: int | None, closefd: bool) -> OpenedFile:
    if offset != 0 or count is not None:
        raise ValueError("offset, count: the file has been opened with its window already")
    file.fileno()
    if closefd:
        return file
    window = (file.offset, file.size) if file.windowed else (0, None)
    borrowed = OpenedFile(
        file.fd, file.stat, file.storage, path=file.path, offset=window[0], count=window[1], close=None
    )
    borrowed._keeps = file
    return borrowed


def _adopt(
    fd: int,
    path: str | bytes | None,
    offset: int,
    count: int | None,
    close: Callable[[int], object] | None,
    stat: os.stat_result | None = None,
    storage: Storage | None = None,
) -> OpenedFile:
    """Make an OpenedFile of a descriptor, or leave nothing of ours open."""
    try:
        if stat is None:
            stat = os.fstat(fd)
        if not stat_module.S_ISREG(stat.st_mode):
            raise NotARegularFileError(errno.EINVAL, "not a regular file", path)
        if offset > stat.st_size:
            raise ValueError(f"offset: {offset} lies beyond the file's end at {stat.st_size}")
        if count is not None and offset + count > stat.st_size:
            raise ValueError(f"count: {offset} + {count} lies beyond the file's end at {stat.st_size}")
        if storage is None:
            storage = places.storage_behind(fd, stat)
    except BaseException:
        if path is not None:
            os.close(fd)
        raise
    absolute = None if path is None else _absolute(path)
    return OpenedFile(fd, stat, storage, path=absolute, offset=offset, count=count, close=close)


def _absolute(path: str | bytes) -> str:
    # Not normalized: without its "link/.." a path can be another file's.
    text = os.fsdecode(path)
    return text if os.path.isabs(text) else os.path.join(os.getcwd(), text)


def _open_path(path: str | bytes) -> int:
    try:
        return os.open(path, READ_FLAGS)
    except BlockingIOError:
        # Another process holds a lease on the file (fcntl(2), F_SETLEASE; Samba does): a non-blocking open does not
        # wait until it is given back. A regular file may be waited for; a FIFO may not.
        return _open_leased(path)
    except OSError as error:
        # ENXIO: a socket, or a device without a driver. EACCES and EISDIR for a directory: Windows, and some others.
        if error.errno == errno.ENXIO or os.path.isdir(path):
            raise NotARegularFileError(error.errno, "not a regular file", path) from error
        raise


def _open_leased(path: str | bytes) -> int:
    if not hasattr(os, "O_PATH"):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), path)
    handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat_module.S_ISREG(os.fstat(handle).st_mode):
            raise NotARegularFileError(errno.EINVAL, "not a regular file", path)
        return reopen(handle)
    finally:
        os.close(handle)


def reopen(handle: int) -> int:
    """Open the file behind an O_PATH descriptor for reading, and wait for a lease on it to be given back (Linux)."""
    return os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_CLOEXEC)


def _descriptor_of(file: Any) -> int:
    """Return the descriptor behind a binary file object that holds the very bytes which reading it would give."""
    # tempfile's wrappers keep the real file in `.file`; a SpooledTemporaryFile in `._file`, which is on disk once it
    # has rolled over, and so does an upload that is one.
    inner = getattr(file, "file", file)
    inner = getattr(inner, "_file", inner)
    raw = getattr(inner, "raw", inner)
    if inspect.iscoroutinefunction(getattr(file, "close", None)):
        raise TypeError(f"path_or_file: {type(file).__name__} is closed by a coroutine; give the plain file inside")
    # Not by fileno() alone: a GzipFile has the descriptor of the compressed bytes, a text file decodes.
    if not isinstance(raw, io.FileIO):
        raise TypeError(
            f"path_or_file: {type(file).__name__} does not stand for a file on disk; "
            "give a path, a descriptor or a file opened in binary mode"
        )
    if not raw.readable():
        raise ValueError("path_or_file: the file is not open for reading")
    if inner.writable():
        inner.flush()
    return raw.fileno()


def _check_readable(fd: int) -> None:
    if sys.platform == "win32":
        return
    import fcntl

    if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY:
        raise ValueError("path_or_file: the descriptor is not open for reading")


def _open_cached(path: str | bytes) -> int:
    """Open what needs no wait and return the descriptor, or -1."""
    if not places.may_open_at_once(path):
        return -1
    try:
        # A link may lead to a file system that waits, so it is left to a thread.
        return linux.openat2(os.fsencode(path), READ_FLAGS | os.O_NOFOLLOW, linux.RESOLVE_CACHED)
    except (OSError, NotImplementedError):
        # A thread finds out, by the plain call, what is the matter: not cached, or really not there.
        return -1


def _open_in_thread(path: str | bytes, offset: int, count: int | None) -> OpenedFile:
    file = open_file(path, offset=offset, count=count)
    places.learn_folder(path, file.storage)
    return close_in_thread(file)


def close_in_thread(file: OpenedFile) -> OpenedFile:
    """Let a thread close the file where that may wait: FUSE asks its daemon at each close."""
    if file.storage is Storage.UNKNOWN:
        file._close = partial(loops.REMOTE.submit, os.close)
    return file
