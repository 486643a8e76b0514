"""The response itself, as a view makes it: what it is called with, what it says, when it is closed."""

from __future__ import annotations

import asyncio
import gc
import gzip
import inspect
import io
import mimetypes
import os
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from django.core.files import File
from django.core.files.storage import FileSystemStorage
from django.http import BadHeaderError, FileResponse, HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.test import AsyncRequestFactory, RequestFactory

from tests.support.django_project import MIDDLEWARE, ask, descriptors_of, environ_of, field_file, moved_environ, project
from tests.support.table import FILES, parse_multipart
from zcresponse import Transfer
from zcresponse.django import ZeroCopyFileResponse
from zcresponse.errors import FileTruncatedError

DATA = FILES["data.bin"].content
ETAG = FILES["data.bin"].etag
LAST_MODIFIED = FILES["data.bin"].last_modified

needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="looks at descriptors through /proc")


def get(method: str = "GET", **fields: str) -> Any:
    headers = {name.replace("_", "-"): value for name, value in fields.items()}
    return RequestFactory().generic(method, "/", headers=headers)


# --- signature --------------------------------------------------------------------------------------------------------


def test_the_parameters_are_djangos() -> None:
    ours = inspect.signature(ZeroCopyFileResponse).parameters
    stock = inspect.signature(FileResponse.__init__).parameters
    base = inspect.signature(HttpResponseBase.__init__).parameters
    assert list(ours)[1:3] == ["as_attachment", "filename"]
    for name in "as_attachment", "filename":
        assert ours[name].default == stock[name].default
    for name in "content_type", "status", "reason", "charset", "headers":
        assert ours[name].default == base[name].default
        assert ours[name].kind is inspect.Parameter.KEYWORD_ONLY


def test_it_is_djangos_file_response(path: Path) -> None:
    response = ZeroCopyFileResponse(path)
    assert isinstance(response, FileResponse)
    assert (response.status_code, response.reason_phrase, response.streaming) == (200, "OK", True)
    assert (response.is_async, response.closed, response.as_attachment, response.filename) == (False, False, False, "")
    assert repr(response) == '<ZeroCopyFileResponse status_code=200, "text/plain; charset=utf-8">'
    assert not hasattr(response, "content")
    response.close()


def test_what_it_says_of_a_file(path: Path) -> None:
    response = ZeroCopyFileResponse(path)
    assert dict(response.items()) == {
        "Content-Type": "text/plain; charset=utf-8",
        "Content-Disposition": 'inline; filename="report.txt"',
        "ETag": ETAG,
        "Last-Modified": LAST_MODIFIED,
        "Content-Length": str(len(DATA)),
    }
    response.close()


ARGUMENTS: list[dict[str, Any]] = [
    {},
    {"as_attachment": True},
    {"filename": "other.pdf"},
    {"filename": "other.pdf", "as_attachment": True},
    {"filename": "two words.csv", "as_attachment": True},
    {"filename": "folder/other.pdf"},
    {"filename": "no-suffix"},
    {"filename": "unknown.suffix-of-nobody"},
    {"filename": "logs.tar.gz"},
    {"filename": "data.json.br"},
    {"filename": "data.json.xz"},
    {"filename": "data.tar.Z"},
    {"content_type": "application/json"},
    {"content_type": "text/html; charset=latin-1"},
    {"content_type": "text/plain", "filename": "other.pdf"},
    {"status": 201},
    {"status": 404},
    {"status": "202"},
    {"reason": "Fine"},
    {"status": 299, "reason": "Fine"},
    {"charset": "latin-1"},
    {"headers": {"X-Name": "value", "Cache-Control": "no-store"}},
    {"headers": {"x-sendfile-type": "1"}, "content_type": "a/b"},
]


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=str)
def test_each_argument_says_what_it_says_in_django(arguments: dict[str, Any], path: Path) -> None:
    ours = ZeroCopyFileResponse(path, **arguments)
    stock = FileResponse(path.open("rb"), **arguments)
    assert (ours.status_code, ours.reason_phrase) == (stock.status_code, stock.reason_phrase)
    for name in (dict(stock.items()) | arguments.get("headers", {})).keys() - {"Content-Type"}:
        assert ours[name] == stock[name]
    [kind, _, parameters] = ours["Content-Type"].partition("; ")
    assert ours["Content-Type"] == stock["Content-Type"] or kind == stock["Content-Type"]
    assert parameters in ("", f"charset={arguments.get('charset', 'utf-8')}", "charset=latin-1")
    assert ours.getvalue() == stock.getvalue() == DATA
    ours.close()
    stock.close()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"status": 99}, ValueError),
        ({"status": 600}, ValueError),
        ({"status": "many"}, TypeError),
        ({"headers": {"X-Name": "two\nlines"}}, BadHeaderError),
        ({"content_type": "two\nlines"}, BadHeaderError),
        ({"content_type": "a/b", "headers": {"Content-Type": "c/d"}}, ValueError),
        ({"colour": "red"}, TypeError),
    ],
    ids=str,
)
def test_a_mistake_is_the_error_that_it_is_in_django(
    arguments: dict[str, Any], error: type[Exception], path: Path
) -> None:
    with path.open("rb") as file, pytest.raises(error):
        FileResponse(file, **arguments)
    with pytest.raises(error):
        ZeroCopyFileResponse(path, **arguments)


