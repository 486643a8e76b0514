"""uvicorn processes that serve `tests.support.apps`, and what must hold of each of them whatever a test does to it.

A `Site` knows the descriptors and loop registrations of its process when nothing happens, reads the transfers that the
application tells, and checks in `unharmed` that all is as before.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import json
import random
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.support import servers
from tests.support.servers import Server, wait_until
from tests.support.wire import Connection, WireResponse, format_request

__all__ = [
    "COMBINATIONS",
    "HUGE",
    "LARGE",
    "MIDDLE",
    "SMALL",
    "Setup",
    "Site",
    "Step",
    "census",
    "content",
    "of_length",
    "running",
    "script",
    "site_fixture",
    "vault",
]

#: Names in the vault: a body that leaves in one write with its head, one that the socket takes at once, one that takes
#: several turns, and one that no socket buffers hold.
SMALL, MIDDLE, LARGE, HUGE = "small.bin", "middle.bin", "large.bin", "huge.bin"
_SIZES = {SMALL: 1024, MIDDLE: 100_000, LARGE: 5 * 1024 * 1024, HUGE: 24 * 1024 * 1024}

Step = list[Any]


@functools.cache
def vault() -> Path:
    """The directory that the applications serve, made once; see `SMALL` and the others."""
    directory = Path(tempfile.mkdtemp(prefix="vault-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    for name in _SIZES:
        (directory / name).write_bytes(content(name))
    return directory


@functools.cache
def content(name: str) -> bytes:
    """The bytes of one of the vault's files."""
    return random.Random(name).randbytes(_SIZES[name])


_OURS = {"h11": "zcresponse.uvicorn:ZeroCopyH11Protocol", "httptools": "zcresponse.uvicorn:ZeroCopyHttpToolsProtocol"}


@dataclass(frozen=True)
class Setup:
    """One way to run an application on uvicorn.

    Attributes:
        loop: asyncio or uvloop.
        parser: h11 or httptools.
        app: The application's import string.
        stock: Whether uvicorn's own protocol class is used, not ours.
    """

    loop: str
    parser: str
    app: str = "tests.support.apps:app"
    stock: bool = False

    @property
    def http(self) -> str:
        """The value of `--http`."""
        return self.parser if self.stock else _OURS[self.parser]

    def __str__(self) -> str:
        name = self.app.partition(":")[2]
        return f"{self.loop}-{self.parser}" + ("" if name == "app" else f"-{name}")


COMBINATIONS = [Setup(loop, parser) for loop in ("asyncio", "uvloop") for parser in ("h11", "httptools")]


def script(*steps: Step, **query: object) -> str:
    """The target that makes the application run these steps, see `tests.support.apps`."""
    pairs = {"steps": json.dumps(steps, separators=(",", ":")), **query}
    return "/script?" + "&".join(f"{name}={quote(str(value), safe='')}" for name, value in pairs.items())


def of_length(length: int, *, status: int = 200) -> Step:
    """The step that starts a response of so many bytes."""
    return ["start", status, [["content-length", str(length)]]]


def census(pid: int) -> Counter[str]:
    """What a process holds open, and how many descriptors its event loop watches.

    The registrations are the kernel's own list: it names those too of which the loop knows nothing any more.
    """
    found: Counter[str] = Counter()
    for number, target in servers.open_descriptors(pid).items():
        found[re.sub(r":\[\d+\]", "", target)] += 1
        if target == "anon_inode:[eventpoll]":
            with contextlib.suppress(FileNotFoundError):
                found["watched"] += Path(f"/proc/{pid}/fdinfo/{number}").read_text().count("tfd:")
    return found


_TROUBLE = re.compile(
    r"Traceback|^ERROR(?!: +Cancel \d+ running task)|Exception ignored|ResourceWarning|never retrieved|was destroyed|"
    r"Fatal error|socket\.send\(\) raised|Exception in callback",
    re.MULTILINE,
)


