"""Applications that know nothing of us, behind the middleware: in memory, as servers of both kinds would see them."""

from __future__ import annotations

import errno
import gc
import gzip
import io
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.types import WSGIApplication
from wsgiref.util import FileWrapper as StandardWrapper
from wsgiref.validate import validator

import flask
import pytest
from django.core.files.base import File as DjangosFile
from django.core.signals import request_finished
from django.core.wsgi import get_wsgi_application
from django.http import FileResponse, HttpResponse
from flask import Flask
from werkzeug.datastructures import FileStorage
from werkzeug.test import Client, TestResponse
from werkzeug.wsgi import ClosingIterator, _RangeWrapper
from werkzeug.wsgi import FileWrapper as WerkzeugsWrapper
from whitenoise.middleware import WhiteNoiseFileResponse

from tests.support.django_doors import wsgi_app as ours_in_django
from tests.support.django_project import project
from tests.support.table import CASES, FILES, Case, Files, check
from tests.support.wsgi_doors import flask_app as ours_in_flask
from tests.support.wsgi_doors import upgraded
from tests.support.wsgi_stock import make
from tests.wsgi.test_table import answer_of
from zcresponse import Transfer
from zcresponse.testing import FileWrapperServer, HandedOver, record_transfers
from zcresponse.wsgi import ZeroCopyMiddleware, send_file

CONDITIONAL_GET = "django.middleware.http.ConditionalGetMiddleware"

NAME = "data.bin"
DATA = FILES[NAME]
CONTENT = DATA.content

StartResponse = Callable[..., Any]


