"""Real server processes on 127.0.0.1, each with a port that the kernel picked.

A server either binds port 0 and tells the number in its log, or inherits a socket that was bound here; nobody guesses
a free port. A server is stopped by its process number and killed only when it does not stop in time.

The helpers at the end look into a running process by way of /proc: Linux only.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tests.support.wire import Connection

__all__ = [
    "ROOT",
    "Certificate",
    "Server",
    "ServerFailed",
    "certificate",
    "daphne",
    "descendants",
    "granian",
    "gunicorn",
    "http_server",
    "hypercorn",
    "is_running",
    "listening_socket",
    "log_has",
    "nginx",
    "nginx_main",
    "nginx_paths",
    "nonecorn",
    "open_descriptors",
    "rss_bytes",
    "run_server",
    "thread_ids",
    "uvicorn",
    "wait_until",
    "workers",
]

ROOT = Path(__file__).resolve().parents[2]

_T = TypeVar("_T")


class ServerFailed(AssertionError):
    """A server did not become ready; the message holds its log."""


@dataclass
class Server:
    """A running server.

    Attributes:
        process: The process that was started.
        port: Where it listens, on 127.0.0.1.
        log_path: The file that takes its standard output and error.
        tls: A client context that trusts it, or None for clear text.
        killed: Whether it had to be killed, known after the block.
    """

    process: subprocess.Popen[bytes]
    port: int
    log_path: Path
    tls: ssl.SSLContext | None = None
    killed: bool = False
    _last_log: str | None = field(default=None, repr=False)

    @property
    def pid(self) -> int:
        """The number of the process that was started; a master, where there are workers."""
        return self.process.pid

    @property
    def returncode(self) -> int | None:
        """How it ended, or None while it runs."""
        return self.process.poll()

    def log(self) -> str:
        """What it wrote to standard output and error so far; stays readable after the block."""
        if self._last_log is not None:
            return self._last_log
        return self.log_path.read_text("utf-8", "replace")

    def connect(self, *, timeout: float = 20.0, receive_buffer: int | None = None) -> Connection:
        """A connection to it, see `wire.Connection`."""
        return Connection(self.port, timeout=timeout, tls=self.tls, receive_buffer=receive_buffer)

    def stop(self, how: signal.Signals = signal.SIGTERM, timeout: float = 15.0) -> int:
        """Ask it to stop, wait, and kill it and its children when it does not.

        Args:
            how: The signal to ask with.
            timeout: Seconds to wait.

        Returns:
            The exit status.
        """
        if self.process.poll() is None:
            children = descendants(self.pid)
            self.process.send_signal(how)
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.killed = True
                children = {*children, *descendants(self.pid)}
                self.process.kill()
                self.process.wait()
                for child in children:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(child, signal.SIGKILL)
        return self.process.wait()


@contextlib.contextmanager
def run_server(
    argv: Sequence[str],
    *,
    port: int | None = None,
    announced: str = r"://127\.0\.0\.1:(\d+)",
    ready: Callable[[Server], bool] | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
    pass_fds: Sequence[int] = (),
    tls: ssl.SSLContext | None = None,
    how_to_stop: signal.Signals = signal.SIGTERM,
    timeout: float = 30.0,
) -> Iterator[Server]:
    """Start any server, wait until it is ready, and stop it at the end of the block.

    Args:
        argv: The command.
        port: The port, when it is known before.
        announced: Otherwise a pattern for its log, whose first group is the port.
        ready: What else has to hold, asked again and again; by default that the port takes a connection.
        env: Variables besides this process's own, of which `ZCRESPONSE_*` and `UVICORN_*` are left out.
        cwd: The directory to start in; the project's root is importable in any case.
        pass_fds: Descriptors that it inherits.
        tls: A client context, for `Server.connect`.
        how_to_stop: The signal that asks it to stop.
        timeout: Seconds for the start, and again for the stop.

    Raises:
        ServerFailed: It ended, or was not ready in time.
    """
    with tempfile.TemporaryDirectory(prefix="server-") as directory:
        log_path = Path(directory, "log")
        with log_path.open("ab") as log:
            process = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=cwd,
                env=_environment(env or {}),
                pass_fds=tuple(pass_fds),
            )
        server = Server(process, port or 0, log_path, tls)
        try:
            _wait_ready(server, announced, ready or _takes_connections, timeout)
            yield server
        finally:
            server.stop(how_to_stop, timeout)
            server._last_log = server.log()


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    env = {
        name: value for name, value in os.environ.items() if not name.startswith(("ZCRESPONSE_", "UVICORN_", "NGINX"))
    }
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), env.get("PYTHONPATH")]))
    env["PYTHONUNBUFFERED"] = "1"
    # Colours would stand within what tests look for.
    env["NO_COLOR"] = "1"
    return {**env, **extra}


def _wait_ready(server: Server, announced: str, ready: Callable[[Server], bool], timeout: float) -> None:
    def is_ready() -> bool:
        if server.returncode is not None:
            raise ServerFailed(f"{server.process.args!r} ended with {server.returncode}:\n{server.log()}")
        if not server.port:
            found = re.search(announced, server.log())
            if found is None:
                return False
            server.port = int(found[1])
        return ready(server)

    try:
        wait_until(is_ready, timeout=timeout, what="the server")
    except ServerFailed:
        raise
    except AssertionError:
        raise ServerFailed(f"{server.process.args!r} was not ready in {timeout} s:\n{server.log()}") from None


def _takes_connections(server: Server) -> bool:
    try:
        socket.create_connection(("127.0.0.1", server.port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


def log_has(text: str, times: int = 1) -> Callable[[Server], bool]:
    return lambda server: server.log().count(text) >= times


@contextlib.contextmanager
def listening_socket() -> Iterator[socket.socket]:
    """A socket that listens on a port of the kernel's choice, to be inherited."""
    with socket.create_server(("127.0.0.1", 0), backlog=511) as listener:
        yield listener


