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
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks import clients
from tests.benchmarks.peers import PEERS, Peer, cpu_seconds, memory_bytes
from tests.support.servers import Server, wait_until

__all__ = ["KIB", "MIB", "SCENARIOS", "SMALL_SIZES", "Bench", "Scenario", "run"]

KIB, MIB = 1024, 1024**2
SMALL_SIZES = {"1KiB.bin": KIB, "64KiB.bin": 64 * KIB, "1MiB.bin": MIB}

_TIMEOUT_S = 120.0
_WRK_S = 2
_LATENCY_S = 3.0
_DOWNLOADS = 4
_STALLED = 200

#: Figures by their names.
Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Bench:
    """What scenarios work with: the files, and processes for clients."""

    directory: Path
    big: Path
    processes: ProcessPoolExecutor

    @classmethod
    @contextlib.contextmanager
    def open(cls, directory: Path, big: Path) -> Iterator[Bench]:
        """A bench, until the end of the block."""
        # Spawned: a forked client would inherit this process's memory and sockets.
        with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as processes:
            yield cls(directory, big, processes)

    def download(self, server: Server, path: str, byte_range: str = "") -> tuple[int, float]:
        """See `clients.download`."""
        return self.processes.submit(clients.download, server.port, path, byte_range).result(_TIMEOUT_S)


@dataclass(frozen=True, slots=True)
class Scenario:
    """One table.

    Attributes:
        title: What is measured.
        peers: Names of those that take part.
        measure: One measurement of one running server.
        ratios: Names of the figures that are compared.
        against: Names of the peers that they are compared with, besides Starlette on the same loop and parser.
        warm: Whether the big file is brought into the page cache before each measurement.
        fresh: Whether each measurement needs a newly started server.
    """

    title: str
    peers: tuple[str, ...]
    measure: Callable[[Bench, Server], Figures]
    ratios: tuple[str, ...]
    against: tuple[str, ...] = ("nginx",)
    warm: bool = True
    fresh: bool = False


@dataclass(slots=True)
class Outcome:
    """The figures of one scenario: by peer and name, one for each round."""

    scenario: Scenario
    figures: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def median(self, peer: str, name: str) -> float:
        """The median over the rounds."""
        return statistics.median(self.figures[peer][name])

    def ratio(self, peer: str, other: str, name: str) -> float | None:
        """The median over the rounds of one peer's figure divided by another's; None where that makes no sense.

        "Starlette" means that on the peer's own loop and parser, if it takes part.
        """
        if other == "Starlette" and PEERS[peer].stock in self.figures:
            other = PEERS[peer].stock
        if other == peer or other not in self.figures:
            return None
        pairs = list(zip(self.figures[peer][name], self.figures[other][name], strict=True))
        return statistics.median(a / b for a, b in pairs) if all(b > 0 for _, b in pairs) else None


def run(
    scenario: Scenario, peers: Sequence[str], bench: Bench, rounds: int, progress: Callable[[str], None]
) -> Outcome:
    """Measure some peers of a scenario, `rounds` times each, in turn."""
    outcome = Outcome(scenario)
    with contextlib.ExitStack() as stack:
        running = {}
        if not scenario.fresh:
            running = {name: stack.enter_context(PEERS[name].start(bench.directory)) for name in peers}
            for server in running.values():
                _warm_up(bench, server)
        for number in range(rounds):
            # Nobody always follows the same neighbour's heat.
            names = [*peers[number % len(peers) :], *peers[: number % len(peers)]]
            for name in names:
                progress(f"round {number + 1} of {rounds}: {name}")
                if scenario.warm:
                    _read(bench.big)
                fresh = _started(PEERS[name], bench) if scenario.fresh else contextlib.nullcontext(running[name])
                with fresh as server:
                    for figure, value in scenario.measure(bench, server).items():
                        outcome.figures.setdefault(name, {}).setdefault(figure, []).append(value)
    # In the order of the scenario, whoever came first in the first round.
    outcome.figures = {name: outcome.figures[name] for name in peers}
    return outcome


@contextlib.contextmanager
def _started(peer: Peer, bench: Bench) -> Iterator[Server]:
    with peer.start(bench.directory) as server:
        _warm_up(bench, server)
        yield server


def _warm_up(bench: Bench, server: Server) -> None:
    for path in ("1KiB.bin", "1KiB.bin", bench.big.name):
        bench.download(server, path)


def _read(file: Path) -> None:
    with file.open("rb", buffering=0) as source:
        buffer = bytearray(4 * MIB)
        while source.readinto(buffer):
            pass


# --- measurements -----------------------------------------------------------------------------------------------------


