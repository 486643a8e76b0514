"""No path and no header field leaves a directory or makes a static application fail, in memory and on real servers."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import servers, wsgi_servers
from tests.support.asking import ask_asgi, ask_wsgi, exchange
from tests.support.hostile import CONTENT, FIELDS, SECRET, TARGETS, make_site, problem_of
from tests.support.servers import Server
from tests.support.table import Response
from tests.support.wire import NoAnswer, PeerReset, WireError
from zcresponse import asgi, wsgi

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX file systems")
pytestmark = posix

Ask = Callable[..., Response]
MAKERS: dict[str, tuple[Callable[..., Any], Ask]] = {
    "asgi": (asgi.static_app, ask_asgi),
    "wsgi": (wsgi.static_app, ask_wsgi),
}
both = pytest.mark.parametrize(("make", "ask"), MAKERS.values(), ids=MAKERS)

# Of the table's targets these lead to something that may be seen.
_SEEN = {"/?", "/docs?../../secret.txt"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_site(tmp_path_factory.mktemp("hostile"))


def test_the_table_is_large_and_says_nothing_twice() -> None:
    assert len(set(TARGETS)) == len(TARGETS) >= 60
    assert len(set(FIELDS)) == len(FIELDS) >= 60


@pytest.mark.parametrize(
    "answer",
    [
        Response(500, [], b""),
        Response(200, [], b"<" + SECRET + b">"),
        Response(200, [], b"root:x:0:0:"),
        Response(200, [("x-a", SECRET.decode())], b""),
        Response(301, [("location", "//evil.example/")], b""),
        Response(301, [("set-cookie", "a=b")], b""),
    ],
)
def test_the_judge_sees_what_is_wrong(answer: Response) -> None:
    assert problem_of(answer) is not None
    assert problem_of(Response(301, [("location", "./evil.example/")], CONTENT)) is None


@both
@pytest.mark.parametrize(
    "options",
    [{}, {"listing": True, "precompressed": True}, {"follow_symlinks": True, "hashed_names": True, "not_found": "no"}],
    ids=["plain", "listing", "links"],
)
def test_no_path_leaves_the_directory(make: Any, ask: Ask, options: dict[str, Any], site: Path) -> None:
    app = make(site, **options)
    for target in TARGETS:
        for root_path in ("", "/mounted"):
            got = ask(app, root_path + target, root_path=root_path)
            assert problem_of(got) is None, target
            assert got.status == (404 if target not in _SEEN else got.status), target


@both
@pytest.mark.parametrize("precompressed", [False, True])
def test_no_field_is_an_error(make: Any, ask: Ask, precompressed: bool, site: Path) -> None:
    app = make(site, precompressed=precompressed)
    for name, value in FIELDS:
        for method in ("GET", "HEAD"):
            got = ask(app, "/data.bin", method, [(name.lower().encode(), value.encode("latin-1"))])
            assert problem_of(got) is None, (name, value)
            assert got.status in (200, 206, 304, 412, 416), (name, value)
            assert got.status != 200 or got.body in (CONTENT, b"")


@both
@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_nothing_of_the_table_leaves_a_descriptor_open(make: Any, ask: Ask, site: Path) -> None:
    app = make([site, site], listing=True, follow_symlinks=True, precompressed=True, not_found="index.html")
    ask(app, "/")
    before = len(os.listdir("/proc/self/fd"))
    for target in TARGETS:
        ask(app, target)
    assert len(os.listdir("/proc/self/fd")) == before


_PIECES = (
    "..",
    ".",
    "",
    "/",
    "\\",
    "\0",
    "docs",
    "data.bin",
    "secret.txt",
    "out",
    "root",
    ".env",
    "%2e",
    "\udcff",
    "\ud800",
)


@both
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.text() | st.lists(st.sampled_from(_PIECES)).map("/".join))
def test_no_text_that_a_server_could_hand_over_leaves_the_directory(make: Any, ask: Ask, path: str, site: Path) -> None:
    # Past the servers' own decoding: as a framework or a middleware may put it.
    more = (
        {"path": path}
        if make is asgi.static_app
        else {"PATH_INFO": path.encode("utf-8", "surrogatepass").decode("latin-1")}
    )
    got = ask(make(site, follow_symlinks=True, listing=True), "/", **more)
    assert problem_of(got) is None
    assert got.status in (200, 301, 404)


# --- races ------------------------------------------------------------------------------------------------------------


class Swapper:
    """Puts a link to the outside in a folder's place, and the folder back, as fast as it can."""

    def __init__(self, root: Path) -> None:
        self._inside, self._aside = root / "swapped", root / "aside"
        self._inside.mkdir()
        (self._inside / "secret.txt").write_bytes(b"open to all")
        (self._inside / "secret.txt.gz").write_bytes(b"open to all")
        self._outside = root.parent / "outside"
        (self._outside / "secret.txt.gz").write_bytes(SECRET)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._swap)
        self.swaps = 0

    def _swap(self) -> None:
        while not self._over.is_set():
            os.rename(self._inside, self._aside)
            os.symlink(self._outside, self._inside)
            os.unlink(self._inside)
            os.rename(self._aside, self._inside)
            self.swaps += 1

    def __enter__(self) -> Swapper:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


