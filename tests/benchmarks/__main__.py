"""The command: `python -m tests.benchmarks --help`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from tests.benchmarks.peers import PEERS
from tests.benchmarks.scenarios import KIB, MIB, SCENARIOS, SMALL_SIZES, Bench, Outcome, run


def _size(text: str) -> int:
    found = re.fullmatch(r"(\d+) ?(KiB|MiB|GiB|)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 1GiB or 300MiB")
    return int(found[1]) * {"": 1, "KiB": KIB, "MiB": MIB, "GiB": 1024 * MIB}[found[2]]


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("scenario", nargs="*", help=f"all by default, or beginnings of: {', '.join(SCENARIOS)}")
    parser.add_argument("--peer", action="append", choices=list(PEERS), help="measure only these; may be repeated")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=_size, default=_size("1GiB"), help="of the big file, by default 1GiB")
    parser.add_argument("--json", type=Path, help="write every figure of every round to this file")
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


def _make_file(path: Path, size: int) -> Path:
    """Fill a file with random bytes, or keep the one that is there."""
    if not path.exists() or path.stat().st_size != size:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for position in range(0, size, MIB):
                file.write(os.urandom(min(MIB, size - position)))
            file.flush()
            # The page cache cannot drop what has not been written yet.
            os.fsync(file.fileno())
    return path


def _table(outcome: Outcome) -> str:
    """The medians of a scenario and what they are of the others'."""
    scenario = outcome.scenario
    names = list(next(iter(outcome.figures.values())))
    ratios = [(name, other) for name in scenario.ratios for other in ("Starlette", *scenario.against)]
    header = ["", *names, *(f"{name} / {other}" for name, other in ratios)]
    rows = [header]
    for peer, figures in outcome.figures.items():
        row = [peer, *(f"{outcome.median(peer, name):.4g}" for name in figures)]
        for name, other in ratios:
            ratio = outcome.ratio(peer, other, name)
            row.append("-" if ratio is None else f"{ratio:.2f}")
        rows.append(row)
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = []
    for row in rows:
        first, *others = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        lines.append("  ".join([first.strip().ljust(widths[0]), *others]))
    return "\n".join([scenario.title, *lines, ""])


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the chosen scenarios, print a table for each, and write the figures."""
    chosen = _arguments(argv)
    for name, size in SMALL_SIZES.items():
        _make_file(chosen.directory / name, size)
    big = _make_file(chosen.directory / "big.bin", chosen.size)
    packages = ("uvicorn", "uvloop", "httptools", "h11", "starlette")
    report = {
        "machine": {"system": platform.platform(), "processors": os.cpu_count(), "python": platform.python_version()},
        "packages": {name: version(name) for name in packages},
        "size": chosen.size,
        "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "scenarios": (results := dict[str, object]()),
    }
    with Bench.open(chosen.directory, big) as bench:
        for name in chosen.scenario:
            peers = [peer for peer in SCENARIOS[name].peers if not chosen.peer or peer in chosen.peer]
            if not peers:
                continue
            outcome = run(SCENARIOS[name], peers, bench, chosen.rounds, _progress)
            _progress("")
            print(f"{name}: {_table(outcome)}", flush=True)
            results[name] = outcome.figures
            if chosen.json:
                chosen.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