def _throughput(bench: Bench, server: Server, byte_range: str = "") -> Figures:
    used = cpu_seconds(server)
    size, seconds = bench.download(server, bench.big.name, byte_range)
    used = cpu_seconds(server) - used
    return {"MB/s": size / 1e6 / seconds, "CPU s per GiB": used / (size / 1024**3)}


def _range(bench: Bench, server: Server) -> Figures:
    # 900 MB of 1 GiB, beginning on no page's edge.
    size = bench.big.stat().st_size
    start = size // 11 | 1
    return _throughput(bench, server, f"{start}-{start + round(size * 0.8382) - 1}")


def _requests(path: str) -> Callable[[Bench, Server], Figures]:
    def measure(bench: Bench, server: Server) -> Figures:
        wrk = shutil.which("wrk")
        if wrk is None:
            raise SystemExit("wrk is not installed")
        url = f"http://127.0.0.1:{server.port}/{path}"
        used = cpu_seconds(server)
        command = [wrk, "-t1", "-c16", f"-d{_WRK_S}s", url]
        said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=_TIMEOUT_S).stdout
        used = cpu_seconds(server) - used
        found = re.search(r"Requests/sec: +([\d.]+)", said)
        total = re.search(r"(\d+) requests in", said)
        if found is None or total is None or "Non-2xx" in said or "Socket errors" in said:
            raise SystemExit(f"{command}:\n{said}\n{server.log()}")
        return {"requests/s": float(found[1]), "CPU us per request": used / int(total[1]) * 1e6}

    return measure


def _latency(bench: Bench, server: Server, *, cold: bool) -> Figures:
    start = time.monotonic() + 0.3
    until = start + _LATENCY_S
    loading = bench.processes.submit(clients.load, server.port, bench.big, _DOWNLOADS, until, cold=cold)
    times = bench.processes.submit(clients.probe, server.port, "1KiB.bin", start, until).result(_TIMEOUT_S)
    total = loading.result(_TIMEOUT_S)
    cuts = statistics.quantiles(times, n=100)
    return {"p50 ms": cuts[49] * 1e3, "p99 ms": cuts[98] * 1e3, "MB/s": total / 1e6 / (_LATENCY_S + 0.3)}


def _memory(bench: Bench, server: Server) -> Figures:
    before = memory_bytes(server)
    with contextlib.ExitStack() as stack:
        for _ in range(_STALLED):
            clients.request(stack.enter_context(clients.connect(server.port)), bench.big.name)
        readings: list[int] = []

        def settled() -> bool:
            time.sleep(0.2)
            readings.append(memory_bytes(server))
            return len(readings) > 10 and max(readings[-5:]) - min(readings[-5:]) < 64 * KIB

        with contextlib.suppress(AssertionError):
            wait_until(settled, timeout=15)
        return {"MiB per reader": (readings[-1] - before) / _STALLED / MIB}


_LATENCY_PEERS = ("zcresponse", "zcresponse, in Starlette", "zcresponse, asyncio", "zcresponse chunks", "Starlette",
                  "nginx")  # fmt: skip
_SMALL_PEERS = ("zcresponse", "zcresponse, in Starlette", "zcresponse, asyncio, h11", "zcresponse chunks", "Starlette",
                "Starlette, routed", "Starlette, asyncio, h11", "nginx", "constant")  # fmt: skip
_BIG_PEERS = tuple(name for name in PEERS if name != "constant")

_BIG = (("MB/s", "CPU s per GiB"), ("nginx", "raw sendfile"))

SCENARIOS = {
    "whole": Scenario("the big file", _BIG_PEERS, _throughput, *_BIG),
    "range": Scenario("a range of the big file", _BIG_PEERS, _range, *_BIG),
    **{
        f"small-{path.removesuffix('.bin')}": Scenario(
            f"{path} on 16 connections", _SMALL_PEERS, _requests(path), ("requests/s",), ("nginx", "constant")
        )
        for path in SMALL_SIZES
    },
    "latency-warm": Scenario(
        f"a 1 KiB file while {_DOWNLOADS} others download the big one",
        _LATENCY_PEERS,
        lambda bench, server: _latency(bench, server, cold=False),
        ("p99 ms", "MB/s"),
    ),
    "latency-cold": Scenario(
        f"a 1 KiB file while {_DOWNLOADS} others download the big one, which is not cached",
        _LATENCY_PEERS,
        lambda bench, server: _latency(bench, server, cold=True),
        ("p99 ms", "MB/s"),
        warm=False,
    ),
    "memory": Scenario(
        f"{_STALLED} clients that ask for the big file and never read",
        ("zcresponse", "zcresponse, asyncio", "zcresponse chunks", "Starlette", "nginx"),
        _memory,
        ("MiB per reader",),
        fresh=True,
    ),
}
