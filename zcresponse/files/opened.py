"""Open once, `fstat` the same descriptor, close exactly once; regular files only."""

from __future__ import annotations

import errno
import inspect
import os
import stat as stat_module
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, BinaryIO, Final, NoReturn, TypeAlias, cast

from zcresponse import loops
from zcresponse.errors import NotARegularFileError
from zcresponse.files import linux, places
from zcresponse.files.linux import Storage
from zcresponse.sendfile.sources import flush, real_file

__all__ = [
    "FileRegion",
    "FileSource",
    "OpenedFile",
    "check_source",
    "check_window",
    "close_in_thread",
    "open_and_learn",
    "open_at_once",
    "open_file",
    "open_file_async",
    "path_to",
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


#: Who writes to a file writes again within this time, in nanoseconds; file systems keep times to 2 s at the coarsest.
_SETTLED_NS: Final = 2_000_000_000


class OpenedFile:
    """A regular file held by one descriptor, or a window of it.

    Reading it never moves the descriptor's position, so several responses may share a descriptor.

    Attributes:
        fd: the descriptor; -1 once closed.
        path: absolute path it was opened by, or None when it was given as a descriptor or file object.
        stat: `os.fstat` of the descriptor, taken when it was opened; `st_atime` alone may be older.
        offset: first byte of the window in the file.
        size: bytes in the window (of the whole file by default).
        windowed: whether `offset` or `count` was asked for.
        storage: what is known of the file system (internal).
        lasting: whether it has a name, so that the next request for it finds the same file. What has none (a temporary
            file, one that was removed, a descriptor) may be made anew for each, and its time does not tell them apart:
            it has no ETag and no Last-Modified but those that are given. May be set by who knows better.
        exclusive: whether the descriptor was opened here for this file alone, so that its position is nobody else's.

    Closing is the holder's duty, by `close()` or `with`. When the file rides in a message its ownership rides along
    (`hand_over`): whoever delivers closes, and a message that is dropped on the way closes it by its finalizer.
    """

    # Of the class, not of each: there is one for every answer, and most are whole files opened by a path.
    fd = -1
    path: str | None = None
    offset = 0
    windowed = False
    lasting = True
    exclusive = False
    # Static: gevent's os.close is a function of Python's, which would take `self` too.
    _close: Callable[[int], object] | None = staticmethod(os.close)
    _handed_over = False

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
        exclusive: bool = False,
    ) -> None:
        self.fd = fd
        self.path = path
        self.stat = stat
        self.storage = storage
        if offset == 0 and count is None:
            self.size = stat.st_size
        else:
            self.offset = offset
            self.size = stat.st_size - offset if count is None else count
            self.windowed = True
        if close is not os.close:
            self._close = close
        if exclusive:
            self.exclusive = True

    @property
    def mtime_ns(self) -> int:
        """When the content last changed: nanoseconds since the epoch."""
        return self.stat.st_mtime_ns

    @property
    def closed(self) -> bool:
        return self.fd < 0

    def is_settled(self) -> bool:
        """Whether the file has the size that it was opened with, and nobody has written to it for 2 seconds."""
        stat = os.fstat(self.fileno())
        return stat.st_size == self.stat.st_size and time.time_ns() - stat.st_mtime_ns > _SETTLED_NS

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

    def close_by(self, close: Callable[[int], object]) -> None:
        """Let the descriptor, which is ours, be closed by `close(fd)`."""
        self._close = close

    def close_also(self, close: Callable[[], object]) -> None:
        """Call `close` when the file is closed: for what it was opened from."""
        own = self._close

        def both(fd: int) -> None:
            try:
                if own is not None:
                    own(fd)
            finally:
                close()

        self._close = both

    def close(self) -> None:
        """Close the descriptor, if it is ours to close. Further calls do nothing."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            close, self._close = self._close, None
            if close is not None:
                close(fd)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        # A copy would read, and close, what the number stands for by then.
        raise TypeError("cannot copy or pickle an open file")

    def __enter__(self) -> OpenedFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if self.fd >= 0 and self._close is not None:
            if not self._handed_over:
                warnings.warn(f"unclosed file {self!r}", ResourceWarning, stacklevel=2, source=self)
            self.close()

    def __repr__(self) -> str:
        return f"<OpenedFile fd={self.fd} path={self.path!r} offset={self.offset} size={self.size}>"


# Not frozen, though nobody changes one: making it would take three times as long.
@dataclass(slots=True)
class FileRegion:
    """`count` bytes at `offset` of an opened file; `offset` counts from the beginning of the file itself."""

    file: OpenedFile
    offset: int
    count: int

    def __len__(self) -> int:
        return self.count


#: What names a file. (A union would be built anew each time it is asked about.)
_PATHS: Final = (str, bytes, os.PathLike)

# A link may lead to a file system that waits, so it is left to a thread.
_FLAGS_AT_ONCE: Final = READ_FLAGS | getattr(os, "O_NOFOLLOW", 0)
_AT_ONCE: Final = linux.how_to_open(_FLAGS_AT_ONCE, linux.RESOLVE_CACHED)
#: Up to here, in bytes, a file takes no time to close.
_SMALL: Final = 64 * 1024
# What os.fsencode does, without asking for it each time.
_ENCODING: Final = sys.getfilesystemencoding()
_ERRORS: Final = sys.getfilesystemencodeerrors()


def open_file(
    path_or_file: FileSource, *, offset: int = 0, count: int | None = None, closefd: bool = True
) -> OpenedFile:
    """Open a regular file, or adopt one that is already open, without reading it.

    Args:
        path_or_file: a path (`str`, `bytes` or `os.PathLike`), an open binary file that stands for a real one (its
            position is neither used nor moved; what it has buffered for writing is flushed), a descriptor, or an
            OpenedFile, whose window stays as it is. A file object may be closed as soon as this has returned.
        offset: first byte to send, from the beginning of the file.
        count: how many bytes to send; None: to the end of the file as it is now.
        closefd: for a file object or descriptor: whether the result owns it and closes it. On an error it is the
            caller's still.

    Raises:
        FileNotFoundError, PermissionError, OSError: as `os.open`.
        NotARegularFileError: a directory, FIFO, socket or device. A FIFO is refused without waiting for a writer.
        TypeError, ValueError: an argument that cannot be meant; it is named.
    """
    if type(path_or_file) is str and type(offset) is int and offset == 0 and count is None:
        # Most files, and most of them again and again.
        return _open_again(path_or_file) or _open_first(path_or_file)
    check_window(offset, count)
    if isinstance(path_or_file, OpenedFile):
        return _again(path_or_file, offset, count, closefd)
    if isinstance(path_or_file, _PATHS):
        path = os.fspath(path_or_file)
        return _adopt(_open_path(path), path, offset, count)
    if isinstance(path_or_file, int) and not isinstance(path_or_file, bool):
        if path_or_file < 0:
            raise ValueError(f"path_or_file: {path_or_file} is not a descriptor")
        _check_readable(path_or_file)
        if closefd:
            return _take_over(path_or_file, offset, count)
        lent = _lent(_adopt(os.dup(path_or_file), None, offset, count))
        lent.lasting = False
        return lent
    file: Any = path_or_file
    # A descriptor of our own: a view may well close its file before it is sent, at the end of a `with`, and the number
    # is another file's by then.
    adopted = _adopt(os.dup(_descriptor_of(file)), None, offset, count)
    adopted.lasting = _has_name(adopted, file)
    if not closefd:
        return _lent(adopted)
    adopted.close_also(file.close)
    return adopted


async def open_file_async(
    path_or_file: FileSource, *, offset: int = 0, count: int | None = None, closefd: bool = True
) -> OpenedFile:
    """`open_file` that never lets the event loop wait: what is not cached, or not local, is opened in a thread."""
    # A union is built anew each time it is asked about.
    if type(path_or_file) is str or isinstance(path_or_file, str | bytes | os.PathLike):
        if offset != 0 or count is not None:
            check_window(offset, count)
        path = path_or_file if type(path_or_file) is str else os.fspath(path_or_file)
        file = open_at_once(path, offset, count)
        if file is not None:
            return file
        job = places.threads_for(path).submit(_open_in_thread, path, offset, count)
        return await loops.result_of(job, discard=OpenedFile.close)
    if not isinstance(path_or_file, OpenedFile):
        fd = path_or_file if isinstance(path_or_file, int) else _descriptor_of(path_or_file)
        if fd >= 0 and not places.is_known(os.fstat(fd)):
            await loops.result_of(loops.submit_with(fd, _learn_storage))
    return open_file(path_or_file, offset=offset, count=count, closefd=closefd)


def open_at_once(path: str | bytes, offset: int = 0, count: int | None = None) -> OpenedFile | None:
    """Open what takes no wait; None: a thread has to."""
    now = time.monotonic()
    seen = places.opened_before.get(path)
    if seen is not None and seen.until >= now:
        if not seen.at_once:
            return None
        name = seen.name
        if now < seen.sure_until:
            try:
                fd = os.open(name, _FLAGS_AT_ONCE)
            except OSError:
                return None
        else:
            fd = linux.open_prepared(name, _AT_ONCE)
            if fd < 0:
                # A thread finds out, by the plain call, what is the matter: not cached any more, or really not there.
                return None
            seen.sure_until = now + places.SURE_FOR_S
    else:
        seen = None
        if not places.may_open_at_once(path, now):
            return None
        try:
            name = path.encode(_ENCODING, _ERRORS) if isinstance(path, str) else path
            fd = linux.openat2(name, _FLAGS_AT_ONCE, linux.RESOLVE_CACHED)
        except (OSError, ValueError, NotImplementedError):
            return None
    stat = os.fstat(fd)
    if seen is not None and seen.device == stat.st_dev:
        storage = seen.storage
        absolute = seen.path
    else:
        known = places.local_storage(path, fd, stat, now)
        if known is None:
            os.close(fd)
            return None
        storage = known
        absolute = _absolute(path)
        places.remember_opened(path, name, absolute, stat.st_dev, storage, now)
    if offset == 0 and count is None and stat_module.S_ISREG(stat.st_mode):
        return OpenedFile(fd, stat, storage, path=absolute, exclusive=True)
    return _adopt(fd, path, offset, count, stat, storage)


def _open_again(path: str) -> OpenedFile | None:
    """Open what was opened before, without letting other threads have Python's lock meanwhile; None: it takes more."""
    seen = places.opened_before.get(path)
    if seen is None or not seen.at_once or seen.until < time.monotonic():
        return None
    fd = linux.open_held(seen.name, _AT_ONCE)
    if fd < 0:
        return None
    looks = linux.stat_held(fd)
    if looks is not None and seen.looks is not None and seen.looks[0] == looks:
        stat = seen.looks[1]
    else:
        stat = os.fstat(fd)
        if stat.st_dev != seen.device or not stat_module.S_ISREG(stat.st_mode):
            os.close(fd)
            return None
        seen.looks = looks, stat
    # To close a large one that was removed meanwhile takes its time.
    close = linux.close_held if stat.st_size <= _SMALL else os.close
    return OpenedFile(fd, stat, seen.storage, path=seen.path, close=close, exclusive=True)


