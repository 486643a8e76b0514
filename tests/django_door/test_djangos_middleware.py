"""A file response among Django's own middleware and decorators, and the debug toolbar."""

from __future__ import annotations

import gc
import gzip
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.files.storage import FileSystemStorage
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.test import override_settings
from django.views.decorators.cache import cache_page, never_cache
from django.views.decorators.gzip import gzip_page
from django.views.decorators.http import conditional_page, etag
from django.views.decorators.vary import vary_on_headers

from tests.support.django_project import (
    BODIES,
    DATA,
    DECIDING,
    MIDDLEWARE,
    MOVING,
    REQUESTS,
    SOME,
    ask,
    check_is_sound,
    descriptors_of,
    field_file,
    project,
)
from zcresponse import Transfer
from zcresponse.django import ZeroCopyFileResponse

STOCK = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.gzip.GZipMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.http.ConditionalGetMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
SETTINGS = {"SESSION_ENGINE": "django.contrib.sessions.backends.signed_cookies", "SESSION_SAVE_EVERY_REQUEST": True}


@pytest.mark.parametrize("place", [0, 2, 4, len(STOCK)])
@pytest.mark.parametrize("way", SOME)
def test_every_status_is_right_among_djangos_own(
    way: str, place: int, view: Any, path: Path, transfers: list[Transfer]
) -> None:
    with project(view, *STOCK[:place], MIDDLEWARE, *STOCK[place:], **SETTINGS):
        for status, fields in REQUESTS.items():
            answer = ask(way, **fields)
            assert (answer.status, answer.body) == (status, BODIES[status])
            check_is_sound(answer)
            assert answer.values("X-Content-Type-Options") == ["nosniff"]
            # A 412 of ConditionalGetMiddleware is a new response.
            assert status == 412 or "Accept-Language" in answer.values("Vary")[0]
    moved = [transfer.way for transfer in transfers if transfer.bytes_promised]
    if way in MOVING:
        assert moved == [MOVING[way]] * 2


@pytest.mark.parametrize("way", DECIDING)
def test_every_status_is_right_above_djangos_own(way: str, view: Any, transfers: list[Transfer]) -> None:
    with project(view, *STOCK, **SETTINGS):
        for status, fields in REQUESTS.items():
            answer = ask(way, **fields)
            assert (answer.status, answer.body) == (status, BODIES[status])
            check_is_sound(answer)
            if status == 304:
                # What comes last has the last word; CommonMiddleware gives one to a 304.
                assert answer.values("Content-Length") in ([], ["0"])


@pytest.mark.parametrize("way", DECIDING)
def test_a_304_that_is_decided_last_has_no_content_length(way: str, view: Any) -> None:
    with project(view, "django.middleware.common.CommonMiddleware"):
        answer = ask(way, If_None_Match='"v1"')
    assert (answer.status, answer.values("Content-Length")) == (304, [])


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("place", [0, 1, 2, len(STOCK)])
@pytest.mark.parametrize("way", SOME)
def test_whoever_takes_gzip_gets_all_of_it(way: str, place: int, method: str, view: Any) -> None:
    with project(view, *STOCK[:place], MIDDLEWARE, *STOCK[place:], **SETTINGS):
        for status, fields in REQUESTS.items():
            answer = ask(way, method, Accept_Encoding="gzip", **fields)
            check_is_sound(answer, head=method == "HEAD")
            if status in (200, 206, 416):
                # Who compresses first leaves nothing to be decided; what is decided first and has no content stays.
                assert answer.status in (200, status)
                assert (answer.values("Content-Encoding") == ["gzip"]) == (answer.status == 200)
                assert answer.status != 206
            else:
                assert answer.status == status


@pytest.mark.parametrize("order", [(MIDDLEWARE, STOCK[1]), (STOCK[1], MIDDLEWARE)], ids=["below", "above"])
@pytest.mark.parametrize("way", SOME)
def test_a_compressed_file_is_still_validated(way: str, order: tuple[str, str], view: Any) -> None:
    with project(view, *order):
        [tag] = ask(way, Accept_Encoding="gzip").values("ETag")
        assert tag == 'W/"v1"'
        for method in "GET", "HEAD":
            answer = ask(way, method, Accept_Encoding="gzip", If_None_Match=tag)
            assert (answer.status, answer.body, answer.values("Content-Encoding")) == (304, b"", [])


@pytest.mark.parametrize("kind", ["path", "file", "field", "stream"])
@pytest.mark.parametrize("place", ["above", "below"])
@pytest.mark.parametrize("way", ["client", "moving wsgi", "pathsend", "stock asgi"])
def test_who_answers_in_its_place_leaves_nothing_to_the_garbage_collector(
    way: str, place: str, kind: str, path: Path
) -> None:
    made: dict[str, Callable[[], Any]] = {
        "path": lambda: path,
        "file": lambda: path.open("rb"),
        "field": lambda: field_file(FileSystemStorage(path.parent), path.name),
        "stream": lambda: gzip.open(path),  # noqa: SIM115
    }
    order = (STOCK[3], MIDDLEWARE) if place == "above" else (MIDDLEWARE, STOCK[3])
    path.write_bytes(gzip.compress(DATA))
    with project(lambda request: ZeroCopyFileResponse(made[kind](), etag="v1"), *order):
        for _ in range(3):
            answer = ask(way, If_None_Match='"v1"')
            assert (answer.status, answer.body) == (304, b"")
    gc.collect()
    assert descriptors_of(path) == 0


