from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

import anyio
import pytest

from zcresponse import loops


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_a_job_runs_in_a_thread_of_ours(backend: Any) -> None:
    async def main() -> str:
        return await loops.in_thread(lambda prefix: prefix + threading.current_thread().name, "in ")

    assert anyio.run(main, backend=backend).startswith("in zcresponse")


def test_an_error_of_the_job_is_raised_to_the_waiter(backend: Any) -> None:
    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            await loops.in_thread(lambda: 1 / 0)

    anyio.run(main, backend=backend)


def test_the_result_of_a_cancelled_job_is_discarded(backend: Any) -> None:
    started, finish, discarded = threading.Event(), threading.Event(), threading.Event()

    def job() -> str:
        started.set()
        finish.wait(10)
        return "result"

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: loops.result_of(loops.LOCAL.submit(job), discard=lambda result: discarded.set()))
            await anyio.to_thread.run_sync(started.wait, 10)
            tasks.cancel_scope.cancel()

    anyio.run(main, backend=backend)
    assert not discarded.is_set()
    finish.set()
    assert discarded.wait(10)


def test_a_turn_lets_others_run(backend: Any) -> None:
    order: list[str] = []

    async def other() -> None:
        order.append("other")

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(other)
            await loops.turn()
            order.append("main")

    anyio.run(main, backend=backend)
    assert sorted(order) == ["main", "other"]
    if backend == "asyncio":
        assert order == ["other", "main"]


def test_a_forked_child_has_threads_of_its_own() -> None:
    assert loops.LOCAL.submit(os.getpid).result(10) == os.getpid()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, str(loops.LOCAL.submit(os.getpid).result(10)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert int(os.read(read, 20)) == child
    os.close(read)
    os.close(write)


def test_the_loop_is_told_apart() -> None:
    assert not loops.running_on_trio()

    async def main() -> bool:
        return loops.running_on_trio()

    assert asyncio.run(main()) is False
    assert anyio.run(main, backend="trio") is True


def test_a_thread_that_cannot_be_started_is_an_error_and_the_next_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = loops.Threads("test")
    before = set(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch, open(os.devnull) as file:

        def cannot(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        patch.setattr(threading.Thread, "start", cannot)
        for _ in range(loops.MAX_THREADS + 1):
            with pytest.raises(BlockingIOError, match="can't start"):
                loops.submit_with(file.fileno(), os.fstat, threads=threads)
    assert set(os.listdir("/proc/self/fd")) == before
    assert threads.submit(lambda: 1).result(10) == 1


def test_a_job_waits_for_a_thread_where_no_more_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = loops.Threads("test")
    gate = threading.Event()
    busy = threads.submit(gate.wait, 10)
    with monkeypatch.context() as patch:

        def cannot(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        patch.setattr(threading.Thread, "start", cannot)
        waiting = threads.submit(lambda: 1)
    gate.set()
    assert busy.result(10)
    assert waiting.result(10) == 1


def test_after_a_want_of_threads_more_are_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = loops.Threads("test_again")
    gate = threading.Event()
    busy = threads.submit(gate.wait, 10)
    with monkeypatch.context() as patch:

        def cannot(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        patch.setattr(threading.Thread, "start", cannot)
        waiting = [threads.submit(lambda: 1) for _ in range(50)]
    gate.set()
    assert busy.result(10)
    assert [job.result(10) for job in waiting] == [1] * 50
    # Eight jobs of which each waits for all the others need eight threads.
    together = threading.Barrier(8)
    assert len({job.result(10) for job in [threads.submit(together.wait, 10) for _ in range(8)]}) == 8


def test_no_more_threads_are_made_than_allowed() -> None:
    threads = loops.Threads("test_most")
    gate = threading.Event()
    jobs = [threads.submit(gate.wait, 10) for _ in range(3 * loops.MAX_THREADS)]
    made = [thread for thread in threading.enumerate() if thread.name.startswith("test_most")]
    assert len(made) == loops.MAX_THREADS
    assert all(thread.daemon for thread in made)
    gate.set()
    assert all(job.result(10) for job in jobs)


def test_threads_that_are_stuck_elsewhere_keep_no_local_job_waiting() -> None:
    gate = threading.Event()
    stuck = [loops.REMOTE.submit(gate.wait, 10) for _ in range(2 * loops.MAX_THREADS)]
    assert loops.LOCAL.submit(lambda: 1).result(10) == 1
    gate.set()
    assert all(job.result(10) for job in stuck)
