"""The command: `python -m tests.benchmarks --help`."""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.peers import PEERS, reason_against
from tests.benchmarks.scenarios import SCENARIOS, Bench, MeasurementFailed, run
from tests.support.servers import ServerFailed
from zcresponse.bench import report
from zcresponse.bench.files import make_file, parse_size
from zcresponse.bench.servers import ServerFailed as BenchServerFailed

_EPILOG = """\
The published comparisons of reading in blocks with sendfile are those of 1 GiB in blocks of 64 KiB, and of 4 GB in
blocks of 8 KiB, 100 times:

  python -m tests.benchmarks published-64KiB --size 1GiB
  python -m tests.benchmarks published-8KiB --size 4GB --rounds 100
"""


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error))


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenario", nargs="*", help=f"all by default, or beginnings of: {', '.join(SCENARIOS)}")
    parser.add_argument("--peer", action="append", choices=list(PEERS), help="measure only these; may be repeated")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2, help="of each measurement with several connections")
    parser.add_argument("--syscalls", action="store_true", help="count system calls of the big file too, by strace")
    parser.add_argument("--size", type=_size, default=_size("1GiB"), help="of the big file, by default 1GiB")
    parser.add_argument("--json", type=Path, help="write every figure of every round to this file")
    parser.add_argument("--plots", type=Path, metavar="DIRECTORY", help="draw each scenario, as SVG")
    parser.add_argument(
        "--directory",
        type=Path,
        default=Path(tempfile.gettempdir(), "zcresponse-benchmark"),
        help="where the files are made and kept; on a disk, or nothing is ever cold (%(default)s)",
    )
    chosen = parser.parse_args(argv)
    names = [name for name in SCENARIOS if not chosen.scenario or name.startswith(tuple(chosen.scenario))]
    unknown = [word for word in chosen.scenario if not any(name.startswith(word) for name in SCENARIOS)]
    if unknown:
        parser.error(f"no scenario begins with {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    chosen.scenario = names
    return chosen


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def _left_out(peers: set[str]) -> dict[str, str]:
    reasons = {name: reason_against(PEERS[name]) for name in PEERS if name in peers}
    return {name: reason for name, reason in reasons.items() if reason}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the chosen scenarios, print a table for each, and write the figures; returns 1 when one of them failed."""
    chosen = _arguments(argv)
    # 1,000 connections take more descriptors than many shells allow; servers inherit what is set here.
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    big = make_file(chosen.directory / "big.bin", chosen.size)
    taking_part = {name for scenario in chosen.scenario for name in SCENARIOS[scenario].peers}
    left_out = _left_out(taking_part & set(chosen.peer or PEERS))
    for name, reason in left_out.items():
        print(f"left out: {name}: {reason}", file=sys.stderr)
    what = report.describe(("mod_wsgi", "pyuwsgi"))
    results: dict[str, object] = {}
    failed: list[str] = []
    with Bench.open(chosen.directory, big, chosen.seconds) as bench:
        for name in chosen.scenario:
            scenario = SCENARIOS[name]
            peers = [peer for peer in scenario.peers if peer not in left_out and peer in (chosen.peer or PEERS)]
            if not peers:
                continue
            try:
                outcome = run(scenario, peers, bench, chosen.rounds, _progress, syscalls=chosen.syscalls)
            except (MeasurementFailed, ServerFailed, BenchServerFailed, OSError) as error:
                # The others may take hours, and are worth having.
                print(f"{name}: failed: {error}\n", file=sys.stderr)
                failed.append(name)
                continue
            finally:
                _progress("")
            # Loaded when the servers are gone: it needs matplotlib, which takes its time.
            from tests.benchmarks.tables import draw, table

            print(f"{name}: {table(scenario, outcome)}", flush=True)
            results[name] = outcome.as_json()
            if chosen.json:
                made = {"size": chosen.size, "rounds": chosen.rounds, "left_out": left_out, "scenarios": results}
                report.write(chosen.json, {**what, **made})
            if chosen.plots:
                chosen.plots.mkdir(parents=True, exist_ok=True)
                machine = what["machine"]
                draw(chosen.plots / f"{name}.svg", scenario, outcome, f"{machine['processor']}, {machine['system']}")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
