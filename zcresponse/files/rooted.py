"""A URL path beneath a directory and nothing else.

Whatever a client writes into a path (`..`, separators in disguise, NUL, drives, names without end) and whatever lies in
the tree (links that leave it or go round in circles, FIFOs, devices) comes out as FileNotFoundError. What is left are
the deployer's matters: PermissionError, and the errors of a machine that has run out of descriptors or memory.

On Linux `openat2` with RESOLVE_BENEATH lets the kernel keep the promise. Elsewhere, and for links that need a closer
look, the path is walked name by name, each opened relative to the one before and never through a link, so that a folder
that is swapped for a link in the meantime is not followed either. Where there is no opening relative to a directory
(Windows), paths are compared before and after opening.
"""

from __future__ import annotations

import errno
import os
import stat as stat_module
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Literal, NamedTuple, TypeAlias

from zcresponse import loops
from zcresponse.files import linux, opened, places
from zcresponse.files.linux import Storage
from zcresponse.files.opened import OpenedFile
from zcresponse.files.urlpaths import is_reachable, not_there, split_path

__all__ = [
    "NOT_THERE",
    "DirectoryEntry",
    "FollowSymlinks",
    "Found",
    "Lookup",
    "OpenedDirectory",
    "Root",
    "check_directory",
]

#: The answers of a kernel or file system to a path that leads to nothing which may be served. FreeBSD says EMLINK and
#: NetBSD EFTYPE where others say ELOOP; EINVAL and EILSEQ come from file systems that cannot hold such a name; ENXIO,
#: ENODEV and EOPNOTSUPP from sockets and devices; EXDEV from RESOLVE_BENEATH.
NOT_THERE: Final = frozenset(
    getattr(errno, name)
    for name in "ENOENT ENOTDIR ELOOP ENAMETOOLONG EXDEV EMLINK EFTYPE EINVAL EILSEQ ENXIO ENODEV EOPNOTSUPP".split()
    if hasattr(errno, name)
)
#: Those of them that hold for good when they come from the kernel's name cache.
_SURELY_NOT_THERE: Final = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG))

_O_PATH: Final = getattr(os, "O_PATH", 0)
# Where there is O_PATH, a folder on the way needs the right to pass through it, not the right to list it.
_FOLDER: Final = _O_PATH | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
_NO_LINK: Final = getattr(os, "O_NOFOLLOW", 0)
_LISTING: Final = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)

_CAN_WALK: Final = os.open in os.supports_dir_fd and bool(_NO_LINK)

#: How many links may follow one another, as in Linux (path_resolution(7)).
_MOST_LINKS: Final = 40
#: How often a lookup is tried again that met a rename.
_TRIES: Final = 16

#: Opens something relative to a folder that is held, with the flags given.
_Opener: TypeAlias = Callable[[int], int]


@dataclass(frozen=True, slots=True)
class DirectoryEntry:
    """One thing in a directory that can be asked for.

    Attributes:
        name: its name, bytes that are not UTF-8 as `os.fsdecode` writes them.
        is_directory: a directory, or a link to one that may be followed; everything else is a regular file.
        size: bytes of a file; of a directory, what the file system says.
        mtime_ns: when the content last changed, nanoseconds since the epoch.
    """

    name: str
    is_directory: bool
    size: int
    mtime_ns: int


