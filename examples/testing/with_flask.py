"""A Flask application, and a test of what a server is given of it."""

from __future__ import annotations

from pathlib import Path

from flask import Flask, Response

from zcresponse.flask import send_file
from zcresponse.testing import FileWrapperServer

FILE = Path(__file__)

app = Flask(__name__)


@app.get("/download")
def download() -> Response:
    """A file."""
    return send_file(FILE)


def test_a_part_is_given_to_the_server() -> None:
    """By its place in the file, as to gunicorn."""
    app.wsgi_app = server = FileWrapperServer(app.wsgi_app)  # type: ignore[method-assign]
    with app.test_client().get("/download", headers={"Range": "bytes=5-9"}) as response:
        assert response.status_code == 206
        assert response.data == FILE.read_bytes()[5:10]
    (given,) = server.handed_over
    assert (given.path, given.offset, given.count) == (str(FILE), 5, 5)
