"""The common table behind every WSGI door, in memory: what a framework's test client sees."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment
from wsgiref.util import FileWrapper
from wsgiref.validate import validator

import pytest
from werkzeug.test import Client, TestResponse

from tests.support.table import CASES, Case, Files, Response, check
from tests.support.wsgi_doors import DOORS, bare, flask_app
from zcresponse import Transfer

# Flask joins `public` to a max_age, and the table knows a field without it.
ROWS = [(door, case) for door in DOORS for case in CASES if not (door == "upgraded" and case.dressed)]


def answer_of(response: TestResponse) -> Response:
    with response:
        return Response.of(response.status_code, list(response.headers), response.get_data())


@pytest.fixture
def directory(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TABLE_FILES", str(files.directory))


@pytest.mark.usefixtures("directory")
@pytest.mark.parametrize(("door", "case"), ROWS, ids=[f"{door}: {case}" for door, case in ROWS])
def test_the_table_passes_in_the_test_client(door: str, case: Case, files: Files) -> None:
    client = Client(DOORS[door])
    check(case, answer_of(client.open(case.url_path(), method=case.method, headers=list(case.fields))), files)


def with_file_wrapper(app: WSGIApplication) -> WSGIApplication:
    """What a server looks like whose wrapper is the standard library's."""

    def server(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        environ["wsgi.file_wrapper"] = FileWrapper
        return app(environ, start_response)

    return server


@pytest.mark.usefixtures("directory")
# It wants a Content-Type where there is no content to have one.
@pytest.mark.parametrize("case", [case for case in CASES[::3] if case.status not in (412, 416)], ids=str)
@pytest.mark.parametrize("app", [bare, flask_app], ids=["bare", "flask"])
def test_the_standard_librarys_validator_has_nothing_to_say(app: Any, case: Case, files: Files) -> None:
    client = Client(with_file_wrapper(validator(app)))
    check(case, answer_of(client.open(case.url_path(), method=case.method, headers=list(case.fields))), files)


@pytest.mark.usefixtures("directory")
@pytest.mark.parametrize("door", DOORS)
def test_a_response_that_nobody_reads_leaves_nothing_open(door: str, transfers: list[Transfer]) -> None:
    response = Client(DOORS[door]).get("/plain/large.bin")
    response.close()
    assert [(transfer.bytes_sent, transfer.completed) for transfer in transfers] == [(0, False)]
