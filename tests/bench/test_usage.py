"""What processes have used, of real ones. Only what they must have used is asserted, and no time."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.servers import wait_until
from zcresponse.bench.usage import Usage, count_syscalls, memory_bytes, processes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc and strace")


@contextlib.contextmanager
def running(code: str) -> Iterator[subprocess.Popen[str]]:
    """A Python that runs until its standard input ends, and says what it does."""
    argv = [sys.executable, "-c", f"import os, subprocess, sys, time\n{code}\nsys.stdin.read()"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


BUSY = """
print("ready", flush=True); sys.stdin.readline()
began = time.process_time()
while time.process_time() - began < 0.05: pass
for _ in range(50): time.sleep(0.0001)
print("done", flush=True)
"""


def test_processor_time_and_switches_between_two_looks_are_told() -> None:
    with running(BUSY) as process:
        assert line(process) == "ready"
        before = Usage.of(process.pid)
        go_on(process)
        assert line(process) == "done"
        cpu_s, switches = Usage.of(process.pid).since(before)
    assert cpu_s >= 0.05
    # A sleep is a voluntary one.
    assert switches >= 50


def test_the_children_of_a_process_count() -> None:
    inner = "import sys, time\nwhile time.process_time() < 0.05: pass\nprint('done', flush=True); sys.stdin.read()"
    with running(f"subprocess.run([sys.executable, '-c', {inner!r}])") as process:
        assert line(process) == "done"
        assert len(processes(process.pid)) == 2
        assert Usage.of(process.pid).since(Usage())[0] >= 0.05
        assert memory_bytes(process.pid) > memory_bytes(max(processes(process.pid) - {process.pid})) > 1_000_000


def test_a_process_that_has_gone_has_used_nothing() -> None:
    with running("") as process:
        pid = process.pid
    assert Usage.of(pid) == Usage()
    assert memory_bytes(pid) == 0
    assert Usage.of(pid).since(Usage()) == (0.0, 0)


def test_system_calls_of_a_block_are_counted_and_nobody_is_left_stopped() -> None:
    calls = "print('ready', flush=True); sys.stdin.readline()\nfor _ in range(1000): os.getppid()\n"
    with running(calls + "print('done', flush=True)") as process:
        assert line(process) == "ready"
        with count_syscalls(process.pid) as count:
            go_on(process)
            assert line(process) == "done"
        assert 1000 <= count.total < 1200
        with open(f"/proc/{process.pid}/status") as status:
            text = status.read()
        wait_until(lambda: "TracerPid:\t0" in text, what="strace to let go")


def test_a_process_that_cannot_be_traced_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with running("") as process:
        pid = process.pid
    with pytest.raises(RuntimeError, match=r"strace: .*No such process"), count_syscalls(pid):
        pytest.fail("there is nothing to trace")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RuntimeError, match="not installed"), count_syscalls(1):
        pytest.fail("there is nothing to trace with")