@pytest.mark.parametrize(
    ("option", "error"),
    [
        ({"etag": 5}, TypeError),
        ({"etag": 'a"b'}, ValueError),
        ({"last_modified": "yesterday"}, ValueError),
        ({"max_age": -1}, ValueError),
        ({"filename": 5}, TypeError),
        ({"sendfile": "off"}, TypeError),
    ],
    ids=str,
)
def test_a_mistake_in_an_option_is_told_before_anything_is_opened(
    option: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match=next(iter(option))):
        ZeroCopyFileResponse("/nowhere", **option)


def test_a_type_of_djangos_fashion_in_headers_is_kept(path: Path) -> None:
    for name in "Content-Type", "content-type":
        response = ZeroCopyFileResponse(path, headers={name: "application/x-own"})
        assert response["Content-Type"] == "application/x-own"
        response.close()


def test_a_type_that_the_machine_knows_is_told_too(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(mimetypes.types_map, ".zcown", "application/x-own")
    mimetypes.add_type("application/x-own", ".zcown")
    response = ZeroCopyFileResponse(path, filename="report.zcown")
    assert response["Content-Type"] == "application/x-own"
    response.close()


@pytest.mark.parametrize(
    "name", ["naïve.txt", "日本語.tar.gz", 'with "quotes".txt', "semi;colon.txt", "100%41.txt", "back\\slash.txt"]
)
def test_any_name_arrives(name: str, path: Path) -> None:
    response = ZeroCopyFileResponse(path, as_attachment=True, filename=name)
    assert response["Content-Disposition"].isascii()
    assert response["Content-Disposition"].startswith("attachment; filename=")
    response.close()


def test_a_disposition_without_a_name_is_only_said_of_attachments() -> None:
    assert "Content-Disposition" not in ZeroCopyFileResponse(io.BytesIO(DATA))
    assert ZeroCopyFileResponse(io.BytesIO(DATA), as_attachment=True)["Content-Disposition"] == "attachment"


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"etag": "v1"}, {"ETag": '"v1"'}),
        ({"etag": 'W/"v1"'}, {"ETag": 'W/"v1"'}),
        ({"etag": False}, {"ETag": None}),
        ({"last_modified": 0}, {"Last-Modified": "Thu, 01 Jan 1970 00:00:00 GMT"}),
        ({"last_modified": datetime(2020, 2, 29, tzinfo=UTC)}, {"Last-Modified": "Sat, 29 Feb 2020 00:00:00 GMT"}),
        ({"last_modified": False}, {"Last-Modified": None}),
        ({"max_age": 60}, {"Cache-Control": "max-age=60"}),
        ({"max_age": 60, "immutable": True}, {"Cache-Control": "max-age=60, immutable"}),
        ({"private": True}, {"Cache-Control": "private"}),
        ({"max_age": 60, "headers": {"Cache-Control": "no-store"}}, {"Cache-Control": "no-store"}),
        ({"headers": {"ETag": '"theirs"'}}, {"ETag": '"theirs"'}),
    ],
    ids=str,
)
def test_options_say_what_caches_may_do(options: dict[str, Any], said: dict[str, str | None], path: Path) -> None:
    response = ZeroCopyFileResponse(path, **options)
    assert {name: response.get(name) for name in said} == said
    response.close()


