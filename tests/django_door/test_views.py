"""The view for static and media files, beside Django's own `django.views.static.serve`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import brotli
import pytest
from django.conf.urls import static as stock_urls
from django.core.exceptions import ImproperlyConfigured
from django.http import Http404, HttpRequest, HttpResponse
from django.test import RequestFactory, override_settings
from django.urls import path, re_path
from django.views import static as stock

from tests.support.django_project import MOVING, WAYS, ask, descriptors_of, project
from tests.support.table import STATIC_CASES, Case, Files, Response, check
from zcresponse.django import serve, static, views
from zcresponse.events import subscribe
from zcresponse.testing import record_transfers

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX file systems")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Path]:
    root = tmp_path / "site"
    (root / "docs").mkdir(parents=True)
    (root / "app.js").write_text("plain")
    (root / "app.js.br").write_bytes(brotli.compress(b"plain"))
    (root / "app.55e7cbb9ba48.js").write_text("hashed")
    (root / "docs" / "index.html").write_text("<p>docs")
    (root / "404.html").write_text("<p>nowhere")
    (root / ".env").write_text("secret")
    (root / "with space é.txt").write_text("named")
    for each in root.rglob("*"):
        os.utime(each, (1_700_000_000, 1_700_000_000))
    yield root
    if os.path.isdir("/proc/self/fd"):
        assert descriptors_of(root) == 0


@contextmanager
def serving(root: Path, view: Any = serve, **options: Any) -> Iterator[None]:
    pattern = path("static/<path:path>", view, {"document_root": root, **options})
    whole = re_path("^static/(?P<path>)$", view, {"document_root": root, **options})
    with project(lambda request: HttpResponse("elsewhere"), urlpatterns=[pattern, whole]):
        yield


# --- as Django --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", "/app.js /app.js/ /docs/index.html /docs/../app.js /docs /docs/ / /nothing //app.js".split()
)
def test_a_path_is_answered_as_by_django(site: Path, url: str) -> None:
    answers = []
    for view in (stock.serve, serve):
        with serving(site, view):
            got = ask("moving stock wsgi", url=f"/static{url}")
            fields = [got.values(name) for name in ("Last-Modified", "Content-Disposition", "Content-Length")]
            kind = [value.partition(";")[0] for value in got.values("Content-Type")]
            answers.append((got.status, *((got.body, fields, kind) if got.status == 200 else ())))
    assert answers[0] == answers[1]


def test_what_is_not_there_raises_as_in_django(site: Path) -> None:
    request = RequestFactory().get("/static/nothing")
    for view in (stock.serve, serve):
        for missing in ("nothing", "docs", ""):
            with pytest.raises(Http404):
                view(request, missing, document_root=site)
        with pytest.raises(TypeError):
            view(request, "app.js")
    with pytest.raises(Http404):
        serve(request, "app.js", site / "gone")


@pytest.mark.parametrize("case", STATIC_CASES, ids=str)
def test_the_common_table_holds_without_any_middleware(case: Case, files: Files) -> None:
    url = case.url_path(static=True)
    if url.endswith("/"):
        pytest.skip("a slash at the end is nothing to Django")
    with serving(files.directory):
        fields: dict[str, str] = {}
        for raw_name, value in case.raw_fields:
            # As servers do with what is sent on several lines.
            name, text = raw_name.decode().lower(), value.decode("latin-1")
            fields[name] = f"{fields[name]},{text}" if name in fields else text
        got = WAYS["moving stock wsgi"](case.method, f"/static{url}", fields)
    kept = [field for field in got.fields if field[0].lower() != "content-disposition"]
    check(case, Response.of(got.status, kept, got.body), files)


@pytest.mark.parametrize("way", WAYS)
def test_everybody_gets_files_parts_and_conditions(site: Path, way: str) -> None:
    with serving(site), record_transfers() as told:
        assert ask(way, url="/static/app.js").body == b"plain"
        tag = ask(way, "HEAD", "/static/app.js").values("ETag")[0]
        part = ask(way, url="/static/app.js", Range="bytes=1-2")
        assert (part.status, part.body, part.values("Content-Range")) == (206, b"la", ["bytes 1-2/5"])
        assert ask(way, url="/static/app.js", If_None_Match=tag).status == 304
        assert ask(way, url="/static/app.js", If_Match='"x"').status == 412
        assert ask(way, url="/static/nothing").status == 404
    if way in MOVING:
        assert {each.way for each in told if each.bytes_promised} == {MOVING[way]}


# --- and more ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["client", "moving wsgi", "pathsend", "stock asgi"])
def test_options_are_those_of_a_static_application(site: Path, way: str) -> None:
    with serving(site, precompressed=True, hashed_names=True, not_found="404.html", max_age=60):
        coded = ask(way, url="/static/app.js", Accept_Encoding="br")
        assert brotli.decompress(coded.body) == b"plain"
        assert (coded.values("Content-Encoding"), coded.values("Vary")) == (["br"], ["Accept-Encoding"])
        assert coded.values("Content-Disposition") == ['inline; filename="app.js"']
        [tag] = coded.values("ETag")
        assert ask(way, url="/static/app.js", Accept_Encoding="br", If_None_Match=tag).status == 304
        assert ask(way, url="/static/app.js", If_None_Match=tag).values("Cache-Control") == ["max-age=60"]
        hashed = ask(way, url="/static/app.55e7cbb9ba48.js")
        assert hashed.values("Cache-Control") == ["public, max-age=31536000, immutable"]
        missing = ask(way, url="/static/.env")
        assert (missing.status, missing.body, missing.values("Cache-Control")) == (404, b"<p>nowhere", [])
        assert missing.values("Content-Disposition") == []
    with serving(site, hidden=True):
        assert ask(way, url="/static/.env").body == b"secret"


@pytest.mark.parametrize("name", ["Vary", "vary"])
def test_fields_of_one_name_are_joined_however_it_is_written(site: Path, name: str) -> None:
    more = {"": {name: "Cookie"}}
    response = serve(
        RequestFactory().get("/app.js"), "app.js", document_root=site, precompressed=True, suffix_headers=more
    )
    assert response.headers["Vary"] == "Cookie, Accept-Encoding"
    response.close()


def test_directories_are_shown_when_asked(site: Path) -> None:
    with serving(site, show_indexes=True):
        assert ask("client", url="/static/docs").values("Location") == ["./docs/"]
        shown = ask("client", url="/static/docs/")
        assert b'href="./index.html"' in shown.body
        assert ask("wsgi", "HEAD", "/static/docs/").values("Content-Length") == [str(len(shown.body))]
        assert ask("client", url="/static/").status == 200
    with serving(site, index="index.html"):
        assert ask("client", url="/static/docs").status == 301
        page = ask("client", url="/static/docs/")
        assert (page.body, page.values("Content-Disposition")) == (b"<p>docs", [])
        assert ask("client", url="/static/docs/index.html").values("Content-Disposition") != []
        assert ask("client", url="/static/").status == 404


@pytest.mark.parametrize("method", ["POST", "OPTIONS", "DELETE"])
def test_other_methods_are_refused(site: Path, method: str) -> None:
    with serving(site):
        got = ask("wsgi", method, "/static/app.js")
    assert (got.status, got.values("Allow")) == (405, ["GET, HEAD"])


def test_names_are_found_whatever_they_hold(site: Path) -> None:
    with serving(site):
        got = ask("asgi", url="/static/with%20space%20%C3%A9.txt")
    assert got.body == b"named"
    assert got.values("Content-Disposition")[0].endswith("filename*=UTF-8''with%20space%20%C3%A9.txt")


@posix
def test_links_that_lead_inside_are_followed(site: Path, tmp_path: Path) -> None:
    (tmp_path / "outside.txt").write_text("outside")
    (site / "in.txt").symlink_to("app.js")
    (site / "out.txt").symlink_to(tmp_path / "outside.txt")
    with serving(site):
        assert ask("wsgi", url="/static/in.txt").body == b"plain"
        assert ask("wsgi", url="/static/out.txt").status == 404
    with serving(site, follow_symlinks="anywhere"):
        assert ask("wsgi", url="/static/out.txt").body == b"outside"


def test_middleware_may_add_to_an_answer(site: Path) -> None:
    def sign(get_response: Any) -> Any:
        def middleware(request: HttpRequest) -> Any:
            response = get_response(request)
            response["X-Signed"] = "yes"
            return response

        return middleware

    def view(request: HttpRequest) -> Any:
        return serve(request, "app.js", document_root=site)

    gzip = "django.middleware.gzip.GZipMiddleware"
    with project(view, sign, "zcresponse.django.ZeroCopyMiddleware", gzip):
        for way in ("client", "moving wsgi", "pathsend"):
            part = ask(way, Range="bytes=1-2", Accept_Encoding="gzip")
            assert part.values("X-Signed") == ["yes"]
            assert ask(way, Range="bytes=1-2").body == b"la"


@pytest.mark.parametrize(
    ("options", "named"), [({"listing": True}, "listing"), ({"x": 1}, "x"), ({"precompressed": "br"}, "precompressed")]
)
def test_a_mistake_is_told(site: Path, options: dict[str, Any], named: str) -> None:
    with pytest.raises((TypeError, ValueError), match=named):
        serve(RequestFactory().get("/"), "app.js", document_root=site, **options)


def test_what_is_decided_about_a_directory_is_decided_once(site: Path, tmp_path: Path) -> None:
    views._sites.clear()
    headers = {".js": {"X-Script": "yes"}}
    request = RequestFactory().get("/")
    for _ in range(3):
        response = serve(request, "app.js", document_root=site, suffix_headers=headers)
        assert response["X-Script"] == "yes"
        response.close()
    assert len(views._sites) == 1
    for number in range(views._MOST_SITES + 10):
        with pytest.raises(Http404):
            serve(request, "x", document_root=tmp_path / str(number))
    assert len(views._sites) <= views._MOST_SITES


def test_how_it_went_is_told(site: Path) -> None:
    seen: list[Any] = []
    with serving(site, on_transfer=seen.append, sendfile=False), subscribe(lambda transfer: None):
        assert ask("moving wsgi", url="/static/app.js").body == b"plain"
    assert [(each.way, each.reason) for each in seen] == [("chunks", "switched off by sendfile=False")]


# --- the pattern ------------------------------------------------------------------------------------------------------


def test_a_pattern_leads_to_the_view_with_debug_or_without(site: Path) -> None:
    for debug in (False, True):
        patterns = static("/static/", document_root=site)
        with project(lambda request: HttpResponse("elsewhere"), urlpatterns=patterns, DEBUG=debug):
            assert ask("wsgi", url="/static/app.js").body == b"plain"
            assert ask("wsgi", url="/other").body == b"elsewhere"
            assert ask("wsgi", url="/xstatic/app.js").body == b"elsewhere"


def test_a_pattern_takes_what_djangos_takes(site: Path) -> None:
    with override_settings(DEBUG=True):
        for make in (stock_urls.static, static):
            with pytest.raises(ImproperlyConfigured):
                make("")
            assert make("https://cdn.example/static/") == []
            [pattern] = make("/static/", view=stock.serve, document_root=site)
            assert str(pattern.pattern) == "^static/(?P<path>.*)$"
            assert (pattern.callback, pattern.default_args) == (stock.serve, {"document_root": site})
    with pytest.raises(ImproperlyConfigured):
        static("/")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"colour": 1}, TypeError),
        ({"hashed_names": "("}, ValueError),
        ({"suffix_headers": {".js": {"X-A": "a\nb"}}}, ValueError),
        ({"listing": True}, TypeError),
        ({"on_transfer": 5}, TypeError),
        ({"sendfile": "off"}, TypeError),
        ({"document_root": 5}, TypeError),
    ],
    ids=str,
)
def test_a_mistake_is_told_when_the_pattern_is_made(site: Path, options: dict[str, Any], error: Any) -> None:
    with pytest.raises(error, match=next(iter(options))):
        static("/static/", **{"document_root": site, **options})


def test_a_directory_may_come_later_but_has_to_be_given(site: Path) -> None:
    with pytest.raises(TypeError, match="document_root"):
        static("/static/")
    for setting in (site / "later", "", None):
        assert len(static("/static/", document_root=setting)) == 1
