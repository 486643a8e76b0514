"""The servers that are measured."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from tests.support import servers, wsgi_servers
from zcresponse.bench import servers as bench_servers
from zcresponse.bench.peers import Peer
from zcresponse.bench.servers import FILES, Server

__all__ = ["DJANGO_WSGI", "FRAMEWORKS", "PEERS", "WSGI", "Peer", "reason_against"]

_APPS = "zcresponse.bench.apps"
_OURS = "zcresponse.uvicorn:ZeroCopyHttpToolsProtocol"
_OURS_H11 = "zcresponse.uvicorn:ZeroCopyH11Protocol"

_Start = Callable[[Path], AbstractContextManager[Server]]


def _uvicorn(app: str, http: str = "httptools", *, loop: str = "uvloop") -> _Start:
    return lambda directory: servers.uvicorn(
        f"{_APPS}.{app}", "--no-access-log", loop=loop, http=http, env={FILES: str(directory)}
    )


def _uvicorn_tls(app: str) -> _Start:
    return lambda directory: servers.uvicorn(
        f"{_APPS}.{app}",
        "--no-access-log",
        loop="uvloop",
        http=_OURS,
        tls=servers.certificate(),
        env={FILES: str(directory)},
    )


def _hypercorn(app: str) -> _Start:
    return lambda directory: servers.hypercorn(f"{_APPS}.{app}", env={FILES: str(directory)})


def _daphne(app: str) -> _Start:
    return lambda directory: servers.daphne(f"{_APPS}.{app}", env={FILES: str(directory)})


def _uvicorn_worker(app: str, worker_class: str) -> _Start:
    """gunicorn with a worker of uvicorn's."""
    return lambda directory: servers.gunicorn(f"{_APPS}.{app}", worker_class=worker_class, env={FILES: str(directory)})


def _granian(app: str) -> _Start:
    return lambda directory: servers.granian(f"{_APPS}.{app}", env={FILES: str(directory)})


def _nginx(directory: Path) -> AbstractContextManager[Server]:
    # Without the directive it closes a connection after 1,000 requests.
    return servers.nginx(directory, directives="keepalive_requests 100000000;")


def _wsgi(server: str, app: str) -> _Start:
    # gunicorn turns away what comes beyond 1,000 connections, and keeps one of them back.
    args = ("--worker-connections", "2000") if server == "gunicorn gthread" else ()
    return lambda directory: wsgi_servers.start(server, f"{_APPS}.{app}", *args, env={FILES: str(directory)})


def _front(server: str, app: str, how: str) -> _Start:
    """nginx in front of an application, see `tests.benchmarks.front`."""
    command = [sys.executable, "-m", "tests.benchmarks.front"]
    return lambda directory: servers.run_server([*command, str(directory), server, f"{_APPS}.{app}", how])


#: The WSGI servers that are measured with Flask, and the modules that each needs.
WSGI = {
    "gunicorn sync": ("gunicorn",),
    "gunicorn gthread": ("gunicorn",),
    "gunicorn gevent": ("gunicorn", "gevent"),
    "waitress": ("waitress",),
    "cheroot": ("cheroot",),
    "uwsgi http-socket": ("pyuwsgi",),
    "mod_wsgi embedded": ("mod_wsgi",),
    "mod_wsgi daemon": ("mod_wsgi",),
}

#: Those that are measured with Django.
DJANGO_WSGI = ("gunicorn sync", "gunicorn gthread")

#: By the framework's own on a server, that and ours there: what a user's view is. And the modules that they need.
FRAMEWORKS: dict[str, tuple[_Start, str, _Start, tuple[str, ...]]] = {
    "Starlette, routed": (
        _uvicorn("starlette:stock"),
        "zcresponse, in Starlette",
        _uvicorn("starlette:zero_copy", _OURS),
        (),
    ),
    "FastAPI, uvicorn": (
        _uvicorn("fastapi:stock"),
        "zcresponse, FastAPI, uvicorn",
        _uvicorn("fastapi:zero_copy", _OURS),
        ("fastapi",),
    ),
    "FastAPI, gunicorn": (
        _uvicorn_worker("fastapi:stock", "uvicorn_worker.UvicornWorker"),
        "zcresponse, FastAPI, gunicorn",
        _uvicorn_worker("fastapi:zero_copy", "tests.support.workers.UvloopHttpTools"),
        ("fastapi", "gunicorn", "uvicorn_worker"),
    ),
    "Django, uvicorn": (
        _uvicorn("django_stock:asgi"),
        "zcresponse, Django, uvicorn",
        _uvicorn("django_zero_copy:asgi", _OURS),
        ("django",),
    ),
    **{
        f"Django, {server}": (
            _wsgi(server, "django_stock:wsgi"),
            f"zcresponse, Django, {server}",
            _wsgi(server, "django_zero_copy:wsgi"),
            ("django", *WSGI[server]),
        )
        for server in DJANGO_WSGI
    },
    **{
        f"Flask, {server}": (
            _wsgi(server, "flask:stock"),
            f"zcresponse, {server}",
            _wsgi(server, "flask:zero_copy"),
            ("flask", *needs),
        )
        for server, needs in WSGI.items()
    },
}

