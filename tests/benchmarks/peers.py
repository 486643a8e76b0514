"""The servers that are measured, and what their processes used."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from tests.support import servers
from tests.support.servers import Server

__all__ = ["PEERS", "Peer", "cpu_seconds", "memory_bytes"]

_OURS = "zcresponse.uvicorn:ZeroCopyHttpToolsProtocol"
_OURS_H11 = "zcresponse.uvicorn:ZeroCopyH11Protocol"


@dataclass(frozen=True, slots=True)
class Peer:
    """One server with one application.

    Attributes:
        name: What tables call it.
        start: Starts it on a directory.
        stock: The name of Starlette's FileResponse on the same loop and parser.
    """

    name: str
    start: Callable[[Path], AbstractContextManager[Server]]
    stock: str = "Starlette"


def _uvicorn(
    app: str, http: str = "httptools", *, loop: str = "uvloop"
) -> Callable[[Path], AbstractContextManager[Server]]:
    return lambda directory: servers.uvicorn(
        f"tests.benchmarks.apps:{app}",
        "--no-access-log",
        loop=loop,
        http=http,
        env={"BENCHMARK_FILES": str(directory)},
    )


def _nginx(directory: Path) -> AbstractContextManager[Server]:
    # Without the directive it closes a connection after 1,000 requests.
    return servers.nginx(directory, directives="keepalive_requests 100000000;")


def _raw(directory: Path) -> AbstractContextManager[Server]:
    return servers.run_server([sys.executable, "-m", "tests.benchmarks.raw", str(directory)])


#: All peers by name. Without a loop and parser in its name, one runs on uvloop and httptools.
PEERS = {
    peer.name: peer
    for peer in (
        Peer("zcresponse", _uvicorn("zero_copy", _OURS)),
        Peer("zcresponse, in Starlette", _uvicorn("routed_zero_copy", _OURS), "Starlette, routed"),
        Peer("zcresponse, asyncio", _uvicorn("zero_copy", _OURS, loop="asyncio"), "Starlette, asyncio"),
        Peer("zcresponse, h11", _uvicorn("zero_copy", _OURS_H11), "Starlette, h11"),
        Peer("zcresponse, asyncio, h11", _uvicorn("zero_copy", _OURS_H11, loop="asyncio"), "Starlette, asyncio, h11"),
        Peer("zcresponse chunks", _uvicorn("zero_copy")),
        Peer("Starlette on our protocol", _uvicorn("stock", _OURS)),
        Peer("Starlette", _uvicorn("stock")),
        Peer("Starlette, routed", _uvicorn("routed_stock")),
        Peer("Starlette, asyncio", _uvicorn("stock", loop="asyncio")),
        Peer("Starlette, h11", _uvicorn("stock", "h11")),
        Peer("Starlette, asyncio, h11", _uvicorn("stock", "h11", loop="asyncio")),
        Peer("constant", _uvicorn("constant")),
        Peer("nginx", _nginx),
        Peer("raw sendfile", _raw),
    )
}


def _processes(server: Server) -> set[int]:
    return {server.pid, *servers.descendants(server.pid)}


def cpu_seconds(server: Server) -> float:
    """Processor time that a server's processes have used, in user mode and in the kernel."""
    ticks = 0
    for pid in _processes(server):
        # After the name in parentheses: state is field 3, utime and stime are 14 and 15 (proc_pid_stat(5)).
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def memory_bytes(server: Server) -> int:
    """Resident memory of a server's processes."""
    return sum(map(servers.rss_bytes, _processes(server)))
