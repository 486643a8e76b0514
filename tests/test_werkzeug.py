from __future__ import annotations

import copy
import gc
import inspect
import io
import os
import pickle
import tempfile
from collections.abc import Callable, Iterable
from http import HTTPStatus
from pathlib import Path
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment
from wsgiref.util import FileWrapper

import pytest
from werkzeug.datastructures import Headers
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.lint import LintMiddleware
from werkzeug.test import Client, EnvironBuilder, TestResponse
from werkzeug.wrappers import Request, Response

from tests.support.table import CASES, FILES, Case, Files, check, parse_multipart
from tests.support.table import Response as Answer
from tests.support.wsgi_doors import werkzeug_app
from zcresponse import Transfer, open_file
from zcresponse.errors import FileTruncatedError, NotARegularFileError
from zcresponse.testing import record_transfers
from zcresponse.werkzeug import ZeroCopyFileResponse

DATA = FILES["data.bin"]
LARGE = FILES["large.bin"]

#: A request for each status that a file has.
REQUESTS: dict[int, dict[str, str]] = {
    200: {},
    206: {"Range": "bytes=5-99"},
    304: {"If-None-Match": DATA.etag},
    412: {"If-Match": '"another"'},
    416: {"Range": f"bytes={DATA.size}-"},
}
BODIES = {200: DATA.content, 206: DATA.content[5:100], 304: b"", 412: b"", 416: b""}

needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="looks at descriptors through /proc")


def get(app: WSGIApplication, method: str = "GET", **fields: str) -> TestResponse:
    """What a client gets that reads the whole body; a response is an application too."""
    headers = {name.replace("_", "-"): value for name, value in fields.items()}
    return Client(app).open("/", method=method, headers=headers, buffered=True)


def environ_of(method: str = "GET", **fields: str) -> WSGIEnvironment:
    headers = {name.replace("_", "-"): value for name, value in fields.items()}
    return EnvironBuilder(method=method, headers=Headers(headers)).get_environ()


