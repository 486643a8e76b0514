"""The applications under test, a module for each framework; files come from the directory that a variable names.

Each has, as far as its framework goes, `stock` with the framework's own file response and `zero_copy` with ours; both
answer `/empty/NAME` with nothing, by a view that does the rest of what the others do.
"""

from __future__ import annotations

import os

from zcresponse.bench.servers import FILES

__all__ = ["path_of"]

_DIRECTORY = os.environ.get(FILES, ".")


def path_of(name: str) -> str:
    """The path of a file, whose name has no folder in it."""
    return f"{_DIRECTORY}/{os.path.basename(name)}"