@dataclass
class Site:
    """A running server with its habits.

    Attributes:
        server: The process.
        setup: How it was started.
    """

    server: Server
    setup: Setup
    _idle: Counter[str] = field(default_factory=Counter)
    _read: int = 0  # how much of the log has been judged

    @property
    def pid(self) -> int:
        """The process's number."""
        return self.server.pid

    def connect(self, *, receive_buffer: int | None = None, timeout: float = 20.0) -> Connection:
        """A connection."""
        return self.server.connect(receive_buffer=receive_buffer, timeout=timeout)

    def get(self, target: str, *fields: tuple[str, str]) -> WireResponse:
        """One GET on a connection of its own."""
        with self.connect() as connection:
            return connection.get(target, *fields)

    def control(self, verb: str, argument: str) -> str:
        """Ask the application to do something, see `tests.support.apps`."""
        response = self.get(f"/control/{verb}/{argument}")
        assert response.status == 200
        return response.body.decode()

    def stall(self, target: str, *fields: tuple[str, str]) -> Connection:
        """A connection on which the head of an answer was read and nothing of a body larger than its buffers."""
        connection = self.connect(receive_buffer=4096)
        connection.send(format_request("GET", target, fields))
        assert connection.read_head().status in (200, 206)
        return connection

    # --- what the process says ---

    def log_since(self) -> str:
        """What was logged since the last block of `unharmed` began or ended."""
        return self.server.log()[self._read :]

    def transfers(self, at_least: int = 1) -> list[dict[str, Any]]:
        """The transfers told since then; waits for so many."""

        def told() -> list[dict[str, Any]]:
            return [json.loads(line) for line in re.findall(r"^transfer (\{.*\})$", self.log_since(), re.MULTILINE)]

        wait_until(lambda: len(told()) >= at_least, what="a transfer's report")
        return told()

    # --- what must hold ---

    def settle(self, *, tried: bool = True) -> None:
        """Learn what the process holds when nothing happens, and try that a few requests do not change it."""
        held = servers.open_descriptors(self.pid)
        # A loop may watch its listening socket only from its next turn on; after an answer it has had one.
        self.get("/")
        wait_until(lambda: servers.open_descriptors(self.pid) == held, what="the connection to end")
        self._idle = census(self.pid)
        if tried:
            self.serves(1)
            self.wait_idle()
        self.forget_log()

    def forget_log(self) -> None:
        """Count what was logged so far as judged."""
        self._read = len(self.server.log())

    def wait_idle(self) -> None:
        """Wait until the process holds what it held at the beginning."""
        limit = 10.0
        try:
            wait_until(lambda: census(self.pid) == self._idle, limit, what="descriptors and registrations to go")
        except AssertionError:
            now = census(self.pid)
            pytest.fail(f"still held after {limit} s: more {now - self._idle}, fewer {self._idle - now}")

    def serves(self, times: int = 5) -> None:
        """Ask for files on fresh connections, two on each."""
        path = "/ours" if self.setup.app.partition(":")[2] not in ("app", "wrapped") else "/file"
        for _ in range(times):
            with self.connect() as connection:
                for name in (MIDDLE, SMALL):
                    response = connection.get(f"{path}/{name}")
                    assert (response.status, response.body == content(name)) == (200, True)

    @contextlib.contextmanager
    def unharmed(self, *, faults: Sequence[str] = (), serves: int = 5) -> Iterator[None]:
        """Whatever the block does: descriptors, loop registrations, log and later answers are as if it had not been.

        Args:
            faults: The exceptions that the application has to log, one report each; by default none.
            serves: How many fresh connections are tried afterwards.
        """
        self._judge(())
        try:
            yield
            # What was told in the block stays readable until it ends.
            for fault in faults:
                wait_until(lambda: fault in self.log_since(), what=f"the report of {fault}")  # noqa: B023
            self.wait_idle()
            self._judge(faults)
            self.serves(serves)
            self.wait_idle()
            self._judge(())
        except BaseException:
            # One failure is enough: the tests after it begin with what there is now.
            with contextlib.suppress(pytest.fail.Exception):
                self.wait_idle()
            self._idle = census(self.pid)
            self._read = len(self.server.log())
            raise

    def _judge(self, faults: Sequence[str]) -> None:
        log = self.log_since()
        if not faults and (found := _TROUBLE.search(log)):
            pytest.fail(f"the server's log: …{log[max(found.start() - 1000, 0) : found.end() + 4000]}", pytrace=False)
        for fault in faults:
            assert re.search(rf"^([\w.]+\.)?{fault}(:|$)", log, re.MULTILINE), log[-6000:]
        assert log.count("Exception in ASGI application") == len(faults), log[-6000:]
        self._read += len(log)


@contextlib.contextmanager
def running(setup: Setup, *args: str, env: Mapping[str, str] | None = None, settle: bool = True) -> Iterator[Site]:
    """Start uvicorn, every warning an error, and check at the end that it stops by itself with a clean log.

    Args:
        setup: What is started.
        args: More arguments of uvicorn's command line.
        env: More environment variables.
        settle: Whether the application can answer with a file, see `Site.settle`.
    """
    with servers.uvicorn(
        setup.app,
        *args,
        loop=setup.loop,
        http=setup.http,
        env={"VAULT": str(vault()), **(env or {})},
        python=("-X", "dev", "-W", "error"),
    ) as server:
        site = Site(server, setup)
        site.settle(tried=settle)
        yield site
        site._judge(())
    assert not server.killed
    site._judge(())


_Fixture = Callable[..., Iterator[Site]]


def site_fixture(
    *args: str, setups: Sequence[Setup] = tuple(COMBINATIONS), env: Mapping[str, str] | None = None
) -> _Fixture:
    """A fixture that gives a test module one site per setup, each started once."""

    @pytest.fixture(scope="module", params=setups, ids=str)
    def site(request: pytest.FixtureRequest) -> Iterator[Site]:
        with running(request.param, *args, env=env) as made:
            yield made

    return site


_numbers = itertools.count()


@contextlib.contextmanager
def own_file(size: int) -> Iterator[tuple[Path, bytes]]:
    """A file in the vault that a test may change, and its bytes."""
    name = f"own-{next(_numbers)}.bin"
    data = random.Random(name).randbytes(size)
    path = vault() / name
    path.write_bytes(data)
    try:
        yield path, data
    finally:
        path.unlink(missing_ok=True)