#: Where an ASGI application cannot have sendfile, besides on stock uvicorn; by the end of the peers' names. And the
#: modules that it needs.
CHUNKED: dict[str, tuple[Callable[[str], _Start], tuple[str, ...]]] = {
    ", TLS": (_uvicorn_tls, ()),
    ", hypercorn": (_hypercorn, ("hypercorn",)),
    ", daphne": (_daphne, ("daphne",)),
}

#: All peers by name. Without a loop and parser in its name, one runs on uvloop and httptools.
PEERS = {
    peer.name: peer
    for peer in (
        Peer("zcresponse", _uvicorn("starlette:plain_zero_copy", _OURS), "Starlette"),
        Peer(
            "zcresponse, asyncio",
            _uvicorn("starlette:plain_zero_copy", _OURS, loop="asyncio"),
            "Starlette, asyncio",
        ),
        Peer("zcresponse, h11", _uvicorn("starlette:plain_zero_copy", _OURS_H11), "Starlette, h11"),
        Peer(
            "zcresponse, asyncio, h11",
            _uvicorn("starlette:plain_zero_copy", _OURS_H11, loop="asyncio"),
            "Starlette, asyncio, h11",
        ),
        Peer("zcresponse chunks", _uvicorn("starlette:plain_zero_copy"), "Starlette"),
        *(
            Peer(f"zcresponse chunks{where}", start("starlette:plain_zero_copy"), f"Starlette{where}", needs)
            for where, (start, needs) in CHUNKED.items()
        ),
        *(
            Peer(f"Starlette{where}", start("starlette:plain_stock"), "Starlette", needs)
            for where, (start, needs) in CHUNKED.items()
        ),
        Peer("zcresponse, granian", _granian("starlette:plain_zero_copy"), "Starlette, granian", ("granian",)),
        Peer("Starlette on our protocol", _uvicorn("starlette:plain_stock", _OURS), "Starlette"),
        Peer("Starlette", _uvicorn("starlette:plain_stock")),
        Peer("Starlette, asyncio", _uvicorn("starlette:plain_stock", loop="asyncio"), "Starlette"),
        Peer("Starlette, h11", _uvicorn("starlette:plain_stock", "h11"), "Starlette"),
        Peer("Starlette, asyncio, h11", _uvicorn("starlette:plain_stock", "h11", loop="asyncio"), "Starlette"),
        Peer("Starlette, granian", _granian("starlette:plain_stock"), "Starlette", ("granian",)),
        Peer("constant", _uvicorn("starlette:constant"), "Starlette"),
        Peer("aiohttp", bench_servers.aiohttp, "Starlette", ("aiohttp",)),
        Peer("nginx", _nginx, "Starlette"),
        Peer("offloaded, Starlette", _front("uvicorn", "starlette:zero_copy", "offloaded"), "proxied, Starlette"),
        Peer("proxied, Starlette", _front("uvicorn", "starlette:zero_copy", "proxied"), "Starlette, routed"),
        Peer(
            "offloaded, Flask",
            _front("gunicorn gthread", "flask:zero_copy", "offloaded"),
            "proxied, Flask",
            ("flask", "gunicorn"),
        ),
        Peer(
            "proxied, Flask",
            _front("gunicorn gthread", "flask:zero_copy", "proxied"),
            "Flask, gunicorn gthread",
            ("flask", "gunicorn"),
        ),
        Peer("raw 8 KiB", partial(bench_servers.raw, "read-8KiB"), "Starlette"),
        Peer("raw 64 KiB", partial(bench_servers.raw, "read-64KiB"), "Starlette"),
        Peer("raw 1 MiB", partial(bench_servers.raw, "read-1MiB"), "Starlette"),
        Peer("raw copyfileobj", partial(bench_servers.raw, "copyfileobj"), "Starlette"),
        Peer("raw sendfile", partial(bench_servers.raw, "socket.sendfile"), "Starlette"),
        Peer("raw zcresponse.sendfile", partial(bench_servers.raw, "sendfile"), "Starlette"),
        *(Peer(ours, start, stock, needs) for stock, (_, ours, start, needs) in FRAMEWORKS.items()),
        *(Peer(stock, start, "Starlette", needs) for stock, (start, _, _, needs) in FRAMEWORKS.items()),
        *(
            Peer(f"upgraded, {server}", _wsgi(server, "flask:upgraded"), f"Flask, {server}", ("flask", *needs))
            for server, needs in WSGI.items()
        ),
    )
}


def reason_against(peer: Peer) -> str:
    """Why a peer cannot be had on this machine, or ""."""
    missing = peer.missing() or _missing_program(peer.name)
    return f"{missing} is not installed" if missing else ""


def _missing_program(name: str) -> str:
    """The program that a peer needs and that is not installed, or ""."""
    if name == "nginx" or name.startswith(("offloaded, ", "proxied, ")):
        program = "nginx"
    elif "mod_wsgi" in name:
        program = "apache2"
    elif name.endswith(", TLS"):
        program = "openssl"
    else:
        return ""
    return "" if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin") else program