# --- one small function per server ------------------------------------------------------------------------------------


def uvicorn(
    app: str,
    *args: str,
    loop: str = "asyncio",
    http: str = "httptools",
    workers: int = 1,
    tls: Certificate | None = None,
    env: Mapping[str, str] | None = None,
    python: Sequence[str] = (),
    module: str = "uvicorn",
) -> contextlib.AbstractContextManager[Server]:
    """uvicorn in a process of its own.

    Args:
        app: The application's import string, such as `tests.support.stock:app`.
        args: More arguments of its command line.
        loop: asyncio, uvloop or an import string.
        http: h11, httptools or an import string.
        workers: More than one makes `Server.pid` a master; see `workers`.
        tls: A certificate makes it speak TLS.
        env: More environment variables.
        python: Arguments of the interpreter, such as `-X dev`.
        module: What `-m` starts, for a command with uvicorn's arguments.
    """
    argv = [sys.executable, *python, "-m", module, app, "--host", "127.0.0.1", "--port", "0"]
    argv += ["--loop", loop, "--http", http, "--workers", str(workers), *_tls_arguments(tls), *args]
    return run_server(
        argv,
        announced=r"running on https?://127\.0\.0\.1:(\d+)",
        ready=log_has("Application startup complete", workers),
        env=env,
        tls=tls.client_context() if tls else None,
    )


def _tls_arguments(tls: Certificate | None) -> list[str]:
    return ["--ssl-certfile", str(tls.certificate), "--ssl-keyfile", str(tls.key)] if tls else []


def http_server(directory: Path, *args: str) -> contextlib.AbstractContextManager[Server]:
    """The standard library's `python -m http.server`, HTTP/1.1."""
    argv = [sys.executable, "-m", "http.server", "0", "--bind", "127.0.0.1", "--protocol", "HTTP/1.1"]
    argv += ["--directory", str(directory), *args]
    # It stops cleanly on Ctrl-C only.
    return run_server(argv, how_to_stop=signal.SIGINT)


