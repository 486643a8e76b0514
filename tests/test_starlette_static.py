"""`ZeroCopyStaticFiles` beside Starlette's own `StaticFiles`: equal where it has to be, and what users override."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import brotli
import pytest
from fastapi import FastAPI
from starlette import staticfiles
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.testclient import TestClient
from starlette.types import Scope

from tests.support.table import STATIC_CASES, Case, Files, check
from tests.support.table import Response as Answer
from zcresponse import Transfer
from zcresponse.starlette import ZeroCopyStaticFiles
from zcresponse.testing import PathsendServer

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX file systems")

Make = Callable[..., StaticFiles]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    root = tmp_path / "site"
    (root / "docs").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "index.html").write_text("<p>home")
    (root / "404.html").write_text("<p>nowhere")
    (root / "docs" / "index.html").write_text("<p>docs")
    (root / "docs" / "page.html").write_text("<p>page")
    (root / "app.js").write_text("plain")
    (root / "app.js.br").write_bytes(brotli.compress(b"plain"))
    (root / "app.3f9a1c07.js").write_text("hashed")
    for path in root.rglob("*"):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    return root


def client(files: Any, **kwargs: Any) -> TestClient:
    app = Starlette(routes=[Mount("/static", files, name="static")])
    return TestClient(app, follow_redirects=False, **kwargs)


# --- as Starlette -----------------------------------------------------------------------------------------------------

PATHS = """
/ /app.js /app.js/ //app.js /docs /docs/ /docs?a=b /docs/page.html /docs%2fpage.html /docs/../app.js /./app.js /empty
/empty/ /nothing /nothing/ /docs/nothing /app.js/x /404.html /index.html /..%2fsecret /docs/%2e%2e/%2e%2e/x
""".split()


@pytest.mark.parametrize("html", [False, True])
@pytest.mark.parametrize("path", PATHS)
def test_a_path_is_answered_as_by_starlette(site: Path, path: str, html: bool) -> None:
    answers = []
    for make in (StaticFiles, ZeroCopyStaticFiles):
        with client(make(directory=site, html=html)) as asked:
            for method in ("GET", "HEAD"):
                got = asked.request(method, f"/static{path}")
                where = got.headers.get("location", "").replace("http://testserver/static/", "./")
                answers.append((got.status_code, got.content, got.headers.get("content-type"), where))
    assert answers[:2] == answers[2:]


@pytest.mark.parametrize("method", ["POST", "PUT", "OPTIONS", "DELETE"])
def test_another_method_is_refused_as_by_starlette(site: Path, method: str) -> None:
    answers = [
        client(make(directory=site, html=True)).request(method, "/static/app.js")
        for make in (StaticFiles, ZeroCopyStaticFiles)
    ]
    assert [(got.status_code, got.content) for got in answers] == [(405, b"Method Not Allowed")] * 2
    # The oldest releases do not say what they allow.
    assert answers[1].headers["allow"] == "GET, HEAD"


# A slash at the end of a file's name is nothing to Starlette.
@pytest.mark.parametrize(
    "case", [each for each in STATIC_CASES if not each.url_path(static=True).endswith("/")], ids=str
)
def test_the_common_table_holds(case: Case, files: Files) -> None:
    with client(ZeroCopyStaticFiles(directory=files.directory), headers={"accept-encoding": "identity"}) as asked:
        url = "/static" + case.url_path(static=True)
        got = asked.request(case.method, url, headers=list(case.raw_fields))
    check(case, Answer.of(got.status_code, got.headers.multi_items(), got.content), files)


def test_what_is_not_there_is_told_in_starlettes_words(site: Path) -> None:
    for make in (StaticFiles, ZeroCopyStaticFiles):
        with pytest.raises(RuntimeError, match="does not exist"):
            make(directory=site / "gone")
        with pytest.raises(RuntimeError, match="does not exist"):
            client(make(directory=site / "gone", check_dir=False)).get("/static/x")
        with pytest.raises(RuntimeError, match="not a directory"):
            client(make(directory=site / "app.js", check_dir=False)).get("/static/x")
        with pytest.raises(AssertionError, match="could not be found"):
            make(packages=["tests"])


def test_files_of_packages_come_after_those_of_the_directory(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a_package" / "statics").mkdir(parents=True)
    (tmp_path / "a_package" / "__init__.py").touch()
    for name in ("app.js", "own.js"):
        (tmp_path / "a_package" / "statics" / name).write_text("package")
    monkeypatch.syspath_prepend(tmp_path)
    ways: list[list[str | tuple[str, str]]] = [["a_package"], [("a_package", "statics")]]
    for packages in ways:
        asked = client(ZeroCopyStaticFiles(directory=site, packages=packages))
        assert asked.get("/static/app.js").text == "plain"
        assert asked.get("/static/own.js").text == "package"
    assert client(ZeroCopyStaticFiles(packages=["a_package"])).get("/static/app.js").text == "package"


def test_without_any_directory_nothing_is_there() -> None:
    for make in (StaticFiles, ZeroCopyStaticFiles):
        assert client(make()).get("/static/x").status_code == 404


@posix
@pytest.mark.parametrize("follow", [False, True])
def test_links_are_followed_as_by_starlette(site: Path, tmp_path: Path, follow: bool) -> None:
    (tmp_path / "outside.txt").write_text("outside")
    (site / "out.txt").symlink_to(tmp_path / "outside.txt")
    (site / "in.txt").symlink_to("app.js")
    (site / "also").symlink_to("docs")
    for make in (StaticFiles, ZeroCopyStaticFiles):
        asked = client(make(directory=site, follow_symlink=follow))
        assert asked.get("/static/out.txt").status_code == (200 if follow else 404)
        assert asked.get("/static/in.txt").text == "plain"
        assert asked.get("/static/also/page.html").text == "<p>page"


def test_addresses_and_exception_handlers_are_the_applications(site: Path) -> None:
    app = FastAPI()
    app.mount("/files", ZeroCopyStaticFiles(directory=site), name="files")

    @app.exception_handler(404)
    async def missing(request: Request, error: HTTPException) -> Response:
        return PlainTextResponse(f"no {request.url.path}", 404)

    assert app.url_path_for("files", path="/app.js") == "/files/app.js"
    with TestClient(app) as asked:
        assert asked.get("/files/app.js").text == "plain"
        assert asked.get("/files/x").text == "no /files/x"


@pytest.mark.skipif(not hasattr(staticfiles, "WebSocketClose"), reason="older releases have no answer")
def test_a_websocket_is_turned_away(site: Path) -> None:
    from starlette.websockets import WebSocketDisconnect

    with pytest.raises(WebSocketDisconnect):
        with client(ZeroCopyStaticFiles(directory=site)).websocket_connect("/static/app.js"):
            pass


# --- and more ---------------------------------------------------------------------------------------------------------


def test_options_are_those_of_a_static_application(site: Path) -> None:
    (site / ".env").write_text("secret")
    files = ZeroCopyStaticFiles(
        directory=site,
        precompressed=True,
        hashed_names=True,
        max_age=60,
        not_found="docs/page.html",
        suffix_headers={".html": {"X-Frame-Options": "DENY"}},
    )
    asked = client(files)
    coded = asked.get("/static/app.js", headers={"accept-encoding": "identity;q=0.5, br"})
    assert coded.headers["content-type"] == "text/javascript; charset=utf-8"
    assert (coded.headers["content-encoding"], coded.headers["vary"]) == ("br", "Accept-Encoding")
    assert coded.text == "plain"
    assert asked.get("/static/app.3f9a1c07.js").headers["cache-control"] == "public, max-age=31536000, immutable"
    assert asked.get("/static/app.js", headers={"accept-encoding": ""}).headers["cache-control"] == "max-age=60"
    missing = asked.get("/static/.env")
    assert (missing.status_code, missing.text, missing.headers["x-frame-options"]) == (404, "<p>page", "DENY")
    assert client(ZeroCopyStaticFiles(directory=site, hidden=True)).get("/static/.env").text == "secret"


def test_a_coded_file_has_conditions_and_ranges(site: Path) -> None:
    asked = client(ZeroCopyStaticFiles(directory=site, precompressed=["br"]))
    accept = {"accept-encoding": "br"}
    tag = asked.head("/static/app.js", headers=accept).headers["etag"]
    assert tag != asked.head("/static/app.js", headers={"accept-encoding": ""}).headers["etag"]
    same = asked.get("/static/app.js", headers={**accept, "if-none-match": tag})
    assert (same.status_code, same.headers["vary"], same.headers["etag"]) == (304, "Accept-Encoding", tag)
    size = (site / "app.js.br").stat().st_size
    part = asked.get("/static/app.js", headers={**accept, "range": f"bytes=0-{size - 1}"})
    assert (part.status_code, part.headers["content-range"]) == (206, f"bytes 0-{size - 1}/{size}")
    assert asked.get("/static/app.js", headers={**accept, "if-match": '"x"'}).status_code == 412


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"index": "a.html"}, "index"),
        ({"listing": True}, "listing"),
        ({"follow_symlinks": True}, "follow_symlinks"),
        ({"precompressed": "br"}, "precompressed"),
        ({"max_age": -1}, "max_age"),
        ({"no_such": 1}, "no_such"),
    ],
)
def test_a_mistake_is_told_at_once(site: Path, options: dict[str, Any], named: str) -> None:
    with pytest.raises((TypeError, ValueError), match=named):
        ZeroCopyStaticFiles(directory=site, **options)


def test_how_it_went_is_told(site: Path) -> None:
    seen: list[Transfer] = []
    files = ZeroCopyStaticFiles(directory=site, on_transfer=seen.append)
    TestClient(PathsendServer(files)).get("/app.js")
    read = ZeroCopyStaticFiles(directory=site, on_transfer=seen.append, sendfile=False)
    TestClient(PathsendServer(read)).get("/app.js")
    assert [each.way for each in seen] == ["pathsend", "chunks"]


@pytest.mark.skipif(sys.platform != "linux", reason="root gives up a privilege; descriptors are counted in /proc")
def test_nothing_stays_open_whatever_is_answered(site: Path) -> None:
    files = ZeroCopyStaticFiles(directory=site, html=True, precompressed=True)
    asked = client(files)
    asked.get("/static/app.js")
    before = len(os.listdir("/proc/self/fd"))
    for path in PATHS:
        for headers in ({}, {"if-none-match": "*"}, {"range": "bytes=9-"}):
            asked.get(f"/static{path}", headers=headers)
    assert len(os.listdir("/proc/self/fd")) == before


# --- what users override ----------------------------------------------------------------------------------------------


class OnePage(ZeroCopyStaticFiles):
    """A single page application: what is not there is for its router."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        try:
            return await super().get_response(path, scope)
        except HTTPException as error:
            if error.status_code != 404 or path.startswith("api"):
                raise
            return await super().get_response("index.html", scope)


