"""An application with Flask's own responses, and one file that it only names; the middleware sends them.

gunicorn examples.wrapped_wsgi:app --threads 4
"""

from __future__ import annotations

from pathlib import Path

import flask
from flask import Flask, Response

from zcresponse.wsgi import ZeroCopyMiddleware

SITE = Path(__file__).parent / "site"

app = Flask(__name__)


@app.get("/notes")
def notes() -> Response:
    """A file by Flask's own function."""
    return flask.send_file(SITE / "notes.txt")


@app.get("/page")
def page() -> Response:
    """What was written for nginx works without it."""
    return Response(headers={"X-Accel-Redirect": "/protected/index.html", "Content-Type": "text/html"})


app.wsgi_app = ZeroCopyMiddleware(  # type: ignore[method-assign]
    app.wsgi_app, conditional=True, x_accel_redirect={"/protected/": SITE}
)