def _open_first(path: str) -> OpenedFile:
    """Open by the plain call, and learn whether it takes less next time."""
    file = _adopt(_open_path(path), path, 0, None)
    now = time.monotonic()
    seen = places.opened_before.get(path)
    is_known = seen is not None and not seen.at_once and seen.until >= now
    if file.path is not None and file.storage is not Storage.UNKNOWN and linux.has_openat2() and not is_known:
        name = path.encode(_ENCODING, _ERRORS)
        fd = linux.open_held(name, _AT_ONCE)
        if fd >= 0:
            os.close(fd)
        places.remember_opened(path, name, file.path, file.stat.st_dev, file.storage, now, at_once=fd >= 0)
    return file


def check_source(path_or_file: object) -> None:
    """Tell what can never be opened, before it is tried.

    Raises:
        TypeError, ValueError: as `open_file`.
    """
    if not isinstance(path_or_file, str | bytes | os.PathLike | int | OpenedFile) or isinstance(path_or_file, bool):
        _descriptor_of(path_or_file)


def path_to(file: OpenedFile, given: object) -> str | None:
    """Return the name of the file object that `file` was opened from, if it is an absolute path that leads there.

    That of a temporary file, which goes with the object, leads nowhere by the time somebody opens it.
    """
    name = getattr(given, "name", None)
    if not isinstance(name, str) or not os.path.isabs(name) or not _has_name(file, given):
        return None
    return name if _leads_to(name, file) else None


