"""What the core needs of an event loop: a thread of our own and a turn for the others, on asyncio and on trio.

The threads open and read files that could make the loop wait. They never touch a socket, and a job that works on a
descriptor owns a duplicate of it, because a cancelled job runs on.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, TypeVar

__all__ = ["in_thread", "result_of", "running_on_trio", "submit", "submit_with", "turn"]

T = TypeVar("T")

#: More than one slow file system can be stuck at a time; threads are only made when they are needed.
MAX_THREADS: Final = 32


class _Pool:
    """Threads that do not keep the process from ending.

    `concurrent.futures.ThreadPoolExecutor` waits for its threads when the interpreter exits; one that is stuck in a
    file system without an answer would never let it.
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._threads = 0
        self._lock = threading.Lock()

    def submit(self, func: Callable[..., T], args: tuple[Any, ...]) -> Future[T]:
        future: Future[T] = Future()
        self._jobs.put((future, func, args))
        if not self._idle.acquire(blocking=False):
            with self._lock:
                if self._threads < MAX_THREADS:
                    self._threads += 1
                    threading.Thread(target=self._work, name=f"zcresponse_{self._threads}", daemon=True).start()
        return future

    def _work(self) -> None:
        while True:
            self._do(*self._jobs.get())
            self._idle.release()

    def _do(self, future: Future[Any], func: Callable[..., Any], args: tuple[Any, ...]) -> None:
        # A frame of its own, so that no job's result lives on in a thread that waits for the next.
        if future.set_running_or_notify_cancel():
            try:
                result = func(*args)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)


_pool = _Pool()


def submit(func: Callable[..., T], *args: Any) -> Future[T]:
    """Run `func(*args)` in one of our threads."""
    return _pool.submit(func, args)


def submit_with(fd: int, func: Callable[..., T], *args: Any) -> Future[T]:
    """Run `func(duplicate of fd, *args)` in one of our threads.

    The job may outlive whoever asked for it. Its duplicate is closed in the end, also when the job is cancelled before
    it began.

    Raises:
        OSError: no descriptor is left.
    """
    duplicate = os.dup(fd)
    future = submit(func, duplicate, *args)
    # In the thread that ran it; after a cancellation by another, because closing may wait as well.
    future.add_done_callback(lambda done: submit(os.close, duplicate) if done.cancelled() else os.close(duplicate))
    return future


def _renew_pool() -> None:
    # The threads of a pool do not live on in a forked child; a server that forks after loading needs a new one.
    global _pool
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_pool)


def running_on_trio() -> bool:
    """Whether the caller runs in trio rather than asyncio; loads neither."""
    trio = sys.modules.get("trio")
    if trio is None:
        return False
    try:
        return bool(trio.lowlevel.in_trio_run())
    except AttributeError:
        return False


async def in_thread(func: Callable[..., T], *args: Any, discard: Callable[[T], object] | None = None) -> T:
    """Await `func(*args)` in one of our threads.

    When the awaiting task is cancelled the job runs on; `discard` is then called with its result, in its thread.
    """
    return await result_of(submit(func, *args), discard=discard)


async def result_of(future: Future[T], *, discard: Callable[[T], object] | None = None) -> T:
    """Await a job that was submitted; see `in_thread`."""
    try:
        if running_on_trio():
            import trio

            return await trio.to_thread.run_sync(future.result, abandon_on_cancel=True)
        return await asyncio.wrap_future(future)
    except BaseException:
        if discard is not None and not future.cancel():
            future.add_done_callback(_Discard(discard))
        raise


class _Discard:
    def __init__(self, discard: Callable[[Any], object]) -> None:
        self.discard = discard

    def __call__(self, future: Future[Any]) -> None:
        if not future.cancelled() and future.exception() is None:
            self.discard(future.result())


async def turn() -> None:
    """Let everything else on the loop run once."""
    if running_on_trio():
        import trio

        await trio.lowlevel.checkpoint()
    else:
        await asyncio.sleep(0)
