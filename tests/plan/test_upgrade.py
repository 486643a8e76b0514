"""Answers of others with a whole file, decided anew."""

from __future__ import annotations

import os

import pytest

from tests.support.table import CACHE_CONTROL, CASES, FILES, Case, Files, Response, check
from zcresponse import RequestHead, ResponsePlan, open_file
from zcresponse.plan.response import Fields
from zcresponse.plan.upgrade import may_name_file, plan_named_file, plan_upgrade

DATA = FILES["data.bin"]


def answer(case: Case) -> Fields:
    """What a framework without conditions and ranges says of a file."""
    file = FILES[case.file]
    fields = [("content-type", file.media_type), ("content-length", str(file.size))]
    if case.dressed:
        fields += [("content-disposition", "attachment"), ("cache-control", CACHE_CONTROL)]
    return fields


@pytest.mark.parametrize("case", [case for case in CASES if case.method != "POST"], ids=str)
@pytest.mark.parametrize("named", [False, True], ids=["upgraded", "named"])
def test_the_table_passes(case: Case, named: bool, files: Files) -> None:
    request = RequestHead.from_fields(case.method, case.fields)
    with open_file(files.path(case.file)) as file:
        if named:
            plan: ResponsePlan | None = plan_named_file(request, file, fields=answer(case))
        else:
            plan = plan_upgrade(request, file, status=200, fields=answer(case))
        assert plan is not None
        body = b"".join(
            segment if isinstance(segment, bytes) else os.pread(file.fd, segment.count, segment.offset)
            for segment in plan.segments
        )
    check(case, Response.of(plan.status, plan.fields, body), files)


def upgrade(
    files: Files, *fields: tuple[str, str], status: int = 200, request: RequestHead | None = None
) -> ResponsePlan | None:
    with open_file(files.path("data.bin")) as file:
        head = request or RequestHead("GET", range="bytes=0-9")
        return plan_upgrade(head, file, status=status, fields=list(fields))


@pytest.mark.parametrize(
    "field",
    [
        ("Content-Range", "bytes 0-9/300000"),
        ("content-range", "bytes */300000"),
        ("Content-Encoding", "gzip"),
        ("Content-Encoding", "identity, br"),
        ("Transfer-Encoding", "chunked"),
        ("Content-Type", "Multipart/ByteRanges; boundary=a"),
        ("Content-Length", "299999"),
        ("Content-Length", "300001"),
        ("Content-Length", "many"),
    ],
)
def test_an_answer_that_is_not_a_whole_file_stays_as_it_is(field: tuple[str, str], files: Files) -> None:
    assert upgrade(files, field) is None


@pytest.mark.parametrize("status", [100, 201, 203, 204, 206, 304, 403, 404, 412, 416, 500])
def test_any_status_but_200_stays_as_it_is(status: int, files: Files) -> None:
    assert upgrade(files, status=status) is None


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "get"])
def test_any_method_but_get_and_head_stays_as_it_is(method: str, files: Files) -> None:
    assert upgrade(files, request=RequestHead(method, range="bytes=0-9")) is None


@pytest.mark.parametrize(
    "fields", [(), (("Content-Length", "300000"),), (("Content-Encoding", "identity"),), (("Content-Encoding", ""),)]
)
def test_a_whole_file_gets_ranges(fields: tuple[tuple[str, str], ...], files: Files) -> None:
    plan = upgrade(files, *fields)
    assert plan is not None
    assert (plan.status, plan.body_length) == (206, 10)
    assert ("Content-Range", "bytes 0-9/300000") in plan.fields


def test_the_applications_validators_win(files: Files) -> None:
    own, files_tag = RequestHead("GET", if_none_match='"mine"'), RequestHead("GET", if_none_match=DATA.etag)
    plan = upgrade(files, ("ETag", '"mine"'), request=own)
    assert plan is not None
    assert (plan.status, dict(plan.fields)["ETag"]) == (304, '"mine"')
    plan = upgrade(files, ("ETag", '"mine"'), request=files_tag)
    assert plan is not None
    assert plan.status == 200
    since = RequestHead("GET", if_modified_since=DATA.last_modified)
    plan = upgrade(files, ("Last-Modified", "Fri, 01 Jan 2021 00:00:00 GMT"), request=since)
    assert plan is not None
    assert plan.status == 200