def test_who_wants_to_hear_of_the_transfer_does(path: Path) -> None:
    told: list[Transfer] = []
    with project(lambda request: ZeroCopyFileResponse(path, on_transfer=told.append), MIDDLEWARE):
        for way in "client", "wsgi", "moving wsgi", "asgi", "pathsend", "stock wsgi":
            ask(way, Range="bytes=0-9")
            [transfer] = told
            assert (transfer.status, transfer.bytes_promised) == (206, 10)
            assert transfer.completed is not False
            told.clear()


@pytest.mark.parametrize("way", ["moving wsgi", "moving stock wsgi", "pathsend", "plain pathsend"])
def test_zero_copy_can_be_switched_off(way: str, path: Path, transfers: list[Transfer]) -> None:
    with project(lambda request: ZeroCopyFileResponse(path, sendfile=False), MIDDLEWARE):
        assert ask(way).body == DATA
    assert [(transfer.way, transfer.reason) for transfer in transfers] == [("chunks", "switched off by sendfile=False")]


# --- deciding in the view ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "status", "body"),
    [
        ({}, 200, DATA),
        ({"Range": "bytes=5-99"}, 206, DATA[5:100]),
        ({"Range": "bytes=-5"}, 206, DATA[-5:]),
        ({"If_None_Match": ETAG}, 304, b""),
        ({"If_Modified_Since": LAST_MODIFIED}, 304, b""),
        ({"If_Match": '"another"'}, 412, b""),
        ({"Range": f"bytes={len(DATA)}-"}, 416, b""),
    ],
    ids=str,
)
def test_a_request_is_answered_in_the_view(fields: dict[str, str], status: int, body: bytes, path: Path) -> None:
    async_fields = {name.replace("_", "-"): value for name, value in fields.items()}
    for request in get(**fields), AsyncRequestFactory().get("/", headers=async_fields):
        response = ZeroCopyFileResponse(path, request=request)
        assert (response.status_code, response.getvalue()) == (status, body)
        assert (
            response.reason_phrase in ("OK", "Partial Content", "Not Modified", "Precondition Failed") or status == 416
        )
        assert response.streaming == (status in (200, 206))
        if not response.streaming:
            assert (response.content, response.text) == (b"", "")
        response.close()


def test_several_ranges_come_as_multipart(path: Path) -> None:
    response = ZeroCopyFileResponse(path, request=get(Range="bytes=0-9,100-199"))
    parts = parse_multipart(response["Content-Type"], response.getvalue())
    assert [part.data for part in parts] == [DATA[:10], DATA[100:200]]
    response.close()


def test_head_has_the_fields_and_no_body(path: Path) -> None:
    response = ZeroCopyFileResponse(path, request=get("HEAD"))
    assert (response["Content-Length"], response.getvalue()) == (str(len(DATA)), b"")
    response.close()


def test_a_bare_request_will_do(path: Path) -> None:
    request = HttpRequest()
    request.method = "GET"
    response = ZeroCopyFileResponse(path, request=request)
    assert (response.status_code, response.getvalue()) == (200, DATA)
    response.close()


def test_the_method_is_the_requests_whatever_the_server_said(path: Path) -> None:
    request = get("POST", Range="bytes=0-9")
    request.method = "GET"
    response = ZeroCopyFileResponse(path, request=request)
    assert response.status_code == 206
    response.close()


class Proxied:
    """What Django REST framework makes of a request."""

    def __init__(self, request: Any) -> None:
        self._request = request

    def __getattr__(self, name: str) -> Any:
        return getattr(self._request, name)