@pytest.fixture(autouse=True)
def directory(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TABLE_FILES", str(files.directory))


@pytest.fixture(autouse=True)
def nothing_is_left_open(files: Files) -> Iterator[None]:
    yield
    if sys.platform == "linux" and _open_files(files):
        gc.collect()
        assert _open_files(files) == []


def _open_files(files: Files) -> list[str]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:
            continue
    return [name for name in found if name.startswith(str(files.directory))]


class Body:
    """A body of no known type that counts how often it is closed."""

    def __init__(self, *blocks: bytes) -> None:
        self.blocks: Any = list(blocks)
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        found: Iterator[bytes] = iter(self.blocks)
        return found

    def close(self) -> None:
        self.closed += 1


class CountedFile(io.FileIO):
    """Never one of a known type: somebody's own class may read in its own way."""


class Server:
    """Calls an application as a server does, and keeps what it is told."""

    def __init__(self, app: WSGIApplication, method: str = "GET", **environ: Any) -> None:
        self.started: list[tuple[Any, ...]] = []
        self.written: list[bytes] = []
        self.body = app({"REQUEST_METHOD": method, **environ}, self.start_response)

    def start_response(self, *said: Any) -> Callable[[bytes], object]:
        self.started.append(said)
        return self.written.append

    @property
    def fields(self) -> dict[str, str]:
        return dict(self.started[-1][1])

    def read(self) -> bytes:
        try:
            return b"".join(self.body)
        finally:
            self.close()

    def close(self) -> None:
        if hasattr(self.body, "close"):
            self.body.close()


def app_of(body: Any, *fields: tuple[str, str], status: str = "200 OK") -> Any:
    def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        start_response(status, list(fields))
        made: Iterable[bytes] = body(environ) if callable(body) else body
        return made

    return app


def wrapped(file: Any) -> Any:
    """Gives a file to whatever `wsgi.file_wrapper` there is."""
    return lambda environ: environ["wsgi.file_wrapper"](file)


def behind(body: Any, *fields: tuple[str, str], status: str = "200 OK", **options: Any) -> Any:
    return ZeroCopyMiddleware(app_of(body, *fields, status=status), **options)


def get(app: Any, url: str = "/", method: str = "GET", **fields: str) -> TestResponse:
    headers = {name.replace("_", "-"): value for name, value in fields.items()}
    return Client(app).open(url, method=method, headers=headers, buffered=True)


# --- stock frameworks -------------------------------------------------------------------------------------------------


def url_of(name: str) -> str:
    return f"/stock/{NAME}" if name == "django" else f"/{NAME}"


@pytest.mark.parametrize("name", ["flask", "django", "whitenoise", "wrapper"])
def test_a_stock_response_is_given_to_the_server_whole(name: str, files: Files, transfers: list[Transfer]) -> None:
    server = FileWrapperServer(make(name))
    response = get(server, url_of(name))
    assert (response.status_code, response.data) == (200, CONTENT)
    (given,) = server.handed_over
    assert (given.offset, given.count) == (0, DATA.size)
    assert [(transfer.way, transfer.completed) for transfer in transfers] == [("file_wrapper", None)]


@pytest.mark.parametrize("url", [f"/static/{NAME}", f"/{NAME}"])
@pytest.mark.parametrize("name", ["flask", "whitenoise"])
def test_a_stock_range_is_given_to_the_server_as_a_region(name: str, url: str) -> None:
    server = FileWrapperServer(make(name))
    response = get(server, url_of(name) if name == "whitenoise" else url, Range="bytes=1000-200000")
    assert (response.status_code, response.data) == (206, CONTENT[1000:200_001])
    assert [(given.offset, given.count) for given in server.handed_over] == [(1000, 199_001)]


def test_a_part_that_the_application_has_chosen_is_a_region() -> None:
    server = FileWrapperServer(make("part"))
    assert get(server, url_of("part")).data == CONTENT[5:1000]
    assert [(given.offset, given.count) for given in server.handed_over] == [(5, 995)]


@pytest.mark.parametrize("name", ["flask", "whitenoise", "part"])
def test_a_server_that_takes_whole_files_alone_gets_a_part_in_blocks(name: str, transfers: list[Transfer]) -> None:
    server = FileWrapperServer(make(name), ranges=False)
    response = get(server, url_of(name), Range="bytes=5-999")
    assert (response.status_code, response.data) == (206, CONTENT[5:1000])
    assert server.handed_over == []
    assert [transfer.way for transfer in transfers] == ["chunks"]


@pytest.mark.parametrize("name", ["flask", "django", "whitenoise", "wrapper"])
@pytest.mark.parametrize("ranges", [True, False])
def test_an_answer_to_head_has_no_body(name: str, ranges: bool) -> None:
    server = Server(FileWrapperServer(make(name), ranges=ranges), "HEAD", **_request(url_of(name)))
    assert server.read() == b""
    assert server.started[0][0] == "200 OK"
    assert server.fields["Content-Length"] == str(DATA.size)


def _request(path: str) -> dict[str, Any]:
    return {
        "PATH_INFO": path,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": io.StringIO(),
        "wsgi.url_scheme": "http",
    }


@pytest.mark.parametrize("app", [ours_in_flask, upgraded, ours_in_django], ids=["flask", "upgraded", "django"])
@pytest.mark.parametrize("wanted", [None, "bytes=5-999"])
def test_our_own_responses_are_given_to_the_server_as_without_it(
    app: Any, wanted: str | None, transfers: list[Transfer]
) -> None:
    server = FileWrapperServer(ZeroCopyMiddleware(app))
    response = get(server, f"/plain/{NAME}", **({"Range": wanted} if wanted else {}))
    assert response.data == (CONTENT[5:1000] if wanted else CONTENT)
    assert [(given.offset, given.count) for given in server.handed_over] == [(5, 995) if wanted else (0, DATA.size)]
    assert [transfer.way for transfer in transfers] == ["file_wrapper"]


# What others tell of themselves (validators, types) is theirs.
SEMANTICS = [case for case in CASES if not case.dressed and case.method != "POST"]


@pytest.mark.parametrize("case", SEMANTICS, ids=str)
def test_whole_files_of_others_get_complete_semantics(case: Case, files: Files) -> None:
    path = files.path(case.file)
    media_type = FILES[case.file].media_type
    app = behind(
        lambda environ: environ["wsgi.file_wrapper"](path.open("rb")), ("Content-Type", media_type), conditional=True
    )
    server = FileWrapperServer(app)
    response = Client(server).open(case.url_path(), method=case.method, headers=list(case.fields))
    check(case, answer_of(response), files)


def test_djangos_own_response_gets_ranges() -> None:
    server = FileWrapperServer(make("django", conditional=True))
    response = get(server, url_of("django"), Range="bytes=5-999")
    assert (response.status_code, response.data) == (206, CONTENT[5:1000])
    assert response.headers["Content-Range"] == f"bytes 5-999/{DATA.size}"
    assert [(given.offset, given.count) for given in server.handed_over] == [(5, 995)]


@pytest.mark.parametrize(
    ("status", "field"),
    [("200 OK", ("Content-Encoding", "gzip")), ("404 Not Found", ("A", "b")), ("200 OK", ("Content-Length", "1000"))],
)
def test_what_is_not_a_whole_plain_file_is_not_upgraded(status: str, field: tuple[str, str], files: Files) -> None:
    app = behind(
        lambda environ: environ["wsgi.file_wrapper"](files.path(NAME).open("rb")),
        field,
        status=status,
        conditional=True,
    )
    response = get(FileWrapperServer(app), Range="bytes=0-9")
    assert response.status == status.upper() or response.status == status
    assert response.data == CONTENT[:1000] if field[0] == "Content-Length" else CONTENT


# --- which bodies are files -------------------------------------------------------------------------------------------


WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "the server's": wrapped,
    "the standard library's": lambda file: StandardWrapper(file, 1000),
    "Werkzeug's": WerkzeugsWrapper,
    "Werkzeug's within another": lambda file: ClosingIterator(WerkzeugsWrapper(file), lambda: None),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("position", [0, 7])
def test_a_file_is_sent_from_where_it_stands(wrapper: str, position: int, files: Files) -> None:
    file = files.path(NAME).open("rb")
    # By reading, so that the descriptor stands elsewhere.
    file.read(position)
    server = FileWrapperServer(behind(WRAPPERS[wrapper](file)))
    response = get(server)
    assert response.data == CONTENT[position:]
    assert response.headers["Content-Length"] == str(DATA.size - position)
    assert [(given.offset, given.count) for given in server.handed_over] == [(position, DATA.size - position)]
    assert file.closed


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_what_was_read_of_a_body_already_is_not_sent_again(wrapper: str, files: Files) -> None:
    def app(environ: dict[str, Any], start_response: StartResponse) -> Any:
        start_response("200 OK", [])
        body = WRAPPERS[wrapper](files.path(NAME).open("rb"))
        body = body(environ) if wrapper == "the server's" else body
        assert CONTENT.startswith(next(iter(body)))
        return body

    response = get(FileWrapperServer(ZeroCopyMiddleware(app)))
    assert CONTENT.endswith(response.data)
    assert 0 < len(response.data) < DATA.size


def _memory(files: Files) -> Any:
    return io.BytesIO(CONTENT)


def _spooled(files: Files) -> Any:
    file = tempfile.SpooledTemporaryFile(max_size=10)  # noqa: SIM115
    file.write(CONTENT)
    file.seek(0)
    return file


def _temporary(files: Files) -> Any:
    file = tempfile.NamedTemporaryFile()  # noqa: SIM115
    file.write(CONTENT)
    file.seek(0)
    return file


def _unbuffered(files: Files) -> Any:
    return files.path(NAME).open("rb", buffering=0)


def _compressed(files: Files) -> Any:
    path = files.directory / "data.gz"
    path.write_bytes(gzip.compress(CONTENT))
    return gzip.open(path)


def _own_class(files: Files) -> Any:
    return CountedFile(files.path(NAME))


@pytest.mark.parametrize(
    ("make_file", "way"),
    [
        (_spooled, ["file_wrapper"]),
        (_temporary, ["file_wrapper"]),
        (_unbuffered, ["file_wrapper"]),
        (_memory, ["chunks"]),
        (_compressed, []),
        (_own_class, []),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_only_a_real_file_is_given_to_the_server(
    make_file: Any, way: list[str], method: str, files: Files, transfers: list[Transfer]
) -> None:
    file = make_file(files)
    server = FileWrapperServer(behind(wrapped(file)))
    response = Server(server, method)
    assert response.read() == (CONTENT if method == "GET" else b"")
    assert file.closed
    assert [transfer.way for transfer in transfers] == (way if method == "GET" else ["none"] if way else [])


@pytest.mark.parametrize(
    "make_body",
    [
        lambda path: [path.read_bytes()],
        lambda path: (block for block in [path.read_bytes()]),
        lambda path: ClosingIterator([path.read_bytes()]),
        lambda path: Body(path.read_bytes()),
        lambda path: io.BytesIO(path.read_bytes()),
    ],
)
def test_any_other_body_is_passed_as_it_is(make_body: Any, files: Files) -> None:
    body = make_body(files.path(NAME))
    server = Server(behind(body, ("A", "b"), conditional=True, x_sendfile=[files.directory]), HTTP_RANGE="bytes=0-1")
    assert server.body is body
    assert server.started == [("200 OK", [("A", "b")])]
    assert server.read() == CONTENT


def test_a_range_that_has_begun_is_passed_as_it_is(files: Files) -> None:
    body = _RangeWrapper(WerkzeugsWrapper(files.path(NAME).open("rb"), 10), 5, 100)
    first = next(body)
    server = Server(behind(body, status="206 Partial Content"))
    assert server.body is body
    assert first + server.read() == CONTENT[5:105]


def test_a_range_of_a_body_that_cannot_be_moved_is_found(files: Files) -> None:
    body = _RangeWrapper(StandardWrapper(files.path(NAME).open("rb")), 5000, 100)
    server = FileWrapperServer(behind(body, ("Content-Length", "100"), status="206 Partial Content"))
    assert get(server).data == CONTENT[5000:5100]
    assert [(given.offset, given.count) for given in server.handed_over] == [(5000, 100)]


class Encrypted(DjangosFile):  # type: ignore[misc]
    """What is read of it is not what lies on the disk."""

    def read(self, size: int = -1) -> bytes:
        data: bytes = self.file.read(size)
        return data[::-1]


def test_what_djangos_file_or_an_upload_holds_is_found(files: Files) -> None:
    path = files.path(NAME)
    for file in (DjangosFile(path.open("rb")), FileStorage(path.open("rb")), DjangosFile(DjangosFile(path.open("rb")))):
        server = FileWrapperServer(behind(wrapped(file)))
        assert get(server).data == CONTENT
        assert len(server.handed_over) == 1


def test_a_file_that_reads_in_a_way_of_its_own_is_read(files: Files) -> None:
    server = FileWrapperServer(
        behind(lambda environ: environ["wsgi.file_wrapper"](Encrypted(files.path(NAME).open("rb")), 9))
    )
    assert get(server).data[:9] == CONTENT[:9][::-1]
    assert server.handed_over == []


@pytest.mark.parametrize("kind", [FileResponse, WhiteNoiseFileResponse])
def test_djangos_response_is_a_file_where_a_middleware_took_the_wrapper_away(kind: Any, files: Files) -> None:
    django = kind(files.path(NAME).open("rb"))
    server = FileWrapperServer(behind(django, conditional=True))
    response = get(server, Range="bytes=5-999")
    assert (response.status_code, response.data) == (206, CONTENT[5:1000])
    assert django.closed
    assert [(given.offset, given.count) for given in server.handed_over] == [(5, 995)]


@pytest.mark.parametrize("kind", [FileResponse, WhiteNoiseFileResponse])
def test_what_was_made_of_djangos_response_is_passed_as_it_is(kind: Any, files: Files) -> None:
    django = kind(files.path(NAME).open("rb"))
    django.streaming_content = [block[::-1] for block in django.streaming_content]
    server = Server(behind(django))
    assert server.body is django
    assert server.read()[:9] == CONTENT[:4096][::-1][:9]


def test_a_range_of_what_is_no_file_is_passed_as_it_is() -> None:
    body = _RangeWrapper([b"0123456789"], 2, 5)
    server = Server(behind(body, status="206 Partial Content"))
    assert server.body is body
    assert server.read() == b"23456"


# --- lengths ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", [[], ["no number"], ["5", "6"], [str(DATA.size + 1)], [str(DATA.size)], ["1" * 30]])
def test_a_whole_file_has_its_own_length_whatever_was_said(said: list[str], files: Files) -> None:
    fields = [("Content-Length", length) for length in said]
    server = Server(FileWrapperServer(behind(wrapped(files.path(NAME).open("rb")), *fields)))
    assert [value for name, value in server.started[0][1] if name == "Content-Length"] == [str(DATA.size)]
    assert server.read() == CONTENT


def test_no_more_is_sent_than_was_promised(files: Files) -> None:
    server = FileWrapperServer(behind(wrapped(files.path(NAME).open("rb")), ("Content-Length", "1000")))
    assert get(server).data == CONTENT[:1000]
    assert [(given.offset, given.count) for given in server.handed_over] == [(0, 1000)]


def test_a_part_that_is_not_there_is_left_to_the_application(files: Files) -> None:
    fields = [("Content-Range", "bytes 0-999999/1000000"), ("Content-Length", "1000000")]
    app = behind(wrapped(files.path(NAME).open("rb")), *fields, status="206 Partial Content")
    server = Server(FileWrapperServer(app))
    assert server.fields["Content-Length"] == "1000000"
    assert server.read() == CONTENT


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_an_answer_without_content_has_no_body(status: str, files: Files) -> None:
    server = Server(FileWrapperServer(behind(wrapped(files.path(NAME).open("rb")), ("A", "b"), status=status)))
    assert server.started == [(status, [("A", "b")])]
    assert server.read() == b""


# --- start_response ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"x_sendfile": [os.curdir]}], ids=["plain", "naming"])
def test_a_generator_may_start_the_response_when_it_is_asked_for_its_first_block(options: Any) -> None:
    def app(environ: Any, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [("A", "b")])
        yield b"one"
        yield b"two"

    server = Server(ZeroCopyMiddleware(app, **options))
    assert server.read() == b"onetwo"
    assert server.started == [("200 OK", [("A", "b")])]


def test_nothing_is_asked_of_a_generator_before_the_server_asks() -> None:
    def app(environ: Any, start_response: StartResponse) -> Iterator[bytes]:
        raise LookupError
        yield b""

    server = Server(ZeroCopyMiddleware(app))
    assert server.started == []
    with pytest.raises(LookupError):
        next(iter(server.body))


def test_a_generator_that_fails_at_once_is_closed() -> None:
    body = Body()
    body.blocks = None
    with pytest.raises(TypeError):
        Server(ZeroCopyMiddleware(lambda environ, start_response: body, x_sendfile=[os.curdir]))
    assert body.closed == 1


def test_an_answer_may_be_replaced_because_of_an_error(files: Files) -> None:
    file = files.path(NAME).open("rb")

    def app(environ: Any, start_response: StartResponse) -> Any:
        start_response("200 OK", [("A", "b")])
        try:
            raise LookupError
        except LookupError:
            start_response("500 Internal Server Error", [("C", "d")], sys.exc_info())
        return environ["wsgi.file_wrapper"](file)

    server = Server(FileWrapperServer(ZeroCopyMiddleware(app)))
    assert server.started[0][:2] == ("500 Internal Server Error", [("C", "d"), ("Content-Length", str(DATA.size))])
    assert server.started[0][2][0] is LookupError
    assert server.read() == CONTENT


def test_an_error_after_the_start_is_the_servers_to_raise() -> None:
    def app(environ: Any, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"one"
        try:
            raise LookupError
        except LookupError:
            start_response("500 Internal Server Error", [], sys.exc_info())

    server = Server(ZeroCopyMiddleware(app))
    assert server.read() == b"one"
    assert [said[0] for said in server.started] == ["200 OK", "500 Internal Server Error"]
    assert server.started[1][2][0] is LookupError


def test_a_second_start_without_an_error_is_a_mistake() -> None:
    def app(environ: Any, start_response: StartResponse) -> list[bytes]:
        start_response("200 OK", [])
        start_response("200 OK", [])
        return []

    with pytest.raises(AssertionError, match="start_response"):
        Server(ZeroCopyMiddleware(app))


def test_what_is_written_goes_to_the_server_at_once(files: Files) -> None:
    def app(environ: Any, start_response: StartResponse) -> list[bytes]:
        write = start_response("200 OK", [("A", "b")])
        write(b"one")
        write(b"two")
        return [b"three"]

    server = Server(ZeroCopyMiddleware(app))
    assert server.started == [("200 OK", [("A", "b")])]
    assert server.written == [b"one", b"two"]
    assert server.read() == b"three"


def test_a_list_that_the_application_changes_afterwards_is_what_it_was() -> None:
    fields = [("A", "b")]

    def app(environ: Any, start_response: StartResponse) -> list[bytes]:
        start_response("200 OK", fields)
        fields.append(("C", "d"))
        return []

    assert Server(ZeroCopyMiddleware(app)).started == [("200 OK", [("A", "b")])]


@pytest.mark.parametrize("status", ["", "abc", "²00 OK"])
def test_a_status_that_is_none_is_left_to_the_server(status: str, files: Files) -> None:
    file = files.path(NAME).open("rb")
    server = Server(FileWrapperServer(behind(wrapped(file), status=status, conditional=True)))
    assert server.started[0][0] == status
    server.close()
    assert file.closed


# --- closing ----------------------------------------------------------------------------------------------------------


class Closing:
    """A file's wrapper by the server's, of which it is counted how often the file is closed."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("rb")
        self.closed = 0
        close = self.file.close

        def counted() -> None:
            self.closed += 1
            close()

        # As Django does it.
        self.file.close = counted  # type: ignore[method-assign]


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("field", [("A", "b"), ("Content-Length", "17")])
def test_the_applications_body_is_closed_once(ranges: bool, method: str, field: tuple[str, str], files: Files) -> None:
    closing = Closing(files.path(NAME))
    server = Server(FileWrapperServer(behind(wrapped(closing.file), field), ranges=ranges), method)
    server.read()
    server.close()
    assert closing.closed == 1


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("wanted", [None, "bytes=5-999"])
def test_django_hears_once_that_a_request_is_finished(method: str, wanted: str | None) -> None:
    finished: list[Any] = []

    def receiver(sender: Any, **more: Any) -> None:
        finished.append(sender)

    request_finished.connect(receiver)
    try:
        fields = {"Range": wanted} if wanted else {}
        get(FileWrapperServer(make("django", conditional=True)), url_of("django"), method, **fields).close()
    finally:
        request_finished.disconnect(receiver)
    assert len(finished) == 1


def test_what_a_server_refuses_is_closed(files: Files) -> None:
    closing = Closing(files.path(NAME))

    def refuse(*said: Any) -> Any:
        raise LookupError

    for app in (behind(wrapped(closing.file)), behind(Body())):
        with pytest.raises(LookupError):
            FileWrapperServer(app)({"REQUEST_METHOD": "GET"}, refuse)
    assert closing.closed == 1


def test_a_server_whose_wrapper_fails_leaves_nothing_open(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    closing = Closing(files.path(NAME))

    def fail(*args: Any) -> Any:
        raise LookupError

    monkeypatch.setattr("zcresponse.wsgi.transport.best_wrapper", lambda environ: fail)
    with pytest.raises(LookupError):
        Server(FileWrapperServer(behind(wrapped(closing.file))))
    assert closing.closed == 1


def test_a_setting_that_cannot_be_meant_leaves_nothing_open(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    closing = Closing(files.path(NAME))
    monkeypatch.setenv("ZCRESPONSE_SENDFILE", "perhaps")
    with pytest.raises(ValueError, match="perhaps"):
        Server(FileWrapperServer(behind(wrapped(closing.file))))
    assert closing.closed == 1


def test_a_body_that_is_dropped_leaves_nothing_open(files: Files) -> None:
    server = Server(FileWrapperServer(behind(wrapped(files.path(NAME).open("rb")))))
    with pytest.warns(ResourceWarning):
        # The application's own file's.
        del server
        gc.collect()


# --- files that are only named ----------------------------------------------------------------------------------------


def named(files: Files, value: str, *fields: tuple[str, str], body: Any = (), **options: Any) -> Any:
    return behind(body, ("X-Sendfile", value), *fields, x_sendfile=[files.directory], **options)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("wanted", [None, "bytes=5-999"])
def test_a_named_file_is_sent_with_conditions_and_ranges(method: str, wanted: str | None, files: Files) -> None:
    body = Body(b"nothing")
    path = str(files.path(NAME))
    server = FileWrapperServer(named(files, path, ("Set-Cookie", "a=b"), ("content-length", "7"), body=body))
    response = get(server, method=method, **({"Range": wanted} if wanted else {}))
    part = CONTENT[5:1000] if wanted and method == "GET" else CONTENT
    assert response.data == (part if method == "GET" else b"")
    assert response.headers["Content-Length"] == str(len(part))
    assert response.headers["Set-Cookie"] == "a=b"
    assert response.headers["ETag"] == DATA.etag
    assert "X-Sendfile" not in response.headers
    assert body.closed == 1
    assert [given.path for given in server.handed_over] == ([path] if method == "GET" else [])


def test_a_uri_names_a_file_beneath_its_directory(files: Files) -> None:
    app = behind(
        [], ("X-Accel-Redirect", "/protected/data%2Ebin?x=1"), x_accel_redirect={"/protected": files.directory}
    )
    response = get(app)
    assert (response.status_code, response.data) == (200, CONTENT)
    assert "X-Accel-Redirect" not in response.headers


def test_a_name_that_looks_encoded_means_no_other_file(tmp_path: Path) -> None:
    (tmp_path / "bob").mkdir()
    (tmp_path / "bob" / "secret.txt").write_bytes(b"bob's")
    # A name that somebody else has chosen.
    (tmp_path / "bob%2fsecret.txt").write_bytes(b"mallory's")
    app = behind([], ("X-Sendfile", f"{tmp_path}/bob%2fsecret.txt"), x_sendfile=[tmp_path])
    assert get(app).data == b"mallory's"
    (tmp_path / "bob%2fsecret.txt").unlink()
    assert get(app).status_code == 404


def test_a_field_without_directories_is_left_to_a_front_server(files: Files) -> None:
    response = get(behind([b"body"], ("X-Sendfile", str(files.path(NAME)))))
    assert (response.data, response.headers["X-Sendfile"]) == (b"body", str(files.path(NAME)))


@pytest.mark.parametrize("status", ["201 Created", "304 Not Modified", "404 Not Found", "500 Oh No"])
def test_another_status_keeps_its_own_body_and_not_the_field(status: str, files: Files) -> None:
    server = Server(named(files, str(files.path(NAME)), ("A", "b"), body=[b"own"], status=status))
    assert server.started == [(status, [("A", "b")])]
    assert server.read() == b"own"


def test_a_generator_may_name_a_file(files: Files) -> None:
    ended = []

    def app(environ: Any, start_response: StartResponse) -> Iterator[bytes]:
        try:
            start_response("200 OK", [("X-Sendfile", str(files.path(NAME)))])
            yield b"nothing"
        finally:
            ended.append(True)

    server = FileWrapperServer(ZeroCopyMiddleware(app, x_sendfile=[files.directory]))
    assert get(server).data == CONTENT
    assert len(server.handed_over) == len(ended) == 1


def test_what_is_written_beside_a_name_is_dropped(files: Files) -> None:
    def app(environ: Any, start_response: StartResponse) -> list[bytes]:
        start_response("200 OK", [("X-Sendfile", str(files.path(NAME)))])(b"nothing")
        return []

    server = Server(FileWrapperServer(ZeroCopyMiddleware(app, x_sendfile=[files.directory])))
    assert (server.read(), server.written) == (CONTENT, [])


def test_a_name_that_comes_too_late_is_dropped(files: Files) -> None:
    def app(environ: Any, start_response: StartResponse) -> Iterator[bytes]:
        yield b""
        start_response("200 OK", [("x-sendfile", str(files.path(NAME))), ("A", "b")])
        yield b"body"

    server = Server(ZeroCopyMiddleware(app, x_sendfile=[files.directory]))
    assert server.read() == b"body"
    assert server.started == [("200 OK", [("A", "b")])]


@pytest.mark.parametrize("own", [None, True])
def test_what_is_switched_off_around_them_is_off_for_our_own_responses(files: Files, own: bool | None) -> None:
    def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        return send_file(environ, start_response, files.path(NAME), sendfile=own)

    # Another middleware within changes nothing.
    within = ZeroCopyMiddleware(app, sendfile=True)
    server = FileWrapperServer(ZeroCopyMiddleware(within, sendfile=False))
    with record_transfers() as transfers:
        assert get(server).data == CONTENT
    assert server.handed_over == []
    assert [(each.way, each.reason) for each in transfers] == [("chunks", "switched off by sendfile=False")]


def test_what_is_switched_on_around_them_is_on_for_our_own_responses(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZCRESPONSE_SENDFILE", "off")

    def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        return send_file(environ, start_response, files.path(NAME))

    server = FileWrapperServer(ZeroCopyMiddleware(app, sendfile=True))
    assert get(server).data == CONTENT
    assert len(server.handed_over) == 1


def test_flasks_own_switch_for_front_servers_works_without_one(files: Files) -> None:
    app = Flask(__name__)
    app.config["USE_X_SENDFILE"] = True
    app.add_url_rule("/", view_func=lambda: flask.send_file(files.path(NAME)), endpoint="view")
    server = FileWrapperServer(ZeroCopyMiddleware(app, x_sendfile=[files.directory]))
    assert get(server).data == CONTENT
    for fields in ({}, {"If_Range": DATA.etag}, {"If_Range": DATA.last_modified}):
        response = get(server, Range="bytes=5-999", **fields)
        assert (response.status_code, response.data, response.headers["ETag"]) == (206, CONTENT[5:1000], DATA.etag)
    assert get(server, If_None_Match=DATA.etag).status_code == 304
    assert get(server, If_Modified_Since=DATA.last_modified).status_code == 304
    assert [(given.offset, given.count) for given in server.handed_over] == [(0, DATA.size)] + [(5, 995)] * 3


def test_the_tag_that_django_makes_of_no_bytes_is_no_files(tmp_path: Path) -> None:
    for name in ("a", "bb"):
        (tmp_path / name).write_text(name)
    tags = []
    with project(lambda request: HttpResponse(headers={"X-Sendfile": f"{tmp_path}{request.path}"}), CONDITIONAL_GET):
        app = ZeroCopyMiddleware(get_wsgi_application(), x_sendfile=[tmp_path])
        for name in ("a", "bb"):
            response = get(app, f"/{name}")
            assert response.data == name.encode()
            tags.append(response.headers["ETag"])
        assert tags[0] != tags[1]
        assert get(app, "/a", If_None_Match=tags[0]).status_code == 304
        (tmp_path / "a").write_text("changed")
        assert get(app, "/a", If_None_Match=tags[0]).data == b"changed"


HOSTILE = [
    "",
    " ",
    "/",
    "//",
    ".",
    "..",
    "data.bin",
    "/etc/passwd",
    "file:///etc/passwd",
    "http://localhost/etc/passwd",
    "{root}",
    "{root}/",
    "{root}/..",
    "{root}/../secret",
    "{root}/%2e%2e/secret",
    "{root}/%2E%2E%2Fsecret",
    "{root}/..%2fsecret",
    "{root}/%252e%252e/secret",
    "{root}/sub/../../secret",
    "{root}/..\\secret",
    "{root}/link",
    "{root}/loop",
    "{root}/fifo",
    "{root}/sub",
    "{root}/data.bin/",
    "{root}/data.bin%00",
    "{root}/data.bin\0.txt",
    "{root}x/secret",
    "{root}/\udcff",
    "{root}/\u20ac",
    "{root}/%ff%fe",
    "{root}/" + "a" * 5000,
    "{root}/" + "a/" * 3000,
    "{root}/data.bin\r\nSet-Cookie: a=b",
    "{root}/data.bin%0d%0aSet-Cookie:%20a=b",
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory with traps, and a secret beside it."""
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "data.bin").write_bytes(CONTENT)
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "rootx").mkdir()
    (tmp_path / "rootx" / "secret").write_text("secret")
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "loop").symlink_to("loop")
    os.mkfifo(root / "fifo")
    return root


@pytest.mark.skipif(sys.platform == "win32", reason="makes a FIFO")
@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("field", ["X-Sendfile", "X-Accel-Redirect"])
def test_nothing_outside_of_the_root_can_be_named(field: str, value: str, root: Path) -> None:
    text = value.replace("{root}", str(root) if field == "X-Sendfile" else "/protected")
    app = behind([b"body"], (field, text), ("A", "b"), x_sendfile=[root], x_accel_redirect={"/protected": root})
    server = Server(FileWrapperServer(app))
    assert server.started[0][0] == "404 Not Found"
    assert field not in server.fields
    assert b"secret" not in server.read()


def test_a_link_that_stays_inside_is_followed_on_request(root: Path) -> None:
    (root / "inside").symlink_to("data.bin")
    field = ("X-Sendfile", f"{root}/inside")
    assert get(behind([], field, x_sendfile=[root])).status_code == 404
    assert get(behind([], field, x_sendfile=[root], follow_symlinks=True)).data == CONTENT


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (PermissionError(errno.EACCES, "no"), 403),
        (OSError(errno.EMFILE, "too many"), 503),
        (OSError(errno.EIO, "broken"), 0),
    ],
)
def test_what_is_the_matter_with_a_named_file_is_answered(
    error: OSError, status: int, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> Any:
        raise error

    monkeypatch.setattr("zcresponse.files.rooted.Root.lookup", fail)
    body = Body(b"nothing")
    app = named(files, str(files.path(NAME)), body=body)
    if status:
        assert get(app).status_code == status
    else:
        with pytest.raises(OSError, match="broken"):
            get(app)
    assert body.closed == 1


def test_two_names_name_nothing(files: Files) -> None:
    value = str(files.path(NAME))
    assert get(named(files, value, ("x-sendfile", value))).status_code == 404


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"x_sendfile": "/srv"}, TypeError),
        ({"x_sendfile": ["/nowhere"]}, FileNotFoundError),
        ({"app": None}, TypeError),
        ({"conditional": "yes"}, TypeError),
        ({"sendfile": "off"}, TypeError),
        ({"on_transfer": 5}, TypeError),
        ({"x_accel_redirect": {"a": "."}}, ValueError),
    ],
)
def test_a_mistake_in_the_options_is_told_at_once(options: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(options))):
        ZeroCopyMiddleware(**{"app": app_of([]), **options})


