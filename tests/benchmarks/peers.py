"""The servers that are measured: those of `zcresponse bench`, and what it does not have."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path

from tests.support import wsgi_servers
from tests.support.front_servers import FRONTS
from tests.support.servers import certificate, nginx
from tests.support.servers import uvicorn as run_uvicorn
from zcresponse.bench import servers
from zcresponse.bench.peers import DAPHNE, GRANIAN, HYPERCORN, SERVERS, Peer, Runner, pair
from zcresponse.bench.peers import WSGI as COMMANDS_WSGI
from zcresponse.bench.servers import APPS, FILES, Block, Server

__all__ = ["BEHIND", "CHUNKED", "DJANGO_WSGI", "PEERS", "WSGI", "Peer", "ours", "reason_against"]

_OURS = "zcresponse.uvicorn:ZeroCopyHttpToolsProtocol"
_OURS_H11 = "zcresponse.uvicorn:ZeroCopyH11Protocol"


# --- started in another way than by the command -----------------------------------------------------------------------


def _uvicorn_tls(app: str, directory: Path) -> AbstractContextManager[Server]:
    return run_uvicorn(
        f"{APPS}.{app}",
        "--no-access-log",
        loop="uvloop",
        http=_OURS,
        tls=certificate(),
        env={FILES: str(directory)},
    )


def _wsgi(server: str, app: str, directory: Path) -> AbstractContextManager[Server]:
    return wsgi_servers.start(server, f"{APPS}.{app}", env={FILES: str(directory)})


def _nginx(directory: Path) -> AbstractContextManager[Server]:
    # Without the directive it closes a connection after 1,000 requests.
    return nginx(directory, directives="keepalive_requests 100000000;")


def _front(name: str, directory: Path) -> Block:
    """nginx in front of an application, see `tests.benchmarks.front`."""
    env = FRONTS["nginx"].environment(directory) if name.startswith("offloaded") else {}
    return servers.run([sys.executable, "-m", "tests.benchmarks.front", str(directory), name], env=env)


# --- by name ----------------------------------------------------------------------------------------------------------

_MORE_WSGI = (
    Runner("uwsgi http-socket", ("pyuwsgi",), partial(_wsgi, "uwsgi http-socket")),
    Runner("mod_wsgi embedded", ("mod_wsgi",), partial(_wsgi, "mod_wsgi embedded")),
    Runner("mod_wsgi daemon", ("mod_wsgi",), partial(_wsgi, "mod_wsgi daemon")),
)

#: The WSGI servers that are measured with Flask, and the names of those that are measured with Django.
WSGI = (*COMMANDS_WSGI, *_MORE_WSGI)
DJANGO_WSGI = ("gunicorn sync", "gunicorn gthread")

#: Where an ASGI application cannot have sendfile, besides on stock uvicorn.
CHUNKED = (Runner("TLS", (), _uvicorn_tls), HYPERCORN, DAPHNE)

#: By the names of the command.
_PAIRED = {
    peer.name: peer
    for peer in (*SERVERS, *(peer for runner in _MORE_WSGI for peer in pair("Flask", "flask:{}", runner)))
}

#: The framework's own on a server, which is measured with ours there: what a user's view is.
_VIEWS = (
    "Starlette, uvicorn",
    "FastAPI, uvicorn",
    "FastAPI, gunicorn",
    "Django, uvicorn",
    *(f"Django, {server}" for server in DJANGO_WSGI),
    *(f"Flask, {runner.name}" for runner in WSGI),
)


def ours(stock: str) -> str:
    """The name of the peer that has our response where another has the framework's own."""
    if stock == "Starlette, routed":
        return "zcresponse, in Starlette"
    return f"zcresponse, {stock.removeprefix('Flask, ')}"


def _view(name: str) -> tuple[Peer, Peer]:
    """A pair of the command, by its names here, where Starlette is measured without routes too."""
    stock = "Starlette, routed" if name == "Starlette, uvicorn" else name
    return (
        replace(_PAIRED[f"{name}, zcresponse"], name=ours(stock), stock=stock),
        replace(_PAIRED[name], name=stock, stock="Starlette"),
    )


_uvicorn = partial(servers.uvicorn, loop="uvloop", http="httptools")

#: Loops and parsers of uvicorn, by the end of the peers' names: loop, parser, and the protocol of ours.
_LOOPS = {
    "": ("uvloop", "httptools", _OURS),
    ", asyncio": ("asyncio", "httptools", _OURS),
    ", h11": ("uvloop", "h11", _OURS_H11),
    ", asyncio, h11": ("asyncio", "h11", _OURS_H11),
}


