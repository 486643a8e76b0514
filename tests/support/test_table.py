"""The judge of the table: it takes the right answer to every case and no other."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.table import (
    ABSENT,
    CASES,
    DOWNLOAD_NAME,
    FILES,
    PRESENT,
    STATIC_CASES,
    Case,
    Files,
    Response,
    check,
    make_files,
    parse_multipart,
    problems,
)

FILES_NOWHERE = Files(Path("nowhere"))
BOUNDARY = "b0undary"


def the_right_answer(case: Case) -> Response:
    """Made from the case's own expectations, so it proves nothing about them, only about the judge."""
    content = FILES[case.file].content
    fields = [(name, value) for name, value in case.expect if isinstance(value, str)]
    body = b""
    if case.body == "whole":
        body = content
    elif case.body != "none" and len(case.body) == 1:
        body = content[case.body[0][0] : case.body[0][1]]
    elif case.body != "none":
        body = multipart(case)
    for name, value in case.expect:
        if value is PRESENT:
            known = {"content-length": str(len(body)), "content-type": f"multipart/byteranges; boundary={BOUNDARY}"}
            fields.append((name, known.get(name, "something")))
    return Response(case.status, fields, body)


def multipart(case: Case) -> bytes:
    file = FILES[case.file]
    body = b""
    assert not isinstance(case.body, str)
    for start, stop in case.body:
        body += f"\r\n--{BOUNDARY}\r\nContent-Type: {file.media_type}\r\n".encode()
        body += f"Content-Range: bytes {start}-{stop - 1}/{file.size}\r\n\r\n".encode() + file.content[start:stop]
    return body + f"\r\n--{BOUNDARY}--\r\n".encode()


