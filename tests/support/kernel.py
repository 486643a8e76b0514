"""What the kernel really did: system calls of running processes, counted by strace.

A correct body proves nothing about how it travelled. `trace_sendfile` attaches to server processes and tells every
sendfile(2) and what it returned. A machine without strace fails these tests; it does not skip them, since a proof that
was not run would look like one that passed.
"""

from __future__ import annotations

import collections
import contextlib
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.servers import descendants, wait_until

__all__ = ["Call", "SendfileCall", "SendfileTrace", "Trace", "parse_strace", "trace_sendfile", "trace_syscalls"]


@dataclass(frozen=True, slots=True)
class Call:
    """One system call.

    Attributes:
        pid: The thread that made it.
        name: Its name.
        arguments: Its arguments as strace writes them, after the call where strace shows both.
        returned: What it returned; None when it did not return: unfinished, or interrupted to be made again.
        errno: The error's name, such as EAGAIN, or "".
    """

    pid: int
    name: str
    arguments: str
    returned: int | None
    errno: str


@dataclass(frozen=True, slots=True)
class SendfileCall:
    """One sendfile(2).

    Attributes:
        pid: The thread that made it.
        out_file: What strace calls the descriptor written to, such as `socket:[123]`.
        in_file: The path of the file read from.
        offset: Where it began, or None when the descriptor's own position was used.
        asked: Bytes asked for.
        sent: Bytes moved; 0 on an error or at the end of the file.
        errno: The error's name, or "".
    """

    pid: int
    out_file: str
    in_file: str
    offset: int | None
    asked: int
    sent: int
    errno: str


_NAMES = ("sendfile", "sendfile64")
_LINE = re.compile(r"(?:(?P<pid>\d+) +)?(?P<rest>.*)")
_RESUMED = re.compile(r"<\.\.\. (?P<name>\w+) resumed>(?P<tail>.*)")
_ENTERED = re.compile(r"(?P<name>\w+)\((?P<tail>.*)")
_RESULT = re.compile(
    r"(?P<arguments>.*)\) += (?P<value>-?\d+|0x[0-9a-f]+|\?)(?:<.*?>)?(?: (?P<errno>E[A-Z0-9]+))?(?: .*)?"
)
_UNFINISHED = re.compile(r"(?P<arguments>.*?) ?<(?:unfinished \.\.\.|detached \.\.\.)>")
_SENDFILE = re.compile(
    r"\d+(?:<(?P<out>.*?)>)?, \d+(?:<(?P<in>.*?)>)?, (?:NULL|\[(?P<offset>\d+)\](?: => \[\d+\])?), (?P<asked>\d+)"
)


def parse_strace(text: str) -> list[Call]:
    """Read what `strace -f -o` wrote, also while it is still writing.

    A call that other threads' lines interrupt is written in two halves; it is put together again and stands where it
    was entered. A last line without an end counts as an unfinished call.
    """
    calls: list[Call] = []
    open_calls: dict[int, int] = {}
    for line in text.splitlines():
        split = _LINE.fullmatch(line)
        assert split is not None
        pid, rest = int(split["pid"] or 0), split["rest"]
        if resumed := _RESUMED.fullmatch(rest):
            index = open_calls.pop(pid, None)
            # Without a first half the call was entered before strace came.
            before = calls[index].arguments if index is not None else ""
            call = _finished(pid, resumed["name"], before + resumed["tail"])
            if index is None:
                calls.append(call)
            else:
                calls[index] = call
        elif entered := _ENTERED.fullmatch(rest):
            call = _finished(pid, entered["name"], entered["tail"])
            if call.returned is None and not call.errno:
                open_calls[pid] = len(calls)
            calls.append(call)
        # Everything else is a signal (---) or an exit (+++).
    return calls


def _finished(pid: int, name: str, tail: str) -> Call:
    if halted := _UNFINISHED.fullmatch(tail):
        return Call(pid, name, halted["arguments"], None, "")
    if result := _RESULT.fullmatch(tail):
        value = None if result["value"] == "?" else int(result["value"], 0)
        return Call(pid, name, result["arguments"], value, result["errno"] or "")
    return Call(pid, name, tail, None, "")


def _sendfile_call(call: Call) -> SendfileCall:
    found = _SENDFILE.fullmatch(call.arguments)
    if found is None:
        raise AssertionError(f"strace wrote a sendfile that cannot be read: {call}")
    return SendfileCall(
        call.pid,
        _unescape(found["out"] or ""),
        _unescape(found["in"] or ""),
        None if found["offset"] is None else int(found["offset"]),
        int(found["asked"]),
        max(call.returned or 0, 0),
        call.errno,
    )


def _unescape(text: str) -> str:
    """Undo strace's octal escapes of bytes that are not printable ASCII."""
    raw = re.sub(rb"\\([0-7]{1,3})", lambda found: bytes([int(found[1], 8)]), text.encode())
    return raw.decode("utf-8", "surrogateescape")


