"""Waiting for a disk without stopping the other greenlets of a server that runs on gevent or eventlet.

Greenlets share one thread: a read that waits for a disk, or an open that waits for a network file system, stops them
all. Such calls go to real threads. Neither `threading` nor `zcresponse.loops` can give those once the standard library
is patched, so they are the hub's own.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias, TypeVar

__all__ = ["Hub", "close_fd", "run_in_thread", "run_with", "start_in_thread"]

T = TypeVar("T")

#: Whose greenlets share the thread.
Hub: TypeAlias = Literal["gevent", "eventlet"]

#: As many as `zcresponse.loops` has.
_MOST_THREADS: Final = 32

#: The system call itself. gevent's `os.close` asks fstat(2) first, and where that fails it closes nothing: on a FUSE
#: mount whose daemon has died, or a stale NFS handle, each descriptor would stay for ever.
close_fd: Final[Callable[[int], None]] = sys.modules[os.name].close


def _pool(remote: bool) -> Any:
    """Return a pool of gevent's that is ours.

    Its default one resolves names too, and would be stopped by threads that hang in a file system without an answer;
    for the same reason such file systems have a pool of their own.
    """
    hub = importlib.import_module("gevent").get_hub()
    # On the hub, so that they go with it.
    pools = vars(hub).setdefault("zcresponse_pools", {})
    # Of this process: a forked child has none of its parent's threads.
    key = os.getpid(), remote
    if key not in pools:
        pools[key] = importlib.import_module("gevent.threadpool").ThreadPool(_MOST_THREADS, hub)
    return pools[key]


def run_in_thread(
    hub: Hub, job: Callable[..., T], *args: Any, remote: bool = False, discard: Callable[[T], object] | None = None
) -> T:
    """Return `job(*args)`, run in a thread while other greenlets go on.

    Args:
        remote: whether it may wait for a file system that never answers. (eventlet has a single pool of threads, and
            waits for them when the process ends.)
        discard: called with the result, in a thread, when the greenlet was killed while it waited.
    """
    # Not returned by the job: both libraries keep hold of results, and gevent prints errors besides raising them.
    outcome: list[tuple[T | None, BaseException | None]] = []
    # Taken out by the job when it is done, or by the greenlet when it is killed: the other one then has to discard.
    waited_for = [True]

    def work() -> None:
        outcome.append(_outcome(job, *args))
        if not _take(waited_for):
            _discard(outcome, discard)

    try:
        if hub == "eventlet":
            importlib.import_module("eventlet.tpool").execute(work)
        else:
            _pool(remote).apply(work)
    except BaseException:
        if not _take(waited_for):
            start_in_thread(hub, _discard, outcome, discard)
        raise
    value, error = outcome.pop()
    if error is not None:
        raise error
    return value  # type: ignore[return-value]


def start_in_thread(hub: Hub, job: Callable[..., object], *args: Any) -> None:
    """Run `job(*args)` in a thread, wait for nothing, and forget its errors. May be called from anywhere."""
    # A thread of its own: the pools' own ways can wait for a place, which a finalizer may not.
    if hub == "eventlet":
        start = importlib.import_module("eventlet.patcher").original("_thread").start_new_thread
    else:
        start = importlib.import_module("gevent.monkey").get_original("_thread", "start_new_thread")
    try:
        start(_outcome, (job, *args))
    except RuntimeError:
        # No thread is left: rather wait here than lose it.
        _outcome(job, *args)


def run_with(hub: Hub, fd: int, job: Callable[..., T], *args: Any, remote: bool = False) -> T:
    """Return `job(duplicate of fd, *args)`, run as by `run_in_thread`.

    The greenlet may be killed while it waits; the job then runs on, with a descriptor that is its own.
    """
    duplicate = os.dup(fd)
    # Taken by the job when it begins, or by the greenlet when it is killed before.
    unused = [True]

    def work() -> T | None:
        if not _take(unused):
            return None
        try:
            return job(duplicate, *args)
        finally:
            close_fd(duplicate)

    try:
        return run_in_thread(hub, work, remote=remote)  # type: ignore[return-value]
    except BaseException:
        if _take(unused):
            close_fd(duplicate)
        raise


def _outcome(job: Callable[..., T], *args: Any) -> tuple[T | None, BaseException | None]:
    try:
        return job(*args), None
    except BaseException as error:
        return None, error


def _discard(outcome: list[tuple[T | None, BaseException | None]], discard: Callable[[T], object] | None) -> None:
    value, error = outcome.pop()
    if discard is not None and error is None:
        discard(value)  # type: ignore[arg-type]


def _take(box: list[bool]) -> bool:
    """Take the one thing that is in the box; False: somebody else did."""
    try:
        box.pop()
    except IndexError:
        return False
    return True
