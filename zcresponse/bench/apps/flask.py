"""Flask."""

from __future__ import annotations

import flask
from flask import Flask, Response

from zcresponse.bench.apps import path_of
from zcresponse.flask import ZeroCopy, send_file

__all__ = ["stock", "upgraded", "zero_copy"]

zero_copy = Flask("zero_copy")
stock = Flask("stock")
upgraded = Flask("upgraded")
ZeroCopy(upgraded)


@zero_copy.get("/empty/<name>")
@upgraded.get("/empty/<name>")
@stock.get("/empty/<name>")
def empty(name: str) -> str:
    """Nothing."""
    path_of(name)
    return ""


@zero_copy.get("/<name>")
def zero_copy_view(name: str) -> Response:
    """Our `send_file`."""
    return send_file(path_of(name))


@upgraded.get("/<name>")
@stock.get("/<name>")
def stock_view(name: str) -> Response:
    """Flask's own `send_file`."""
    return flask.send_file(path_of(name))
