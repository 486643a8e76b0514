"""A directory as a WSGI application: the common table, mounts, what servers tell of the path, and how bytes travel."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any
from wsgiref.util import FileWrapper
from wsgiref.validate import validator

import pytest

from tests.support.asking import ask_wsgi
from tests.support.table import STATIC_CASES, Case, Files, check
from zcresponse import Transfer
from zcresponse.wsgi.static import StaticApp, route_path, static_app

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX file systems")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    root = tmp_path / "site"
    (root / "docs").mkdir(parents=True)
    (root / "no index").mkdir()
    (root / "index.html").write_text("<p>home")
    (root / "docs" / "index.html").write_text("<p>docs")
    (root / "no index" / "a.txt").write_text("a")
    (root / "data.bin").write_bytes(bytes(range(256)))
    for path in root.rglob("*"):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    return root


@pytest.mark.parametrize("case", STATIC_CASES, ids=str)
def test_the_common_table_holds(case: Case, files: Files) -> None:
    app = static_app(files.directory)
    check(case, ask_wsgi(app, case.url_path(static=True), case.method, case.raw_fields), files)


def test_the_standard_librarys_validator_has_nothing_to_say(site: Path) -> None:
    app: Any = validator(static_app(site, listing=True))
    for target in ("/data.bin", "/", "/docs", "/no%20index/", "/nothing"):
        for method in ("GET", "HEAD"):
            more: dict[str, Any] = {"SERVER_NAME": "localhost", "SERVER_PORT": "80", "wsgi.version": (1, 0)}
            more |= {f"wsgi.{name}": False for name in ("multithread", "multiprocess", "run_once")}
            got = ask_wsgi(app, target, method, **more)
            assert got.status in (200, 301, 404)


def test_a_server_that_takes_files_is_given_them(site: Path) -> None:
    seen: list[Transfer] = []
    gunicorn: dict[str, Any] = {
        "gunicorn.socket": io.BytesIO(),
        "SERVER_SOFTWARE": "gunicorn/27.0.1",
        "wsgi.file_wrapper": FileWrapper,
    }
    (site / "big.bin").write_bytes(bytes(70_000))
    app = static_app(site, on_transfer=seen.append)
    assert ask_wsgi(app, "/big.bin", **gunicorn).body == bytes(70_000)
    off = static_app(site, on_transfer=seen.append, sendfile=False)
    assert ask_wsgi(off, "/data.bin", **gunicorn).body == bytes(range(256))
    assert ask_wsgi(app, "/nothing", **gunicorn).status == 404
    assert [(each.way, each.reason) for each in seen] == [
        ("file_wrapper", "the server moves the file"),
        ("chunks", "switched off by sendfile=False"),
        ("chunks", "the body is not a file"),
    ]


def test_directories_are_answered(site: Path) -> None:
    app = static_app(site, listing=True)
    assert ask_wsgi(app, "/").body == b"<p>home"
    assert ask_wsgi(app, "/docs/?x=1").body == b"<p>docs"
    assert ask_wsgi(app, "/docs?a=%20").values("location") == ["./docs/?a=%20"]
    assert b'href="./a.txt"' in ask_wsgi(app, "/no%20index/").body
    assert ask_wsgi(static_app(site), "/no%20index/").status == 404


def test_it_answers_below_where_it_is_mounted(site: Path) -> None:
    app = static_app(site)
    assert ask_wsgi(app, "/mounted/data.bin", root_path="/mounted").body == bytes(range(256))
    assert ask_wsgi(app, "/mounted/docs", root_path="/mounted").values("location") == ["./docs/"]
    assert ask_wsgi(app, "/outer/mounted", root_path="/outer/mounted").values("location") == ["./mounted/"]
    assert ask_wsgi(app, "").body == b"<p>home"


def test_other_methods_are_refused(site: Path) -> None:
    for method in ("POST", "OPTIONS", "FOO"):
        got = ask_wsgi(static_app(site), "/data.bin", method)
        assert (got.status, got.values("allow")) == (405, ["GET, HEAD"])


def test_its_options_are_those_of_the_other_one(site: Path) -> None:
    (site / "data.bin.br").write_bytes(b"<br>")
    app = static_app([site, site], precompressed=True, max_age=60, not_found="docs/index.html")
    got = ask_wsgi(app, "/data.bin", headers=[(b"accept-encoding", b"gzip"), (b"accept-encoding", b"br")])
    assert (got.body, got.values("content-encoding"), got.values("cache-control")) == (b"<br>", ["br"], ["max-age=60"])
    assert ask_wsgi(app, "/nothing").body == b"<p>docs"
    with pytest.raises(FileNotFoundError, match="directory"):
        static_app(site / "nothing")
    assert isinstance(app, StaticApp)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"PATH_INFO": "/a"}, "/a"),
        ({"PATH_INFO": "", "SCRIPT_NAME": "/m"}, ""),
        ({"PATH_INFO": "", "SCRIPT_NAME": ""}, "/"),
        ({}, "/"),
        ({"PATH_INFO": "/\xc3\xbc"}, "/ü"),
        ({"PATH_INFO": "/n\xff"}, "/n\udcff"),
        # Not what PEP 3333 calls a string.
        ({"PATH_INFO": "/ü\u20ac"}, None),
        ({"PATH_INFO": "/a/b", "RAW_URI": "/a%2fb"}, None),
        ({"PATH_INFO": "/a/b", "REQUEST_URI": "/a%2Fb?c"}, None),
        ({"PATH_INFO": "/a\\b", "RAW_PATH_INFO": "/a%5Cb"}, None),
        ({"PATH_INFO": "/a/b", "RAW_URI": "http://host/a%2Fb"}, None),
        ({"PATH_INFO": "/a", "RAW_URI": "/a?b%2fc"}, "/a"),
    ],
)
def test_the_path_below_the_mount_point_is_found(environ: dict[str, str], expected: str | None) -> None:
    assert route_path(environ) == expected


@posix
def test_a_name_that_is_not_utf8_is_found_by_its_bytes(site: Path) -> None:
    with open(os.fsencode(site) + b"/n\xff", "wb") as file:
        file.write(b"odd")
    assert ask_wsgi(static_app(site), "/n%ff").body == b"odd"
    (site / "ü").write_text("even")
    assert ask_wsgi(static_app(site), "/%C3%BC").body == b"even"


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_a_body_that_nobody_reads_leaves_nothing_open(site: Path) -> None:
    app = static_app(site, listing=True)
    before = len(os.listdir("/proc/self/fd"))
    for target in ("/data.bin", "/", "/docs", "/no index/", "/nothing"):
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": target}
        app(environ, lambda status, fields: None).close()  # type: ignore[attr-defined]
    assert len(os.listdir("/proc/self/fd")) == before
