"""The files that are sent, and sizes as people write them."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from zcresponse.plan.listing import format_size
from zcresponse.sendfile import copy_file

__all__ = ["check_space", "lend", "make_file", "parse_size", "read_through"]

_BLOCK: Final = 4 * 1024 * 1024

#: What is left free on the disk beside a file that is made, in bytes.
_SPARE: Final = 64 * 1024 * 1024

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


def make_file(path: Path, size: int, on_progress: Callable[[int], object] = lambda done: None) -> Path:
    """Fill a file with random bytes and see them written to the disk, or keep the one that has this size already.

    Args:
        path, size: Which, and how many bytes.
        on_progress: Called every 4 MiB with how many bytes there are.

    Raises:
        OSError: It cannot be written; ENOSPC also before a byte of it is, when it does not fit.
    """
    if not path.exists() or path.stat().st_size != size:
        path.parent.mkdir(parents=True, exist_ok=True)
        check_space(path.parent, size)
        with path.open("wb") as file:
            for position in range(0, size, _BLOCK):
                file.write(os.urandom(min(_BLOCK, size - position)))
                on_progress(file.tell())
            file.flush()
            # The page cache cannot drop what has not been written yet, and writing would be measured with the rest.
            os.fsync(file.fileno())
    return path


def check_space(directory: Path, size: int) -> None:
    """Tell a file that does not fit, before the disk is full for everybody else.

    Raises:
        OSError: ENOSPC.
    """
    free = shutil.disk_usage(directory).free
    if size + _SPARE > free:
        raise OSError(
            errno.ENOSPC, f"{format_size(size)} do not fit, {format_size(free)} are free", os.fspath(directory)
        )


def read_through(file: Path, on_progress: Callable[[int], object] = lambda done: None) -> None:
    """Read a file once, so that it is in the page cache as far as that goes.

    Args:
        file: Which.
        on_progress: Called every 4 MiB with how many bytes have been read.
    """
    with file.open("rb", buffering=0) as source:
        buffer = bytearray(_BLOCK)
        while source.readinto(buffer):
            on_progress(source.tell())


def lend(file: Path, path: Path) -> None:
    """Let a file be found under another path too: by a link, or a copy where there can be none.

    Raises:
        OSError: Not even a copy can be made.
    """
    for link in (Path.symlink_to, Path.hardlink_to):
        # Windows lets not everybody link, and not all file systems can.
        with contextlib.suppress(OSError, NotImplementedError):
            link(path, file.absolute())
            return
    check_space(path.parent, file.stat().st_size)
    with file.open("rb") as source, path.open("wb") as target:
        copy_file(source, target)