def test_a_wrapped_request_is_as_good(path: Path, transfers: list[Transfer]) -> None:
    with project(lambda request: ZeroCopyFileResponse(path, request=Proxied(request))):
        for way in "moving wsgi", "pathsend":
            answer = ask(way, Range="bytes=5-99")
            assert (answer.status, answer.body) == (206, DATA[5:100])
    assert [transfer.way for transfer in transfers] == ["file_wrapper", "pathsend"]


@pytest.mark.parametrize("status", [201, 206, 404, 500])
def test_a_status_of_the_views_own_is_not_decided_upon(status: int, path: Path) -> None:
    response = ZeroCopyFileResponse(path, status=status, request=get(Range="bytes=0-9", If_None_Match="*"))
    assert (response.status_code, response.getvalue()) == (status, DATA)
    assert "Content-Range" not in response
    response.close()


def test_a_reason_of_the_views_own_is_that_of_its_status(path: Path) -> None:
    response = ZeroCopyFileResponse(path, reason="Fine", request=get(Range="bytes=0-9"))
    assert response.reason_phrase == "Partial Content"
    response.streaming_content = iter(response.streaming_content)
    assert (response.status_code, response.reason_phrase) == (200, "Fine")
    response.close()


# --- reading ----------------------------------------------------------------------------------------------------------


READERS: dict[str, Callable[[Any], bytes]] = {
    "getvalue": lambda response: response.getvalue(),
    "iteration": b"".join,
    "streaming_content": lambda response: b"".join(response.streaming_content),
    "asynchronous iteration": lambda response: asyncio.run(joined(response)),
}


async def joined(response: Any) -> bytes:
    return b"".join([part async for part in response])


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("make", ["undecided", "decided", "decided for a server"])
def test_it_can_be_read_in_every_way(make: str, reader: str, path: Path) -> None:
    request = {"undecided": None, "decided": get(Range="bytes=0-299998")}.get(make)
    if make == "decided for a server":
        request = Proxied(get(Range="bytes=0-299998"))
        request._request.environ.update(moved_environ())
    response = ZeroCopyFileResponse(path, request=request)
    assert READERS[reader](response) == (DATA if request is None else DATA[:299_999])
    response.close()


def test_blocks_are_bounded(path: Path) -> None:
    os.truncate(path, 50 << 20)
    response = ZeroCopyFileResponse(path)
    assert max(map(len, response.streaming_content)) <= 1 << 20
    response.close()
    response = ZeroCopyFileResponse(path)

    async def largest() -> int:
        return max([len(part) async for part in response])

    assert asyncio.run(largest()) <= 1 << 20
    response.close()


def test_reading_by_hand_and_then_by_another_gives_nothing_twice(path: Path) -> None:
    response = ZeroCopyFileResponse(path)
    assert response.getvalue() + response.getvalue() == DATA
    response.close()


def test_it_cannot_be_written_to(path: Path) -> None:
    response = ZeroCopyFileResponse(path)
    with pytest.raises(OSError):
        response.write(b"more")
    with pytest.raises(AttributeError):
        response.content = b"more"
    response.close()


def test_a_file_that_grows_is_sent_as_long_as_it_was(path: Path) -> None:
    response = ZeroCopyFileResponse(path)
    with path.open("ab") as file:
        file.write(b"more")
    assert response.getvalue() == DATA
    response.close()


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("decided", [False, True])
def test_a_file_that_shrinks_while_it_is_read_raises(decided: bool, reader: str, path: Path) -> None:
    response = ZeroCopyFileResponse(path, request=get() if decided else None)
    os.truncate(path, 1000)
    with pytest.raises(FileTruncatedError):
        READERS[reader](response)
    response.close()
    assert descriptors_of(path) == 0


def test_a_file_that_is_replaced_is_sent_as_it_was(path: Path) -> None:
    response = ZeroCopyFileResponse(path)
    path.with_suffix(".new").write_bytes(b"new")
    os.replace(path.with_suffix(".new"), path)
    assert response.getvalue() == DATA
    response.close()


# --- closing ----------------------------------------------------------------------------------------------------------


