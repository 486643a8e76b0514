"""What WSGI servers do with our bodies, observed; and the documentation's table of it.

python -m tests.support.wsgi_matrix        observes every server and writes the table
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import date
from pathlib import Path

from tests.support import wsgi_servers
from tests.support.big import MIB, big_bytes, write_big
from tests.support.kernel import trace_sendfile
from tests.support.servers import ROOT, Server, descendants, open_descriptors, wait_until
from tests.support.table import Files, make_files
from tests.support.wire import Connection, NoAnswer, PeerReset, ShortBody, WireError, format_request

__all__ = [
    "BIG",
    "BIG_SIZE",
    "Row",
    "big_content",
    "documented",
    "holds",
    "make_site",
    "observe",
    "restore",
    "running",
    "travel",
]

PAGE = ROOT / "docs/reference/wsgi-servers.md"

#: More than any server and socket keeps on the way to a reader that stalls.
BIG = "big.bin"
BIG_SIZE = 64 * MIB

_BEGIN, _END = "<!-- the table: begin -->", "<!-- the table: end -->"


@dataclass(frozen=True, slots=True)
class Row:
    """What was seen of a server.

    Attributes:
        connections: whether it takes a second request on a connection: kept or closed.
        whole, part: how a whole file and one range of it travel.
        cut: what the client sees when the file is cut while it is sent.
    """

    connections: str
    whole: str
    part: str
    cut: str


def big_content() -> bytes:
    """The big file's bytes."""
    return big_bytes(BIG_SIZE)


def make_site(directory: Path) -> Files:
    """Write the table's files and the big one."""
    files = make_files(directory)
    restore(files)
    return files


def restore(files: Files) -> None:
    """Make the big file what it was."""
    write_big(files.path(BIG), BIG_SIZE)


def running(name: str, files: Files) -> contextlib.AbstractContextManager[Server]:
    """Start a server around all doors."""
    # Off by default, and without it Apache reads.
    args = ["WSGIEnableSendfile On"] if name.startswith("mod_wsgi") else []
    env = {"TABLE_FILES": str(files.directory)}
    return wsgi_servers.start(name, "tests.support.wsgi_doors:everything", *args, env=env)


def processes(server: Server) -> set[int]:
    """A server's processes."""
    return {server.pid, *descendants(server.pid)}


def holds(server: Server, files: Files) -> Counter[str]:
    """Which of the files the server's processes have open."""
    directory = os.fspath(files.directory)
    return Counter(
        target for pid in processes(server) for target in open_descriptors(pid).values() if target.startswith(directory)
    )


def observe(name: str, server: Server, files: Files) -> Row:
    """Look at a running server; the big file is afterwards what it was."""
    whole = travel(server, files)
    part = travel(server, files, ("Range", "bytes=10000003-30000003"))
    kept = _keeps(server)
    cut = _cut(server, files)
    return Row("kept" if kept else "closed", whole, part, cut)


def _keeps(server: Server) -> bool:
    with server.connect() as connection:
        try:
            for _ in range(3):
                response = connection.get("/bare/plain/small.bin")
                assert response.status == 200
                if not response.head.keeps_alive:
                    # Werkzeug waits for the client to close first.
                    return False
        except (NoAnswer, PeerReset):
            return False
    return True


def travel(server: Server, files: Files, *headers: tuple[str, str]) -> str:
    """How the big file, or a part of it, gets to the client: in the words of the table."""
    _told(server)
    # A master only watches.
    with trace_sendfile(*(descendants(server.pid) or {server.pid})) as trace, server.connect() as connection:
        connection.send(format_request("GET", f"/flask/plain/{BIG}", headers))
        body = connection.read_response().body
    moved = trace.total_from(files.path(BIG))
    # It is told when the server closes the body, which may be later than the client's last byte.
    ways: list[str] = []

    def is_told() -> bool:
        ways.extend(_told(server))
        return bool(ways)

    wait_until(is_told, what="the account of the body")
    if moved >= 0.999 * len(body):
        return "sendfile"
    assert moved == 0, f"sendfile moved {moved} of {len(body)} bytes"
    return "the server reads" if ways == ["file_wrapper"] else "blocks"


def _told(server: Server) -> list[str]:
    with server.connect() as connection:
        return [told["way"] for told in json.loads(connection.get("/transfers").body)]


def _cut(server: Server, files: Files) -> str:
    """Cut the file behind a reader that stalls, and see how its answer ends."""
    with server.connect(timeout=20, receive_buffer=4096) as connection:
        connection.send(format_request("GET", f"/flask/plain/{BIG}"))
        assert connection.read_head().length == BIG_SIZE
        connection.receive_exactly(1000)
        time.sleep(0.3)
        os.truncate(files.path(BIG), MIB)
        try:
            return _how_it_ends(connection)
        finally:
            restore(files)


def _how_it_ends(connection: Connection) -> str:
    began = time.monotonic()
    try:
        connection.receive_exactly(BIG_SIZE - 1000)
    except ShortBody:
        ending = "closed"
    except PeerReset:
        ending = "reset"
    else:
        # All of it had been read before.
        return "sent whole"
    return ending if time.monotonic() - began < 3 else f"{ending}, late"


# --- the documentation's table ----------------------------------------------------------------------------------------


def documented() -> dict[str, Row]:
    """The rows of the documentation's table, by the servers' names."""
    lines = re.findall(rf"(?s){re.escape(_BEGIN)}(.*){re.escape(_END)}", PAGE.read_text())[0].strip().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")][2:]
    return {name: Row(*rest) for name, _version, *rest in cells}


def _table(rows: dict[str, Row]) -> Iterator[str]:
    yield f"Observed on {date.today():%Y-%m-%d}, CPython {sys.version.split()[0]}, {os.uname().sysname}."
    yield ""
    yield "| server | release | connections | whole file | one range | file cut while it is sent |"
    yield "|---|---|---|---|---|---|"
    for name, row in rows.items():
        cells = [name, wsgi_servers.version(name), *(getattr(row, field.name) for field in fields(row))]
        yield f"| {' | '.join(cells)} |"


def main() -> None:
    """Observe the servers that were named, or all, and write the table."""
    rows = documented() if sys.argv[1:] else {}
    with tempfile.TemporaryDirectory() as directory:
        files = make_site(Path(directory))
        for name in sys.argv[1:] or wsgi_servers.SERVERS:
            with running(name, files) as server:
                try:
                    rows[name] = observe(name, server, files)
                except WireError as error:
                    sys.exit(f"{name}: {error}\n{server.log()[-2000:]}")
            print(name, rows[name], flush=True)
    text = PAGE.read_text()
    begin, end = text.index(_BEGIN) + len(_BEGIN), text.index(_END)
    PAGE.write_text(text[:begin] + "\n" + "\n".join(_table(rows)) + "\n" + text[end:])


if __name__ == "__main__":
    main()
