"""The files that are sent, and sizes as people write them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

__all__ = ["make_file", "parse_size", "read_through"]

_BLOCK: Final = 4 * 1024 * 1024

_UNITS: Final[dict[str, int]] = {"": 1, "B": 1} | {
    f"{letter}{suffix}": base**power
    for power, letter in enumerate("KMGT", start=1)
    for suffix, base in (("iB", 1024), ("B", 1000))
}


def parse_size(text: str) -> int:
    """Read a size such as `1GiB`, `4 GB` or `300` and return bytes.

    Raises:
        ValueError: It is none, or 0.
    """
    found = re.fullmatch(r"(\d{1,15}) ?([KMGT]?i?B|)", text.strip(), re.ASCII | re.IGNORECASE)
    unit = next((unit for unit in _UNITS if found and unit.lower() == found[2].lower()), None)
    if found is None or unit is None or not int(found[1]):
        raise ValueError(f"{text!r} is no size such as 64MiB or 4GB")
    return int(found[1]) * _UNITS[unit]


def make_file(path: Path, size: int) -> Path:
    """Fill a file with random bytes and see them written to the disk, or keep the one that has this size already."""
    if not path.exists() or path.stat().st_size != size:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for position in range(0, size, _BLOCK):
                file.write(os.urandom(min(_BLOCK, size - position)))
            file.flush()
            # The page cache cannot drop what has not been written yet, and writing would be measured with the rest.
            os.fsync(file.fileno())
    return path


def read_through(file: Path) -> None:
    """Read a file once, so that it is in the page cache as far as that goes."""
    with file.open("rb", buffering=0) as source:
        buffer = bytearray(_BLOCK)
        while source.readinto(buffer):
            pass