def wrong_answers(case: Case) -> Iterator[tuple[str, Response]]:
    """The right answer with each single thing wrong that a case speaks of."""
    right = the_right_answer(case)
    yield "status", dataclasses.replace(right, status=204 if case.status == 200 else 200)
    for name, value in case.expect:
        others = [(each, was) for each, was in right.fields if each != name]
        if value is ABSENT:
            yield f"{name} stands", dataclasses.replace(right, fields=[*others, (name, "something")])
            continue
        yield f"{name} is missing", dataclasses.replace(right, fields=others)
        yield f"{name} is empty", dataclasses.replace(right, fields=[*others, (name, "")])
        yield f"{name} stands twice", dataclasses.replace(right, fields=right.fields + right.fields)
        if value is not PRESENT:
            yield f"{name} is another", dataclasses.replace(right, fields=[*others, (name, f"{value}0")])
    yield "a coding", dataclasses.replace(right, fields=[*right.fields, ("content-encoding", "gzip")])
    yield "chunks", dataclasses.replace(right, fields=[*right.fields, ("transfer-encoding", "chunked")])
    yield "a byte too much", dataclasses.replace(right, body=right.body + b"\0")
    if right.body:
        yield "a byte too few", dataclasses.replace(right, body=right.body[:-1])
        for at in (0, len(right.body) // 2, len(right.body) - 1):
            changed = bytearray(right.body)
            changed[at] ^= 1
            yield f"byte {at} changed", dataclasses.replace(right, body=bytes(changed))


def test_there_is_a_row_for_everything_and_no_name_twice() -> None:
    assert len(CASES) >= 70
    assert len({case.name for case in CASES}) == len(CASES)
    assert {case.status for case in CASES} == {200, 206, 304, 412, 416}
    assert {case.method for case in CASES} == {"GET", "HEAD", "POST"}
    assert {case.file for case in CASES} == set(FILES)
    assert all(case.method != "POST" and not case.dressed for case in STATIC_CASES)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_right_answer_passes(case: Case) -> None:
    check(case, the_right_answer(case), FILES_NOWHERE)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_wrong_answer_is_refused(case: Case) -> None:
    accepted = [what for what, answer in wrong_answers(case) if not problems(case, answer, FILES_NOWHERE)]
    assert accepted == []


def test_the_failure_shows_request_answer_and_every_problem() -> None:
    case = next(case for case in CASES if case.name == "the first byte")
    right = the_right_answer(case)
    wrong = dataclasses.replace(right, status=200, body=b"..")
    with pytest.raises(AssertionError) as failure:
        check(case, wrong, FILES_NOWHERE)
    text = str(failure.value)
    for part in ("the first byte", "> Range: bytes=0-0", "< content-range", "status 200, not 206", "2 bytes, not 1"):
        assert part in text


def test_the_files_are_on_the_disk_as_the_table_says(tmp_path: Path) -> None:
    files = make_files(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)
    for name, file in FILES.items():
        stat = files.path(name).stat()
        assert (stat.st_size, stat.st_mtime_ns) == (file.size, file.mtime_ns)
        assert files.path(name).read_bytes() == files.content(name)


def test_a_case_knows_its_addresses() -> None:
    odd = next(case for case in CASES if case.file.startswith("na"))
    assert odd.url_path() == "/plain/na%C3%AFve%20name%20%E2%9C%93%20100%25.txt"
    assert odd.url_path(static=True) == "/na%C3%AFve%20name%20%E2%9C%93%20100%25.txt"
    assert next(case for case in CASES if case.dressed).url_path() == "/dressed/data.bin"
    assert not DOWNLOAD_NAME.isascii()


def test_a_response_can_be_made_of_any_pairs() -> None:
    as_bytes = Response.of(200, [(b"ETag", b'"\xe9"')], b"")
    assert as_bytes == Response.of(200, [("etag", '"é"')], b"")
    assert as_bytes.values("ETAG") == ['"é"']


GOOD_PART = b"--b\r\nContent-Type: a/b\r\nContent-Range: bytes 2-4/9\r\n\r\nxyz"


@pytest.mark.parametrize("before", [b"", b"\r\n"])
@pytest.mark.parametrize("after", [b"", b"\r\n"])
def test_multipart_is_taken_apart(before: bytes, after: bytes) -> None:
    body = before + GOOD_PART + b"\r\n" + GOOD_PART + b"\r\n--b--" + after
    parts = parse_multipart('multipart/byteranges; boundary="b"', body)
    assert [(part.start, part.stop, part.size, part.data) for part in parts] == [(2, 5, 9, b"xyz")] * 2


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/byteranges", GOOD_PART + b"\r\n--b--"),
        ("multipart/mixed; boundary=b", GOOD_PART + b"\r\n--b--"),
        ("multipart/byteranges; boundary=c", GOOD_PART + b"\r\n--b--"),
        ('multipart/byteranges; boundary="b "', GOOD_PART + b"\r\n--b--"),
        ("multipart/byteranges; boundary=" + "b" * 71, b""),
        ("multipart/byteranges; boundary=b", b"--b--"),
        ("multipart/byteranges; boundary=b", b"preamble\r\n" + GOOD_PART + b"\r\n--b--"),
        ("multipart/byteranges; boundary=b", GOOD_PART + b"\r\n--b--epilogue"),
        ("multipart/byteranges; boundary=b", GOOD_PART + b"\r\n--b"),
        ("multipart/byteranges; boundary=b", GOOD_PART + b"\r\n"),
        ("multipart/byteranges; boundary=b", GOOD_PART + b"!\r\n--b--"),
        ("multipart/byteranges; boundary=b", GOOD_PART[:-1] + b"\r\n--b--"),
        ("multipart/byteranges; boundary=b", GOOD_PART.replace(b"xyz", b"--b") + b"\r\n--b--"),
        ("multipart/byteranges; boundary=b", GOOD_PART.replace(b"Content-Range", b"X-Range") + b"\r\n--b--"),
        ("multipart/byteranges; boundary=b", GOOD_PART.replace(b"\r\nContent-R", b"\nContent-R") + b"\r\n--b--"),
        ("multipart/byteranges; boundary=b", GOOD_PART.replace(b"2-4/9", b"2-4/*") + b"\r\n--b--"),
    ],
)
def test_broken_multipart_is_refused(content_type: str, body: bytes) -> None:
    with pytest.raises(ValueError):
        parse_multipart(content_type, body)
