"""What the core needs of an event loop: a thread of our own and a turn for the others, on asyncio and on trio.

The threads open and read files that could make the loop wait. They never touch a socket, and a job that works on a
descriptor owns a duplicate of it, because a cancelled job runs on.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

__all__ = ["in_thread", "result_of", "running_on_trio", "submit", "turn"]

T = TypeVar("T")

#: More than one slow file system can be stuck at a time; threads are only made when they are needed.
MAX_THREADS = 32

_pool: ThreadPoolExecutor | None = None


def submit(func: Callable[..., T], *args: Any) -> Future[T]:
    """Run `func(*args)` in one of our threads."""
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="zcresponse")
    return _pool.submit(func, *args)


def _forget_pool() -> None:
    # The threads of a pool do not live on in a forked child; a server that forks after loading needs a new one.
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


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