def gunicorn(
    app: str,
    *args: str,
    worker_class: str = "sync",
    workers: int = 1,
    tls: Certificate | None = None,
    env: Mapping[str, str] | None = None,
) -> contextlib.AbstractContextManager[Server]:
    """gunicorn with any worker class; `Server.pid` is the master."""
    argv = [sys.executable, "-m", "gunicorn", app, "--bind", "127.0.0.1:0", "--worker-class", worker_class]
    argv += ["--workers", str(workers)]
    # Newer releases put a control socket into the home directory, which servers side by side would fight over.
    if "control_socket_disable" in importlib.import_module("gunicorn.config").make_settings():
        argv.append("--no-control-socket")
    if tls:
        argv += ["--certfile", str(tls.certificate), "--keyfile", str(tls.key)]
    return run_server([*argv, *args], env=env, tls=tls.client_context() if tls else None)


@contextlib.contextmanager
def hypercorn(
    app: str, *args: str, worker_class: str = "asyncio", env: Mapping[str, str] | None = None, module: str = "hypercorn"
) -> Iterator[Server]:
    """hypercorn, or with `module` one of its descendants, on a socket that it inherits."""
    with listening_socket() as listener:
        argv = [sys.executable, "-m", module, app, "--bind", f"fd://{listener.fileno()}"]
        argv += ["--worker-class", worker_class, *args]
        port = listener.getsockname()[1]
        with run_server(argv, port=port, ready=log_has("Running on"), env=env, pass_fds=[listener.fileno()]) as server:
            # Kept open here, it would take connections that nobody accepts.
            listener.close()
            yield server


def nonecorn(
    app: str, *args: str, worker_class: str = "asyncio", env: Mapping[str, str] | None = None
) -> contextlib.AbstractContextManager[Server]:
    """nonecorn, which has hypercorn's name as a package; `tests/run` installs it into a directory beside the others."""
    directory = Path(sys.prefix, "nonecorn")
    if not directory.is_dir():
        raise ServerFailed(f"nonecorn is not installed; pip install --no-deps --target {directory} nonecorn")
    path = os.pathsep.join([str(directory), str(ROOT)])
    return hypercorn(app, *args, worker_class=worker_class, env={**(env or {}), "PYTHONPATH": path})


def daphne(app: str, *args: str, env: Mapping[str, str] | None = None) -> contextlib.AbstractContextManager[Server]:
    """daphne."""
    argv = [sys.executable, "-m", "daphne", "--bind", "127.0.0.1", "--port", "0", *args, app]
    return run_server(argv, announced=r"Listening on TCP address 127\.0\.0\.1:(\d+)", env=env)


@contextlib.contextmanager
def granian(app: str, *args: str, interface: str = "asgi", env: Mapping[str, str] | None = None) -> Iterator[Server]:
    """granian, which knows neither port 0 nor inherited sockets.

    The port is held by a socket that is bound with SO_REUSEPORT and never listens; granian binds the same way.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
        argv = [sys.executable, "-m", "granian", "--interface", interface, "--host", "127.0.0.1", "--port", str(port)]
        with run_server([*argv, *args, app], port=port, env=env) as server:
            yield server


@contextlib.contextmanager
def nginx(directory: Path, *, directives: str = "", location: str = "", workers: int = 1) -> Iterator[Server]:
    """nginx serving a directory by sendfile, on a socket that it inherits as in an upgrade of its binary.

    Args:
        directory: The root.
        directives: More text for the `server` block.
        location: More text for the `location /` block.
        workers: Worker processes; see `workers` for their numbers.
    """
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        raise ServerFailed("nginx is not installed")
    with tempfile.TemporaryDirectory(prefix="nginx-") as home, listening_socket() as listener:
        port = listener.getsockname()[1]
        config = Path(home, "nginx.conf")
        config.write_text(
            nginx_main(home, workers)
            + f"http {{ {nginx_paths(home)} access_log off; default_type application/octet-stream;\n"
            f"sendfile on; tcp_nopush on; server {{ listen 127.0.0.1:{port}; root {directory}; {directives}\n"
            f"location / {{ {location} }} }} }}\n"
        )
        argv = [program, "-p", home, "-c", str(config)]
        env = {"NGINX": f"{listener.fileno()};"}
        ready = log_has("start worker process ", workers)
        with run_server(argv, port=port, ready=ready, env=env, pass_fds=[listener.fileno()], cwd=Path(home)) as server:
            listener.close()
            yield server


def nginx_main(home: str, workers: int = 1) -> str:
    """The beginning of a configuration, for a directory of the server's own."""
    user = "user root;" if os.geteuid() == 0 else ""
    return (
        f"{user} daemon off; worker_processes {workers}; pid {home}/pid; error_log stderr notice;\n"
        "events { worker_connections 4096; }\n"
    )


