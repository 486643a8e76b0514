"""The table's two views behind each door that WSGI has, for servers and test clients.

Files come from the directory named by the environment variable `TABLE_FILES`.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment
from wsgiref.util import shift_path_info

import flask
from flask import Flask, Response
from werkzeug.wrappers import Request

from tests.support.table import CACHE_CONTROL, DOWNLOAD_NAME, FILES, MAX_AGE
from zcresponse import Transfer, werkzeug, wsgi
from zcresponse.events import subscribe
from zcresponse.flask import ZeroCopy, ZeroCopyFileResponse, send_file

__all__ = ["DOORS", "bare", "everything", "flask_app", "flask_responses", "upgraded", "werkzeug_app"]

_METHODS = ["GET", "HEAD", "POST"]


def _path(name: str) -> Path:
    return Path(os.environ["TABLE_FILES"]) / name


def bare(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Plain WSGI."""
    _, view, name = environ["PATH_INFO"].encode("latin-1").decode().split("/", 2)
    if view == "dressed":
        headers = [("Cache-Control", CACHE_CONTROL)]
        return wsgi.send_file(environ, start_response, _path(name), filename=DOWNLOAD_NAME, headers=headers)
    return wsgi.send_file(environ, start_response, _path(name))


def werkzeug_app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Werkzeug without a framework."""
    _, view, name = Request(environ).path.split("/", 2)
    if view == "dressed":
        response = werkzeug.ZeroCopyFileResponse(
            _path(name), download_name=DOWNLOAD_NAME, as_attachment=True, max_age=MAX_AGE
        )
    else:
        response = werkzeug.ZeroCopyFileResponse(_path(name))
    return response(environ, start_response)


def _flask(plain: Any, dressed: Any) -> Flask:
    app = Flask(__name__)
    app.add_url_rule("/plain/<name>", "plain", plain, methods=_METHODS)
    app.add_url_rule("/dressed/<name>", "dressed", dressed, methods=_METHODS)
    return app


def _sent(name: str) -> Response:
    return send_file(_path(name))


def _sent_dressed(name: str) -> Response:
    # A directive that is not wanted is one all the same: Flask's own `public` does not join it.
    return send_file(_path(name), as_attachment=True, download_name=DOWNLOAD_NAME, max_age=MAX_AGE, private=False)


def _response(name: str) -> Response:
    return ZeroCopyFileResponse(_path(name))


def _response_dressed(name: str) -> Response:
    return ZeroCopyFileResponse(_path(name), as_attachment=True, download_name=DOWNLOAD_NAME, max_age=MAX_AGE)


def _known(name: str) -> dict[str, Any]:
    # Flask makes tags of its own from the path, and rounds the time up; the table knows the file's.
    return {"etag": FILES[name].etag.strip('"'), "last_modified": FILES[name].mtime}


def _stock(name: str) -> Response:
    return flask.send_file(_path(name), **_known(name))


def _stock_dressed(name: str) -> Response:
    return flask.send_file(
        _path(name), as_attachment=True, download_name=DOWNLOAD_NAME, max_age=MAX_AGE, **_known(name)
    )


flask_app = _flask(_sent, _sent_dressed)
flask_responses = _flask(_response, _response_dressed)
upgraded = _flask(_stock, _stock_dressed)
ZeroCopy(upgraded)

#: All of them by their names.
DOORS: dict[str, WSGIApplication] = {
    "bare": bare,
    "werkzeug": werkzeug_app,
    "flask": flask_app,
    "responses": flask_responses,
    "upgraded": upgraded,
}

_transfers: deque[Transfer] = deque(maxlen=100)
_subscription = subscribe(_transfers.append)
_subscription.__enter__()


def everything(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Each door below its name; `/transfers` tells and forgets how the last bodies went."""
    door = shift_path_info(environ) or ""
    if door == "transfers":
        body = json.dumps([asdict(transfer) for transfer in _transfers]).encode()
        _transfers.clear()
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]
    return DOORS[door](environ, start_response)