def _plain(name: str, runner: Runner, stock: str) -> Peer:
    """A plain ASGI function on a server, with Starlette's response or ours."""
    app = "starlette:plain_stock" if name == "Starlette" else "starlette:plain_zero_copy"
    return Peer(f"{name}, {runner.name}", partial(runner.start, app), stock, runner.needs)


#: What stands behind nginx, by the names of the peers. In the documentation's configuration nginx sends the file, or
#: passes on what the application sends.
BEHIND: dict[str, Callable[[Path], Block]] = {
    "offloaded, Starlette": partial(_uvicorn, "starlette:zero_copy"),
    "proxied, Starlette": _PAIRED["Starlette, uvicorn, zcresponse"].start,
    "offloaded, Flask": _PAIRED["Flask, gunicorn gthread, zcresponse"].start,
    "proxied, Flask": _PAIRED["Flask, gunicorn gthread, zcresponse"].start,
}

#: The names of ways of `zcresponse.bench.raw`.
_RAW = {
    "raw 8 KiB": "read-8KiB",
    "raw 64 KiB": "read-64KiB",
    "raw 1 MiB": "read-1MiB",
    "raw copyfileobj": "copyfileobj",
    "raw sendfile": "socket.sendfile",
    "raw zcresponse.sendfile": "sendfile",
}

#: All peers by name. Without a loop and parser in its name, one runs on uvloop and httptools: those of the command by
#: what uvicorn chooses.
PEERS = {
    peer.name: peer
    for peer in (
        *(
            Peer(
                f"zcresponse{where}",
                partial(servers.uvicorn, "starlette:plain_zero_copy", loop=loop, http=http),
                f"Starlette{where}",
            )
            for where, (loop, _, http) in _LOOPS.items()
        ),
        *(
            Peer(
                f"Starlette{where}",
                partial(servers.uvicorn, "starlette:plain_stock", loop=loop, http=http),
                "Starlette" if where else "",
            )
            for where, (loop, http, _) in _LOOPS.items()
        ),
        Peer("zcresponse chunks", partial(_uvicorn, "starlette:plain_zero_copy"), "Starlette"),
        *(_plain("zcresponse chunks", runner, f"Starlette, {runner.name}") for runner in CHUNKED),
        *(_plain("Starlette", runner, "Starlette") for runner in (*CHUNKED, GRANIAN)),
        _plain("zcresponse", GRANIAN, "Starlette, granian"),
        Peer("Starlette on our protocol", partial(_uvicorn, "starlette:plain_stock", http=_OURS), "Starlette"),
        Peer("constant", partial(_uvicorn, "starlette:constant"), "Starlette"),
        replace(_PAIRED["aiohttp"], stock="Starlette"),
        Peer("nginx", _nginx, "Starlette"),
        Peer("offloaded, Starlette", partial(_front, "offloaded, Starlette"), "proxied, Starlette"),
        Peer("proxied, Starlette", partial(_front, "proxied, Starlette"), "Starlette, routed"),
        Peer("offloaded, Flask", partial(_front, "offloaded, Flask"), "proxied, Flask", ("flask", "gunicorn")),
        Peer("proxied, Flask", partial(_front, "proxied, Flask"), "Flask, gunicorn gthread", ("flask", "gunicorn")),
        *(Peer(name, partial(servers.raw, way), "Starlette") for name, way in _RAW.items()),
        *(peer for name in _VIEWS for peer in _view(name)),
        *(
            Peer(
                f"upgraded, {runner.name}",
                partial(runner.start, "flask:upgraded"),
                f"Flask, {runner.name}",
                ("flask", *runner.needs),
            )
            for runner in WSGI
        ),
    )
}


def reason_against(peer: Peer) -> str:
    """Why a peer cannot be had on this machine, or ""."""
    missing = peer.missing() or _missing_program(peer.name)
    return f"{missing} is not installed" if missing else ""


def _missing_program(name: str) -> str:
    """The program that a peer needs and that is not installed, or ""."""
    if name == "nginx" or name in BEHIND:
        program = "nginx"
    elif "mod_wsgi" in name:
        program = "apache2"
    elif name.endswith(", TLS"):
        program = "openssl"
    else:
        return ""
    return "" if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin") else program