# --- as a middleware --------------------------------------------------------------------------------------------------


def test_the_server_finds_its_own_wrapper_again() -> None:
    seen = []

    def app(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        seen.append(environ["wsgi.file_wrapper"])
        start_response("200 OK", [])
        return []

    environ = {"REQUEST_METHOD": "GET", "wsgi.file_wrapper": StandardWrapper}
    before = dict(environ)
    ZeroCopyMiddleware(ZeroCopyMiddleware(app))(environ, lambda *said: None)
    assert environ == before
    assert seen != [StandardWrapper]


def test_who_takes_the_wrapper_away_for_an_application_below_is_heeded() -> None:
    seen = []

    def app(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        seen.append("wsgi.file_wrapper" in environ)
        start_response("200 OK", [])
        return []

    inner = ZeroCopyMiddleware(app)

    def without(environ: dict[str, Any], start_response: StartResponse) -> Any:
        del environ["wsgi.file_wrapper"]
        return inner(environ, start_response)

    environ: dict[str, Any] = {"REQUEST_METHOD": "GET", "wsgi.file_wrapper": StandardWrapper}
    ZeroCopyMiddleware(without)(environ, lambda *said: None)
    assert (seen, environ["wsgi.file_wrapper"]) == ([False], StandardWrapper)


def test_two_of_them_are_as_good_as_one(files: Files, transfers: list[Transfer]) -> None:
    server = FileWrapperServer(ZeroCopyMiddleware(make("wrapper")))
    assert get(server, url_of("wrapper")).data == CONTENT
    assert server.handed_over == [HandedOver(str(files.path(NAME)), 0, DATA.size)]
    assert len(transfers) == 1


def test_the_standard_librarys_validator_has_nothing_to_say(files: Files) -> None:
    for name in ("flask", "wrapper", "named"):
        app = FileWrapperServer(validator(make(name)))
        assert get(app, url_of(name)).data == CONTENT


def test_a_response_that_is_no_file_costs_a_few_calls() -> None:
    app = app_of([b"body"], ("A", "b"))
    environ: dict[str, Any] = {"REQUEST_METHOD": "GET"}

    def calls(called: Any) -> int:
        count = 0

        def profile(*event: Any) -> None:
            nonlocal count
            count += event[1] in ("call", "c_call")

        sys.setprofile(profile)
        try:
            called(environ, lambda *said: None)
        finally:
            sys.setprofile(None)
        return count

    assert calls(ZeroCopyMiddleware(app)) - calls(app) < 30
