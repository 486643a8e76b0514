"""Single measurements of a running server."""

from __future__ import annotations

from collections.abc import Callable

from zcresponse.bench import clients, usage
from zcresponse.bench.figures import GIB, Figures
from zcresponse.bench.servers import Server
from zcresponse.bench.usage import Usage

__all__ = ["CPU", "RATE", "SECONDS", "SWITCHES", "SYSCALLS", "Download", "download", "syscalls"]

#: Names of figures. `RATE` is in 10^6 bytes per second; the last three are of the server's processes.
SECONDS, RATE = "seconds", "MB/s"
CPU, SWITCHES, SYSCALLS = "CPU s per GiB", "context switches per GiB", "system calls per GiB"

#: Fetches a path from a port, perhaps a range of it, and returns bytes and seconds; `clients.download`, or that in
#: another process.
Download = Callable[[int, str, str], tuple[int, float]]


def download(
    server: Server,
    path: str,
    byte_range: str = "",
    *,
    by: Download = clients.download,
    expected: int | None = None,
) -> Figures:
    """Measure one download: seconds, rate, and where the system tells, what it cost the server's processes.

    Args:
        server, path, byte_range: Of whom what is asked.
        by: Who asks.
        expected: How many bytes have to come.

    Raises:
        OSError: Nothing came, or something else.
    """
    before = Usage.of(server.pid)
    size, seconds = by(server.port, path, byte_range)
    if expected is not None and size != expected:
        raise ConnectionError(f"answered with {size} bytes instead of {expected}")
    cpu_s, switches = Usage.of(server.pid).since(before)
    figures = {SECONDS: seconds, RATE: size / 1e6 / seconds}
    if usage.AVAILABLE:
        figures |= {CPU: cpu_s / (size / GIB), SWITCHES: switches / (size / GIB)}
    return figures


def syscalls(server: Server, path: str) -> float:
    """Count a server's system calls for one download, per GiB. It is no time to measure anything else.

    Raises:
        RuntimeError: See `usage.count_syscalls`.
    """
    with usage.count_syscalls(server.pid) as count:
        size, _ = clients.download(server.port, path)
    return count.total / (size / GIB)
