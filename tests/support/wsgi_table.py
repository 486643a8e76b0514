"""The common table over the sockets of WSGI servers, each with what is known to be its own doing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from tests.support.servers import Server
from tests.support.table import CASES, Case, Files
from tests.support.wire import Connection, NoAnswer, PeerReset, check_on_wire
from tests.support.wsgi_servers import SERVERS

__all__ = ["expect_the_end", "wrong_rows"]

_THOUSANDS = {"thousands of ranges give the whole file"}
# Rows whose fields are longer than a server takes; RFC 9110 §5.4 lets it refuse them.
REFUSED: Final[dict[str, set[str]]] = {
    "gunicorn": _THOUSANDS,
    "uwsgi": {"both ends of thousands of digits", *_THOUSANDS},
    "mod_wsgi": _THOUSANDS,
    "eventlet": _THOUSANDS,
}
_EMPTY_HEADS = {case.name for case in CASES if case.method == "HEAD" and ("content-length", "0") in case.expect}
# Rows of which a server changes the request or the answer.
ALTERED: Final[dict[str, set[str]]] = {
    # They keep the last of several lines with the same name.
    "cheroot": {case.name for case in CASES if case.name.startswith("several ")},
    "bjoern": {"If-None-Match on two lines", "If-Match on two lines"},
    # They take a length of 0 out of an answer to HEAD.
    "mod_wsgi": _EMPTY_HEADS,
    # Where we answer ranges that are not worth it with the whole file, Apache, in whose own process the file lies,
    # answers them itself, and for POST too.
    "mod_wsgi embedded": {
        "more than a hundred ranges give the whole file",
        "more bytes than the file holds give the whole file",
        "one byte more than the file holds gives the whole file",
        "the bytes are counted after cutting to the file",
        "more bytes than a small file holds",
        "POST ignores a range",
        "POST ignores a range beyond the end",
    },
    "django": _EMPTY_HEADS,
}
#: They close after an answer that has no length.
CLOSING_AFTER_304: Final = {"waitress", "uwsgi router"}
#: They give a 304 a length of 0.
MEASURING_304: Final = {"wsgiref", "django"}


def wrong_rows(server: Server, name: str, rows: Iterable[Case], files: Files, prefix: str = "") -> list[str]:
    """Run rows, on as few connections as the server allows, and tell what is wrong.

    Args:
        server: A running server.
        name: What it is called in `SERVERS`.
        rows: The rows.
        files: The files served.
        prefix: Stands before the paths.
    """
    wrong = []
    connection: Connection | None = None
    for case in rows:
        if case.name in ALTERED.get(name, set()) | ALTERED.get(name.split()[0], set()):
            continue
        connection = connection or server.connect()
        before = connection
        try:
            connection = _ask(connection, case, files, name, prefix)
        except AssertionError as error:
            wrong.append(f"{case.name}: {type(error).__name__} {error}")
            connection = None
        if connection is None:
            before.close()
    if connection is not None:
        connection.close()
    return wrong


def expect_the_end(connection: Connection) -> None:
    """Fail unless the connection ends here, without another byte."""
    # Werkzeug says so and then waits for the client to close.
    connection.half_close()
    assert connection.read_to_end() == b"", "surplus bytes before the end of the connection"


def _ask(connection: Connection, case: Case, files: Files, name: str, prefix: str) -> Connection | None:
    """Run a row and the request after it; return the connection if it is still good for another."""
    if case.name in REFUSED.get(name.split()[0], ()):
        try:
            response = connection.request(case.method, prefix + case.url_path(), case.fields)
            assert response.status in (400, 414, 431)
        except (NoAnswer, PeerReset):
            pass
        return None
    kept = SERVERS[name].keeps_alive and not (case.status == 304 and name in CLOSING_AFTER_304)
    if case.status == 304 and name in MEASURING_304:
        case = replace(case, expect=tuple(each for each in case.expect if each[0] != "content-length"))
    check_on_wire(connection, case, files, prefix=prefix, again=kept)
    if kept:
        return connection
    expect_the_end(connection)
    return None
