"""Flask: downloads for those who may have them, a video that can be sought in, an export made in memory.

DOWNLOAD_TOKEN=secret gunicorn examples.flask_app:app --threads 4
"""

from __future__ import annotations

import csv
import hmac
import io
import os
from pathlib import Path

from flask import Flask, Response, abort, render_template_string, request
from werkzeug.datastructures import WWWAuthenticate

from zcresponse.flask import send_file, send_from_directory

SITE = Path(__file__).parent / "site"
# What can be had, by name. A table, or a row of a database: never a path that the client wrote.
DOWNLOADS = {"welcome": SITE / "index.html", "notes": SITE / "notes.txt"}
# A folder of yours, with files that anybody may see.
VIDEOS = Path(os.environ.get("VIDEOS", "videos")).absolute()

PLAYER = """<!doctype html>
<title>{{ name }}</title>
<video controls src="{{ url_for('video', name=name) }}"></video>
"""

app = Flask(__name__)


def check_token() -> None:
    """Let those pass who carry the token; put your own check here."""
    given = request.headers.get("Authorization", "")
    wanted = f"Bearer {os.environ['DOWNLOAD_TOKEN']}"
    if not hmac.compare_digest(given.encode(), wanted.encode()):
        abort(401, www_authenticate=WWWAuthenticate("bearer"))


@app.get("/downloads/<name>")
def download(name: str) -> Response:
    """Check first, then send. What one user may have is for no shared cache."""
    check_token()
    path = DOWNLOADS.get(name)
    if path is None:
        abort(404)
    return send_file(path, as_attachment=True, private=True)


@app.get("/watch/<path:name>")
def watch(name: str) -> str:
    """A page with a player. To seek, it asks for ranges of the file."""
    return render_template_string(PLAYER, name=name)


@app.get("/videos/<path:name>")
def video(name: str) -> Response:
    """The name may come from the client: nothing outside of the folder is sent."""
    return send_from_directory(VIDEOS, name, max_age=3600)


@app.get("/export.csv")
def export() -> Response:
    """A file that never was on disk."""
    check_token()
    table = io.StringIO(newline="")
    rows = csv.writer(table)
    rows.writerow(["name", "bytes"])
    rows.writerows((name, path.stat().st_size) for name, path in DOWNLOADS.items())
    content = io.BytesIO(table.getvalue().encode())
    return send_file(content, as_attachment=True, download_name="export.csv", no_store=True)
