"""A copy that lies ready beside a file travels like any file: the kernel moves it, whole and in ranges."""

from __future__ import annotations

import os
import random
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.support import servers
from tests.support.kernel import trace_sendfile
from tests.support.servers import Server, descendants

PLAIN = b"plain " * 400_000
COPY = random.Random("copy").randbytes(700_000)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    for name, content in ("app.js", PLAIN), ("app.js.br", COPY):
        (tmp_path / name).write_bytes(content)
        os.utime(tmp_path / name, (1_700_000_000, 1_700_000_000))
    return tmp_path


def running(kind: str, site: Path) -> AbstractContextManager[Server]:
    env = {"STATIC_SITE": str(site)}
    if kind == "gunicorn":
        return servers.gunicorn("tests.support.static_apps:wsgi_app", worker_class="gthread", env=env)
    return servers.uvicorn("tests.support.static_apps:asgi_app", http="zcresponse.uvicorn:ZeroCopyProtocol", env=env)


@pytest.mark.parametrize("kind", ["uvicorn", "gunicorn"])
def test_the_kernel_moves_the_copy_and_ranges_of_it(kind: str, site: Path) -> None:
    brotli = ("Accept-Encoding", "gzip, br")
    with running(kind, site) as server, server.connect() as connection:
        # gunicorn makes its worker after it has said that it listens.
        assert connection.get("/app.js").status == 200
        with trace_sendfile(server.pid, *descendants(server.pid)) as trace:
            whole = connection.get("/app.js", brotli)
            tag = whole.values("etag")[0]
            part = connection.get("/app.js", brotli, ("Range", "bytes=100000-"), ("If-Range", tag))
            again = connection.get("/app.js", brotli, ("If-None-Match", tag))
            other = connection.get("/app.js", ("If-None-Match", tag))
        assert (whole.status, whole.values("content-encoding"), whole.body) == (200, ["br"], COPY)
        assert (part.status, part.body) == (206, COPY[100_000:])
        assert (again.status, again.values("vary")) == (304, ["Accept-Encoding"])
        assert (other.status, other.values("content-encoding"), other.body) == (200, [], PLAIN)
        assert trace.total_from(site / "app.js.br") == 700_000 + 600_000
        assert trace.total_from(site / "app.js") == len(PLAIN)