class Trace:
    """The system calls seen so far, or, after the block, all of them."""

    def __init__(self, log: Path, names: Sequence[str]) -> None:
        self._log = log
        self._names = names
        self._final: str | None = None

    @property
    def calls(self) -> list[Call]:
        """All calls of the traced names, in the order entered."""
        text = self._log.read_text("utf-8", "surrogateescape") if self._final is None else self._final
        return parse_strace(text)

    @property
    def counts(self) -> collections.Counter[str]:
        """How often each name was called. A call is counted when it is entered."""
        return collections.Counter(call.name for call in self.calls)

    @property
    def unfinished(self) -> list[Call]:
        """Calls that were entered and have not returned."""
        return [call for call in self.calls if call.returned is None and not call.errno]

    def _finish(self) -> None:
        self._final = self._log.read_text("utf-8", "surrogateescape")


class SendfileTrace(Trace):
    """The sendfile(2) calls seen so far, or, after the block, all of them."""

    @property
    def sendfiles(self) -> list[SendfileCall]:
        """All sendfile calls, also those that moved nothing."""
        return [_sendfile_call(call) for call in self.calls if call.name in _NAMES]

    @property
    def total(self) -> int:
        """Bytes that sendfile moved."""
        return sum(call.sent for call in self.sendfiles)

    def total_from(self, path: Path) -> int:
        """Bytes that sendfile moved out of one file."""
        return sum(call.sent for call in self.sendfiles if call.in_file == str(path.resolve()))


@contextlib.contextmanager
def trace_sendfile(*pids: int) -> Iterator[SendfileTrace]:
    """Count the sendfile(2) calls of running processes, with all their threads, children and later children.

    Everything that a process did before an effect the block saw (a byte that a client received) is counted: leaving
    waits until no sendfile is half way, and a call is on record before it moves a byte.

    Args:
        pids: The processes. Their present descendants are traced too.
    """
    with tempfile.TemporaryDirectory(prefix="strace-") as directory:
        trace = SendfileTrace(Path(directory, "log"), _NAMES)
        with _attached(trace, pids, settle=True):
            yield trace


@contextlib.contextmanager
def trace_syscalls(*pids: int, names: Sequence[str] = ("all",), refused: str = "") -> Iterator[Trace]:
    """Count system calls by name, see `Trace.counts`.

    Args:
        pids: The processes, as in `trace_sendfile`.
        names: Names or strace's classes (`%file`, `%network`); a name that this machine's kernel does not have is
            passed over.
        refused: A call that fails in the block although it could be done, and how: `sendfile:error=EINVAL`.
    """
    with tempfile.TemporaryDirectory(prefix="strace-") as directory:
        trace = Trace(Path(directory, "log"), names)
        # A server always waits in some call, so there is no moment in which all have returned.
        with _attached(trace, pids, settle=False, refused=refused):
            yield trace


@contextlib.contextmanager
def _attached(trace: Trace, pids: Iterable[int], *, settle: bool, refused: str = "") -> Iterator[None]:
    strace = shutil.which("strace")
    if strace is None:
        pytest.fail("strace is not installed, and without it nothing proves that the kernel moved the bytes")
    traced = sorted({each for pid in pids for each in (pid, *descendants(pid))})
    # A question mark lets strace pass over a name that this architecture does not have (sendfile64).
    wanted = ",".join(name if name == "all" or name.startswith("%") else f"?{name}" for name in trace._names)
    argv = [strace, "-f", "-y", "-s", "64", "-e", f"trace={wanted}", "-e", "signal=none", "-o", str(trace._log)]
    if refused:
        argv += ["-e", f"inject={refused}"]
    argv += [word for pid in traced for word in ("-p", str(pid))]
    with tempfile.TemporaryFile() as errors:

        def said() -> str:
            errors.seek(0)
            return errors.read().decode(errors="replace")

        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors)
        try:
            try:
                wait_until(
                    lambda: (
                        process.poll() is not None
                        # Children of a server may end meanwhile.
                        or all(_is_traced(pid, said()) or (pid not in pids and _has_ended(pid)) for pid in traced)
                    ),
                    what="strace to attach",
                )
            except AssertionError:
                pytest.fail(f"strace did not attach to {traced}: {said()}")
            if process.poll() is not None:
                pytest.fail(f"strace ended with {process.returncode}: {said()}")
            yield
            if settle:
                with contextlib.suppress(AssertionError):
                    wait_until(lambda: not trace.unfinished, timeout=5, what="calls to return")
        finally:
            # On SIGINT strace lets its processes go and ends by itself; killed, it would leave some of them stopped.
            process.send_signal(signal.SIGINT)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                pytest.fail(f"strace did not let go of {traced}: {said()}")
            finally:
                if trace._log.exists():
                    trace._finish()


def _has_ended(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def _is_traced(pid: int, said: str) -> bool:
    """Whether strace has told that it holds a process, and every thread of it runs again under a tracer."""
    if not re.search(rf"Process {pid} attached", said):
        return False
    try:
        states = [(task / "status").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return not any(re.search(r"^TracerPid:\t0$|^State:\t[tT]", state, re.MULTILINE) for state in states)