def descriptors_of(path: Path) -> int:
    """How many descriptors this process has of a file, once garbage is collected."""
    for collect in False, True:
        if collect:
            gc.collect()
        found = 0
        for name in os.listdir("/proc/self/fd"):
            try:
                found += os.readlink(f"/proc/self/fd/{name}").removesuffix(" (deleted)") == str(path)
            except OSError:
                pass
        if not found:
            break
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of its own, whose descriptors can be counted; old enough for a strong tag."""
    path = tmp_path / "report.txt"
    path.write_bytes(DATA.content)
    os.utime(path, ns=(DATA.mtime_ns, DATA.mtime_ns))
    return path


# --- signature --------------------------------------------------------------------------------------------------------


def test_the_parameters_are_werkzeugs_in_its_order() -> None:
    ours = list(inspect.signature(ZeroCopyFileResponse).parameters.values())
    theirs = list(inspect.signature(Response).parameters.values())
    assert [(p.name, p.default) for p in ours[1:5]] == [(p.name, p.default) for p in theirs[1:5]]
    assert all(p.kind in (p.KEYWORD_ONLY, p.VAR_KEYWORD) for p in ours[5:])


def test_it_is_a_werkzeug_response(path: Path) -> None:
    with ZeroCopyFileResponse(path) as response:
        assert isinstance(response, Response)
        assert (response.status_code, response.mimetype, response.is_streamed) == (200, "text/plain", True)
        assert response.content_length == DATA.size
        assert "streamed" in repr(response)


# --- the table --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES[::4], ids=str)
@pytest.mark.parametrize("buffered", [True, False])
def test_the_table_passes_behind_a_dispatcher(
    case: Case, buffered: bool, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TABLE_FILES", str(files.directory))
    client = Client(DispatcherMiddleware(Response("nothing"), {"/mounted": werkzeug_app}))
    url = f"/mounted{case.url_path()}"
    with client.open(url, method=case.method, headers=list(case.fields), buffered=buffered) as response:
        check(case, Answer.of(response.status_code, list(response.headers), response.get_data()), files)


# It wants HEAD to have the bytes that its Content-Length promises.
@pytest.mark.parametrize("case", [case for case in CASES[::3] if case.method != "HEAD"], ids=str)
def test_werkzeugs_lint_has_nothing_to_say(case: Case, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TABLE_FILES", str(files.directory))
    client = Client(LintMiddleware(werkzeug_app))
    response = client.open(case.url_path(), method=case.method, headers=list(case.fields), buffered=True)
    check(case, Answer.of(response.status_code, list(response.headers), response.get_data()), files)


# --- what can be given ------------------------------------------------------------------------------------------------


def spooled(content: bytes, max_size: int) -> Any:
    file = tempfile.SpooledTemporaryFile(max_size)  # noqa: SIM115 - the response closes it
    file.write(content)
    return file


def temporary(make: Callable[[], Any], content: bytes) -> Any:
    file = make()
    file.write(content)
    return file


KINDS: dict[str, Callable[[Path], Any]] = {
    "Path": lambda path: path,
    "str": os.fspath,
    "bytes": os.fsencode,
    "buffered": lambda path: path.open("rb"),
    "raw": lambda path: path.open("rb", buffering=0),
    "for update": lambda path: path.open("r+b"),
    "descriptor": lambda path: os.open(path, os.O_RDONLY),
    "BytesIO": lambda path: io.BytesIO(path.read_bytes()),
    "spooled in memory": lambda path: spooled(path.read_bytes(), DATA.size + 1),
    "spooled on disk": lambda path: spooled(path.read_bytes(), 1000),
    "TemporaryFile": lambda path: temporary(tempfile.TemporaryFile, path.read_bytes()),
    "NamedTemporaryFile": lambda path: temporary(tempfile.NamedTemporaryFile, path.read_bytes()),
}


def is_closed(given: Any) -> bool:
    if isinstance(given, int):
        try:
            os.fstat(given)
        except OSError:
            return True
        return False
    return isinstance(given, str | bytes | Path) or bool(given.closed)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fields", [{}, {"Range": "bytes=10-19"}], ids=["whole", "part"])
def test_every_kind_of_file_is_sent_and_closed(kind: str, fields: dict[str, str], path: Path) -> None:
    given = KINDS[kind](path)
    response = get(ZeroCopyFileResponse(given), **fields)
    assert response.data == (DATA.content[10:20] if fields else DATA.content)
    assert response.content_length == len(response.data)
    assert is_closed(given)


@pytest.mark.parametrize("kind", ["buffered", "descriptor", "BytesIO"])
def test_what_is_not_ours_stays_open(kind: str, path: Path) -> None:
    given = KINDS[kind](path)
    for _ in range(2):
        assert get(ZeroCopyFileResponse(given, closefd=False)).data == DATA.content
    assert not is_closed(given)
    os.close(given) if isinstance(given, int) else given.close()


@pytest.mark.parametrize("kind", KINDS)
def test_there_are_validators_where_a_name_leads_to_the_file(kind: str, path: Path) -> None:
    headers = get(ZeroCopyFileResponse(KINDS[kind](path))).headers
    lasting = kind in ("Path", "str", "bytes", "buffered", "raw", "for update")
    assert ("ETag" in headers, "Last-Modified" in headers) == (lasting, lasting)
    headers = get(ZeroCopyFileResponse(KINDS[kind](path), etag="v1", last_modified=DATA.mtime)).headers
    assert (headers["ETag"], headers["Last-Modified"]) == ('"v1"', DATA.last_modified)


def test_who_opens_a_descriptor_says_that_it_lasts(path: Path) -> None:
    file = open_file(os.open(path, os.O_RDONLY))
    assert not file.lasting
    file.lasting = True
    headers = get(ZeroCopyFileResponse(file)).headers
    assert (headers["ETag"], headers["Last-Modified"]) == (DATA.etag, DATA.last_modified)


def test_the_file_is_opened_at_once(path: Path) -> None:
    response = ZeroCopyFileResponse(path)
    path.unlink()
    assert get(response).data == DATA.content


def test_a_bytesio_has_ranges_and_a_given_tag() -> None:
    response = get(ZeroCopyFileResponse(io.BytesIO(b"0123456789"), etag="v1"), Range="bytes=-3", If_Range='"v1"')
    assert (response.status_code, response.data) == (206, b"789")
    assert response.headers["Content-Range"] == "bytes 7-9/10"
    assert "Last-Modified" not in response.headers


def test_a_missing_file_is_file_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ZeroCopyFileResponse(tmp_path / "missing")


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotARegularFileError):
        ZeroCopyFileResponse(tmp_path)


@pytest.mark.parametrize("given", [3.5, None, {}, True, io.StringIO("text")])
def test_what_is_no_file_is_a_type_error(given: Any) -> None:
    with pytest.raises(TypeError, match="path_or_file"):
        ZeroCopyFileResponse(given)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"max_age": -1}, "max_age"),
        ({"max_age": 1, "no_store": True}, "no_store"),
        ({"etag": 'a"b'}, "etag"),
        ({"offset": -1}, "offset"),
        ({"offset": DATA.size + 1}, "offset"),
        ({"count": DATA.size + 1}, "count"),
        ({"last_modified": "x"}, "last_modified"),
    ],
    ids=str,
)
def test_a_value_that_cannot_be_meant_is_told_at_once(arguments: dict[str, Any], named: str, path: Path) -> None:
    with pytest.raises(ValueError, match=named):
        ZeroCopyFileResponse(path, **arguments)


@pytest.mark.parametrize(
    "arguments", [{"filename": "x"}, {"etagg": 1}, {"etag": 5}, {"download_name": 5}, {"on_transfer": 5}], ids=str
)
def test_a_word_that_cannot_be_meant_is_told_at_once(arguments: dict[str, Any], path: Path) -> None:
    with pytest.raises(TypeError, match=next(iter(arguments))):
        ZeroCopyFileResponse(path, **arguments)


@needs_proc
@pytest.mark.parametrize("arguments", [{"status": ""}, {"headers": {"X-A": "b\r\nEvil: 1"}}], ids=str)
def test_what_werkzeug_refuses_leaves_nothing_open(arguments: dict[str, Any], path: Path) -> None:
    with pytest.raises(ValueError):
        ZeroCopyFileResponse(path, **arguments)
    assert descriptors_of(path) == 0


def test_an_attachment_without_a_name_is_told_at_once(path: Path) -> None:
    with path.open("rb") as file, pytest.raises(TypeError, match="download_name"):
        ZeroCopyFileResponse(file, as_attachment=True)


# --- what it says of itself -------------------------------------------------------------------------------------------


def test_an_attachment_takes_its_name_from_the_path(path: Path) -> None:
    response = get(ZeroCopyFileResponse(path, as_attachment=True))
    assert response.headers["Content-Disposition"] == 'attachment; filename="report.txt"'


def test_a_download_name_tells_the_type_too(path: Path) -> None:
    response = get(ZeroCopyFileResponse(path, download_name="page.html"))
    assert response.headers["Content-Disposition"] == 'inline; filename="page.html"'
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"


@pytest.mark.parametrize(
    ("arguments", "content_type"),
    [
        ({}, "text/plain; charset=utf-8"),
        ({"mimetype": "text/csv"}, "text/csv; charset=utf-8"),
        ({"mimetype": "image/png"}, "image/png"),
        ({"content_type": "text/csv; charset=latin-1"}, "text/csv; charset=latin-1"),
        ({"headers": {"Content-Type": "a/b"}}, "a/b"),
    ],
    ids=str,
)
def test_the_type_is_the_callers_or_told_from_the_name(
    arguments: dict[str, Any], content_type: str, path: Path
) -> None:
    assert get(ZeroCopyFileResponse(path, **arguments)).headers.getlist("Content-Type") == [content_type]


@pytest.mark.parametrize("status", [201, "201 Made", HTTPStatus.CREATED])
def test_another_status_is_kept_and_sends_the_whole_file(status: Any, path: Path) -> None:
    response = get(ZeroCopyFileResponse(path, status), Range="bytes=0-1", If_None_Match="*")
    assert (response.status_code, response.data) == (201, DATA.content)
    assert response.status == (status if isinstance(status, str) else "201 CREATED")


def test_caching_options_are_those_of_the_plan(path: Path) -> None:
    response = get(ZeroCopyFileResponse(path, max_age=60, private=True))
    assert response.headers["Cache-Control"] == "private, max-age=60"


@pytest.mark.parametrize("status", REQUESTS)
def test_what_others_set_survives_every_status(status: int, path: Path) -> None:
    response = ZeroCopyFileResponse(path, headers=Headers([("X-View", "1"), ("Vary", "Cookie")]))
    response.headers["X-Later"] = "2"
    response.set_cookie("a", "b")
    response.set_cookie("c", "d")
    answer = get(response, **REQUESTS[status])
    assert answer.status_code == status
    assert (answer.headers["X-View"], answer.headers["X-Later"], answer.headers["Vary"]) == ("1", "2", "Cookie")
    assert [value.split(";")[0] for value in answer.headers.getlist("Set-Cookie")] == ["a=b", "c=d"]


def test_the_framing_is_not_open_to_discussion(path: Path) -> None:
    response = ZeroCopyFileResponse(path, headers={"Content-Length": "7", "Content-Range": "bytes 1-2/3"})
    response.content_length = 9
    answer = get(response)
    assert answer.headers.getlist("Content-Length") == [str(DATA.size)]
    assert "Content-Range" not in answer.headers


def test_a_location_beyond_ascii_is_encoded_as_werkzeug_does(path: Path) -> None:
    answer = get(ZeroCopyFileResponse(path, 201, {"Location": "/é→"}))
    assert answer.headers["Location"] == "/%C3%A9%E2%86%92"


def test_a_subclass_may_change_headers_as_late_as_in_werkzeug(path: Path) -> None:
    class Guarded(ZeroCopyFileResponse):
        def get_wsgi_headers(self, environ: WSGIEnvironment) -> Headers:
            headers = super().get_wsgi_headers(environ)
            headers["X-Frame-Options"] = "DENY"
            return headers

    answer = get(Guarded(path), Range="bytes=0-1")
    assert (answer.data, answer.headers["X-Frame-Options"]) == (DATA.content[:2], "DENY")


# --- when it is decided -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", REQUESTS)
def test_it_is_decided_when_it_is_sent(status: int, path: Path) -> None:
    response = ZeroCopyFileResponse(path)
    assert response.status_code == 200
    answer = get(response, **REQUESTS[status])
    assert (answer.status_code, answer.data) == (status, BODIES[status])


@pytest.mark.parametrize("status", REQUESTS)
@pytest.mark.parametrize("of", [lambda environ: environ, Request], ids=["environ", "request"])
def test_make_conditional_decides_at_once(status: int, of: Any, path: Path) -> None:
    environ = environ_of(**REQUESTS[status])
    with ZeroCopyFileResponse(path) as response:
        assert response.make_conditional(of(environ)) is response
        assert response.status_code == status
        body, line, _ = response.get_wsgi_response(environ)
        assert line.startswith(str(status))
        assert b"".join(body) == BODIES[status]


def test_validators_set_before_are_those_that_count(path: Path) -> None:
    response = ZeroCopyFileResponse(path)
    response.set_etag("mine")
    assert get(response, If_None_Match='"mine"').status_code == 304


def test_a_validator_taken_out_is_not_put_back(path: Path) -> None:
    response = ZeroCopyFileResponse(path)
    del response.headers["ETag"]
    answer = get(response, If_None_Match=DATA.etag)
    assert answer.status_code == 200
    assert "ETag" not in answer.headers


def test_validators_set_between_two_calls_of_make_conditional_count(path: Path) -> None:
    environ = environ_of(If_None_Match='"mine"')
    with ZeroCopyFileResponse(path) as response:
        response.make_conditional(environ)
        response.set_etag("mine")
        assert response.make_conditional(environ).status_code == 304


def test_a_second_call_of_make_conditional_changes_nothing(path: Path) -> None:
    environ = environ_of(Range="bytes=5-99")
    with ZeroCopyFileResponse(path) as response:
        first = list(response.make_conditional(environ).headers)
        assert list(response.make_conditional(environ, accept_ranges=True).headers) == first
        assert response.status_code == 206


@pytest.mark.parametrize("fields", [{"Range": "bytes=0-1"}, {"If-None-Match": "*"}, {"If-Match": '"x"'}], ids=str)
def test_without_conditional_nothing_is_evaluated(fields: dict[str, str], path: Path) -> None:
    answer = get(ZeroCopyFileResponse(path, conditional=False), **fields)
    assert (answer.status_code, answer.data) == (200, DATA.content)
    assert "Accept-Ranges" not in answer.headers


def test_without_conditional_a_caller_of_make_conditional_gets_conditions_alone(path: Path) -> None:
    with ZeroCopyFileResponse(path, conditional=False) as response:
        assert response.make_conditional(environ_of(Range="bytes=0-1")).status_code == 200
    with ZeroCopyFileResponse(path, conditional=False) as response:
        assert response.make_conditional(environ_of(If_None_Match=DATA.etag)).status_code == 304


def test_without_conditional_a_caller_of_make_conditional_may_ask_for_ranges(path: Path) -> None:
    environ = environ_of(Range="bytes=0-1")
    with ZeroCopyFileResponse(path, conditional=False) as response:
        response.make_conditional(environ, accept_ranges=True, complete_length=DATA.size)
        assert response.status_code == 206
        assert b"".join(response.get_wsgi_response(environ)[0]) == DATA.content[:2]


@pytest.mark.parametrize("status", REQUESTS)
def test_a_status_given_after_the_decision_gets_the_whole_file(status: int, path: Path) -> None:
    environ = environ_of(**REQUESTS[status])
    with ZeroCopyFileResponse(path, download_name="a.txt", max_age=5) as response:
        response.make_conditional(environ)
        response.headers["X-Later"] = "1"
        response.status_code = 404
        body, line, fields = response.get_wsgi_response(environ)
        assert (line, b"".join(body)) == ("404 NOT FOUND", DATA.content)
        headers = Headers(fields)
        assert headers["Content-Type"] == "text/plain; charset=utf-8"
        assert headers["Content-Length"] == str(DATA.size)
        assert headers["Cache-Control"] == "max-age=5"
        assert headers["X-Later"] == "1"
        assert "Content-Range" not in headers


def test_a_status_with_words_of_its_own_keeps_them(path: Path) -> None:
    environ = environ_of()
    with ZeroCopyFileResponse(path) as response:
        response.make_conditional(environ)
        response.status = "404 Nope"
        assert response.get_wsgi_response(environ)[1] == "404 Nope"


def test_what_is_changed_after_the_decision_stays_changed(path: Path) -> None:
    environ = environ_of(Range="bytes=5-99")
    with ZeroCopyFileResponse(path) as response:
        response.make_conditional(environ)
        response.headers["Content-Type"] = "a/b"
        response.status_code = 500
        assert Headers(response.get_wsgi_response(environ)[2])["Content-Type"] == "a/b"


def test_a_type_that_is_said_after_the_decision_is_that_of_the_parts(path: Path) -> None:
    environ = environ_of(Range="bytes=0-9,20-29")
    with ZeroCopyFileResponse(path) as response:
        response.make_conditional(environ)
        response.mimetype = "text/csv"
        body, line, fields = response.get_wsgi_response(environ)
        content = b"".join(body)
    assert (line, Headers(fields)["Content-Length"]) == ("206 PARTIAL CONTENT", str(len(content)))
    parts = parse_multipart(Headers(fields)["Content-Type"], content)
    assert [(dict(part.fields)["content-type"], part.data) for part in parts] == [
        ("text/csv; charset=utf-8", DATA.content[:10]),
        ("text/csv; charset=utf-8", DATA.content[20:30]),
    ]


@pytest.mark.parametrize("status", [412, 416])
def test_what_is_said_of_the_file_after_a_refusal_is_left_out(status: int, path: Path) -> None:
    environ = environ_of(**REQUESTS[status])
    with ZeroCopyFileResponse(path) as response:
        response.make_conditional(environ)
        response.set_etag("v2")
        response.mimetype = "text/csv"
        headers = Headers(response.get_wsgi_response(environ)[2])
    assert (response.status_code, headers["Content-Length"]) == (status, "0")
    assert not {"ETag", "Content-Type"} & set(headers.keys())


def test_a_refusal_that_the_caller_has_chosen_says_all_of_its_file(path: Path) -> None:
    answer = get(ZeroCopyFileResponse(path, 416))
    assert (answer.status_code, answer.data, answer.mimetype) == (416, DATA.content, "text/plain")
    assert "ETag" in answer.headers


# --- the body before it is sent ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 206])
def test_the_body_can_be_read_first(status: int, path: Path) -> None:
    environ = environ_of(**REQUESTS[status])
    with ZeroCopyFileResponse(path) as response:
        response.make_conditional(environ)
        response.direct_passthrough = False
        assert response.get_data() == BODIES[status]
        assert response.get_data() == BODIES[status]
        assert b"".join(response.get_wsgi_response(environ)[0]) == BODIES[status]


def test_the_body_is_not_read_by_accident(path: Path) -> None:
    with ZeroCopyFileResponse(path) as response, pytest.raises(RuntimeError, match="direct passthrough"):
        response.get_data()


@pytest.mark.parametrize("status", [200, 206])
def test_the_encoded_body_can_be_iterated(status: int, path: Path) -> None:
    with ZeroCopyFileResponse(path) as response:
        response.make_conditional(environ_of(**REQUESTS[status]))
        for _ in range(2):
            assert b"".join(response.iter_encoded()) == BODIES[status]


def test_a_body_put_in_its_place_is_sent(path: Path) -> None:
    response = ZeroCopyFileResponse(path)
    response.set_data(b"other")
    answer = get(response)
    assert (answer.data, answer.headers["Content-Length"]) == (b"other", "5")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_frozen_response_says_the_same_length_to_get_and_head(method: str, path: Path) -> None:
    environ = environ_of(method)
    with ZeroCopyFileResponse(path) as response:
        response.make_conditional(environ)
        response.freeze()
        body, _, fields = response.get_wsgi_response(environ)
        assert Headers(fields)["Content-Length"] == str(DATA.size)
        assert b"".join(body) == (DATA.content if method == "GET" else b"")


def test_a_frozen_response_can_be_pickled(path: Path) -> None:
    with ZeroCopyFileResponse(path, headers={"X-A": "b"}) as response:
        response.freeze()
        answer = get(pickle.loads(pickle.dumps(response)))
    assert (answer.data, answer.headers["X-A"], answer.headers["ETag"]) == (DATA.content, "b", DATA.etag)


def test_forced_into_a_plain_response_the_bytes_are_right(path: Path) -> None:
    answer = get(Response.force_type(ZeroCopyFileResponse(path)))
    assert (answer.data, answer.headers["Content-Length"]) == (DATA.content, str(DATA.size))


# --- the end ----------------------------------------------------------------------------------------------------------


def closings(response: Response) -> list[bool]:
    """Filled by each call of a function that was given to `call_on_close`."""
    heard: list[bool] = []
    response.call_on_close(lambda: heard.append(True))
    return heard


@pytest.mark.parametrize("status", REQUESTS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_closing_functions_run_once_at_every_status(status: int, method: str, path: Path) -> None:
    response = ZeroCopyFileResponse(path)
    heard = closings(response)
    get(response, method, **REQUESTS[status])
    assert heard == [True]


def test_closing_functions_run_once_for_a_body_that_nobody_reads(path: Path) -> None:
    response = ZeroCopyFileResponse(path)
    heard = closings(response)
    body = response.get_wsgi_response(environ_of())[0]
    body.close()  # type: ignore[attr-defined]
    body.close()  # type: ignore[attr-defined]
    assert heard == [True]


def test_closing_functions_run_once_for_a_body_that_breaks_off(path: Path) -> None:
    response = ZeroCopyFileResponse(path)
    heard = closings(response)
    os.truncate(path, 100)
    with pytest.raises(FileTruncatedError):
        get(response)
    assert heard == [True]


@needs_proc
@pytest.mark.parametrize("status", REQUESTS)
@pytest.mark.parametrize("how", ["read", "close unread", "drop"])
def test_nothing_stays_open(status: int, how: str, path: Path) -> None:
    body = ZeroCopyFileResponse(path).get_wsgi_response(environ_of(**REQUESTS[status]))[0]
    if how == "read":
        b"".join(body)
    if how != "drop":
        body.close()  # type: ignore[attr-defined]
        assert descriptors_of(path) == 0
    del body
    assert descriptors_of(path) == 0


@needs_proc
@pytest.mark.parametrize("kind", ["Path", "buffered", "descriptor"])
def test_a_response_that_is_dropped_leaves_nothing_open_and_warns_of_nothing(kind: str, path: Path) -> None:
    response = ZeroCopyFileResponse(KINDS[kind](path))
    assert descriptors_of(path) >= 1
    del response
    assert descriptors_of(path) == 0


@pytest.mark.parametrize("decided", [False, True])
def test_a_file_may_be_closed_as_soon_as_the_response_is_made(decided: bool, path: Path) -> None:
    """Its number is another file's by the time of sending."""
    with path.open("rb") as file:
        response = ZeroCopyFileResponse(file)
        if decided:
            response.make_conditional(environ_of())
    with (path.parent / "secret").open("w+b") as other:
        other.write(b"secret" * 100_000)
        other.flush()
        body = response.get_wsgi_response(environ_of())[0]
        assert b"".join(body) == path.read_bytes()
        body.close()  # type: ignore[attr-defined]
        assert other.read(1) == b""