def _has_name(file: OpenedFile, given: object) -> bool:
    """Whether the file object that `file` was opened from has a name, and the file one in some folder."""
    name = getattr(given, "name", None)
    if not isinstance(name, str | bytes) or isinstance(given, tempfile._TemporaryFileWrapper):
        return False
    # Some file systems do not count the names.
    return file.stat.st_nlink > 0 or _leads_to(name, file)


def _leads_to(name: str | bytes, file: OpenedFile) -> bool:
    try:
        return os.path.samestat(os.stat(name), file.stat)
    except (OSError, ValueError):
        return False


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
    if closefd:
        file.fileno()
        return file
    window = (file.offset, file.size) if file.windowed else (0, None)
    # Its owner may close it while it is sent.
    fd = os.dup(file.fileno())
    again = OpenedFile(fd, file.stat, file.storage, path=file.path, offset=window[0], count=window[1])
    again.lasting = file.lasting
    return _lent(again)


def _lent(file: OpenedFile) -> OpenedFile:
    """Let what is somebody else's to close be dropped in silence: the descriptor beneath it is only a duplicate."""
    file.hand_over()
    return file


def _take_over(fd: int, offset: int, count: int | None) -> OpenedFile:
    """Adopt a descriptor itself; on an error it is the caller's still."""
    # The checks are made on another, which they may close.
    checked = _adopt(os.dup(fd), None, offset, count)
    checked.close()
    taken = OpenedFile(fd, checked.stat, checked.storage, offset=offset, count=count)
    taken.lasting = False
    return taken