class NeverKept(ZeroCopyStaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        response.headers["ETag"] = '"own"'
        return response


class Described(ZeroCopyStaticFiles):
    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["X-Described"] = "yes"
        return response


class Replaced(ZeroCopyStaticFiles):
    def file_response(
        self, full_path: Any, stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        return FileResponse(full_path, status_code, stat_result=stat_result, headers={"X-Own": "yes"})


class Elsewhere(ZeroCopyStaticFiles):
    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        return super().lookup_path(path.replace("v2/", ""))


class AlwaysSent(ZeroCopyStaticFiles):
    def is_not_modified(self, response_headers: Headers, request_headers: Headers) -> bool:
        response_headers["Cache-Control"] = "no-store"  # type: ignore[index]
        return request_headers.get("x-same") == "yes"


class ByHand(ZeroCopyStaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        full_path, stat_result = self.lookup_path("app.js")
        assert stat_result is not None
        return self.file_response(full_path, stat_result, scope)


def test_what_is_missing_may_be_another_file(site: Path) -> None:
    asked = client(OnePage(directory=site, precompressed=True))
    assert asked.get("/static/some/route").text == "<p>home"
    assert asked.get("/static/docs").text == "<p>home"
    assert asked.get("/static/some/route", headers={"range": "bytes=0-2"}).text == "<p>"
    assert asked.get("/static/app.js", headers={"accept-encoding": "br"}).headers["content-encoding"] == "br"
    assert asked.get("/static/api/x").status_code == 404


def test_fields_that_are_set_on_the_response_count(site: Path) -> None:
    asked = client(NeverKept(directory=site))
    for headers, status in (({}, 200), ({"range": "bytes=0-1"}, 206), ({"if-none-match": '"own"'}, 304)):
        got = asked.get("/static/app.js", headers=headers)
        assert (got.status_code, got.headers["cache-control"], got.headers["etag"]) == (status, "no-cache", '"own"')


def test_a_response_may_be_thrown_away(site: Path) -> None:
    class Twice(ZeroCopyStaticFiles):
        async def get_response(self, path: str, scope: Scope) -> Response:
            response = await super().get_response(path, scope)
            return await super().get_response("index.html", scope) if response.status_code == 404 else response

    asked = client(Twice(directory=site, html=True))
    # A file that nobody closes is a warning, and warnings are errors.
    assert asked.get("/static/nothing").text == "<p>home"


def test_a_file_response_may_be_changed_or_replaced(site: Path) -> None:
    asked = client(Described(directory=site, html=True, max_age=5))
    got = asked.get("/static/app.js", headers={"range": "bytes=0-1"})
    assert (got.status_code, got.text, got.headers["x-described"]) == (206, "pl", "yes")
    assert got.headers["cache-control"] == "max-age=5"
    assert asked.get("/static/docs").status_code == 307
    assert asked.get("/static/nothing").text == "<p>nowhere"
    replaced = client(Replaced(directory=site)).get("/static/app.js")
    assert (replaced.text, replaced.headers["x-own"]) == ("plain", "yes")


def test_files_may_be_looked_up_in_another_way(site: Path) -> None:
    (site / ".env").write_text("secret")
    asked = client(Elsewhere(directory=site))
    assert asked.get("/static/v2/app.js", headers={"range": "bytes=-2"}).text == "in"
    assert asked.get("/static/v2/nothing").status_code == 404
    assert asked.get("/static/v2/.env").status_code == 404
    assert asked.get("/static/..%2f..%2fetc/passwd").status_code == 404


@pytest.mark.parametrize("option", ["precompressed", "hashed_names"])
@pytest.mark.parametrize("kind", [Elsewhere, Described])
def test_what_another_way_cannot_heed_is_told_at_once(site: Path, kind: type[ZeroCopyStaticFiles], option: str) -> None:
    with pytest.raises(TypeError, match=option):
        kind(directory=site, **{option: True})  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [AlwaysSent, type("Both", (AlwaysSent, Elsewhere), {})])
def test_whether_something_has_changed_may_be_decided_otherwise(site: Path, kind: type[ZeroCopyStaticFiles]) -> None:
    asked = client(kind(directory=site))
    tag = asked.get("/static/app.js").headers["etag"]
    got = asked.get("/static/app.js", headers={"if-none-match": tag})
    assert (got.status_code, got.headers["cache-control"]) == (200, "no-store")
    same = asked.get("/static/app.js", headers={"x-same": "yes"})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)


def test_a_file_may_be_answered_by_hand(site: Path) -> None:
    asked = client(ByHand(directory=site, precompressed=True))
    assert asked.get("/static/x", headers={"range": "bytes=0-0"}).text == "p"


def test_directories_may_be_changed_later(site: Path) -> None:
    files = ZeroCopyStaticFiles(directory=site)
    asked = client(files)
    assert asked.get("/static/page.html").status_code == 404
    files.all_directories.append(site / "docs")
    assert asked.get("/static/page.html").text == "<p>page"
