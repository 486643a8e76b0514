"""Who is measured by `zcresponse bench`: loops over a bare socket, and frameworks on servers as far as installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from zcresponse.bench import servers
from zcresponse.bench.servers import Block

__all__ = ["RAW", "SERVERS", "Peer"]

_APPS: Final = "zcresponse.bench.apps"
_OURS: Final = "zcresponse.uvicorn:ZeroCopyProtocol"


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


#: Up to here, in bytes, a file is sent by who reads it into memory as a whole.
_IN_MEMORY: Final = 256 * 1024 * 1024

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


def _pair(
    framework: str, server: str, stock: Callable[[Path], Block], zero_copy: Callable[[Path], Block]
) -> tuple[Peer, Peer]:
    name = f"{framework}, {server}"
    needs = (framework.lower(), server.partition(" ")[0])
    return Peer(name, stock, "", needs), Peer(f"{name}, zcresponse", zero_copy, name, needs)


def _on(
    server: str, start: Callable[[str, Path], Block], framework: str, stock: str, zero_copy: str
) -> tuple[Peer, Peer]:
    """A pair on a server that is started in the same way for both."""
    return _pair(framework, server, partial(start, f"{_APPS}.{stock}"), partial(start, f"{_APPS}.{zero_copy}"))


def _on_uvicorn(framework: str, stock: str, zero_copy: str) -> tuple[Peer, Peer]:
    return _pair(
        framework,
        "uvicorn",
        partial(servers.uvicorn, f"{_APPS}.{stock}"),
        partial(servers.uvicorn, f"{_APPS}.{zero_copy}", http=_OURS),
    )


def _reading_whole(pair: tuple[Peer, Peer]) -> tuple[Peer, Peer]:
    """A pair of which the framework's own response reads the whole file into memory."""
    stock, zero_copy = pair
    return replace(stock, most=_IN_MEMORY), zero_copy


#: Frameworks on servers, each as it is and with zcresponse.
SERVERS: Final = (
    *_on_uvicorn("Starlette", "starlette:stock", "starlette:zero_copy"),
    *_on_uvicorn("FastAPI", "fastapi:stock", "fastapi:zero_copy"),
    *_reading_whole(_on_uvicorn("Django", "django_stock:asgi", "django_zero_copy:asgi")),
    *_on("hypercorn", servers.hypercorn, "Starlette", "starlette:stock", "starlette:zero_copy"),
    *_on("daphne", servers.daphne, "Starlette", "starlette:stock", "starlette:zero_copy"),
    *_on("granian", servers.granian, "Starlette", "starlette:stock", "starlette:zero_copy"),
    *_on("gunicorn", servers.gunicorn, "Flask", "flask:stock", "flask:zero_copy"),
    *_on("gunicorn", servers.gunicorn, "Django", "django_stock:wsgi", "django_zero_copy:wsgi"),
    *_on("gunicorn sync", partial(servers.gunicorn, threads=1), "Flask", "flask:stock", "flask:zero_copy"),
    *_on("waitress", servers.waitress, "Flask", "flask:stock", "flask:zero_copy"),
    *_on("cheroot", servers.cheroot, "Flask", "flask:stock", "flask:zero_copy"),
    Peer("aiohttp", servers.aiohttp, "", ("aiohttp",)),
)
