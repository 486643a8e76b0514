"""What a run was made on, and its figures, as a file that programs can read."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from zcresponse import __version__
from zcresponse.bench.output import write_whole

__all__ = ["describe", "encoded", "processor", "write"]

#: What is measured, and what it is measured on, by the names of their distributions.
_DISTRIBUTIONS: Final = (
    "aiohttp", "cheroot", "daphne", "django", "fastapi", "flask", "gevent", "granian", "gunicorn", "h11", "httptools",
    "hypercorn", "starlette", "uvicorn", "uvicorn-worker", "uvloop", "waitress", "werkzeug",
)  # fmt: skip


def describe(more: Iterable[str] = ()) -> dict[str, Any]:
    """Tell of the machine, the interpreter and the releases that are installed.

    Args:
        more: Further distributions.
    """
    versions = {}
    for name in sorted({*_DISTRIBUTIONS, *more}):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "zcresponse": __version__,
        "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {
            "system": platform.platform(),
            "processor": processor(),
            "processors": os.cpu_count(),
            "python": f"{platform.python_implementation()} {platform.python_version()}",
        },
        "packages": versions,
    }


def processor() -> str:
    """The processor's name, as far as the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def encoded(report: dict[str, Any]) -> bytes:
    """A report as JSON."""
    return (json.dumps(report, indent=1) + "\n").encode()


def write(path: Path, report: dict[str, Any]) -> None:
    """Write a report as JSON, see `output.write_whole`.

    Raises:
        OSError: It cannot be written.
    """
    write_whole(path, encoded(report))
