"""Who is measured by `zcresponse bench`: loops over a bare socket, and frameworks on servers as far as installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from zcresponse.bench import servers
from zcresponse.bench.servers import Block

__all__ = ["DAPHNE", "GRANIAN", "HYPERCORN", "RAW", "SERVERS", "WSGI", "Peer", "Runner", "pair"]


@dataclass(frozen=True, slots=True)
class Peer:
    """One way of sending files.

    Attributes:
        name: What tables call it.
        start: Starts it on a directory.
        stock: The name of the peer that it is first compared with, such as the framework's own on the same server.
        needs: Modules that have to be there.
        most: The largest file that it is measured with, in bytes; None: any.
    """

    name: str
    start: Callable[[Path], Block]
    stock: str = ""
    needs: tuple[str, ...] = ()
    most: int | None = None

    def missing(self) -> str:
        """The first module that is not installed, or ""."""
        return next((name for name in self.needs if importlib.util.find_spec(name) is None), "")


_BLOCKS: Final = "read and send, 64 KiB"

#: Loops over a bare socket, all in the standard library but for the last.
RAW: Final = (
    Peer("read and send, 8 KiB", partial(servers.raw, "read-8KiB"), _BLOCKS),
    Peer(_BLOCKS, partial(servers.raw, "read-64KiB")),
    Peer("read and send, 1 MiB", partial(servers.raw, "read-1MiB"), _BLOCKS),
    Peer("shutil.copyfileobj", partial(servers.raw, "copyfileobj"), _BLOCKS),
    Peer("socket.sendfile", partial(servers.raw, "socket.sendfile"), _BLOCKS),
    Peer("zcresponse.sendfile", partial(servers.raw, "sendfile"), _BLOCKS),
)


@dataclass(frozen=True, slots=True)
class Runner:
    """A server that runs applications.

    Attributes:
        name: What tables call it.
        needs: Modules that have to be there.
        start: Starts it on an application and a directory.
        start_ours: The same for our response, where it is told of our protocol; None: not differently.
    """

    name: str
    needs: tuple[str, ...]
    start: Callable[[str, Path], Block]
    start_ours: Callable[[str, Path], Block] | None = None


_UVICORN: Final = Runner(
    "uvicorn", ("uvicorn",), servers.uvicorn, partial(servers.uvicorn, http="zcresponse.uvicorn:ZeroCopyProtocol")
)
_UVICORN_WORKER: Final = Runner(
    "gunicorn",
    ("gunicorn", "uvicorn", "uvicorn_worker"),
    partial(servers.gunicorn, worker_class="uvicorn_worker.UvicornWorker"),
    partial(servers.gunicorn, worker_class=f"{servers.APPS}.workers.ZeroCopyWorker"),
)
HYPERCORN: Final = Runner("hypercorn", ("hypercorn",), servers.hypercorn)
DAPHNE: Final = Runner("daphne", ("daphne",), servers.daphne)
GRANIAN: Final = Runner("granian", ("granian",), servers.granian)
_SYNC: Final = Runner("gunicorn sync", ("gunicorn",), partial(servers.gunicorn, worker_class="sync"))
_GTHREAD: Final = Runner("gunicorn gthread", ("gunicorn",), partial(servers.gunicorn, worker_class="gthread"))

#: Those for WSGI.
WSGI: Final = (
    _SYNC,
    _GTHREAD,
    Runner("gunicorn gevent", ("gunicorn", "gevent"), partial(servers.gunicorn, worker_class="gevent")),
    Runner("waitress", ("waitress",), servers.waitress),
    Runner("cheroot", ("cheroot",), servers.cheroot),
)


def pair(framework: str, app: str, runner: Runner, *, most: int | None = None) -> tuple[Peer, Peer]:
    """The framework's own response on a server, and ours.

    Args:
        framework: Its name; in small letters, that of its module.
        app: The application, with {} for `stock` or `zero_copy`.
        runner: The server.
        most: The largest file that the framework's own is measured with, in bytes.
    """
    name = f"{framework}, {runner.name}"
    needs = (framework.lower(), *runner.needs)
    start_ours = runner.start_ours or runner.start
    return (
        Peer(name, partial(runner.start, app.format("stock")), "", needs, most),
        Peer(f"{name}, zcresponse", partial(start_ours, app.format("zero_copy")), name, needs),
    )


#: Frameworks on servers, each as it is and with zcresponse.
SERVERS: Final = (
    *pair("Starlette", "starlette:{}", _UVICORN),
    *pair("FastAPI", "fastapi:{}", _UVICORN),
    # Its own response reads the whole file into memory there.
    *pair("Django", "django_{}:asgi", _UVICORN, most=256 * 1024 * 1024),
    *pair("FastAPI", "fastapi:{}", _UVICORN_WORKER),
    *(peer for runner in (HYPERCORN, DAPHNE, GRANIAN) for peer in pair("Starlette", "starlette:{}", runner)),
    *(peer for runner in WSGI for peer in pair("Flask", "flask:{}", runner)),
    *(peer for runner in (_SYNC, _GTHREAD) for peer in pair("Django", "django_{}:wsgi", runner)),
    Peer("aiohttp", servers.aiohttp, "", ("aiohttp",)),
)
