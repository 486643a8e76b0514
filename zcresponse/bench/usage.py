"""What the processes of a server have used so far: processor time, context switches, memory, system calls.

All of it comes from Linux: /proc, the kernel's clocks of processes, and the program `strace`.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

__all__ = ["AVAILABLE", "HAS_STRACE", "SyscallCount", "Usage", "count_syscalls", "memory_bytes", "processes"]

#: Whether this platform tells.
AVAILABLE: Final = sys.platform == "linux"

#: Whether system calls can be counted here.
HAS_STRACE: Final = shutil.which("strace") is not None

#: Which clock of a process: the scheduler's, in nanoseconds. /proc/PID/stat counts in steps of 10 ms.
_SCHEDULER_CLOCK: Final = 2

#: Seconds that strace is given to attach and to let go.
_STRACE_S: Final = 20.0


def processes(pid: int) -> set[int]:
    """A process and those that descend from it, as of now."""
    found = {pid}
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                for child in (task / "children").read_text().split():
                    found |= processes(int(child))
    return found


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process and its descendants have used since they began.

    Attributes:
        cpu_s: By process, seconds of processor time in user mode and in the kernel, of threads that ended too.
        switches: By thread, how often it was switched away, voluntarily or not.
    """

    cpu_s: dict[int, float] = field(default_factory=dict)
    switches: dict[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, pid: int) -> Usage:
        """Look at a process and its descendants; empty where `AVAILABLE` says no."""
        usage = cls()
        if AVAILABLE:
            for each in processes(pid):
                # One that ends between two looks has used nothing that could be told any more.
                with contextlib.suppress(FileNotFoundError, ProcessLookupError, OSError):
                    usage.cpu_s[each] = time.clock_gettime(~each << 3 | _SCHEDULER_CLOCK)
                    usage.switches.update(_switches(each))
        return usage

    def since(self, before: Usage) -> tuple[float, int]:
        """Seconds of processor time and context switches after an earlier look."""
        cpu_s = sum(value - before.cpu_s.get(each, 0.0) for each, value in self.cpu_s.items())
        return cpu_s, sum(value - before.switches.get(each, 0) for each, value in self.switches.items())


def _switches(pid: int) -> dict[int, int]:
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            text = (task / "status").read_text()
            found[int(task.name)] = sum(map(int, re.findall(r"(?m)^(?:non)?voluntary_ctxt_switches:\s*(\d+)$", text)))
    return found


def memory_bytes(pid: int) -> int:
    """Resident memory of a process and its descendants, shared pages counted once for each."""
    total = 0
    for each in processes(pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found = re.search(r"(?m)^VmRSS:\s*(\d+) kB$", Path(f"/proc/{each}/status").read_text())
            total += int(found[1]) * 1024 if found else 0
    return total


@dataclass(slots=True)
class SyscallCount:
    """System calls of a block.

    Attributes:
        total: How many there were; 0 until the block has ended.
    """

    total: int = 0


@contextlib.contextmanager
def count_syscalls(pid: int) -> Iterator[SyscallCount]:
    """Count the system calls of a process and its descendants by `strace -c`. What it traces is many times slower.

    Raises:
        RuntimeError: strace is not installed, or may not trace the process.
    """
    strace = shutil.which("strace")
    if strace is None:
        raise RuntimeError("strace is not installed")
    traced = processes(pid)
    count = SyscallCount()
    with tempfile.TemporaryDirectory(prefix="zcresponse-bench-") as directory:
        summary, errors = Path(directory, "summary"), Path(directory, "errors")
        argv = [strace, "-f", "-c", "-o", str(summary), *(word for each in traced for word in ("-p", str(each)))]
        with errors.open("wb") as said, _in_own_group(argv, said) as process:
            limit = time.monotonic() + _STRACE_S
            while not all(f"Process {each} attached" in errors.read_text() for each in traced):
                if process.poll() is not None or time.monotonic() > limit:
                    raise RuntimeError(f"strace: {errors.read_text().strip()}")
                time.sleep(0.01)
            yield count
        count.total = _total(summary.read_text())


@contextlib.contextmanager
def _in_own_group(argv: list[str], said: object) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=said, start_new_session=True) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            # On SIGINT it lets its processes go and writes what it counted; killed, it would leave some stopped.
            process.send_signal(signal.SIGINT)
            process.wait(_STRACE_S)


def _total(summary: str) -> int:
    """Add up the calls in strace's table; a row ends with the number of calls, that of errors if any, and the name."""
    total = 0
    for line in summary.splitlines():
        # Share, seconds and microseconds per call come first; the last line is the sum, whose form has changed.
        found = re.fullmatch(r" *[\d.]+ +[\d.]+ +\d+ +(\d+)(?: +\d+)? +(\w+)", line)
        if found and found[2] != "total":
            total += int(found[1])
    return total