@pytest.mark.parametrize("way", [*DECIDING, "client"])
def test_what_is_coded_already_is_neither_compressed_nor_read(way: str, path: Path, transfers: list[Transfer]) -> None:
    def view(request: HttpRequest) -> HttpResponseBase:
        return ZeroCopyFileResponse(path, headers={"Content-Encoding": "br"}, content_type="text/css")

    with project(view, MIDDLEWARE, "django.middleware.gzip.GZipMiddleware"):
        answer = ask(way, Accept_Encoding="gzip, br", Range="bytes=5-99")
    assert (answer.status, answer.body, answer.values("Content-Encoding")) == (206, DATA[5:100], ["br"])
    assert [transfer.way for transfer in transfers] == [MOVING.get(way, "chunks")]


@pytest.mark.parametrize("way", SOME)
def test_who_does_not_take_gzip_is_told_of_it_by_vary_alone(way: str, view: Any, transfers: list[Transfer]) -> None:
    with project(view, "django.middleware.gzip.GZipMiddleware", MIDDLEWARE):
        answer = ask(way, Range="bytes=5-99")
    assert (answer.status, answer.body, answer.values("Vary")) == (206, DATA[5:100], ["Accept-Encoding"])
    if way in MOVING:
        assert [transfer.way for transfer in transfers] == [MOVING[way]]


@pytest.mark.parametrize("way", [*SOME, "async client", "wsgi"])
@pytest.mark.parametrize("status", REQUESTS)
def test_sessions_and_cookies_reach_the_client_with_every_status(status: int, way: str, path: Path) -> None:
    def view(request: HttpRequest) -> HttpResponseBase:
        request.session["visits"] = 1
        response = ZeroCopyFileResponse(path, etag="v1")
        response.set_cookie("seen", "yes", httponly=True)
        return response

    with project(view, MIDDLEWARE, "django.contrib.sessions.middleware.SessionMiddleware", **SETTINGS):
        answer = ask(way, **REQUESTS[status])
    assert answer.status == status
    cookies = sorted(cookie.strip() for cookie in answer.values("Set-Cookie"))
    assert len(cookies) == 2
    assert cookies[0] == "seen=yes; HttpOnly; Path=/"
    assert cookies[1].startswith("sessionid=")
    assert answer.values("Vary") == ["Cookie"]


def test_the_site_wide_cache_keeps_no_file(view: Any) -> None:
    above = "django.middleware.cache.UpdateCacheMiddleware"
    below = "django.middleware.cache.FetchFromCacheMiddleware"
    for middleware in (above, MIDDLEWARE, below), (MIDDLEWARE, above, below):
        with project(view, *middleware):
            for status, fields in [*REQUESTS.items(), *REQUESTS.items()]:
                answer = ask("client", **fields)
                assert (answer.status, answer.body) == (status, BODIES[status])


DECORATORS: dict[str, Callable[[Any], Any]] = {
    "gzip_page": gzip_page,
    "conditional_page": conditional_page,
    "cache_page": cache_page(60),
    "never_cache": never_cache,
    "vary": vary_on_headers("Accept-Language"),
    "etag": etag(lambda request: '"v1"'),
}


@pytest.mark.parametrize("decided", ["by the view", "by the middleware"])
@pytest.mark.parametrize("name", DECORATORS)
def test_djangos_decorators_work_on_a_view(name: str, decided: str, path: Path) -> None:
    @DECORATORS[name]
    def view(request: HttpRequest) -> HttpResponseBase:
        return ZeroCopyFileResponse(path, etag="v1", request=request if decided == "by the view" else None)

    with project(view, *([MIDDLEWARE] if decided == "by the middleware" else [])):
        for _ in range(2):
            for status, fields in REQUESTS.items():
                for more in {}, {"Accept_Encoding": "gzip"}:
                    answer = ask("client", **fields, **more)
                    check_is_sound(answer)
                    if not answer.values("Content-Encoding") and more == {}:
                        assert answer.status == status


def test_debug_toolbar_leaves_a_page_alone(path: Path, transfers: list[Transfer]) -> None:
    page = path.with_suffix(".html")
    page.write_bytes(b"<html><body>page</body></html>")
    settings = {
        "DEBUG": True,
        "DEBUG_TOOLBAR_CONFIG": {"SHOW_TOOLBAR_CALLBACK": lambda request: True},
        "STATIC_URL": "static/",
        "TEMPLATES": [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
    }
    toolbar = "debug_toolbar.middleware.DebugToolbarMiddleware"
    for middleware in (toolbar, MIDDLEWARE), (MIDDLEWARE, toolbar):
        apps = ["django.contrib.staticfiles", "debug_toolbar"]
        with override_settings(**settings), override_settings(INSTALLED_APPS=apps):
            urls = importlib.import_module("debug_toolbar.toolbar").debug_toolbar_urls()
            with project(lambda request: ZeroCopyFileResponse(page, etag="v1"), *middleware, urlpatterns=urls):
                for way in "client", "moving wsgi", "pathsend":
                    for status in 200, 304, 412:
                        answer = ask(way, **REQUESTS[status])
                        assert (answer.status, answer.body) == (status, page.read_bytes() if status == 200 else b"")
                        assert answer.values("Server-Timing")
    assert {transfer.way for transfer in transfers if transfer.bytes_promised} == {"chunks", "file_wrapper", "pathsend"}
