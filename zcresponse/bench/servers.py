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

__all__ = ["APPS", "FILES", "Block", "Running", "Server", "ServerFailed", "aiohttp", "cheroot", "daphne", "granian",
           "gunicorn", "hypercorn", "raw", "run", "uvicorn", "waitress"]  # fmt: skip

#: The package of the applications.
APPS: Final = "zcresponse.bench.apps"

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


# --- one small function per server; an application is named within `APPS`, as "flask:stock" ---------------------------


def _serve(module: str, *args: str, directory: Path, port: int | None = None) -> Block:
    """Run a module as a program that is told where the files are."""
    return run([sys.executable, "-m", module, *args], port=port, env={FILES: str(directory.absolute())})


def raw(way: str, directory: Path) -> Block:
    """One of the ways of `zcresponse.bench.raw`."""
    return _serve("zcresponse.bench.raw", way, str(directory.absolute()), directory=directory)


def uvicorn(app: str, directory: Path, *, http: str = "auto", loop: str = "auto") -> Block:
    """uvicorn; its own choice of loop and parser, unless told otherwise."""
    args = ["--host", "127.0.0.1", "--port", "0", "--http", http, "--loop", loop, "--lifespan", "off"]
    return _serve("uvicorn", f"{APPS}.{app}", *args, "--no-access-log", directory=directory)


def hypercorn(app: str, directory: Path) -> Block:
    """hypercorn."""
    return _serve("hypercorn", f"{APPS}.{app}", "--bind", "127.0.0.1:0", directory=directory)


@contextlib.contextmanager
def granian(app: str, directory: Path) -> Iterator[Server]:
    """granian, which does not know port 0: one is held by a socket that never listens, and shared with it."""
    if not hasattr(socket, "SO_REUSEPORT"):
        raise ServerFailed("no port can be held for it on this platform")
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
        args = ["--interface", "asgi", "--host", "127.0.0.1", "--port", str(port), f"{APPS}.{app}"]
        with _serve("granian", *args, directory=directory, port=port) as server:
            yield server


def daphne(app: str, directory: Path) -> Block:
    """daphne."""
    return _serve("daphne", "--bind", "127.0.0.1", "--port", "0", f"{APPS}.{app}", directory=directory)


def gunicorn(app: str, directory: Path, *, worker_class: str) -> Block:
    """gunicorn with one worker; `gthread` has 8 threads."""
    # It turns away what comes beyond 1,000 connections, and keeps one of them back.
    args = ["--bind", "127.0.0.1:0", "--worker-class", worker_class, "--worker-connections", "2000"]
    if worker_class == "gthread":
        args += ["--threads", "8"]
    # Newer releases put a control socket into the home directory, which others of theirs may be using.
    if importlib.util.find_spec("gunicorn.ctl") is not None:
        args.append("--no-control-socket")
    return _serve("gunicorn", f"{APPS}.{app}", *args, directory=directory)


def waitress(app: str, directory: Path) -> Block:
    """waitress."""
    return _serve("waitress", "--listen=127.0.0.1:0", f"{APPS}.{app}", directory=directory)


def cheroot(app: str, directory: Path) -> Block:
    """cheroot, whose own command does not tell its port."""
    return _serve(f"{APPS}.cheroot", f"{APPS}.{app}", directory=directory)


def aiohttp(directory: Path) -> Block:
    """aiohttp's own server with its own FileResponse."""
    return _serve(f"{APPS}.aiohttp", directory=directory)