class OpenedDirectory:
    """A directory held by one descriptor.

    Attributes:
        fd: the descriptor; -1 once closed, and where the system opens no directories (Windows).
        path: absolute path it was looked up by.
        stat: its `os.fstat`, taken when it was opened.

    Closing is the holder's duty, by `close()` or `with`. When a job in a thread takes it over (`hand_over`), a job that
    is dropped closes it by its finalizer.
    """

    __slots__ = ("_closed", "_handed_over", "_names", "_root", "fd", "path", "stat")

    def __init__(self, fd: int, stat: os.stat_result, path: str, *, root: Root, names: Sequence[str]) -> None:
        self.fd = fd
        self.path = path
        self.stat = stat
        self._root = root
        self._names = names
        self._closed = False
        self._handed_over = False

    @property
    def closed(self) -> bool:
        return self._closed

    def hand_over(self) -> None:
        """Say that somebody else closes it now: should they be dropped, the finalizer closes quietly."""
        self._handed_over = True

    def entries(self) -> Iterator[DirectoryEntry]:
        """Go through what can be asked for, in no order.

        Links are left out, or followed as far as the root allows; so are FIFOs, sockets, devices, and what cannot be
        looked at or has vanished. It may wait for the disk: call it from a thread.

        Raises:
            PermissionError: the directory may be passed through but not listed.
            ValueError: the directory is closed.
        """
        if self._closed:
            raise ValueError("I/O operation on closed directory")
        if self.fd < 0:
            yield from self._read(self.path)
            return
        # A descriptor of its own, because the position in a directory belongs to the open descriptor.
        own = os.open(".", _LISTING, dir_fd=self.fd)
        try:
            yield from self._read(own)
        finally:
            os.close(own)

    def _read(self, place: int | str) -> Iterator[DirectoryEntry]:
        with os.scandir(place) as found:
            for candidate in found:
                name = os.fsdecode(candidate.name)
                if not is_reachable(name):
                    continue
                try:
                    stat = candidate.stat(follow_symlinks=False)
                    if stat_module.S_ISLNK(stat.st_mode):
                        if not self._root.follow_symlinks:
                            continue
                        with self._root.lookup("/".join((*self._names, name))) as behind:
                            stat = behind.stat
                except OSError:
                    continue
                is_directory = stat_module.S_ISDIR(stat.st_mode)
                if is_directory or stat_module.S_ISREG(stat.st_mode):
                    yield DirectoryEntry(name, is_directory, stat.st_size, stat.st_mtime_ns)

    def close(self) -> None:
        """Close the descriptor. Further calls do nothing."""
        self._closed = True
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> OpenedDirectory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "fd", -1) >= 0:
            if not self._handed_over:
                warnings.warn(f"unclosed directory {self!r}", ResourceWarning, stacklevel=2, source=self)
            self.close()

    def __repr__(self) -> str:
        return f"<OpenedDirectory fd={self.fd} path={self.path!r}>"


#: Which links are followed, see `Root`.
FollowSymlinks: TypeAlias = bool | Literal["anywhere"]

#: What a URL path may lead to.
Found: TypeAlias = "OpenedFile | OpenedDirectory"


class Lookup(NamedTuple):
    """A URL path to be looked up beneath a root, by whoever knows how to wait for a disk here."""

    root: Root
    url_path: str


