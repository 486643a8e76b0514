"""`zcresponse serve`: a directory over HTTP, on uvicorn with kernel sendfile."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib.util
import inspect
import json
import os
import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

import click
import uvicorn
from uvicorn.supervisors import Multiprocess

from zcresponse.asgi.connection.pump import reset
from zcresponse.asgi.static import StaticApp
from zcresponse.commands import printable, version_option
from zcresponse.environment import Settings
from zcresponse.files.linux import Storage, storage_of
from zcresponse.sendfile import AVAILABLE
from zcresponse.uvicorn import ZeroCopyH11Protocol

__all__ = ["command", "served_app"]

HAS_HTTPTOOLS: Final = importlib.util.find_spec("httptools") is not None

#: How the settings reach worker processes, which start anew.
_ENVIRONMENT: Final = "ZCRESPONSE_SERVE"

#: Seconds that running downloads are given once the server was asked to stop; a second Ctrl-C ends them at once.
_GRACE_S: Final = 3

_LOGGING: Final[dict[str, Any]] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "plain": {"format": "%(levelname)s: %(message)s"},
        "access": {
            "()": "uvicorn.logging.AccessFormatter",
            "fmt": '%(asctime)s %(client_addr)s "%(request_line)s" %(status_code)s',
            "datefmt": "%H:%M:%S",
        },
    },
    "handlers": {
        "plain": {"class": "logging.StreamHandler", "formatter": "plain", "stream": "ext://sys.stderr"},
        "access": {"class": "logging.StreamHandler", "formatter": "access", "stream": "ext://sys.stdout"},
    },
    "loggers": {
        "zcresponse": {"handlers": ["plain"], "level": "WARNING"},
        "uvicorn": {"handlers": ["plain"], "level": "WARNING", "propagate": False},
        "uvicorn.access": {"handlers": ["access"], "level": "INFO", "propagate": False},
    },
}


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.argument("directory", metavar="[DIR]", default=".", type=click.Path(), nargs=1)
@click.option("--host", default="127.0.0.1", help="Address to listen on; 0.0.0.0 or :: lets other machines in.")
@click.option("--port", default=8000, type=click.IntRange(0, 65535), help="Port to listen on; 0 picks a free one.")
@click.option("--loop", default="auto", type=click.Choice(["auto", "uvloop", "asyncio"]), help="Event loop.")
@click.option("--http", default="auto", type=click.Choice(["auto", "h11", "httptools"]), help="HTTP parser.")
@click.option("--workers", default=1, type=click.IntRange(1), help="Number of processes.")
@click.option("--no-listing", is_flag=True, help="Answer 404 for directories without an index.html.")
@click.option("--follow-symlinks", is_flag=True, help="Follow links that stay inside DIR; by default they are 404.")
@click.option("--hidden", is_flag=True, help="Serve names that begin with a dot too; by default they are 404.")
@click.option(
    "--max-age",
    type=click.IntRange(0),
    metavar="SECONDS",
    help="How long browsers and caches may use a file without asking again; by default they decide.",
)
@click.option("--access-log/--no-access-log", default=False, help="Write a line for each request.")
@version_option
def command(
    directory: str,
    host: str,
    port: int,
    loop: str,
    http: str,
    workers: int,
    no_listing: bool,
    follow_symlinks: bool,
    hidden: bool,
    max_age: int | None,
    access_log: bool,
) -> None:
    """Serve the files in DIR (default: the current directory).

    Directories show their index.html or a list of what is in them. Ranges, resumed downloads and conditional requests
    are answered; nothing outside of DIR can be reached. Ctrl-C stops.

    \b
    zcresponse serve                               this directory, for this machine
    zcresponse serve ~/videos --host 0.0.0.0       for everybody on the network
    zcresponse serve dist --port 0 --no-listing    any free port, no lists of files
    zcresponse serve models --workers 4            four processes

    Where the kernel cannot send files well (some network file systems), the environment variable
    ZCRESPONSE_SENDFILE=off makes them be read instead.
    """
    settings: dict[str, Any] = {
        # Empty, by a variable that was not set, is not the current directory.
        "directory": os.path.abspath(directory) if directory else "",
        "listing": not no_listing,
        "follow_symlinks": follow_symlinks,
        "hidden": hidden,
        "max_age": max_age,
    }
    app = _checked_app(settings, directory)
    for option, choice in (("--loop", loop), ("--http", http)):
        if choice in ("uvloop", "httptools") and importlib.util.find_spec(choice) is None:
            raise click.ClickException(f"{option} {choice}: {choice} is not installed")
    bytes_move = _how_bytes_move(settings["directory"])
    listener = _listen(host, port)
    shown_host = f"[{host}]" if ":" in host else host
    url = f"http://{shown_host}:{listener.getsockname()[1]}/"
    start_line = f"Serving {printable(settings['directory'])} on {url} ({bytes_move}). Ctrl-C stops."

    def config(served: Any, **more: Any) -> uvicorn.Config:
        return uvicorn.Config(
            served,
            host=host,
            port=port,
            loop=loop,
            http=f"{__name__}:{'HttpToolsProtocol' if http != 'h11' and HAS_HTTPTOOLS else 'H11Protocol'}",
            ws="none",
            lifespan="off",
            access_log=access_log,
            log_config=_LOGGING,
            proxy_headers=False,
            server_header=False,
            # A backstop only: uvicorn's own way out leaves a traceback for each request that it cancels.
            timeout_graceful_shutdown=_GRACE_S + 5,
            **more,
        )

    # Asked to stop by Ctrl-C or by a service manager: the ordinary end, exit code 0.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with listener:
        try:
            if workers == 1:
                _Server(config(app), lambda: click.echo(start_line)).run(sockets=[listener])
            else:
                os.environ[_ENVIRONMENT] = json.dumps(settings)
                factory = "zcresponse.commands.serve:served_app"
                _run_workers(config(factory, factory=True, workers=workers), listener, start_line)
        except KeyboardInterrupt:
            pass
    click.echo("Stopped.")


def served_app() -> StaticApp:
    """Make the application of a worker process from the settings in the environment."""
    return StaticApp(**json.loads(os.environ[_ENVIRONMENT]))


def _checked_app(settings: dict[str, Any], given: str) -> StaticApp:
    try:
        app = StaticApp(**settings)
        # What cannot be listed cannot be served either, and is better told now.
        with os.scandir(settings["directory"]):
            pass
    except FileNotFoundError:
        raise click.ClickException(f"{printable(given)}: no such directory")
    except NotADirectoryError:
        raise click.ClickException(f"{printable(given)}: not a directory")
    except OSError as error:
        raise click.ClickException(f"{printable(given)}: {error.strerror}")
    return app


def _how_bytes_move(directory: str) -> str:
    settings = Settings.from_environment()
    if not AVAILABLE:
        return "no sendfile(2) on this platform: bytes are read and written, but where the event loop can send files"
    if not settings.sendfile:
        return "no sendfile, ZCRESPONSE_SENDFILE is off: bytes are read and written"
    if not settings.pathsend:
        return "no sendfile, ZCRESPONSE_PATHSEND is off: bytes are read and written"
    if _storage(directory) is Storage.UNKNOWN:
        return "no sendfile, this file system may make others wait: bytes are read and written"
    return "sendfile: the kernel moves the bytes"


def _storage(directory: str) -> Storage:
    try:
        fd = os.open(directory, os.O_RDONLY)
    except OSError:
        # Windows opens no directories; where they may be passed through but not read, files tell for themselves.
        return Storage.UNKNOWN
    try:
        return storage_of(fd)
    finally:
        os.close(fd)


def _listen(host: str, port: int) -> socket.socket:
    """Return a listening socket, or say in one line why there is none."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (socket.gaierror, UnicodeError):
        raise click.ClickException(f"--host {printable(host)}: no such address")
    # What is asked for as "any address" of IPv6 is meant to be any at all.
    any_at_all = family == socket.AF_INET6 and address[0] == "::" and socket.has_dualstack_ipv6()
    try:
        return socket.create_server(address, family=family, backlog=2048, dualstack_ipv6=any_at_all)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            reason = "in use already; choose another with --port, or 0 for any"
        elif error.errno in (errno.EACCES, errno.EPERM):
            reason = "not permitted; ports below 1024 often need a privilege"
        elif error.errno == errno.EADDRNOTAVAIL:
            raise click.ClickException(f"--host {host}: not an address of this machine")
        else:
            reason = os.strerror(error.errno) if error.errno else str(error)
        raise click.ClickException(f"--port {port} on {host}: {reason}")