@needs_proc
@pytest.mark.parametrize("decided", [False, True])
@pytest.mark.parametrize("read", ["nothing", "a block", "everything"])
def test_close_closes(read: str, decided: bool, path: Path, finished: list[Any]) -> None:
    response = ZeroCopyFileResponse(path, request=get() if decided else None)
    if read == "a block":
        next(iter(response.streaming_content))
    elif read == "everything":
        response.getvalue()
    assert descriptors_of(path) == 1
    response.close()
    assert (descriptors_of(path), response.closed, len(finished)) == (0, True, 1)


def test_what_others_want_closed_is_closed_once(path: Path) -> None:
    closed: list[str] = []
    response = ZeroCopyFileResponse(path)
    response._resource_closers.append(lambda: closed.append("once"))
    response.close()
    response.close()
    assert closed == ["once"]


def test_a_closer_that_fails_keeps_nothing_open(path: Path) -> None:
    response = ZeroCopyFileResponse(path)
    response._resource_closers.insert(0, lambda: 1 / 0)
    response.close()
    assert descriptors_of(path) == 0


def test_a_closed_response_gives_no_bytes(path: Path) -> None:
    response = ZeroCopyFileResponse(path)
    response.close()
    assert response.getvalue() == b""
    path.write_bytes(gzip.compress(DATA))
    response = ZeroCopyFileResponse(gzip.open(path))  # noqa: SIM115
    response.close()
    assert response.getvalue() == b""


@needs_proc
@pytest.mark.parametrize("decided", [False, True])
@pytest.mark.parametrize("given", ["path", "file"])
def test_a_dropped_response_closes_at_once_and_warns_of_nothing(given: str, decided: bool, path: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(20):
            ZeroCopyFileResponse(path if given == "path" else str(path), request=get() if decided else None)
            assert descriptors_of(path) == 0
        gc.collect()
    assert not caught


@needs_proc
@pytest.mark.parametrize("decided", [False, True])
@pytest.mark.parametrize("kind", ["file", "Django's file", "field", "stream"])
def test_a_dropped_response_closes_what_it_was_given_and_warns_of_nothing(kind: str, decided: bool, path: Path) -> None:
    made: dict[str, Callable[[], Any]] = {
        "file": lambda: path.open("rb"),
        "Django's file": lambda: File(path.open("rb")),
        "field": lambda: field_file(FileSystemStorage(path.parent), path.name),
        "stream": lambda: gzip.open(path),  # noqa: SIM115
    }
    if kind == "stream":
        path.write_bytes(gzip.compress(DATA))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(20):
            ZeroCopyFileResponse(made[kind](), request=get() if decided else None)
            assert descriptors_of(path) == 0
        gc.collect()
    assert not caught


def test_what_others_hold_of_a_dropped_response_can_still_be_read(path: Path) -> None:
    path.write_bytes(gzip.compress(DATA))
    parts = ZeroCopyFileResponse(gzip.open(path)).streaming_content  # noqa: SIM115
    assert b"".join(parts) == DATA


def test_an_empty_file_has_an_empty_body(path: Path) -> None:
    path.write_bytes(b"")
    with project(lambda request: ZeroCopyFileResponse(path), MIDDLEWARE):
        for way in "client", "wsgi", "moving wsgi", "asgi", "pathsend", "plain pathsend", "stock asgi":
            answer = ask(way)
            assert (answer.status, answer.body, answer.values("Content-Length")) == (200, b"", ["0"])
            assert ask(way, Range="bytes=0-").status == 416


def test_a_streaming_response_of_djangos_can_be_made_of_it(path: Path) -> None:
    file = ZeroCopyFileResponse(path)
    response = StreamingHttpResponse(file.streaming_content)
    assert response.getvalue() == DATA
    file.close()


def test_environments_are_left_as_they_are(path: Path) -> None:
    request = get(Range="bytes=0-9")
    before = dict(request.META)
    ZeroCopyFileResponse(path, request=request).close()
    assert before == request.META
    assert environ_of()["REQUEST_METHOD"] == "GET"