def nginx_paths(home: str) -> str:
    """Where it may write."""
    return " ".join(f"{kind}_temp_path {home};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))


# --- TLS --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate for localhost that signs itself, and its key, as PEM files."""

    certificate: Path
    key: Path

    def client_context(self) -> ssl.SSLContext:
        """A client context that trusts this certificate alone."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.certificate)
        return context


@functools.cache
def certificate() -> Certificate:
    """The certificate of this test run, made once by the `openssl` command: no Python package is needed for it."""
    home = Path(tempfile.mkdtemp(prefix="certificate-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    made = Certificate(home / "certificate.pem", home / "key.pem")
    openssl = shutil.which("openssl")
    if openssl is None:
        raise ServerFailed("openssl is not installed, and the tests over TLS need a certificate")
    argv = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    argv += ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    argv += ["-keyout", str(made.key), "-out", str(made.certificate)]
    subprocess.run(argv, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    return made


# --- looking into a process -------------------------------------------------------------------------------------------


def wait_until(predicate: Callable[[], _T], timeout: float = 10.0, *, what: str = "the condition") -> _T:
    """Ask until the answer is true, and return it.

    Args:
        predicate: The question. What it raises ends the wait.
        timeout: Seconds.
        what: Names it in the failure.

    Raises:
        AssertionError: It did not become true in time.
    """
    __tracebackhide__ = True
    limit = time.monotonic() + timeout
    pause = 0.001
    while not (answer := predicate()):
        if time.monotonic() > limit:
            raise AssertionError(f"waited {timeout} s for {what}; the last answer was {answer!r}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)
    return answer


def open_descriptors(pid: int) -> dict[int, str]:
    """The open descriptors of a process and what they refer to: a path, `socket:[…]`, `anon_inode:[…]`."""
    found: dict[int, str] = {}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        # Closed between the two looks.
        with contextlib.suppress(FileNotFoundError):
            found[int(entry.name)] = os.readlink(entry)
    return dict(sorted(found.items()))


def rss_bytes(pid: int) -> int:
    """Resident memory of a process in bytes, shared pages included."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(f"process {pid} has no memory any more")


def thread_ids(pid: int) -> set[int]:
    """The numbers of a process's threads."""
    return {int(entry.name) for entry in Path(f"/proc/{pid}/task").iterdir()}


def children(pid: int) -> set[int]:
    """The direct children of a process, of all its threads."""
    found: set[int] = set()
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found |= {int(child) for child in (task / "children").read_text().split()}
    return found


def descendants(pid: int) -> set[int]:
    """The children of a process, theirs, and so on."""
    found = children(pid)
    for child in list(found):
        found |= descendants(child)
    return found


def workers(pid: int) -> set[int]:
    """The children of a master that do its work: all but the resource tracker of Python's multiprocessing."""
    found: set[int] = set()
    for child in children(pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if b"resource_tracker" not in Path(f"/proc/{child}/cmdline").read_bytes():
                found.add(child)
    return found


def is_running(pid: int) -> bool:
    """Whether a process lives; one that ended and was not waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in ("Z", "X")
