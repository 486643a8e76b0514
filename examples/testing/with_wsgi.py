"""A WSGI application, and a test of what a server is given of it; by Werkzeug's client, or any other."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from werkzeug.test import Client

from zcresponse.testing import FileWrapperServer
from zcresponse.wsgi import send_file

# One that nobody writes to: a file that was saved two seconds ago may be growing, and such a server is not given it.
FILE = Path(os.__file__)


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer with a file."""
    return send_file(environ, start_response, FILE)


def test_only_whole_files_are_given_to_a_server_that_takes_no_others() -> None:
    """As to uWSGI."""
    server = FileWrapperServer(app, ranges=False)
    with Client(server).get("/", headers={"Range": "bytes=5-9"}) as response:
        assert response.data == FILE.read_bytes()[5:10]
    assert server.handed_over == []
    with Client(server).get("/") as response:
        assert response.data == FILE.read_bytes()
    assert [given.path for given in server.handed_over] == [str(FILE)]