def _adopt(
    fd: int,
    path: str | bytes | None,
    offset: int,
    count: int | None,
    stat: os.stat_result | None = None,
    storage: Storage | None = None,
) -> OpenedFile:
    """Make an OpenedFile of a descriptor that is ours, or close it."""
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
        os.close(fd)
        raise
    absolute = None if path is None else _absolute(path)
    return OpenedFile(fd, stat, storage, path=absolute, offset=offset, count=count, exclusive=path is not None)


def _absolute(path: str | bytes) -> str:
    # Not normalized: without its "link/.." a path can be another file's.
    text = path if isinstance(path, str) else os.fsdecode(path)
    return text if text[:1] == "/" or os.path.isabs(text) else os.path.join(os.getcwd(), text)


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
    if inspect.iscoroutinefunction(getattr(file, "close", None)):
        raise TypeError(f"path_or_file: {type(file).__name__} is closed by a coroutine; give the plain file inside")
    real = real_file(file)
    if real is None:
        raise TypeError(
            f"path_or_file: {type(file).__name__} does not stand for a file on disk; "
            "give a path, a descriptor or a file opened in binary mode"
        )
    if not real.readable():
        raise ValueError("path_or_file: the file is not open for reading")
    flush(real)
    return cast("int", real.fileno())


def _check_readable(fd: int) -> None:
    if sys.platform == "win32":
        return
    import fcntl

    if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY:
        raise ValueError("path_or_file: the descriptor is not open for reading")


def open_and_learn(path: str | bytes, offset: int = 0, count: int | None = None) -> OpenedFile:
    """Open, and keep in mind what the folder is on, so that `open_at_once` can do it next time. For a thread."""
    file = open_file(path, offset=offset, count=count)
    places.learn_folder(path, file.storage)
    return file


def _open_in_thread(path: str | bytes, offset: int, count: int | None) -> OpenedFile:
    return close_in_thread(open_and_learn(path, offset, count))


def close_in_thread(file: OpenedFile) -> OpenedFile:
    """Let a thread close the file where that may wait: FUSE asks its daemon at each close."""
    if file.storage is Storage.UNKNOWN:
        file.close_by(partial(loops.REMOTE.submit, os.close))
    return file
