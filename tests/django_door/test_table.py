"""The common table, asked in every way that needs no server process."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.wsgi import WSGIRequest
from django.test import AsyncRequestFactory, RequestFactory, override_settings

from tests.support.django_project import DECIDING, MIDDLEWARE, WAYS, body_of, descriptors_of
from tests.support.table import CASES, DOWNLOAD_NAME, MAX_AGE, Case, Files, Response, check
from zcresponse import Transfer
from zcresponse.django import ZeroCopyFileResponse


@pytest.fixture(autouse=True)
def directory(files: Files, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TABLE_FILES", str(files.directory))
    yield
    gc.collect()
    if os.path.isdir("/proc/self/fd"):
        assert descriptors_of(files.directory) == 0


def fields_of(case: Case) -> dict[str, str]:
    """Its fields as Django has them: those on several lines joined by commas."""
    fields: dict[str, str] = {}
    for name, value in case.fields:
        key = name.title()
        fields[key] = f"{fields[key]},{value}" if key in fields else value
    return fields


def cases_for(way: str) -> list[Case]:
    # Django's asynchronous client makes two characters of an address's é.
    return [case for case in CASES if way != "async client" or case.file.isascii()]


@pytest.mark.parametrize("case", CASES, ids=str)
@override_settings(MIDDLEWARE=[MIDDLEWARE])
def test_the_table_passes_in_the_test_client(case: Case, files: Files) -> None:
    check(case, WAYS["client"](case.method, case.url_path(), fields_of(case)), files)


@pytest.mark.parametrize("way", [way for way in WAYS if way != "client"])
@override_settings(MIDDLEWARE=[MIDDLEWARE])
def test_the_table_passes_with_the_middleware(way: str, files: Files) -> None:
    for case in cases_for(way):
        check(case, WAYS[way](case.method, case.url_path(), fields_of(case)), files)


@pytest.mark.parametrize("way", DECIDING)
def test_the_table_passes_without_the_middleware_in_our_applications(way: str, files: Files) -> None:
    for case in cases_for(way):
        check(case, WAYS[way](case.method, case.url_path(), fields_of(case)), files)


@pytest.mark.parametrize("factory", [RequestFactory(), AsyncRequestFactory()], ids=["sync", "async"])
def test_the_table_passes_with_a_request_from_a_factory(
    factory: RequestFactory | AsyncRequestFactory, files: Files
) -> None:
    for case in CASES:
        request = factory.generic(case.method, case.url_path(), headers=fields_of(case))
        assert isinstance(request, WSGIRequest | ASGIRequest)
        dressed: Any = {"as_attachment": True, "filename": DOWNLOAD_NAME, "max_age": MAX_AGE} if case.dressed else {}
        response = ZeroCopyFileResponse(files.path(case.file), request=request, **dressed)
        answer = Response.of(response.status_code, list(response.items()), body_of(response))
        response.close()
        check(case, answer, files)


@pytest.mark.parametrize("way", ["stock wsgi", "moving stock wsgi", "stock asgi", "client", "async client"])
def test_without_a_decision_it_is_the_whole_file(way: str, files: Files, transfers: list[Transfer]) -> None:
    for case in cases_for(way):
        answer = WAYS[way](case.method, case.url_path(), fields_of(case))
        assert answer.status == 200
        assert answer.values("content-length") == [str(files.path(case.file).stat().st_size)]
        # That there is none of it to HEAD is left to the server, as with Django's own.
        assert answer.body == (b"" if case.method == "HEAD" and "stock" not in way else files.content(case.file))
        assert answer.values("accept-ranges") == []
