"""What is known of the places that files lie in, so that a file can be opened without letting an event loop wait.

`openat2` with RESOLVE_CACHED answers from the kernel's name cache or says EAGAIN. That is enough on a local file
system; on FUSE even a cached open waits for the daemon. So the first open in a folder goes to a thread, which learns
what the folder is on, and later ones may be tried on the loop. What was learnt is dropped after a while, because
mounts change.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any, Final

from zcresponse import loops
from zcresponse.files import linux
from zcresponse.files.linux import Storage

__all__ = [
    "is_known",
    "is_remote",
    "learn_folder",
    "local_storage",
    "may_open_at_once",
    "opened_before",
    "remember_opened",
    "storage_behind",
    "threads_for",
]

_LEARNT_FOR_S: Final = 30.0
_REMEMBERED: Final = 4096

_storage_by_device: dict[int, tuple[Storage, float]] = {}
_local_folders: dict[str | bytes, float] = {}
_remote_folders: dict[str | bytes, float] = {}
_elsewhere: dict[str | bytes, float] = {}


@dataclass(slots=True)
class Opened:
    """What is known of a file that was opened.

    Attributes:
        name: its path as the kernel takes it.
        path: its absolute path.
        device: by `st_dev`.
        until: when this is to be learnt anew, by `time.monotonic`.
        sure_until: until when the kernel surely has its name in the cache, because it was just asked.
        at_once: whether it can be opened without a wait; not so a link.
        looks: the last `linux.stat_held` of it, and what `os.fstat` said then.
    """

    name: bytes
    path: str
    device: int
    storage: Storage
    until: float
    sure_until: float
    at_once: bool = True
    looks: tuple[bytes | None, os.stat_result] | None = None


#: For how long a name that was just looked up is taken to be in the kernel's cache still, so that it may be opened by
#: the plain call, which takes Python a third of the time. A file that is asked for less often than that has time.
SURE_FOR_S: Final = 0.1

#: By path; to be asked at each answer, and so by `get` itself.
opened_before: Final[dict[str | bytes, Opened]] = {}


def remember_opened(
    path: str | bytes, name: bytes, absolute: str, device: int, storage: Storage, now: float, *, at_once: bool = True
) -> None:
    """Keep in mind whether `path` could be opened without a wait, for no longer than its file system is known."""
    if path[:1] not in ("/", b"/"):
        # Another file's, in another working directory.
        return
    opened = Opened(name, absolute, device, storage, now + _LEARNT_FOR_S / 2, now + SURE_FOR_S, at_once)
    _remember(opened_before, path, opened)


def _remember(known: dict[Any, Any], key: object, value: object) -> None:
    if len(known) >= _REMEMBERED:
        known.clear()
    known[key] = value


def is_known(stat: os.stat_result) -> bool:
    """Whether the file system of a file is known, so that `storage_behind` need not ask it."""
    known = _storage_by_device.get(stat.st_dev)
    return known is not None and known[1] > time.monotonic()


def storage_behind(fd: int, stat: os.stat_result) -> Storage:
    """Classify the file system that holds `fd`; asks it, which may wait, where that is not known yet."""
    known = _storage_by_device.get(stat.st_dev)
    if known is not None and known[1] > time.monotonic():
        return known[0]
    storage = linux.storage_of(fd)
    _remember(_storage_by_device, stat.st_dev, (storage, time.monotonic() + _LEARNT_FOR_S))
    return storage


def local_storage(path: str | bytes, fd: int, stat: os.stat_result, now: float) -> Storage | None:
    """Return what is known of the local file system that `path` was opened on, by `stat` of its descriptor.

    None: it is not known to be one, so a thread has to open it. Where the name leads to another file system than its
    folder is on, it will not be opened on the loop again.
    """
    known = _storage_by_device.get(stat.st_dev)
    if known is None or known[0] is Storage.UNKNOWN:
        _remember(_elsewhere, path, float("inf"))
        return None
    if known[1] < now + _LEARNT_FOR_S / 2:
        # Renewed here: what is in use never goes back to a thread, all of which may be stuck elsewhere. Asked anew,
        # because the number of a device is given to another one once it is unmounted.
        storage = linux.storage_of(fd)
        _remember(_storage_by_device, stat.st_dev, (storage, now + _LEARNT_FOR_S))
        if storage is Storage.UNKNOWN:
            _remember(_elsewhere, path, float("inf"))
            return None
        _remember(_local_folders, _folder_of(path), now + _LEARNT_FOR_S)
        return storage
    return known[0]


def learn_folder(path: str | bytes, storage: Storage) -> None:
    """Keep in mind what the folder of `path` is on."""
    folders = _remote_folders if storage is Storage.UNKNOWN else _local_folders
    _remember(folders, _folder_of(path), time.monotonic() + _LEARNT_FOR_S)


def threads_for(path: str | bytes) -> loops.Threads:
    """Return the threads that shall open `path`."""
    return loops.REMOTE if is_remote(path) else loops.LOCAL


def is_remote(path: str | bytes) -> bool:
    """Whether the folder of `path` was seen to lie on a file system that may never answer."""
    return _remote_folders.get(_folder_of(path), 0.0) >= time.monotonic()


def may_open_at_once(path: str | bytes, now: float) -> bool:
    """Whether `path` may be opened on the loop, from the kernel's name cache.

    Args:
        now: by `time.monotonic`.
    """
    # What `_folder_of` does; no call, for it is asked at each answer.
    folder = path.rpartition("/")[0] if isinstance(path, str) else path.rpartition(b"/")[0]
    return _local_folders.get(folder, 0.0) >= now and path not in _elsewhere


def _folder_of(path: str | bytes) -> str | bytes:
    return path.rpartition("/")[0] if isinstance(path, str) else path.rpartition(b"/")[0]
