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
            tasks.start_soon(lambda: loops.in_thread(job, discard=lambda result: discarded.set()))
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
    assert loops.submit(os.getpid).result(10) == os.getpid()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, str(loops.submit(os.getpid).result(10)).encode())
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
