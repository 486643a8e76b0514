"""What the core needs of an event loop: a thread of our own and a turn for the others, on asyncio and on trio.

The threads open and read files that could make the loop wait. They never touch a socket, and a job that works on a
descriptor owns a duplicate of it, because a cancelled job runs on.
"""

from __future__ import annotations

import asyncio
import errno
import os
import queue
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, TypeVar

__all__ = ["LOCAL", "REMOTE", "Threads", "in_thread", "result_of", "running_on_trio", "submit_with", "turn"]

T = TypeVar("T")

#: More than one slow file system can be stuck at a time; threads are only made when they are needed.
MAX_THREADS: Final = 32


class Threads:
    """Threads that do not keep the process from ending.

    `concurrent.futures.ThreadPoolExecutor` waits for its threads when the interpreter exits; one that is stuck in a
    file system without an answer would never let it.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._forget()
        if hasattr(os, "register_at_fork"):
            # Threads do not live on in a forked child; a server that forks after loading needs new ones.
            os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._count = 0
        self._lock = threading.Lock()

    def submit(self, func: Callable[..., T], *args: Any) -> Future[T]:
        """Run `func(*args)` in one of the threads.

        Raises:
            BlockingIOError: there is no thread, and none can be started.
        """
        if not self._idle.acquire(blocking=False):
            self._start()
        future: Future[T] = Future()
        self._jobs.put((future, func, args))
        return future

    def _start(self) -> None:
        with self._lock:
            if self._count >= MAX_THREADS:
                return
            thread = threading.Thread(target=self._work, name=f"{self._name}_{self._count}", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                # No memory, or too many processes. Where there are threads, the job waits for one of them.
                if self._count == 0:
                    raise BlockingIOError(errno.EAGAIN, str(error)) from error
            else:
                self._count += 1

    def _work(self) -> None:
        # The first job is the one that this thread was made for.
        job = self._jobs.get()
        while True:
            self._do(*job)
            del job
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                # Only now: a job that waited for want of threads is taken up without anybody having asked for us.
                self._idle.release()
                job = self._jobs.get()

    def _do(self, future: Future[Any], func: Callable[..., Any], args: tuple[Any, ...]) -> None:
        # A frame of its own, so that no job's result lives on in a thread that waits for the next.
        if future.set_running_or_notify_cancel():
            try:
                result = func(*args)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)


#: For files of local file systems, and for those of which nothing is known yet.
LOCAL: Final = Threads("zcresponse")
#: For file systems that may not answer at all: threads that are stuck there keep nobody else waiting.
REMOTE: Final = Threads("zcresponse_remote")


def submit_with(fd: int, func: Callable[..., T], *args: Any, threads: Threads = LOCAL) -> Future[T]:
    """Run `func(duplicate of fd, *args)` in one of our threads.

    The job may outlive whoever asked for it. Its duplicate is closed in the end, also when the job is cancelled before
    it began.

    Raises:
        OSError: no descriptor, or no thread, is left.
    """
    duplicate = os.dup(fd)
    try:
        future = threads.submit(func, duplicate, *args)
    except BaseException:
        os.close(duplicate)
        raise

    def close(done: Future[T]) -> None:
        # In the thread that ran it; after a cancellation in another one, because closing may wait as well.
        if done.cancelled():
            threads.submit(os.close, duplicate)
        else:
            os.close(duplicate)

    future.add_done_callback(close)
    return future


def running_on_trio() -> bool:
    """Whether the caller runs in trio rather than asyncio; loads neither."""
    trio = sys.modules.get("trio")
    if trio is None:
        return False
    try:
        return bool(trio.lowlevel.in_trio_run())
    except AttributeError:
        return False


async def result_of(future: Future[T], *, discard: Callable[[T], object] | None = None) -> T:
    """Await a job.

    When the awaiting task is cancelled the job runs on; `discard` is then called with its result, in its thread.
    """
    try:
        if running_on_trio():
            import trio

            return await trio.to_thread.run_sync(future.result, abandon_on_cancel=True)
        return await asyncio.wrap_future(future)
    except BaseException:
        if discard is not None and not future.cancel():
            future.add_done_callback(_Discard(discard))
        raise


async def in_thread(func: Callable[..., T], *args: Any) -> T:
    """Await `func(*args)` in a thread for local files."""
    return await result_of(LOCAL.submit(func, *args))


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