class Root:
    """A directory and the promise that lookups stay beneath it.

    The directory itself is looked up each time, through links too: a deployment may rename a new tree into its place.

    Args:
        directory: a path; a relative one is taken from the current directory now, once.
        follow_symlinks: follow links beneath the root as long as they stay inside; with `"anywhere"` wherever they
            lead, which breaks the promise for whoever may make links there. By default none is followed.

    Raises:
        ValueError: `follow_symlinks` is something else.
    """

    __slots__ = ("_prefix", "_raw", "_resolve", "directory", "follow_symlinks")

    def __init__(self, directory: str | os.PathLike[str], *, follow_symlinks: FollowSymlinks = False) -> None:
        if follow_symlinks not in (True, False, "anywhere"):
            raise ValueError(f"follow_symlinks: {follow_symlinks!r} is neither a bool nor 'anywhere'")
        path = os.fspath(directory)
        # Not normalised: what `link/..` means is the kernel's to say.
        self.directory = path if os.path.isabs(path) else os.path.join(os.getcwd(), path)
        self.follow_symlinks = follow_symlinks
        self._prefix = os.path.join(self.directory, "")
        self._raw = os.fsencode(self.directory)
        self._resolve = linux.RESOLVE_BENEATH | linux.RESOLVE_NO_MAGICLINKS
        if not follow_symlinks:
            self._resolve |= linux.RESOLVE_NO_SYMLINKS

    def lookup(self, url_path: str) -> Found:
        """Open what a URL path means beneath the root: a regular file or a directory. May wait for the disk.

        Args:
            url_path: see `split_path`. A path that ends in a slash never means a file; one that does not may mean a
                directory.

        Raises:
            FileNotFoundError: nothing that may be served lies there; whatever the reason.
            PermissionError: something lies there that this process may not open, or lies behind such a directory.
            OSError: the machine's trouble: no descriptors or memory left, a failing disk.
        """
        names, asks_for_folder = split_path(url_path)
        try:
            if not _CAN_WALK:
                return self._lookup_by_name(url_path, names, asks_for_folder)
            return self._adopt(self._open(names), self._path_of(names), names, asks_for_folder)
        except OSError as error:
            if error.errno in NOT_THERE:
                raise not_there(url_path) from error
            raise

    async def lookup_async(self, url_path: str) -> Found:
        """`lookup` that never lets the event loop wait: what is not cached, or not local, is opened in a thread."""
        found = self.lookup_at_once(url_path)
        if found is not None:
            return found
        threads = loops.REMOTE if self.is_remote(url_path) else loops.LOCAL
        return await loops.result_of(threads.submit(self._lookup_in_thread, url_path), discard=_close)

    def is_remote(self, url_path: str) -> bool:
        """Whether looking a path up may wait for a file system that never answers."""
        return places.is_remote(self._path_of(split_path(url_path)[0]))

    # --- with a descriptor of the root -----------------------------------------------------------------------------

    def _open(self, names: Sequence[str]) -> int:
        if self.follow_symlinks == "anywhere":
            path = self._path_of(names)
            return _open_last(lambda flags: os.open(path, flags))
        root = os.open(self.directory, _FOLDER)
        try:
            if linux.has_openat2():
                try:
                    return self._open_beneath(root, names)
                except NotImplementedError:
                    pass
                except OSError as error:
                    # RESOLVE_BENEATH refuses absolute links, of which some lead back inside.
                    if not (self.follow_symlinks and error.errno == errno.EXDEV):
                        raise
            return self._walk(root, names)
        finally:
            os.close(root)

    def _open_beneath(self, root: int, names: Sequence[str]) -> int:
        path = _relative(names)

        def opener(flags: int) -> int:
            return linux.openat2(path, flags, self._resolve, dir_fd=root)

        for _ in range(_TRIES):
            try:
                return _open_last(opener)
            except BlockingIOError:
                # Somewhere a rename happened while a `..` in a link was followed, and the kernel will not vouch for
                # the result (openat2(2), EAGAIN).
                continue
        return _open_last(opener)

    def _walk(self, root: int, names: Sequence[str]) -> int:
        """Open step by step; links are read and their steps taken in the same way."""
        folders: list[int] = []
        ahead = list(reversed(names))
        links = 0
        try:
            while ahead:
                name = ahead.pop()
                if name == "..":
                    # Only a link says so. Going back on our own track, a folder that was moved leads nowhere else.
                    if not folders:
                        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), name)
                    os.close(folders.pop())
                    continue
                here = folders[-1] if folders else root
                try:
                    if not ahead:
                        return _open_last(_opener_at(here, name))
                    folders.append(os.open(name, _FOLDER | _NO_LINK, dir_fd=here))
                except OSError as error:
                    steps = self._link_steps(here, name, error)
                    if steps is None:
                        raise
                    links += 1
                    if links > _MOST_LINKS:
                        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name) from error
                    if steps.from_root:
                        while folders:
                            os.close(folders.pop())
                    ahead.extend(reversed(steps.names))
            # The root itself, or a link that ends in `..`.
            return _open_last(_opener_at(folders[-1] if folders else root, "."))
        finally:
            for folder in folders:
                os.close(folder)

    def _link_steps(self, here: int, name: str, error: OSError) -> _Steps | None:
        """Return where a link leads if `name` is one that may be followed."""
        if not self.follow_symlinks or error.errno not in NOT_THERE or error.errno == errno.ENOENT:
            return None
        try:
            target = os.readlink(name, dir_fd=here)
        except OSError:
            return None
        from_root = target.startswith("/")
        if from_root:
            inside = self._beneath(target)
            if inside is None:
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), target)
            target = inside
        return _Steps(from_root, [step for step in target.split("/") if step not in ("", ".")])

    def _beneath(self, target: str) -> str | None:
        """Return an absolute link's target as seen from the root, if it is beneath it."""
        for root in (self.directory, os.path.realpath(self.directory)):
            prefix = root.rstrip("/") + "/"
            if (target + "/").startswith(prefix):
                return target[len(prefix) :]
        return None

    def _adopt(
        self,
        fd: int,
        path: str,
        names: Sequence[str],
        asks_for_folder: bool,
        stat: os.stat_result | None = None,
        storage: Storage | None = None,
    ) -> Found:
        """Make of a descriptor what it is, or close it."""
        try:
            if stat is None:
                stat = os.fstat(fd)
            if stat_module.S_ISDIR(stat.st_mode):
                return OpenedDirectory(fd, stat, path, root=self, names=names)
            if not stat_module.S_ISREG(stat.st_mode) or asks_for_folder:
                raise not_there(path)
            if storage is None:
                storage = places.storage_behind(fd, stat)
            return OpenedFile(fd, stat, storage, path=path, exclusive=True)
        except BaseException:
            os.close(fd)
            raise

    def _path_of(self, names: Sequence[str]) -> str:
        return self._prefix + "/".join(names)

    # --- on the event loop -----------------------------------------------------------------------------------------

    def lookup_at_once(self, url_path: str) -> Found | None:
        """Look up what needs no wait; None: a thread has to, see `lookup_and_learn`."""
        names, asks_for_folder = split_path(url_path)
        path = self._path_of(names)
        now = time.monotonic()
        if not _CAN_WALK or not places.may_open_at_once(path, now):
            return None
        try:
            root = linux.openat2(self._raw, _FOLDER, linux.RESOLVE_CACHED)
            try:
                # A link may lead to a file system that waits, so even one that may be followed is left to a thread.
                fd = linux.openat2(
                    _relative(names),
                    opened.READ_FLAGS,
                    self._resolve | linux.RESOLVE_NO_SYMLINKS | linux.RESOLVE_CACHED,
                    dir_fd=root,
                )
            finally:
                os.close(root)
        except OSError as error:
            if error.errno in _SURELY_NOT_THERE or (error.errno == errno.ELOOP and not self.follow_symlinks):
                raise not_there(url_path) from error
            return None
        except NotImplementedError:
            return None
        stat = os.fstat(fd)
        storage = places.local_storage(path, fd, stat, now)
        if storage is None:
            os.close(fd)
            return None
        return self._adopt(fd, path, names, asks_for_folder, stat, storage)

    def lookup_and_learn(self, url_path: str) -> Found:
        """Look up, and learn what the folder is on, so that `lookup_at_once` can do it next time. For a thread."""
        found = self.lookup(url_path)
        if isinstance(found, OpenedFile):
            places.learn_folder(found.path or "", found.storage)
        elif found.fd >= 0:
            places.learn_folder(found.path, places.storage_behind(found.fd, found.stat))
        return found

    def _lookup_in_thread(self, url_path: str) -> Found:
        found = self.lookup_and_learn(url_path)
        return opened.close_in_thread(found) if isinstance(found, OpenedFile) else found

    # --- by name (Windows) -----------------------------------------------------------------------------------------

    def _lookup_by_name(self, url_path: str, names: Sequence[str], asks_for_folder: bool) -> Found:
        """Look up where nothing can be opened relative to a directory; a swap that is quick enough goes unnoticed."""
        root = os.path.realpath(self.directory, strict=True)
        path = os.path.join(root, *names)
        real = os.path.realpath(path, strict=True)
        if self.follow_symlinks == "anywhere":
            inside = True
        elif self.follow_symlinks:
            inside = os.path.normcase(real + os.sep).startswith(os.path.normcase(root.rstrip(os.sep) + os.sep))
        else:
            inside = os.path.normcase(real) == os.path.normcase(path)
        if not inside:
            raise not_there(url_path)
        stat = os.stat(real)
        if stat_module.S_ISDIR(stat.st_mode):
            return OpenedDirectory(-1, stat, path, root=self, names=names)
        if asks_for_folder or not stat_module.S_ISREG(stat.st_mode):
            raise not_there(url_path)
        file = opened.open_file(real)
        try:
            # Once more, for what may have been swapped between the look and the opening.
            if os.path.realpath(path) != real or not os.path.samestat(os.stat(real), os.fstat(file.fd)):
                raise not_there(url_path)
        except BaseException:
            file.close()
            raise
        return file


