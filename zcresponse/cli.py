"""The command `zcresponse`."""

from __future__ import annotations

import sys

__all__ = ["main"]

#: The extras, named as the commands, and what of each is imported at once.
_EXTRAS = {
    "bench": ("click", "matplotlib", "rich"),
    "compress": ("click", "brotli", "rich", "zstandard"),
    "serve": ("click", "uvicorn", "h11"),
}


def main() -> None:
    """Run the command line; says which extra to install where something that it needs is missing."""
    try:
        from zcresponse.commands import group

        group(prog_name="zcresponse")
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        extra = next((word for word in sys.argv[1:] if word in _EXTRAS), "serve")
        if missing not in _EXTRAS[extra]:
            raise
        sys.exit(f"zcresponse: {missing} is not installed; install it with: pip install 'zcresponse[{extra}]'")
