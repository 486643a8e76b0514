"""The middleware on real servers: frameworks as they are, the table, the kernel, and clients that leave."""

from __future__ import annotations

import importlib.metadata
import os
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.support import others, servers
from tests.support.kernel import trace_sendfile
from tests.support.servers import Server, wait_until
from tests.support.table import CASES, FILES, Case, Files
from tests.support.wire import PeerReset, ShortBody, check_on_wire, format_request
from zcresponse.asgi import ZeroCopyMiddleware

SERVERS: dict[str, Callable[..., AbstractContextManager[Server]]] = {
    "uvicorn": servers.uvicorn,
    "hypercorn": servers.hypercorn,
    "hypercorn-trio": partial(servers.hypercorn, worker_class="trio"),
    "daphne": servers.daphne,
    "granian": servers.granian,
    "nonecorn": servers.nonecorn,
    "anycorn": partial(servers.hypercorn, module="anycorn"),
    "anycorn-trio": partial(servers.hypercorn, module="anycorn", worker_class="trio"),
}
#: Where the kernel moves the bytes. anycorn offers it from 0.20.1 on. (Not to be looked up in the package: in a process
#: that has loaded it no path is given to a server.)
ANYCORN_SENDS = tuple(map(int, importlib.metadata.version("anycorn").split(".")[:3])) >= (0, 20, 1)
BY_KERNEL = {"uvicorn", "nonecorn", *(["anycorn-trio"] if ANYCORN_SENDS else [])}
#: Frameworks that do not run on trio, whoever serves them.
NOT_ON_TRIO = ("baize", "servestatic")

LARGE = FILES["large.bin"]