def check_directory(directory: str | os.PathLike[str]) -> None:
    """Tell a directory that is not there.

    Raises:
        FileNotFoundError, NotADirectoryError: `directory` does not lead to one. An empty path does not either.
    """
    try:
        is_directory = stat_module.S_ISDIR(os.stat(directory).st_mode)
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, "directory: does not exist", directory) from None
    except NotADirectoryError:
        is_directory = False
    if not is_directory:
        raise NotADirectoryError(errno.ENOTDIR, "directory: is not a directory", directory)


@dataclass(frozen=True, slots=True)
class _Steps:
    from_root: bool
    names: list[str]


def _close(found: Found) -> None:
    found.close()


def _relative(names: Sequence[str]) -> bytes:
    return os.fsencode("/".join(names)) or b"."


def _opener_at(here: int, name: str) -> _Opener:
    return lambda flags: os.open(name, flags | _NO_LINK, dir_fd=here)


def _open_last(opener: _Opener) -> int:
    """Open the last name of a path for reading.

    A directory that may not be listed still opens where there is O_PATH: its files may be open to all.
    """
    try:
        return opener(opened.READ_FLAGS)
    except PermissionError as error:
        if _O_PATH:
            try:
                return opener(_FOLDER)
            except OSError:
                raise error from None
        raise
    except BlockingIOError:
        if not _O_PATH:
            raise
        # A lease (see files/opened), if it is not the path that keeps changing.
        handle = opener(_O_PATH)
        try:
            if not stat_module.S_ISREG(os.fstat(handle).st_mode):
                raise OSError(errno.ENXIO, os.strerror(errno.ENXIO)) from None
            return opened.reopen(handle)
        finally:
            os.close(handle)
    except OSError as error:
        # A device says what it likes (no medium, busy, an input error): what counts is that it is one.
        if _O_PATH and error.errno not in NOT_THERE and _is_special(opener):
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV)) from error
        raise


def _is_special(opener: _Opener) -> bool:
    try:
        handle = opener(_O_PATH)
    except OSError:
        return False
    try:
        mode = os.fstat(handle).st_mode
    finally:
        os.close(handle)
    return not (stat_module.S_ISREG(mode) or stat_module.S_ISDIR(mode))
