from __future__ import annotations

import os
import tempfile
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from tests.support.table import CASES, DOWNLOAD_NAME, FILES, MAX_AGE, Case, Files, Response, check, parse_multipart
from zcresponse import RequestHead, ResponsePlan, open_file, plan_file_response
from zcresponse.files import MemoryFile
from zcresponse.http.dates import format_http_date
from zcresponse.plan import PlanOptions, response
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


def test_a_file_that_may_be_another_one_next_time_has_only_the_validators_that_are_given() -> None:
    later = format_http_date(int(time.time()) + 60)
    request = RequestHead("GET", if_modified_since=later)
    with tempfile.TemporaryFile() as temporary:
        temporary.write(b"abc")
        with open_file(temporary, closefd=False) as file:
            bare = plan_file_response(request, file)
            given = plan_file_response(request, file, etag="v1", last_modified=1_600_000_000)
            file.lasting = True
            lasting = plan_file_response(request, file)
    assert (bare.status, given.status, lasting.status) == (200, 304, 304)
    assert {"ETag", "Last-Modified"}.isdisjoint(name for name, _ in bare.fields)
    assert ("ETag", '"v1"') in given.fields


def test_what_is_added_to_an_answer_is_in_no_other(files: Files) -> None:
    for _ in range(3):
        answer = plan(files)
        assert "Set-Cookie" not in dict(answer.fields)
        answer.fields.append(("Set-Cookie", "session=1"))


def test_a_callers_pairs_may_be_lists(files: Files) -> None:
    for request in (RequestHead("GET"), RequestHead("GET", range="bytes=0-0")):
        pairs: Any = [["X-Own", "1"]]
        with open_file(files.path("data.bin")) as file:
            answer = plan_file_response(request, file, fields=pairs)
        assert answer.fields[0] == ("X-Own", "1")


def test_boundaries_differ_and_cannot_be_guessed(files: Files) -> None:
    def boundary() -> str:
        with open_file(files.path("data.bin")) as file:
            answer = plan_file_response(RequestHead("GET", range="bytes=0-0,9-9"), file)
        return dict(answer.fields)["Content-Type"].partition("boundary=")[2]

    boundaries = {boundary() for _ in range(50)}
    assert len(boundaries) == 50
    assert min(map(len, boundaries)) >= 32


# --- content in memory ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_plan_answers_the_table_for_content_in_memory(case: Case, files: Files) -> None:
    known = FILES[case.file]
    options: PlanOptions = {"media_type": known.media_type, "etag": known.etag, "last_modified": known.mtime}
    if case.dressed:
        options |= {"filename": DOWNLOAD_NAME, "max_age": MAX_AGE}
    answer = plan_file_response(RequestHead.from_fields(case.method, case.fields), MemoryFile(known.content), **options)
    body = b"".join(segment for segment in answer.segments if isinstance(segment, bytes))
    check(case, Response.of(answer.status, answer.fields, body), files)
    assert answer.body_length == len(body)


def in_memory(window: tuple[int, int | None] = (0, None), **request: Any) -> tuple[ResponsePlan, bytes]:
    offset, count = window
    file = MemoryFile(b"0123456789", offset=offset, count=count)
    answer = plan_file_response(RequestHead("GET", **request), file)
    return answer, b"".join(segment for segment in answer.segments if isinstance(segment, bytes))


@pytest.mark.parametrize(
    ("request_fields", "status"),
    [
        ({}, 200),
        # It exists, whatever it is.
        ({"if_none_match": "*"}, 304),
        ({"if_match": "*"}, 200),
        # It is none of those that the client has.
        ({"if_none_match": '"a"'}, 200),
        ({"if_match": '"a"'}, 412),
        # Nobody knows when it changed.
        ({"if_modified_since": "Sun, 13 Sep 2020 12:26:40 GMT"}, 200),
        ({"if_unmodified_since": "Sun, 13 Sep 2020 12:26:40 GMT"}, 200),
        ({"range": "bytes=2-4"}, 206),
        ({"range": "bytes=10-"}, 416),
        # It cannot be told to be the same as before.
        ({"range": "bytes=2-4", "if_range": '"a"'}, 200),
        ({"range": "bytes=2-4", "if_range": "Sun, 13 Sep 2020 12:26:40 GMT"}, 200),
    ],
    ids=str,
)
def test_content_in_memory_has_no_validators_of_its_own(request_fields: Any, status: int) -> None:
    answer, body = in_memory(**request_fields)
    assert answer.status == status
    assert not {"ETag", "Last-Modified"} & {name for name, _ in answer.fields}
    assert body == {200: b"0123456789", 206: b"234"}.get(status, b"")


@pytest.mark.parametrize(
    ("window", "wanted", "content_range", "body"),
    [
        ((3, None), None, None, b"3456789"),
        ((3, 4), None, None, b"3456"),
        ((3, 4), "bytes=0-1", "bytes 0-1/4", b"34"),
        ((3, 4), "bytes=-1", "bytes 3-3/4", b"6"),
        ((3, 4), "bytes=2-99", "bytes 2-3/4", b"56"),
        ((3, 4), "bytes=4-", "bytes */4", b""),
        ((10, None), None, None, b""),
        ((0, 0), "bytes=0-", "bytes */0", b""),
    ],
)
def test_a_window_of_content_in_memory_is_content_of_its_own(
    window: tuple[int, int | None], wanted: str | None, content_range: str | None, body: bytes
) -> None:
    answer, got = in_memory(window, range=wanted)
    assert got == body
    assert dict(answer.fields).get("Content-Range") == content_range
    assert dict(answer.fields)["Content-Length"] == str(len(body))


def test_several_ranges_of_content_in_memory_are_parts() -> None:
    answer, body = in_memory((2, 6), range="bytes=0-0,3-")
    parts = parse_multipart(dict(answer.fields)["Content-Type"], body)
    assert [(part.start, part.stop, part.size, part.data) for part in parts] == [(0, 1, 6, b"2"), (3, 6, 6, b"567")]


@pytest.mark.parametrize(
    ("filename", "media_type"), [(None, "application/octet-stream"), ("a.html", "text/html; charset=utf-8")]
)
def test_only_a_name_tells_the_type_of_content_in_memory(filename: str | None, media_type: str) -> None:
    answer = plan_file_response(RequestHead("GET"), MemoryFile(b"x"), filename=filename)
    assert dict(answer.fields)["Content-Type"] == media_type


def test_an_answer_with_a_cookie_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    os.utime(path, (1_500_000_000, 1_500_000_000))
    with open_file(path) as file:
        before = dict(response._known)
        for number in range(3):
            plan = plan_file_response(RequestHead("GET"), file, fields=[("set-cookie", f"client={number}")])
            assert ("set-cookie", f"client={number}") in plan.fields
        assert response._known == before
        plan_file_response(RequestHead("GET"), file)
        assert len(response._known) == len(before) + 1
