"""Static files by each framework's door: nothing gets out, nothing fails, and on real servers the kernel moves them."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from django.http import HttpResponse

from tests.support import servers
from tests.support.asking import ask_asgi, ask_wsgi
from tests.support.django_project import project
from tests.support.hostile import CONTENT, FIELDS, SECRET, TARGETS, make_site, problem_of
from tests.support.kernel import trace_sendfile
from tests.support.servers import Server, descendants
from tests.support.static_doors import OPTIONS, django_wsgi, flask_app, starlette_app
from tests.support.table import Response
from tests.support.wire import NoAnswer, PeerReset
from tests.test_hostile import Swapper
from zcresponse.django import static

pytestmark = pytest.mark.skipif(os.name != "posix", reason="POSIX file systems")

Ask = Callable[..., Response]
_SERVER: dict[str, Any] = {"SERVER_NAME": "testserver", "SERVER_PORT": "80", "REMOTE_ADDR": "127.0.0.1"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_site(tmp_path_factory.mktemp("hostile"))


@pytest.fixture(params=["starlette", "flask", "django"])
def asking(request: pytest.FixtureRequest) -> Iterator[Callable[[Path], Ask]]:
    """Return how to ask a door about a directory."""
    with ExitStack() as stack:
        yield lambda directory: _asker(request.param, directory, stack)


def _asker(door: str, directory: Path, stack: ExitStack) -> Ask:
    if door == "starlette":
        app = starlette_app(directory)
        return lambda target, fields=(): ask_asgi(app, f"/static{target}", headers=fields)
    if door == "flask":
        served: Any = flask_app(directory)
    else:
        patterns = static("/static/", document_root=directory, show_indexes=True, **OPTIONS)
        stack.enter_context(project(lambda request: HttpResponse("elsewhere"), urlpatterns=patterns))
        served = django_wsgi(directory)
    return lambda target, fields=(): ask_wsgi(served, f"/static{target}", headers=fields, **_SERVER)


def _problem(got: Response) -> str | None:
    # A framework's own redirect, to a path with fewer slashes, names this host.
    fields = [(name, value.replace("http://testserver/static/", "./")) for name, value in got.fields]
    return problem_of(Response(got.status, fields, got.body))


def test_no_path_leaves_the_directory(asking: Callable[[Path], Ask], site: Path) -> None:
    ask = asking(site)
    assert ask("/data.bin").body == CONTENT
    wrong = {target[:60]: problem for target in TARGETS if (problem := _problem(ask(target))) is not None}
    assert wrong == {}


def test_no_field_is_an_error(asking: Callable[[Path], Ask], site: Path) -> None:
    ask = asking(site)
    for name, value in FIELDS:
        got = ask("/data.bin", [(name.lower().encode(), value.encode("latin-1"))])
        assert _problem(got) is None, (name, value)
        assert got.status in (200, 206, 304, 412, 416), (name, value)
        assert got.status != 200 or got.body == CONTENT


def test_a_folder_swapped_for_a_link_is_not_followed_out(asking: Callable[[Path], Ask], tmp_path: Path) -> None:
    root = make_site(tmp_path)
    ask = asking(root)
    with Swapper(root) as swapper:
        while swapper.swaps < 300:
            got = ask("/swapped/secret.txt", [(b"accept-encoding", b"gzip")])
            # Found, not there, or a folder that had just been there.
            assert got.status in (200, 404)
            assert SECRET not in got.body


def test_a_front_server_is_told_of_files_as_they_are_and_of_no_coded_ones(
    asking: Callable[[Path], Ask], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZCRESPONSE_OFFLOAD", f"X-Accel-Redirect {tmp_path}=/_files")
    (tmp_path / "a b.js").write_bytes(CONTENT)
    (tmp_path / "a b.js.gz").write_bytes(gzip.compress(CONTENT))
    os.utime(tmp_path / "a b.js.gz", (4_000_000_000, 4_000_000_000))
    ask = asking(tmp_path)
    told = ask("/a%20b.js", [(b"range", b"bytes=0-1")])
    assert (told.status, told.body, told.values("x-accel-redirect")) == (200, b"", ["/_files/a%20b.js"])
    coded = ask("/a%20b.js", [(b"accept-encoding", b"gzip")])
    assert (gzip.decompress(coded.body), coded.values("x-accel-redirect")) == (CONTENT, [])


# --- on real servers --------------------------------------------------------------------------------------------------

_SIZE = 5_000_000
_BIG = bytes(range(250)) * (_SIZE // 250)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("large")
    (root / "big.3f9a1c07.bin").write_bytes(_BIG)
    # Hardly compressed, so that the kernel is asked for it too.
    (root / "big.3f9a1c07.bin.gz").write_bytes(gzip.compress(_BIG, 0))
    (root / ".env").write_bytes(SECRET)
    for path in root.iterdir():
        os.utime(path, (1_700_000_000, 1_700_000_000))
    return root


@pytest.fixture(scope="module", params=["starlette", "flask", "django_wsgi", "django_asgi"])
def server(request: pytest.FixtureRequest, large: Path) -> Iterator[Server]:
    env = {"STATIC_SITE": str(large)}
    app = f"tests.support.static_doors:{request.param}_served"
    if request.param in ("flask", "django_wsgi"):
        running = servers.gunicorn(app, "--threads", "2", worker_class="gthread", env=env)
    else:
        running = servers.uvicorn(app, http="zcresponse.uvicorn:ZeroCopyProtocol", env=env)
    with running as started:
        yield started


def test_the_kernel_moves_files_their_parts_and_their_copies(server: Server, large: Path) -> None:
    url = "/static/big.3f9a1c07.bin"
    copy = large / "big.3f9a1c07.bin.gz"
    with trace_sendfile(*(descendants(server.pid) or {server.pid})) as trace, server.connect() as connection:
        whole = connection.get(url)
        assert (whole.status, whole.body) == (200, _BIG)
        assert whole.values("cache-control") == ["public, max-age=31536000, immutable"]
        part = connection.get(url, ("Range", "bytes=1000001-3000000"))
        assert (part.status, part.body) == (206, _BIG[1_000_001:3_000_001])
        coded = connection.get(url, ("Accept-Encoding", "gzip"))
        assert (coded.values("content-encoding"), coded.body) == (["gzip"], copy.read_bytes())
        [tag] = coded.values("etag")
        assert connection.get(url, ("Accept-Encoding", "gzip"), ("If-None-Match", tag)).status == 304
        assert connection.get("/static/.env").status == 404
        assert connection.request("HEAD", url).values("content-length") == [str(_SIZE)]
    assert trace.total_from(large / "big.3f9a1c07.bin") == _SIZE + 2_000_000
    assert trace.total_from(copy) == copy.stat().st_size


def test_hostile_paths_get_nothing_over_a_socket(server: Server) -> None:
    wrong = {}
    for target in TARGETS[::3]:
        try:
            with server.connect() as connection:
                problem = problem_of(connection.get("/static" + target))
        except (NoAnswer, PeerReset):
            # The server did not take the request for one.
            continue
        if problem is not None:
            wrong[target[:60]] = problem
    assert wrong == {}
    assert "Traceback" not in server.log()
