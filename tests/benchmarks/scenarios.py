"""What is measured: each scenario runs some peers in turn, round by round."""

from __future__ import annotations

import contextlib
import multiprocessing
import re
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.benchmarks.peers import CHUNKED, DJANGO_WSGI, PEERS, WSGI, ours
from tests.support.servers import wait_until
from zcresponse.bench import clients, measure
from zcresponse.bench.figures import GIB, KIB, MIB, Figures, Outcome, crossover, run_rounds
from zcresponse.bench.files import make_file, read_through
from zcresponse.bench.servers import Server
from zcresponse.bench.usage import Usage, memory_bytes

__all__ = ["SCENARIOS", "Bench", "Growth", "MeasurementFailed", "Scenario", "run"]

_TIMEOUT_S = 120.0
_LATENCY_S = 3.0
_DOWNLOADS = 4
_READERS = 64

#: Sizes by the names of their figures.
SIZES = {"1 KiB": KIB, "16 KiB": 16 * KIB, "256 KiB": 256 * KIB, "4 MiB": 4 * MIB, "64 MiB": 64 * MIB, "1 GiB": GIB}
_SMALL_SIZES = {"1 KiB": KIB, "64 KiB": 64 * KIB, "1 MiB": MIB}
_CROSSOVER_SIZES = {f"{kib} KiB": kib * KIB for kib in (1, 4, 16, 32, 64, 128, 256, 1024, 4096)}
_CONNECTIONS = {str(count): count for count in (1, 10, 100, 1000)}

#: The largest that wrk is given; larger ones are not done in its time.
_WRK_MOST = MIB


