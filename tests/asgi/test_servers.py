"""The common table on real servers other than uvicorn, none of which knows anything of zcresponse."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from gunicorn.workers import SUPPORTED_WORKERS

from tests.support import servers, temporary
from tests.support.servers import Server, wait_until
from tests.support.table import CASES, FILES, Case, Files
from tests.support.wire import check_on_wire, format_request


@dataclass(frozen=True)
class Setup:
    """One server, and what it is known to do otherwise.

    Attributes:
        name: The function of `servers`, and the test's id.
        args: Its arguments.
        worker_class: Its worker, where it has several.
        deviations: Rows of the table that the server answers by itself, and what it says.
    """

    name: str
    args: tuple[str, ...] = ()
    worker_class: str | None = None
    deviations: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name if self.worker_class is None else f"{self.name}-{self.worker_class}"

    def start(self, app: str, env: dict[str, str]) -> AbstractContextManager[Server]:
        """Run it."""
        if self.name == "granian":
            return servers.granian(app, *self.args, env=env)
        if self.name == "daphne":
            return servers.daphne(app, *self.args, env=env)
        assert self.worker_class is not None
        if self.name == "hypercorn":
            return servers.hypercorn(app, *self.args, worker_class=self.worker_class, env=env)
        return servers.gunicorn(app, *self.args, worker_class=self.worker_class, env=env)


# The one that offers a plain `http.response.pathsend`.
GRANIAN = Setup("granian")
SETUPS = [
    GRANIAN,
    Setup("hypercorn", worker_class="asyncio"),
    Setup("hypercorn", worker_class="trio"),
    Setup("daphne"),
    # It refuses a field longer than --limit-request-field_size, by default 8190 bytes. RFC 9110 §5.4 allows that.
    Setup("gunicorn", worker_class="asgi", deviations={"thousands of ranges give the whole file": 431}),
]
# gunicorn before 24 has none.
if "asgi" not in SUPPORTED_WORKERS:
    SETUPS = [setup for setup in SETUPS if setup.name != "gunicorn"]


@pytest.fixture(scope="module", params=SETUPS, ids=str)
def setup(request: pytest.FixtureRequest) -> Setup:
    chosen: Setup = request.param
    return chosen


@pytest.fixture(scope="module")
def server(setup: Setup, files: Files) -> Iterator[Server]:
    with setup.start("tests.support.doors:app", {"TABLE_FILES": str(files.directory)}) as server:
        yield server
        assert "Traceback" not in server.log()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_table_passes_over_a_socket(case: Case, setup: Setup, server: Server, files: Files) -> None:
    with server.connect() as connection:
        if case.name in setup.deviations:
            response = connection.request(case.method, case.url_path(), case.fields)
            assert response.status == setup.deviations[case.name]
        else:
            check_on_wire(connection, case, files)


def test_all_rows_pass_on_one_connection(setup: Setup, server: Server, files: Files) -> None:
    with server.connect() as connection:
        for case in CASES:
            if case.name not in setup.deviations:
                check_on_wire(connection, case, files)


def _tree(server: Server) -> set[int]:
    return {server.pid, *servers.descendants(server.pid)}


def _open(server: Server) -> Counter[str]:
    """What the server's processes have open, sockets and the like by their kind alone."""
    return Counter(target.split(":[")[0] for pid in _tree(server) for target in servers.open_descriptors(pid).values())


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="looks into the server through /proc")
def test_descriptors_are_the_same_before_and_after(setup: Setup, server: Server, files: Files) -> None:
    rows = [case for case in CASES if case.name not in setup.deviations][::5]

    def ask() -> None:
        for case in rows:
            with server.connect() as connection:
                check_on_wire(connection, case, files)
        for _ in range(20):
            # Leaves in the middle of the body.
            with server.connect(receive_buffer=4096) as connection:
                connection.send(format_request("GET", f"/plain/{large}"))
                assert connection.read_head().status == 200
                connection.receive_exactly(1000)
                connection.reset()
        with server.connect() as connection:
            assert connection.get(f"/plain/{large}").body == FILES[large].content

    large = FILES["large.bin"].name
    # Threads and what else a server keeps is made at first need.
    ask()
    wait_until(lambda: not _holds(server, files), what="the first answers' files to be closed")
    before = _open(server)
    ask()
    wait_until(lambda: _open(server) <= before, what=f"descriptors as before, {before}")


def _holds(server: Server, files: Files) -> bool:
    directory = os.fspath(files.directory)
    return any(
        target.startswith(directory) for pid in _tree(server) for target in servers.open_descriptors(pid).values()
    )


def test_the_server_stops_when_it_is_asked(setup: Setup, files: Files) -> None:
    with setup.start("tests.support.doors:app", {"TABLE_FILES": str(files.directory)}) as server:
        with server.connect() as connection:
            assert connection.get("/plain/small.bin").body == files.content("small.bin")
        server.stop(signal.SIGTERM)
        assert not server.killed


# --- files that are deleted -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the temporary files are made."""
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def granian(folder: Path) -> Iterator[Server]:
    with GRANIAN.start("tests.support.temporary:app", {"TEMPORARY_FILES": str(folder)}) as server:
        yield server
        assert "Traceback" not in server.log()


@pytest.mark.parametrize("view", temporary.VIEWS)
def test_files_that_are_deleted_after_the_answer_arrive_on_a_server_that_opens_paths_late(
    view: str, granian: Server, folder: Path
) -> None:
    """`await send()` returns on granian before it opens the path, and a file that is gone by then gives 404."""
    with granian.connect() as connection:
        for _ in range(100):
            response = connection.get(view)
            assert response.status == 200
            assert response.body == temporary.CONTENT
        # What is told of a body is told before its file is deleted.
        wait_until(lambda: not list(folder.iterdir()), what="the files to be deleted")
        # A path that was handed out may win the race on a busy machine, so luck is ruled out too.
        told = json.loads(connection.get("/transfers").body)[-100:]
    reason = "a file that may be removed after sending needs its descriptor"
    assert told == [{"way": "chunks", "reason": reason}] * 100


@pytest.mark.parametrize("view", temporary.VIEWS)
def test_parts_of_files_that_are_deleted_after_the_answer_arrive(view: str, granian: Server, folder: Path) -> None:
    with granian.connect() as connection:
        for start in range(100):
            response = connection.get(view, ("Range", f"bytes={start}-{start + 99_999}"))
            assert response.status == 206
            assert response.body == temporary.CONTENT[start : start + 100_000]
    wait_until(lambda: not list(folder.iterdir()), what="the files to be deleted")
