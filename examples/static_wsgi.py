"""A folder of downloads on a WSGI server, each of which is saved and never shown.

gunicorn examples.static_wsgi:app --threads 4
"""

from __future__ import annotations

from pathlib import Path

from zcresponse import OpenedFile
from zcresponse.wsgi import static_app


def as_download(url_path: str, file: OpenedFile) -> dict[str, str]:
    """Return the header fields of one file."""
    return {"Content-Disposition": "attachment", "X-Content-Type-Options": "nosniff"}


app = static_app(Path(__file__).parent / "site", index=None, max_age=3600, file_headers=as_download)
