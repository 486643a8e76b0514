"""Servers as processes of their own, for as long as they are measured."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

__all__ = ["FILES", "Block", "Running", "Server", "ServerFailed", "aiohttp", "cheroot", "daphne", "granian", "gunicorn",
           "hypercorn", "raw", "run", "uvicorn", "waitress"]  # fmt: skip

#: The variable that names the directory whose files the applications answer with.
FILES: Final = "ZCRESPONSE_BENCH_FILES"

#: Seconds for a start, and again for a stop.
_TIMEOUT_S: Final = 30.0

#: How variables begin that are meant for other servers than these. WEB_CONCURRENCY is the number of workers.
_SETTINGS: Final = ("UVICORN_", "GUNICORN_", "GRANIAN_", "WEB_CONCURRENCY")

_PACKAGE_PARENT: Final = Path(__file__).resolve().parents[2]


class Server(Protocol):
    """A server that can be measured."""

    @property
    def pid(self) -> int:
        """The number of the process that was started; a master, where there are workers."""

    @property
    def port(self) -> int:
        """Where it listens, on 127.0.0.1."""

    def log(self) -> str:
        """What it wrote to standard output and error so far."""


Block = contextlib.AbstractContextManager[Server]


class ServerFailed(Exception):
    """A server did not become ready; the message has the end of its log."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server that `run` has started."""

    pid: int
    port: int
    log_path: Path

    def log(self) -> str:
        """What it wrote to standard output and error so far."""
        return self.log_path.read_text("utf-8", "replace")


@contextlib.contextmanager
def run(argv: Sequence[str], *, port: int | None = None, env: Mapping[str, str] | None = None) -> Iterator[Running]:
    """Start a server, wait until it takes connections, and stop it at the end of the block.

    Args:
        argv: The command.
        port: Where it will listen on 127.0.0.1, if that is known; otherwise its log has to tell.
        env: Variables besides this process's own.

    Raises:
        ServerFailed: It ended, or took no connection in time.
    """
    with tempfile.TemporaryDirectory(prefix="zcresponse-bench-") as directory:
        log_path = Path(directory, "log")
        with log_path.open("ab") as log:
            # In a session of its own: Ctrl-C is for this process alone, and all that a server starts can be ended.
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment(env or {}),
                # Where there is no gunicorn.conf.py, and no module that hides another.
                cwd=directory,
                start_new_session=True,
            )
        try:
            yield Running(process.pid, _wait_ready(process, log_path, port), log_path)
        finally:
            _stop(process)


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith(_SETTINGS)}
    # They are started elsewhere, see `run`.
    given = [os.path.abspath(entry) for entry in env.get("PYTHONPATH", "").split(os.pathsep) if entry]
    env["PYTHONPATH"] = os.pathsep.join([str(_PACKAGE_PARENT), *given])
    env["PYTHONSAFEPATH"] = env["PYTHONUNBUFFERED"] = env["NO_COLOR"] = "1"
    return {**env, **extra}


def _wait_ready(process: subprocess.Popen[bytes], log_path: Path, port: int | None) -> int:
    limit = time.monotonic() + _TIMEOUT_S
    while True:
        said = log_path.read_text("utf-8", "replace")
        found = re.search(r"127\.0\.0\.1:(\d+)", said)
        if port or found:
            port = port or int(found[1])  # type: ignore[index]
            with contextlib.suppress(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S).close()
                return port
        if process.poll() is not None or time.monotonic() > limit:
            how = "was not ready in time" if process.returncode is None else f"ended with {process.returncode}"
            raise ServerFailed(f"{how}: {said.strip().rpartition(chr(10))[2]}")
        time.sleep(0.01)


def _stop(process: subprocess.Popen[bytes]) -> None:
    try:
        process.terminate()
        process.wait(_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        pass
    finally:
        # Also what a killed master leaves, or when somebody presses Ctrl-C again.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
        process.wait()


# --- one small function per server ------------------------------------------------------------------------------------


def _python(module: str, *args: str) -> list[str]:
    return [sys.executable, "-m", module, *args]


def _files(directory: Path) -> dict[str, str]:
    return {FILES: str(directory.absolute())}


def raw(way: str, directory: Path) -> Block:
    """One of the ways of `zcresponse.bench.raw`."""
    return run(_python("zcresponse.bench.raw", way, str(directory.absolute())))


def uvicorn(app: str, directory: Path, *, http: str = "auto", loop: str = "auto") -> Block:
    """uvicorn; its own choice of loop and parser, unless told otherwise."""
    args = ["--host", "127.0.0.1", "--port", "0", "--http", http, "--loop", loop, "--lifespan", "off"]
    return run(_python("uvicorn", app, *args, "--no-access-log"), env=_files(directory))


def hypercorn(app: str, directory: Path) -> Block:
    """hypercorn."""
    return run(_python("hypercorn", app, "--bind", "127.0.0.1:0"), env=_files(directory))


@contextlib.contextmanager
def granian(app: str, directory: Path, *, interface: str = "asgi") -> Iterator[Server]:
    """granian, which does not know port 0: one is held by a socket that never listens, and shared with it."""
    if not hasattr(socket, "SO_REUSEPORT"):
        raise ServerFailed("no port can be held for it on this platform")
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
        args = ["--interface", interface, "--host", "127.0.0.1", "--port", str(port), app]
        with run(_python("granian", *args), port=port, env=_files(directory)) as server:
            yield server


def daphne(app: str, directory: Path) -> Block:
    """daphne."""
    return run(_python("daphne", "--bind", "127.0.0.1", "--port", "0", app), env=_files(directory))


def gunicorn(app: str, directory: Path, *, threads: int = 8) -> Block:
    """gunicorn with one worker; of 1 thread it is its `sync` worker."""
    args = ["--bind", "127.0.0.1:0", "--threads", str(threads)]
    # Newer releases put a control socket into the home directory, which others of theirs may be using.
    if importlib.util.find_spec("gunicorn.ctl") is not None:
        args.append("--no-control-socket")
    return run(_python("gunicorn", app, *args), env=_files(directory))


def waitress(app: str, directory: Path) -> Block:
    """waitress."""
    return run(_python("waitress", "--listen=127.0.0.1:0", app), env=_files(directory))


def cheroot(app: str, directory: Path) -> Block:
    """cheroot, whose own command does not tell its port."""
    return run(_python("zcresponse.bench.apps.cheroot", app), env=_files(directory))


def aiohttp(directory: Path) -> Block:
    """aiohttp's own server with its own FileResponse."""
    return run(_python("zcresponse.bench.apps.aiohttp"), env=_files(directory))