@pytest.mark.parametrize("value", ["none", " None "])
def test_an_application_that_accepts_no_ranges_answers_none(value: str, files: Files) -> None:
    plan = upgrade(files, ("Accept-Ranges", value))
    assert plan is not None
    assert (plan.status, plan.body_length) == (200, 300_000)
    assert [v for name, v in plan.fields if name.lower() == "accept-ranges"] == [value]
    plan = upgrade(files, ("Accept-Ranges", value), request=RequestHead("GET", if_none_match=DATA.etag))
    assert plan is not None
    assert plan.status == 304


def test_other_fields_are_kept_in_every_answer(files: Files) -> None:
    for request in (
        RequestHead("GET"),
        RequestHead("GET", if_none_match="*"),
        RequestHead("GET", range="bytes=9999999-"),
    ):
        plan = upgrade(files, ("set-cookie", "a=1"), ("set-cookie", "b=2"), ("vary", "Cookie"), request=request)
        assert plan is not None
        assert [field for field in plan.fields if field[0] == "set-cookie"] == [
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
        ]
        assert ("vary", "Cookie") in plan.fields


def test_what_was_said_of_the_body_that_nobody_sends_is_dropped(files: Files) -> None:
    about_it = ["Content-Encoding", "transfer-encoding", "Content-MD5", "Digest", "content-digest", "Repr-Digest"]
    fields = [(name, "x") for name in about_it] + [("Content-Length", "0"), ("A", "b")]
    with open_file(files.path("data.bin")) as file:
        plan = plan_named_file(RequestHead("POST", range="bytes=0-9"), file, fields=fields)
    names = [name.lower() for name, _ in plan.fields]
    assert (plan.status, plan.body_length) == (200, 300_000)
    assert not {name.lower() for name in about_it} & set(names)
    assert [value for name, value in plan.fields if name == "Content-Length"] == ["300000"]
    assert ("A", "b") in plan.fields


@pytest.mark.parametrize("if_none_match", [None, DATA.etag, '"of-no-bytes"'])
def test_the_validators_of_a_file_that_is_named_are_its_own(if_none_match: str | None, files: Files) -> None:
    fields = [("ETag", '"of-no-bytes"'), ("last-modified", "Fri, 01 Jan 2021 00:00:00 GMT")]
    request = RequestHead("GET", if_none_match=if_none_match)
    with open_file(files.path("data.bin")) as file:
        plan = plan_named_file(request, file, fields=fields)
    assert plan.status == (304 if if_none_match == DATA.etag else 200)
    assert [value for name, value in plan.fields if name.lower() == "etag"] == [DATA.etag]
    dates = [value for name, value in plan.fields if name.lower() == "last-modified"]
    # RFC 9110 §15.4.5: a 304 with a tag needs no more.
    assert dates == ([] if plan.status == 304 else [DATA.last_modified])


def test_a_part_that_the_application_has_chosen_is_decided_anew(files: Files) -> None:
    request = RequestHead("GET", range="bytes=0-9")
    with open_file(files.path("data.bin")) as file:
        plan = plan_named_file(request, file, fields=[("Content-Range", "bytes 5-9/300000"), ("Content-Length", "5")])
    assert (plan.status, plan.body_length) == (206, 10)
    assert [value for name, value in plan.fields if name.lower() == "content-range"] == ["bytes 0-9/300000"]


def test_only_a_plain_answer_may_name_a_file() -> None:
    assert [status for status in (0, 200, 201, 204, 206, 304, 404, 412, 416, 500) if may_name_file(status)] == [
        200,
        206,
    ]