@pytest.fixture(scope="module", params=SERVERS)
def name(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture(scope="module")
def server(name: str, files: Files) -> Iterator[Server]:
    with SERVERS[name]("tests.support.others:upgraded", env={"TABLE_FILES": str(files.directory)}) as server:
        yield server
        assert "Traceback" not in server.log()


def folders(name: str) -> list[str]:
    return [folder for folder in others.FRAMEWORKS if not (name.endswith("trio") and folder in NOT_ON_TRIO)]


def test_the_table_passes_for_an_application_that_sends_whole_files(server: Server, files: Files) -> None:
    with server.connect() as connection:
        for case in CASES:
            check_on_wire(connection, case, files)


def test_the_table_passes_for_our_own_responses(server: Server, files: Files) -> None:
    with server.connect() as connection:
        for case in CASES[::3]:
            if case.is_static:
                check_on_wire(connection, case, files, static=True, prefix="/ours")


def test_frameworks_send_their_files_unchanged(name: str, server: Server, files: Files) -> None:
    with server.connect() as connection:
        for folder in folders(name):
            # servestatic does not find names with a percent sign, on no server.
            for file in [file for file in FILES.values() if folder != "servestatic" or "%" not in file.name]:
                path = Case("", "GET", (), file.name, 200, (), "whole").url_path(static=True)
                for method in ("GET", "HEAD", "GET"):
                    response = connection.request(method, f"/{folder}{path}")
                    assert response.status == 200, folder
                    assert response.body == (b"" if method == "HEAD" else file.content), folder
                    assert response.values("content-length") == [str(file.size)], folder


def test_frameworks_answer_ranges_as_they_do(name: str, server: Server) -> None:
    with server.connect() as connection:
        for folder in folders(name):
            response = connection.get(f"/{folder}/large.bin", ("Range", "bytes=1000003-4000000"))
            assert (response.status, response.body == LARGE.content[1_000_003:4_000_001]) == (206, True), folder
            assert connection.get(f"/{folder}/small.bin").body == FILES["small.bin"].content


def test_what_the_kernel_moved(name: str, server: Server, files: Files) -> None:
    paths = [
        "/plain/large.bin",
        "/ours/large.bin",
        *(f"/{folder}/large.bin" for folder in ("starlette", "static", "fastapi")),
    ]
    with trace_sendfile(server.pid) as trace, server.connect() as connection:
        for path in paths:
            assert connection.get(path).body == LARGE.content
        for path in paths[:2]:
            response = connection.get(path, ("Range", "bytes=1000003-4000000"))
            assert (response.status, response.body == LARGE.content[1_000_003:4_000_001]) == (206, True)
            response = connection.get(path, ("Range", "bytes=0-2999999,4000000-4999999"))
            assert (response.status, LARGE.content[4_000_000:5_000_000] in response.body) == (206, True)
    moved = 5 * LARGE.size + 2 * 2_999_998 + 2 * 4_000_000
    assert trace.total_from(files.path("large.bin")) == (moved if name in BY_KERNEL else 0)


@pytest.mark.parametrize("name", ["uvicorn", "nonecorn"])
def test_the_kernel_moves_the_descriptors_of_others_where_they_are_offered(name: str, files: Files) -> None:
    env = {"TABLE_FILES": str(files.directory), "ZCRESPONSE_ZEROCOPYSEND": "on"}
    with SERVERS[name]("tests.support.others:wrapped", env=env) as server:
        with trace_sendfile(server.pid) as trace, server.connect() as connection:
            for folder in ("baize", "servestatic"):
                assert connection.get(f"/{folder}/large.bin").body == LARGE.content
                response = connection.get(f"/{folder}/large.bin", ("Range", "bytes=1000003-4000000"))
                assert (response.status, response.body == LARGE.content[1_000_003:4_000_001]) == (206, True)
                assert connection.request("HEAD", f"/{folder}/large.bin").body == b""
        assert "Traceback" not in server.log()
    assert trace.total_from(files.path("large.bin")) == 2 * (LARGE.size + 2_999_998)


def query(field: str, value: str) -> str:
    return "/named?" + urlencode([("field", field), ("value", value)], encoding="latin-1")


def test_a_file_that_is_named_is_sent(server: Server, files: Files) -> None:
    targets = (
        query("X-Sendfile", f"{files.directory}/large.bin"),
        query("X-Accel-Redirect", "/protected/large.bin?a=b"),
    )
    with server.connect() as connection:
        for target in targets:
            assert connection.get(target).body == LARGE.content
            assert connection.request("HEAD", target).values("content-length") == [str(LARGE.size)]
            response = connection.get(target, ("Range", "bytes=5-9"))
            assert (response.status, response.body) == (206, LARGE.content[5:10])
            assert not response.values("x-sendfile") + response.values("x-accel-redirect")


HOSTILE = ["", "/etc/passwd", "{root}", "{root}/..", "{root}/../secret", "{root}/%2e%2e/secret", "{root}/..%2fsecret",
           "{root}/nothing", "{root}/small.bin/", "{root}/small.bin\0", "{root}/small.bin\r\nSet-Cookie: a=b",
           "{root}/small.bin%0d%0aa: b", "{root}/\xff", "{root}/..\\secret", "@name", "http://a/protected/small.bin",
           "{root}-2/secret", "{root}/" + "a" * 5000, "//etc/passwd", "/proc/self/environ", "{root}/%00"]  # fmt: skip


@pytest.mark.parametrize("field", ["X-Sendfile", "X-Accel-Redirect"])
def test_nothing_hostile_leaves_the_root(field: str, server: Server, files: Files) -> None:
    root = str(files.directory) if field == "X-Sendfile" else "/protected"
    with server.connect() as connection:
        for value in HOSTILE:
            response = connection.get(query(field, value.replace("{root}", root)))
            assert (response.status, response.body) == (404, b"Not found\n"), value
            assert not response.values(field)
            assert not response.values("set-cookie")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that a test may change, beneath the names of the table's."""
    return tmp_path_factory.mktemp("changing")


@pytest.fixture(scope="module")
def second(name: str, folder: Path) -> Iterator[Server]:
    """A server whose log may tell of errors."""
    with SERVERS[name]("tests.support.others:upgraded", env={"TABLE_FILES": str(folder)}) as server:
        yield server


def _open(server: Server) -> Counter[str]:
    pids = {server.pid, *servers.descendants(server.pid)}
    return Counter(re.sub(r":\[\d+\]", "", target) for pid in pids for target in servers.open_descriptors(pid).values())


def test_a_client_that_leaves_leaves_nothing_behind(server: Server, files: Files) -> None:
    def leave() -> None:
        for path in ("/plain/large.bin", "/ours/large.bin", "/starlette/large.bin") * 4:
            with server.connect(receive_buffer=4096) as connection:
                connection.send(format_request("GET", path))
                assert connection.read_head().status == 200
                connection.receive_exactly(1000)
                connection.reset()
        with server.connect() as connection:
            assert connection.get("/plain/large.bin").body == LARGE.content

    leave()
    wait_until(lambda: not any(str(files.directory) in target for target in _open(server)), what="files to be closed")
    before = _open(server)
    leave()
    wait_until(lambda: _open(server) <= before, what=f"descriptors as before, {before}")


def test_a_path_where_nothing_lies_is_a_500(second: Server) -> None:
    for _ in range(2):
        with second.connect() as connection:
            assert connection.get("/gone").status == 500


def test_a_file_cut_in_the_middle_ends_the_connection(name: str, second: Server, folder: Path) -> None:
    if name == "daphne":
        pytest.skip("it lets the connection of an application that has failed wait")
    path = folder / "large.bin"
    path.write_bytes(random.Random(1).randbytes(LARGE.size) * 4)
    with second.connect(receive_buffer=4096) as connection:
        connection.send(format_request("GET", "/ours/large.bin"))
        assert ("content-length", str(4 * LARGE.size)) in connection.read_head().fields
        os.truncate(path, 4 * LARGE.size - 100_000)
        with pytest.raises((ShortBody, PeerReset)):
            connection.receive_exactly(4 * LARGE.size)
    wait_until(lambda: not any(str(folder) in target for target in _open(second)), what="the file to be closed")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"app": 5}, TypeError),
        ({"conditional": "yes"}, TypeError),
        ({"zerocopysend": 3}, TypeError),
        ({"sendfile": "off"}, TypeError),
        ({"stall_timeout_s": "x"}, TypeError),
        ({"stall_timeout_s": True}, TypeError),
        *(({"stall_timeout_s": value}, ValueError) for value in (-1, float("nan"), float("inf"))),
    ],
    ids=str,
)
def test_a_mistake_in_the_options_is_told_at_once(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=f"^{next(iter(options))}: "):
        ZeroCopyMiddleware(**{"app": print, **options})