class MeasurementFailed(Exception):
    """A server did not do what is measured; the message says what came instead."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What scenarios work with.

    Attributes:
        directory: Where the files are.
        big: The big file.
        seconds: How long one measurement with several connections takes.
        processes: For clients.
    """

    directory: Path
    big: Path
    seconds: int
    processes: ProcessPoolExecutor

    @classmethod
    @contextlib.contextmanager
    def open(cls, directory: Path, big: Path, seconds: int) -> Iterator[Bench]:
        """A bench, until the end of the block."""
        # Spawned: a forked client would inherit this process's memory and sockets.
        with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as processes:
            yield cls(directory, big, seconds, processes)

    def file(self, size: int) -> Path:
        """A file of that size."""
        if size == self.big.stat().st_size:
            return self.big
        for unit, factor in (("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
            if not size % factor:
                return make_file(self.directory / f"{size // factor}{unit}.bin", size)
        return make_file(self.directory / f"{size}B.bin", size)

    def client(self, server: Server) -> measure.Download:
        """`clients.download` in another process, in the words of the server."""
        fetch = partial(clients.download, tls=getattr(server, "tls", None) is not None)
        return lambda *wanted: self.processes.submit(fetch, *wanted).result(_TIMEOUT_S)


@dataclass(frozen=True, slots=True)
class Growth:
    """What figures of a scenario depend on.

    Attributes:
        label: What that is, with its unit.
        unit: What is measured.
        points: By the figure's name, what it depends on.
    """

    label: str
    unit: str
    points: dict[str, int]


@dataclass(frozen=True, slots=True)
class Scenario:
    """One table.

    Attributes:
        title: What is measured.
        peers: Names of those that take part.
        measure: One measurement of one running server.
        ratios: Names of the figures that are compared.
        against: Names of the peers that they are compared with, besides the framework's own on the same server.
        warm: Whether the big file is brought into the page cache before each measurement.
        fresh: Whether each measurement needs a newly started server.
        traced: Whether system calls of a download of the big file are counted too, on demand.
        spread: Whether the table tells mean and deviation too.
        growth: What the figures depend on, if they are of one kind.
        conclude: What else is to be said of the outcome.
    """

    title: str
    peers: tuple[str, ...]
    measure: Callable[[Bench, Server], Figures]
    ratios: tuple[str, ...]
    against: tuple[str, ...] = ("nginx",)
    warm: bool = True
    fresh: bool = False
    traced: bool = False
    spread: bool = False
    growth: Growth | None = None
    conclude: Callable[[Outcome], str] | None = None


def run(
    scenario: Scenario,
    peers: Sequence[str],
    bench: Bench,
    rounds: int,
    on_progress: Callable[[str], object],
    *,
    syscalls: bool = False,
) -> Outcome:
    """Measure some peers of a scenario, `rounds` times each, in turn, and with `syscalls` trace those that it says."""
    with contextlib.ExitStack() as stack:
        running = {}
        for name in () if scenario.fresh else peers:
            on_progress(f"starting {name}")
            running[name] = stack.enter_context(_started(name, bench))

        def measured(name: str) -> Figures:
            if scenario.warm:
                read_through(bench.big)
            fresh = _started(name, bench) if scenario.fresh else contextlib.nullcontext(running[name])
            with fresh as server:
                return scenario.measure(bench, server)

        outcome = run_rounds(
            peers, rounds, measured, lambda number, name: on_progress(f"round {number + 1} of {rounds}: {name}")
        )
        for name in peers if syscalls and scenario.traced else ():
            on_progress(f"tracing {name}")
            try:
                outcome.add(name, {measure.SYSCALLS: measure.syscalls(running[name], bench.big.name)})
            except RuntimeError as error:
                raise MeasurementFailed(f"{name}: {error}")
        return outcome


@contextlib.contextmanager
def _started(name: str, bench: Bench) -> Iterator[Server]:
    small = bench.file(KIB).name
    with PEERS[name].start(bench.directory) as server:
        for path in (small, small, bench.big.name):
            bench.client(server)(server.port, path, "")
        yield server


# --- measurements -----------------------------------------------------------------------------------------------------


def _whole(bench: Bench, server: Server) -> Figures:
    return measure.download(server, bench.big.name, by=bench.client(server))


def _range(bench: Bench, server: Server) -> Figures:
    # 900 MB of 1 GiB, beginning on no page's edge.
    size = bench.big.stat().st_size
    start = size // 11 | 1
    byte_range = f"{start}-{start + round(size * 0.8382) - 1}"
    return measure.download(server, bench.big.name, byte_range, by=bench.client(server))


def _tail(bench: Bench, server: Server) -> Figures:
    _, seconds = bench.client(server)(server.port, bench.big.name, "-1")
    return {"ms": seconds * 1e3}


@dataclass(frozen=True, slots=True)
class _Wrk:
    """What wrk has measured: requests per second, the server's processor time for one, and the wait of the slowest."""

    rate: float
    cpu_us: float
    p99_ms: float


def _wrk(bench: Bench, server: Server, path: str, connections: int = 16) -> _Wrk:
    wrk = shutil.which("wrk")
    if wrk is None:
        raise MeasurementFailed("wrk is not installed")
    url = f"http://127.0.0.1:{server.port}/{path}"
    before = Usage.of(server.pid)
    command = [wrk, "-t1", f"-c{connections}", f"-d{bench.seconds}s", "--timeout", "30s", "--latency", url]
    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=_TIMEOUT_S).stdout
    used, _ = Usage.of(server.pid).since(before)
    rate = re.search(r"Requests/sec: +([\d.]+)", said)
    total = re.search(r"(\d+) requests in", said)
    slowest = re.search(r"99% +([\d.]+)(us|ms|s|m)\b", said)
    if rate is None or total is None or slowest is None or "Non-2xx" in said or "Socket errors" in said:
        raise MeasurementFailed(f"{command}:\n{said}\n{server.log()}")
    ms = float(slowest[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}[slowest[2]]
    return _Wrk(float(rate[1]), used / int(total[1]) * 1e6, ms)


def _requests(bench: Bench, server: Server, size: int) -> Figures:
    found = _wrk(bench, server, bench.file(size).name)
    return {"requests/s": found.rate, "CPU us per request": found.cpu_us}


def _sizes(bench: Bench, server: Server) -> Figures:
    figures = {}
    for name, size in SIZES.items():
        if size > bench.big.stat().st_size:
            break
        file = bench.file(size)
        if size <= _WRK_MOST:
            figures[name] = _wrk(bench, server, file.name).rate
        else:
            until = time.monotonic() + bench.seconds
            began = time.perf_counter()
            total = bench.processes.submit(clients.load, server.port, file, _DOWNLOADS, until).result(_TIMEOUT_S)
            figures[name] = total / size / (time.perf_counter() - began)
    return figures


def _concurrency(bench: Bench, server: Server) -> Figures:
    found = {name: _wrk(bench, server, bench.file(KIB).name, count) for name, count in _CONNECTIONS.items()}
    most = max(_CONNECTIONS, key=int)
    return {name: each.rate for name, each in found.items()} | {f"p99 ms at {most}": found[most].p99_ms}


def _view(bench: Bench, server: Server) -> Figures:
    name = bench.file(KIB).name
    empty = _wrk(bench, server, f"empty/{name}").cpu_us
    file = _wrk(bench, server, name).cpu_us
    return {"CPU us, empty view": empty, "CPU us, file": file, "added CPU us": file - empty}


def _readers(bench: Bench, server: Server) -> Figures:
    size = bench.big.stat().st_size
    before = Usage.of(server.pid)
    began = time.perf_counter()
    until = time.monotonic() + bench.seconds
    reading = bench.processes.submit(
        clients.read_ranges, server.port, bench.big.name, size, _READERS, min(MIB, size), until
    )
    total = reading.result(_TIMEOUT_S)
    seconds = time.perf_counter() - began
    used, _ = Usage.of(server.pid).since(before)
    return {"MB/s": total / 1e6 / seconds, "GiB per CPU s": total / GIB / used}


def _times_by_size(bench: Bench, server: Server, *, cpu: bool) -> Figures:
    figures = {}
    for name, size in _CROSSOVER_SIZES.items():
        file = bench.file(size)
        times = max(10, min(1000, 128 * MIB // size))
        before = Usage.of(server.pid)
        seconds = bench.processes.submit(clients.repeat, server.port, file.name, times).result(_TIMEOUT_S)
        used, _ = Usage.of(server.pid).since(before)
        figures[name] = (used / times if cpu else seconds) * 1e6
    return figures


def _conclude_crossover(outcome: Outcome) -> str:
    medians = {
        peer: {_CROSSOVER_SIZES[name]: statistics.median(values) for name, values in figures.items()}
        for peer, figures in outcome.figures.items()
    }
    ways = [(a, b) for a in medians for b in medians if "sendfile" in b and "sendfile" not in a]
    names = {size: name for name, size in _CROSSOVER_SIZES.items()}
    found = {(a, b): crossover(medians[a], medians[b]) for a, b in ways}
    return "\n".join(
        f"{b} beats {a} at none of these sizes" if size is None else f"{b} beats {a} from {names[size]} on"
        for (a, b), size in found.items()
    )


def _latency(bench: Bench, server: Server, *, cold: bool) -> Figures:
    start = time.monotonic() + 0.3
    until = start + _LATENCY_S
    loading = bench.processes.submit(clients.load, server.port, bench.big, _DOWNLOADS, until, cold=cold)
    small = bench.file(KIB).name
    times = bench.processes.submit(clients.probe, server.port, small, start, until).result(_TIMEOUT_S)
    total = loading.result(_TIMEOUT_S)
    cuts = statistics.quantiles(times, n=100)
    return {"p50 ms": cuts[49] * 1e3, "p99 ms": cuts[98] * 1e3, "MB/s": total / 1e6 / (_LATENCY_S + 0.3)}


def _memory(bench: Bench, server: Server) -> Figures:
    before = memory_bytes(server.pid)
    figures = {}
    with contextlib.ExitStack() as stack:
        stalled = 0
        for name, count in _CONNECTIONS.items():
            while stalled < count:
                clients.request(stack.enter_context(clients.connect(server.port)), bench.big.name)
                stalled += 1
            figures[name] = max(0, _settled_memory(server) - before) / MIB
    return figures | {"MiB per reader": figures[name] / stalled}


def _settled_memory(server: Server) -> int:
    readings: list[int] = []

    def settled() -> bool:
        time.sleep(0.2)
        readings.append(memory_bytes(server.pid))
        return len(readings) > 10 and max(readings[-5:]) - min(readings[-5:]) < 64 * KIB

    with contextlib.suppress(AssertionError):
        wait_until(settled, timeout=15)
    return readings[-1]


# --- the scenarios ----------------------------------------------------------------------------------------------------

_UVICORN = ("zcresponse", "zcresponse, in Starlette", "zcresponse, asyncio", "zcresponse, h11",
            "zcresponse, asyncio, h11", "zcresponse chunks", "Starlette on our protocol", "Starlette",
            "Starlette, routed", "Starlette, asyncio", "Starlette, h11", "Starlette, asyncio, h11")  # fmt: skip
_BIG_PEERS = (*_UVICORN, "zcresponse, granian", "Starlette, granian", "zcresponse, Django, uvicorn", "Django, uvicorn",
              "aiohttp", "nginx", "raw sendfile")  # fmt: skip
_CHUNK_PEERS = tuple(
    f"{who}{where}"
    for where in ("", *(f", {runner.name}" for runner in CHUNKED))
    for who in ("zcresponse chunks", "Starlette")
)
_SMALL_PEERS = ("zcresponse", "zcresponse, in Starlette", "zcresponse, asyncio, h11", "zcresponse chunks", "Starlette",
                "Starlette, routed", "Starlette, asyncio, h11", "aiohttp", "nginx", "constant")  # fmt: skip
_LATENCY_PEERS = ("zcresponse", "zcresponse, in Starlette", "zcresponse, asyncio", "zcresponse chunks", "Starlette",
                  "aiohttp", "nginx")  # fmt: skip
_FEW_PEERS = ("zcresponse", "zcresponse, asyncio", "zcresponse chunks", "Starlette", "aiohttp", "nginx")
_WSGI_PEERS = (
    *(f"{who}, {runner.name}" for who in ("zcresponse", "upgraded", "Flask") for runner in WSGI),
    *(f"{who}, {server}" for who in ("zcresponse, Django", "Django") for server in DJANGO_WSGI),
    "nginx",
)
_RAW_PEERS = tuple(name for name in PEERS if name.startswith("raw "))
_VIEWS = ("Starlette, routed", "FastAPI, uvicorn", "FastAPI, gunicorn", "Django, uvicorn", "Django, gunicorn sync",
          "Django, gunicorn gthread", "Flask, gunicorn sync", "Flask, gunicorn gthread")  # fmt: skip
_VIEW_PEERS = tuple(peer for stock in _VIEWS for peer in (ours(stock), stock))
# Not Django's own on uvicorn: it reads the whole file into memory.
_ADAPTERS = tuple(peer for peer in _VIEW_PEERS if peer != "Django, uvicorn")

#: With nginx in front that sends, with nginx in front that passes on, and without.
_FRONT_PEERS = ("offloaded, Starlette", "proxied, Starlette", "zcresponse, in Starlette", "offloaded, Flask",
                "proxied, Flask", "zcresponse, gunicorn gthread", "nginx")  # fmt: skip

#: What else is asked by many connections at a time: other frameworks and servers.
_CONCURRENT_PEERS = ("zcresponse, granian", "Starlette, granian", "zcresponse, Django, uvicorn", "Django, uvicorn",
                     "zcresponse, gunicorn gthread", "Flask, gunicorn gthread",
                     "zcresponse, Django, gunicorn gthread", "Django, gunicorn gthread")  # fmt: skip

_BIG = (("MB/s", "CPU s per GiB"), ("nginx", "raw sendfile"))

SCENARIOS = {
    "whole": Scenario("the big file", _BIG_PEERS, _whole, *_BIG, traced=True),
    "range": Scenario("a range of the big file", _BIG_PEERS, _range, *_BIG),
    "chunks": Scenario("the big file where there is no sendfile", _CHUNK_PEERS, _whole, _BIG[0], ()),
    "raw": Scenario(
        "the big file from bare sockets", _RAW_PEERS, _whole, _BIG[0], ("raw 64 KiB", "raw sendfile"), traced=True
    ),
    **{
        f"small-{name.replace(' ', '')}": Scenario(
            f"{name} on 16 connections",
            _SMALL_PEERS,
            partial(_requests, size=size),
            ("requests/s",),
            ("nginx", "constant"),
        )
        for name, size in _SMALL_SIZES.items()
    },
    "sizes": Scenario(
        f"requests per second by size, on 16 connections, from 4 MiB on {_DOWNLOADS}",
        (*_FEW_PEERS, "zcresponse, gunicorn gthread", "Flask, gunicorn gthread"),
        _sizes,
        (),
        growth=Growth("bytes", "requests/s", SIZES),
    ),
    "concurrency": Scenario(
        "1 KiB, requests per second by number of connections",
        (*_FEW_PEERS, *_CONCURRENT_PEERS),
        _concurrency,
        ("1000",),
        growth=Growth("connections", "requests/s", _CONNECTIONS),
    ),
    "views": Scenario("what 1 KiB from a file adds to an empty view", _VIEW_PEERS, _view, ("added CPU us",), ()),
    "readers": Scenario(
        f"{_READERS} connections that each read successive ranges of 1 MiB",
        _FEW_PEERS,
        _readers,
        ("MB/s", "GiB per CPU s"),
    ),
    **{
        name: Scenario(
            f"microseconds {of} per request by size, one connection",
            ("raw 64 KiB", "raw 1 MiB", "raw sendfile"),
            partial(_times_by_size, cpu=cpu),
            (),
            growth=Growth("bytes", f"microseconds {of}", _CROSSOVER_SIZES),
            conclude=_conclude_crossover,
        )
        for name, of, cpu in (("crossover", "of time", False), ("crossover-cpu", "of the server's processor", True))
    },
    "latency-warm": Scenario(
        f"a 1 KiB file while {_DOWNLOADS} others download the big one",
        _LATENCY_PEERS,
        partial(_latency, cold=False),
        ("p99 ms", "MB/s"),
    ),
    "latency-cold": Scenario(
        f"a 1 KiB file while {_DOWNLOADS} others download the big one, which is not cached",
        _LATENCY_PEERS,
        partial(_latency, cold=True),
        ("p99 ms", "MB/s"),
        warm=False,
    ),
    "wsgi-whole": Scenario("the big file from Flask and Django", _WSGI_PEERS, _whole, *_BIG[:1], traced=True),
    "wsgi-range": Scenario("a range of the big file from Flask and Django", _WSGI_PEERS, _range, *_BIG[:1]),
    "wsgi-tail": Scenario("the last byte of the big file from Flask and Django", _WSGI_PEERS, _tail, ("ms",)),
    "offload-whole": Scenario("the big file by way of nginx", _FRONT_PEERS, _whole, *_BIG[:1]),
    **{
        f"offload-{name.replace(' ', '')}": Scenario(
            f"{name} by way of nginx, on 16 connections",
            _FRONT_PEERS,
            partial(_requests, size=size),
            ("requests/s", "CPU us per request"),
        )
        for name, size in _SMALL_SIZES.items()
    },
    "memory": Scenario(
        "MiB that clients take which ask for the big file and never read, by their number",
        _FEW_PEERS,
        _memory,
        ("MiB per reader",),
        fresh=True,
        growth=Growth("clients", "MiB", _CONNECTIONS),
    ),
    # Of blocks of 64 KiB and of 8 KiB against sendfile there are published figures; --help has sizes and rounds.
    **{
        f"published-{blocks}": Scenario(
            f"blocks of {blocks} against sendfile, and each adapter against its framework",
            (reading, "raw sendfile", "raw zcresponse.sendfile", *_ADAPTERS),
            _whole,
            ("MB/s",),
            (reading,),
            spread=True,
        )
        for blocks, reading in (("64KiB", "raw 64 KiB"), ("8KiB", "raw 8 KiB"))
    },
}