class _Graceful:
    """A protocol that gives a running response some time when the server stops, then ends the connection."""

    def shutdown(self) -> None:
        """Called by uvicorn for each open connection when it stops."""
        super().shutdown()  # type: ignore[misc]
        asyncio.get_running_loop().call_later(_GRACE_S, self.cut)

    def cut(self) -> None:
        """End the connection now."""
        # Said before uvicorn finds out, so that a response in the middle of its body writes no more.
        cycle = self.cycle  # type: ignore[attr-defined]
        if cycle is not None:
            cycle.disconnected = True
        reset(self.transport)  # type: ignore[attr-defined]


class H11Protocol(_Graceful, ZeroCopyH11Protocol):
    """h11 for `zcresponse serve`."""


if HAS_HTTPTOOLS:
    from zcresponse.uvicorn import ZeroCopyHttpToolsProtocol

    class HttpToolsProtocol(_Graceful, ZeroCopyHttpToolsProtocol):
        """httptools for `zcresponse serve`."""


class _Server(uvicorn.Server):
    """uvicorn's server that says when it accepts connections, and that a second Ctrl-C stops at once."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], object]) -> None:
        super().__init__(config)
        self._on_ready = on_ready
        self._loop: asyncio.AbstractEventLoop | None = None
        self._cut_all = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self._loop = asyncio.get_running_loop()
        if self.started:
            self._on_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # A third one is uvicorn's: it waits for nothing any more.
        if self.should_exit and not self._cut_all and self._loop is not None:
            self._cut_all = True
            self._loop.call_soon_threadsafe(self._cut)
        else:
            super().handle_exit(sig, frame)

    def _cut(self) -> None:
        for connection in list(self.server_state.connections):
            connection.cut()  # type: ignore[union-attr]


def _run_workers(config: uvicorn.Config, listener: socket.socket, start_line: str) -> None:
    ready = threading.Event()

    def announce() -> None:
        # The socket takes connections from now on, but only a worker answers.
        with contextlib.suppress(OSError), _connected(listener) as probe:
            probe.sendall(b"HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            if probe.recv(1):
                ready.set()
                click.echo(start_line)

    threading.Thread(target=announce, daemon=True).start()
    arguments: dict[str, Any] = {"sockets": [listener]}
    if "target" in inspect.signature(Multiprocess).parameters:
        # Older releases are told what to run.
        arguments["target"] = uvicorn.Server(config).run
    Multiprocess(config, **arguments).run()
    if not ready.is_set():
        raise click.ClickException("no worker process could be started")


def _connected(listener: socket.socket) -> socket.socket:
    host, port = listener.getsockname()[:2]
    return socket.create_connection(({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port), timeout=60)
