from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from tests.support.table import CASES, DOWNLOAD_NAME, MAX_AGE, Case, Files, Response, check
from zcresponse import RequestHead, ResponsePlan, open_file, plan_file_response
from zcresponse.plan import PlanOptions
from zcresponse.plan.response import check_options


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_plan_answers_the_table(case: Case, files: Files) -> None:
    options: PlanOptions = {"filename": DOWNLOAD_NAME, "max_age": MAX_AGE} if case.dressed else {}
    with open_file(files.path(case.file)) as file:
        plan = plan_file_response(RequestHead.from_fields(case.method, case.fields), file, **options)
        body = b"".join(
            segment if isinstance(segment, bytes) else os.pread(file.fd, segment.count, segment.offset)
            for segment in plan.segments
        )
        check(case, Response.of(plan.status, plan.fields, body), files)
        assert plan.body_length == len(body)


def plan(files: Files, method: str = "GET", **options: Any) -> ResponsePlan:
    with open_file(files.path("data.bin")) as file:
        return plan_file_response(RequestHead(method), file, **options)


@pytest.mark.parametrize("status", [100, 204, 304])
def test_a_status_without_content_has_neither_body_nor_length(files: Files, status: int) -> None:
    answer = plan(files, status=status)
    assert answer.segments == ()
    assert "content-length" not in {name.lower() for name, _ in answer.fields}


def test_a_205_has_a_length_of_nothing(files: Files) -> None:
    answer = plan(files, status=205)
    assert answer.segments == ()
    assert ("Content-Length", "0") in answer.fields


@pytest.mark.parametrize("status", [201, 404, 503])
def test_another_status_has_the_whole_file_and_heeds_no_conditions(files: Files, status: int) -> None:
    with open_file(files.path("data.bin")) as file:
        request = RequestHead("GET", range="bytes=0-1", if_none_match="*", if_match='"x"')
        answer = plan_file_response(request, file, status=status)
    assert (answer.status, answer.body_length) == (status, 300_000)
    assert "Accept-Ranges" not in dict(answer.fields)


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: evil=1", "a\nb", "a\rb", "a\0b"])
def test_no_field_of_the_caller_can_split_the_header(files: Files, value: str) -> None:
    with pytest.raises(ValueError, match="headers: 'X-Name'"):
        plan(files, fields=[("X-Name", value)])
    with pytest.raises(ValueError, match="headers"):
        plan(files, fields=[(value, "x")])
    with pytest.raises(ValueError, match="media_type"):
        plan(files, media_type=value)
    with pytest.raises(ValueError, match="etag"):
        plan(files, etag=value)


@pytest.mark.parametrize(
    ("options", "error", "named"),
    [
        ({"etag": 'a"b'}, ValueError, "etag"),
        ({"etag": 5}, TypeError, "etag"),
        ({"last_modified": float("inf")}, ValueError, "last_modified"),
        ({"last_modified": float("nan")}, ValueError, "last_modified"),
        ({"last_modified": "yesterday"}, ValueError, "last_modified"),
        ({"max_age": 1.5}, TypeError, "max_age"),
        ({"max_age": True}, TypeError, "max_age"),
        ({"max_age": -1}, ValueError, "max_age"),
        ({"max_age": "3600"}, TypeError, "max_age"),
        ({"max_agee": 1}, TypeError, "max_agee"),
        ({"disposition": "inline"}, TypeError, "disposition"),
        ({"private": True, "no_store": True, "immutable": True}, ValueError, "immutable"),
    ],
    ids=str,
)
def test_an_option_that_cannot_be_meant_is_named_before_anything_is_sent(
    options: Any, error: type[Exception], named: str
) -> None:
    with pytest.raises(error, match=named):
        check_options(options)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (1_600_000_000, "Sun, 13 Sep 2020 12:26:40 GMT"),
        (1_600_000_000.9, "Sun, 13 Sep 2020 12:26:40 GMT"),
        (datetime(2020, 9, 13, 12, 26, 40), "Sun, 13 Sep 2020 12:26:40 GMT"),
        (datetime(2020, 9, 13, 14, 26, 40, tzinfo=timezone(timedelta(hours=2))), "Sun, 13 Sep 2020 12:26:40 GMT"),
        (-5, "Thu, 01 Jan 1970 00:00:00 GMT"),
        (False, None),
    ],
    ids=str,
)
def test_last_modified_may_be_told(files: Files, given: Any, told: str | None) -> None:
    assert dict(plan(files, last_modified=given).fields).get("Last-Modified") == told


def test_last_modified_is_never_in_the_future_and_a_young_file_has_a_weak_tag(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    now_ns = 1_600_000_000_000_000_000
    for age_ns, weak in ((-3_600_000_000_000, True), (0, True), (1_999_999_999, True), (2_000_000_000, False)):
        os.utime(path, ns=(now_ns - age_ns, now_ns - age_ns))
        with open_file(path) as file:
            told = dict(plan_file_response(RequestHead("GET"), file, now_ns=now_ns).fields)
        assert told["ETag"].startswith("W/") is weak
        assert told["Last-Modified"] <= "Sun, 13 Sep 2020 12:26:40 GMT"


def test_boundaries_differ_and_cannot_be_guessed(files: Files) -> None:
    def boundary() -> str:
        with open_file(files.path("data.bin")) as file:
            answer = plan_file_response(RequestHead("GET", range="bytes=0-0,9-9"), file)
        return dict(answer.fields)["Content-Type"].partition("boundary=")[2]

    boundaries = {boundary() for _ in range(50)}
    assert len(boundaries) == 50
    assert min(map(len, boundaries)) >= 32