@pytest.mark.parametrize("copied", [pickle.dumps, copy.copy, copy.deepcopy])
def test_an_open_response_cannot_be_copied(copied: Callable[[object], object], path: Path) -> None:
    response = ZeroCopyFileResponse(path)
    with pytest.raises(TypeError, match="an open file"):
        copied(response if copied is not copy.copy else response._body.file)  # type: ignore[union-attr]
    response.close()


@needs_proc
@pytest.mark.parametrize("change", [lambda r: r.freeze(), lambda r: r.set_data(b"x"), lambda r: None])
def test_a_closed_response_has_nothing_open_whatever_its_body_became(
    change: Callable[[Response], None], path: Path
) -> None:
    response = ZeroCopyFileResponse(path)
    change(response)
    response.close()
    assert descriptors_of(path) == 0


@needs_proc
def test_an_error_in_start_response_leaves_nothing_open(path: Path) -> None:
    def start_response(*_: Any) -> Any:
        raise RuntimeError("the server is gone")

    with pytest.raises(RuntimeError):
        ZeroCopyFileResponse(path)(environ_of(), start_response)
    assert descriptors_of(path) == 0


# --- how it travels ---------------------------------------------------------------------------------------------------


def behind_gunicorn(app: WSGIApplication, wrapped: list[Any]) -> WSGIApplication:
    """What a server looks like that is known to send regions; its wrapper is the standard library's."""

    def wrap(file: Any, block: int) -> FileWrapper:
        wrapped.append(file)
        return FileWrapper(file, block)

    def server(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        environ["gunicorn.socket"] = None
        environ["SERVER_SOFTWARE"] = "gunicorn/23.0.0"
        environ["wsgi.file_wrapper"] = wrap
        return app(environ, start_response)

    return server


@pytest.mark.parametrize("fields", [{}, {"Range": "bytes=5-99999"}], ids=["whole", "part"])
def test_a_server_that_takes_files_is_given_one(fields: dict[str, str], path: Path, transfers: list[Transfer]) -> None:
    wrapped: list[Any] = []
    answer = get(behind_gunicorn(ZeroCopyFileResponse(path), wrapped), **fields)
    assert answer.data == (DATA.content[5:100_000] if fields else DATA.content)
    assert [file.closed for file in wrapped] == [True]
    assert [transfer.way for transfer in transfers] == ["file_wrapper"]


@pytest.mark.parametrize("given", [{"sendfile": False}, {}], ids=["switched off", "in memory"])
def test_there_are_reasons_to_give_it_blocks(given: dict[str, Any], path: Path, transfers: list[Transfer]) -> None:
    wrapped: list[Any] = []
    source: Any = path if given else io.BytesIO(DATA.content)
    assert get(behind_gunicorn(ZeroCopyFileResponse(source, **given), wrapped)).data == DATA.content
    assert wrapped == []
    (transfer,) = transfers
    assert (transfer.way, bool(transfer.reason)) == ("chunks", True)


def test_closing_functions_run_once_behind_a_file_wrapper(path: Path) -> None:
    response = ZeroCopyFileResponse(path)
    heard = closings(response)
    get(behind_gunicorn(response, []))
    assert heard == [True]


def test_events_reach_the_callable(path: Path) -> None:
    heard: list[Transfer] = []
    get(ZeroCopyFileResponse(path, on_transfer=heard.append), Range="bytes=5-99")
    (transfer,) = heard
    assert (transfer.way, transfer.status, transfer.bytes_sent, transfer.completed) == ("chunks", 206, 95, True)


def test_a_client_that_leaves_is_told(path: Path) -> None:
    with record_transfers() as transfers:
        Client(ZeroCopyFileResponse(path)).get("/").close()
    (transfer,) = transfers
    assert (transfer.bytes_sent, transfer.completed, transfer.bytes_promised) == (0, False, DATA.size)


def test_a_large_file_comes_in_several_blocks(files: Files) -> None:
    body = ZeroCopyFileResponse(files.path("large.bin")).get_wsgi_response(environ_of())[0]
    blocks = list(body)
    body.close()  # type: ignore[attr-defined]
    assert len(blocks) > 1
    assert b"".join(blocks) == LARGE.content
