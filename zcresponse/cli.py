"""The command `zcresponse`."""

from __future__ import annotations

import sys

__all__ = ["main"]

_EXTRA = "serve"
_OF_THE_EXTRA = ("click", "uvicorn", "h11")


def main() -> None:
    """Run the command line; says which extra to install where something that it needs is missing."""
    try:
        from zcresponse.commands import group

        group(prog_name="zcresponse")
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _OF_THE_EXTRA:
            raise
        sys.exit(f"zcresponse: {missing} is not installed; install it with: pip install 'zcresponse[{_EXTRA}]'")
