"""Plain WSGI: one call answers a request with a file.

gunicorn examples.wsgi_app:app --threads 4
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from zcresponse import Transfer
from zcresponse.wsgi import send_file

SITE = Path(__file__).parent / "site"


def tell(transfer: Transfer) -> None:
    """Say how a body travelled, and why not in a better way."""
    print(f"{transfer.bytes_promised} bytes by {transfer.way}: {transfer.reason}", flush=True)


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer every GET and HEAD with the same file."""
    return send_file(environ, start_response, SITE / "index.html", max_age=60, on_transfer=tell)