@both
@pytest.mark.parametrize("follow_symlinks", [False, True])
def test_a_folder_swapped_for_a_link_is_not_followed_out(
    make: Any, ask: Ask, follow_symlinks: bool, tmp_path: Path
) -> None:
    site = make_site(tmp_path)
    app = make(site, follow_symlinks=follow_symlinks, precompressed=True)
    seen: set[int] = set()
    with Swapper(site) as swapper:
        # Until it has met both, or has had every chance to.
        while swapper.swaps < 300 or (len(seen) < 2 and swapper.swaps < 30_000):
            got = ask(app, "/swapped/secret.txt", headers=[(b"accept-encoding", b"gzip")])
            assert got.status in (200, 404)
            assert SECRET not in got.body
            seen.add(got.status)


def test_a_race_on_one_event_loop_is_not_lost_either(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    app = asgi.static_app(site)
    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/swapped/secret.txt", "headers": []}

    async def run() -> None:
        with Swapper(site) as swapper:
            while swapper.swaps < 300:
                for got in await asyncio.gather(*(exchange(app, scope) for _ in range(10))):
                    assert got.status in (200, 404)
                    assert SECRET not in got.body

    asyncio.run(run())


# --- over sockets -----------------------------------------------------------------------------------------------------


#: Servers that decode paths, join fields and tell targets each in a way of their own.
_WSGI = ["gunicorn gthread", "uwsgi http-socket", "mod_wsgi embedded", "waitress", "gevent"]


@pytest.fixture(scope="module", params=["httptools", "h11", *_WSGI])
def server(request: pytest.FixtureRequest, site: Path) -> Iterator[Server]:
    env = {"STATIC_SITE": str(site)}
    if request.param in _WSGI:
        if request.param in wsgi_servers.UNAVAILABLE:
            pytest.skip(wsgi_servers.UNAVAILABLE[request.param])
        running = wsgi_servers.start(request.param, "tests.support.static_apps:wsgi_app", env=env)
    else:
        http = {"httptools": "ZeroCopyHttpToolsProtocol", "h11": "ZeroCopyH11Protocol"}[request.param]
        running = servers.uvicorn(
            "tests.support.static_apps:asgi_app", http=f"zcresponse.uvicorn:{http}", loop="uvloop", env=env
        )
    with running as server:
        yield server


def _asked(server: Server, target: str, *fields: tuple[str, str]) -> str | None:
    """Ask, then ask for something plain on the same connection; tell what is wrong."""
    try:
        with server.connect() as connection:
            got = connection.get(target, *fields)
            problem = problem_of(got)
            if problem is None and got.head.keeps_alive:
                after = connection.get("/data.bin")
                problem = None if after.body == CONTENT else f"afterwards {after.status}"
    except (NoAnswer, PeerReset):
        # The server did not take the request for one.
        return None
    except (WireError, UnicodeError) as error:
        return repr(error)
    return problem


def test_no_path_leaves_the_directory_over_a_socket(server: Server) -> None:
    wrong = {target[:60]: problem for target in TARGETS if (problem := _asked(server, target)) is not None}
    assert wrong == {}
    assert "Traceback" not in server.log()


def test_no_field_is_an_error_over_a_socket(server: Server) -> None:
    wrong = {field: problem for field in FIELDS if (problem := _asked(server, "/data.bin", field)) is not None}
    assert wrong == {}
    assert "Traceback" not in server.log()
