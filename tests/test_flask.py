from __future__ import annotations

import asyncio
import codecs
import contextlib
import errno
import gc
import gzip
import inspect
import io
import os
import pickle
import re
import shutil
import subprocess
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment
from wsgiref.util import FileWrapper as ServersWrapper

import flask
import pytest
import werkzeug.utils
from flask import Blueprint, Flask, Response, abort, jsonify, request, session, stream_with_context
from flask.testing import FlaskClient
from starlette.testclient import TestClient
from werkzeug.datastructures import FileStorage, Headers
from werkzeug.exceptions import NotFound, RequestedRangeNotSatisfiable
from werkzeug.http import http_date, parse_options_header
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.lint import LintMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import Client, EnvironBuilder, TestResponse
from werkzeug.wsgi import FileWrapper

from tests.support.doors import starlette_app
from tests.support.table import CASES, FILES, Case, Files, check, parse_multipart
from tests.support.table import Response as Answer
from tests.support.wsgi_doors import flask_app, flask_responses
from zcresponse import Transfer
from zcresponse import flask as ours
from zcresponse import werkzeug as zcresponse_werkzeug
from zcresponse.errors import FileTruncatedError, NotARegularFileError
from zcresponse.flask import ZeroCopy, ZeroCopyFileResponse

DATA = FILES["data.bin"]

#: A request for each status that a file has; the views give the tag "v1".
REQUESTS: dict[int, dict[str, str]] = {
    200: {},
    206: {"Range": "bytes=5-99999"},
    304: {"If-None-Match": '"v1"'},
    412: {"If-Match": '"another"'},
    416: {"Range": f"bytes={DATA.size}-"},
}
BODIES = {200: DATA.content, 206: DATA.content[5:100_000], 304: b"", 412: b"", 416: b""}

needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="looks at descriptors through /proc")


@dataclass(frozen=True, slots=True)
class Door:
    """A way to send files from Flask: whose functions a view calls, and whether the application is upgraded."""

    send_file: Callable[..., Response]
    send_from_directory: Callable[..., Response]
    upgrades: bool = False

    def app(self, root: Path, view: Callable[..., Any] | None = None, **config: Any) -> Flask:
        app = Flask("tested", root_path=str(root), static_folder="static")
        app.config.update(TESTING=True, SECRET_KEY="secret", **config)
        if view is not None:
            app.add_url_rule("/", "view", view, methods=["GET", "POST"])
        if self.upgrades:
            ZeroCopy(app)
        return app

    def get(self, root: Path, view: Callable[..., Any], method: str = "GET", **fields: str) -> TestResponse:
        """What the test client gets that reads the whole body."""
        return get(self.app(root, view), method, **fields)


STOCK = Door(flask.send_file, flask.send_from_directory)
IMPORTED = Door(ours.send_file, ours.send_from_directory)
UPGRADED = Door(flask.send_file, flask.send_from_directory, upgrades=True)


def get(app: Flask, method: str = "GET", url: str = "/", **fields: str) -> TestResponse:
    headers = {name.replace("_", "-"): value for name, value in fields.items()}
    return app.test_client().open(url, method=method, headers=headers, buffered=True)


def in_words(value: object) -> str:
    """A test's name for a value, without the addresses of functions, which differ from run to run."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))


@pytest.fixture(params=[IMPORTED, UPGRADED], ids=["imported", "upgraded"])
def door(request: pytest.FixtureRequest) -> Door:
    """Both ways to come to zcresponse's answers: an import that is changed, and an application that is upgraded."""
    found: Door = request.param
    return found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An application's root path with files of a known time."""
    (tmp_path / "static").mkdir()
    for name in ("data.bin", "static/app.css", "names.txt", "page.html.gz"):
        path = tmp_path / name
        path.write_bytes(gzip.compress(DATA.content) if name.endswith(".gz") else DATA.content)
        os.utime(path, ns=(DATA.mtime_ns, DATA.mtime_ns))
    return tmp_path


def descriptors_beneath(folder: Path) -> int:
    """How many descriptors this process has of files in a folder, deleted ones too, once garbage is collected."""
    for collect in False, True:
        if collect:
            gc.collect()
        found = 0
        for name in os.listdir("/proc/self/fd"):
            try:
                found += os.readlink(f"/proc/self/fd/{name}").startswith(f"{folder}/")
            except OSError:
                pass
        if not found:
            break
    return found


# --- the same words ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["send_file", "send_from_directory"])
def test_the_parameters_are_flasks_in_its_order(name: str) -> None:
    mine = list(inspect.signature(getattr(ours, name)).parameters.values())
    theirs = list(inspect.signature(getattr(flask, name)).parameters.values())
    count = len(theirs)
    assert [(p.name, p.default, p.kind) for p in mine[:count]] == [(p.name, p.default, p.kind) for p in theirs]
    assert all(p.kind in (p.KEYWORD_ONLY, p.VAR_KEYWORD) for p in mine[count:])


def described(response: TestResponse) -> dict[str, Any]:
    """What an answer says of a file, in values rather than in letters."""
    said: dict[str, Any] = {"status": response.status_code, "body": response.data}
    for name in ("Content-Type", "Content-Encoding", "Content-Length", "Cache-Control", "Last-Modified"):
        said[name] = response.headers.get(name)
    for name, value in response.headers:
        # A second may have passed between the two.
        if name == "Expires":
            assert response.expires is not None
            said[name] = (
                abs((response.expires - datetime.now(UTC)).total_seconds() - (response.cache_control.max_age or 0)) < 5
            )
        elif name == "Content-Disposition":
            said[name] = parse_options_header(value)
    return said


def ten_minutes(path: str | None) -> int | None:
    return 600


def never(path: str | None) -> int | None:
    return None


ARGUMENTS: list[dict[str, Any]] = [
    {},
    {"mimetype": "text/csv"},
    {"mimetype": "image/png"},
    {"mimetype": "application/xml"},
    {"mimetype": "text/html; charset=latin-1"},
    {"as_attachment": True},
    {"download_name": "other.pdf"},
    {"download_name": "other.pdf", "as_attachment": True},
    {"download_name": "two words.txt"},
    {"download_name": 'with "quotes".txt', "as_attachment": True},
    {"download_name": "no-suffix"},
    {"download_name": "unknown.suffix-of-nobody"},
    {"download_name": "logs.tar.gz"},
    {"download_name": "logs.tar.gz", "as_attachment": True},
    {"download_name": "logs.tgz"},
    {"download_name": "site.html.tgz"},
    {"download_name": "drawing.svgz"},
    {"download_name": "notes.txt.bz2"},
    {"download_name": "notes.TXT"},
    {"download_name": "script.csh"},
    {"download_name": "notes.txt", "mimetype": "a/b"},
    {"max_age": 0},
    {"max_age": 600},
    {"max_age": 600.0},
    {"max_age": -1},
    {"max_age": ten_minutes},
    {"max_age": never},
    {"last_modified": datetime(2020, 2, 29, 12, 30)},
    {"last_modified": datetime(2020, 2, 29, 12, 30, tzinfo=timezone(timedelta(hours=2)))},
    {"last_modified": 1_500_000_000},
    {"last_modified": 1_500_000_000.9},
    {"last_modified": 0},
    {"last_modified": date(2020, 2, 29)},
    {"last_modified": time.gmtime(1_500_000_000)},
    {"conditional": False},
]


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=in_words)
def test_each_argument_says_of_a_path_what_it_says_in_flask(arguments: dict[str, Any], door: Door, root: Path) -> None:
    os.utime(root / "names.txt", (1_600_000_000, 1_600_000_000))
    expected = STOCK.get(root, lambda: flask.send_file("names.txt", **arguments))
    answer = door.get(root, lambda: door.send_file("names.txt", **arguments))
    assert described(answer) == described(expected)


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=in_words)
def test_each_argument_says_of_a_bytesio_what_it_says_in_flask(
    arguments: dict[str, Any], door: Door, root: Path
) -> None:
    arguments = {"download_name": "names.txt", **arguments}
    expected = STOCK.get(root, lambda: flask.send_file(io.BytesIO(DATA.content), **arguments))
    answer = door.get(root, lambda: door.send_file(io.BytesIO(DATA.content), **arguments))
    assert described(answer) == described(expected)


@pytest.mark.parametrize(
    ("config", "cache_control"),
    [
        ({}, "no-cache"),
        ({"SEND_FILE_MAX_AGE_DEFAULT": 60}, "public, max-age=60"),
        ({"SEND_FILE_MAX_AGE_DEFAULT": timedelta(hours=1)}, "public, max-age=3600"),
        ({"SEND_FILE_MAX_AGE_DEFAULT": 0}, "no-cache, max-age=0"),
    ],
    ids=str,
)
def test_caching_is_as_the_application_is_configured(
    config: dict[str, Any], cache_control: str, door: Door, root: Path
) -> None:
    app = door.app(root, lambda: door.send_file("data.bin"), **config)
    for url in "/", "/static/app.css":
        response = get(app, url=url)
        assert response.headers["Cache-Control"] == cache_control
        assert (response.expires is None) == (cache_control == "no-cache")


def test_caching_is_as_the_applications_method_says(door: Door, root: Path) -> None:
    app = door.app(root, lambda: door.send_file("names.txt"))
    asked: list[str | None] = []

    def get_send_file_max_age(filename: str | None) -> int | None:
        asked.append(filename)
        return 7

    app.get_send_file_max_age = get_send_file_max_age  # type: ignore[method-assign]
    assert get(app).headers["Cache-Control"] == "public, max-age=7"
    assert asked == [str(root / "names.txt")]


def test_further_directives_make_cache_control(root: Path) -> None:
    response = IMPORTED.get(root, lambda: ours.send_file("data.bin", max_age=60, private=True))
    assert response.headers["Cache-Control"] == "private, max-age=60"
    assert "Expires" not in response.headers


@pytest.mark.parametrize(
    "name",
    [
        "Ñandú／pingüino.txt",
        "Vögel.txt",
        "те:/ст",
        "résumé “final”.pdf",
        "名前.tar.gz",
        "a;b=c.txt",
        "100%41.txt",
        "back\\slash.txt",
    ],
)
@pytest.mark.parametrize("as_attachment", [True, False])
def test_a_download_name_arrives(name: str, as_attachment: bool, door: Door, root: Path) -> None:
    response = door.get(
        root, lambda: door.send_file("data.bin", download_name=name, mimetype="a/b", as_attachment=as_attachment)
    )
    kind, options = parse_options_header(response.headers["Content-Disposition"])
    assert kind == ("attachment" if as_attachment else "inline")
    # A separator would be a path at the client's.
    expected = name if door.upgrades else re.sub(r"[/\\]", "_", name)
    assert options["filename"] == expected
    assert response.headers["Content-Disposition"].isascii()


@pytest.mark.parametrize(
    ("etag", "expected"),
    [
        (True, re.compile('(W/)?"[^"]+"')),
        (False, None),
        (None, None),
        ("v1", re.compile('"v1"')),
        ("", re.compile('""')),
    ],
    ids=str,
)
def test_the_tag_is_made_or_left_out_or_given(
    etag: Any, expected: re.Pattern[str] | None, door: Door, root: Path
) -> None:
    found = door.get(root, lambda: door.send_file("data.bin", etag=etag)).headers.get("ETag")
    assert found is None if expected is None else expected.fullmatch(str(found))


@pytest.mark.parametrize("etag", ["report 1", "naïve", 'W/"weak"', "a,b"])
def test_a_given_tag_is_recognised_when_it_comes_back(etag: str, door: Door, root: Path) -> None:
    if door.upgrades and etag.startswith("W/"):
        pytest.skip("Flask's own refuses it")
    app = door.app(root, lambda: door.send_file("data.bin", etag=etag))
    assert get(app, If_None_Match=get(app).headers["ETag"]).status_code == 304


def test_without_conditional_nothing_is_evaluated(door: Door, root: Path) -> None:
    for fields in REQUESTS.values():
        response = door.get(root, lambda: door.send_file("data.bin", conditional=False, etag="v1"), **fields)
        assert (response.status_code, response.data) == (200, DATA.content)
        assert "Accept-Ranges" not in response.headers


def test_content_length_is_known_in_the_view(door: Door, root: Path) -> None:
    lengths: list[int | None] = []

    def view() -> Response:
        response = door.send_file("data.bin", conditional=request.method == "GET")
        lengths.append(response.content_length)
        return response

    app = door.app(root, view)
    get(app)
    get(app, "POST")
    assert lengths == [DATA.size, DATA.size]


# --- the same errors --------------------------------------------------------------------------------------------------


def error_in_flask(root: Path, what: Callable[[], Any], arguments: dict[str, Any]) -> type[Exception]:
    # Where Flask raises it leaves the file open.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            with STOCK.app(root).test_request_context():
                flask.send_file(what(), **arguments)
        except Exception as error:
            return type(error)
        finally:
            gc.collect()
    raise AssertionError("Flask has nothing against it")


@pytest.mark.parametrize(
    ("what", "arguments"),
    [
        (lambda: "missing", {}),
        (lambda: "data.bin/missing", {}),
        (lambda: "n" * 300, {}),
        (lambda: "nul\0", {}),
        (lambda: io.BytesIO(b"x"), {}),
        (lambda: io.BytesIO(b"x"), {"as_attachment": True}),
        (lambda: io.BytesIO(b"x"), {"mimetype": "a/b", "as_attachment": True}),
        (lambda: io.StringIO("x"), {"mimetype": "text/plain"}),
        (lambda: io.StringIO("x"), {"download_name": "x.txt"}),
        (lambda: "data.bin", {"etagg": 1}),
        (lambda: "data.bin", {"max_age": lambda: 1}),
    ],
    ids=in_words,
)
def test_a_mistake_is_the_error_that_it_is_in_flask(
    what: Callable[[], Any], arguments: dict[str, Any], root: Path
) -> None:
    with IMPORTED.app(root).test_request_context(), pytest.raises(error_in_flask(root, what, arguments)):
        ours.send_file(what(), **arguments)


def test_a_text_file_is_a_value_error(door: Door, root: Path) -> None:
    (root / "text.txt").write_text("text")
    with (root / "text.txt").open() as file, door.app(root).test_request_context(), pytest.raises(ValueError):
        door.send_file(file, mimetype="text/plain")


def test_a_directory_is_an_os_error(root: Path) -> None:
    with IMPORTED.app(root).test_request_context(), pytest.raises(NotARegularFileError):
        ours.send_file("static")


@needs_proc
@pytest.mark.parametrize(
    "arguments", [{"etag": 'a"b'}, {"last_modified": "x"}, {"max_age": 1, "no_store": True}, {"offset": 10**9}], ids=str
)
def test_a_mistake_leaves_nothing_open(arguments: dict[str, Any], root: Path) -> None:
    with IMPORTED.app(root).test_request_context(), pytest.raises((ValueError, TypeError)):
        ours.send_file("data.bin", **arguments)
    assert descriptors_beneath(root) == 0


OUTSIDE = [
    "missing",
    "folder",
    "folder/",
    "",
    ".",
    "..",
    "../data.bin",
    "folder/../../data.bin",
    "/etc/passwd",
    "//etc/passwd",
    "nul\0",
    "n" * 300,
    "n/" * 3000,
    "loop",
    "loop/data.bin",
    "dangling",
    "inside.txt/below",
    "fifo",
    "\udcff\ud800",
]


@pytest.mark.parametrize("path", OUTSIDE, ids=lambda path: ascii(path[:30]))
def test_from_a_directory_what_is_not_there_is_a_404_as_in_flask(path: str, door: Door, root: Path) -> None:
    directory = root / "uploads"
    (directory / "folder").mkdir(parents=True)
    (directory / "inside.txt").write_bytes(b"inside")
    (directory / "loop").symlink_to("loop")
    (directory / "dangling").symlink_to("nowhere")
    os.mkfifo(directory / "fifo")
    assert STOCK.get(root, lambda: flask.send_from_directory("uploads", path)).status_code == 404
    assert door.get(root, lambda: door.send_from_directory("uploads", path)).status_code == 404


@pytest.mark.parametrize("path", ["app.css", "./app.css", "folder/../app.css", Path("app.css"), "link", "app.css/"])
@pytest.mark.parametrize("directory", ["static", Path("static"), "absolute"], ids=str)
def test_from_a_directory_what_is_there_is_sent_as_in_flask(directory: Any, path: Any, door: Door, root: Path) -> None:
    (root / "static" / "link").symlink_to(root / "data.bin")
    directory = root / "static" if directory == "absolute" else directory
    expected = STOCK.get(root, lambda: flask.send_from_directory(directory, path, as_attachment=True))
    answer = door.get(root, lambda: door.send_from_directory(directory, path, as_attachment=True))
    assert answer.status_code == expected.status_code == 200
    assert answer.data == expected.data
    disposition = parse_options_header(expected.headers["Content-Disposition"])
    assert parse_options_header(answer.headers["Content-Disposition"]) == disposition


@contextlib.contextmanager
def somebody_else() -> Iterator[None]:
    """Nobody's rights, for root may read everything."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.fixture
def open_root(root: Path) -> Iterator[Path]:
    """A root path to which everybody gets: pytest's folders are their owner's."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(root, Path(folder, "root")))
        for each in folder, copy:
            os.chmod(each, 0o755)
        yield copy


@pytest.mark.skipif(os.name != "posix", reason="folders have other rights there")
def test_from_a_directory_an_unreadable_file_is_the_error_that_it_is_in_flask(door: Door, open_root: Path) -> None:
    (open_root / "static" / "app.css").chmod(0)
    for each in STOCK, door:
        with each.app(open_root).test_request_context(), somebody_else(), pytest.raises(PermissionError):
            each.send_from_directory("static", "app.css")


@pytest.mark.skipif(os.name != "posix", reason="folders have other rights there")
def test_from_a_directory_what_lies_in_a_closed_folder_is_a_404_as_in_flask(door: Door, open_root: Path) -> None:
    (open_root / "static").chmod(0)
    try:
        for each in STOCK, door:
            with each.app(open_root).test_request_context(), somebody_else(), pytest.raises(NotFound):
                each.send_from_directory("static", "app.css")
    finally:
        (open_root / "static").chmod(0o755)


def test_from_a_directory_an_error_that_says_nothing_of_the_file_comes_out(root: Path) -> None:
    resource = pytest.importorskip("resource")
    with IMPORTED.app(root).test_request_context():
        with (root / "data.bin").open() as file:
            lowest = file.fileno()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        try:
            with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
                ours.send_from_directory("static", "app.css")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_from_a_directory_a_window_can_be_sent(root: Path) -> None:
    response = IMPORTED.get(root, lambda: ours.send_from_directory("static", "app.css", offset=10, count=5))
    assert response.data == DATA.content[10:15]


# --- what can be given ------------------------------------------------------------------------------------------------


def test_the_file_is_opened_in_the_view(door: Door, root: Path) -> None:
    def view() -> Response:
        response = door.send_file("data.bin")
        (root / "data.bin").unlink()
        return response

    assert door.get(root, view).data == DATA.content


@pytest.mark.parametrize("kind", [str, Path, lambda name: os.fspath(Path(name).absolute())])
def test_a_path_is_relative_to_the_root_path(
    kind: Any, door: Door, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    (root / "app").mkdir()
    (root / "app" / "data.bin").write_bytes(b"the application's")
    path = kind("data.bin")
    answer = door.get(root / "app", lambda: door.send_file(path)).data
    assert answer == (DATA.content if os.path.isabs(path) else b"the application's")


def test_a_path_like_of_bytes_is_a_path(root: Path) -> None:
    class Name:
        def __fspath__(self) -> bytes:
            return b"data.bin"

    assert IMPORTED.get(root, lambda: ours.send_file(Name())).data == DATA.content


def at(position: int, file: Any) -> Any:
    file.seek(position)
    return file


def written(make: Callable[..., Any], *arguments: Any) -> Any:
    file = make(*arguments)
    file.write(DATA.content)
    return file


#: What holds the data, and where its position counts.
SEEKABLE: dict[str, Callable[[Path], Any]] = {
    "BytesIO": lambda root: io.BytesIO(DATA.content),
    "opened": lambda root: (root / "data.bin").open("rb"),
    "unbuffered": lambda root: (root / "data.bin").open("rb", buffering=0),
    "for update": lambda root: (root / "data.bin").open("r+b"),
    "TemporaryFile": lambda root: written(tempfile.TemporaryFile),
    "NamedTemporaryFile": lambda root: written(tempfile.NamedTemporaryFile),
    "spooled in memory": lambda root: written(tempfile.SpooledTemporaryFile),
    "spooled on disk": lambda root: written(tempfile.SpooledTemporaryFile, 1000),
}


@pytest.mark.parametrize("kind", SEEKABLE)
@pytest.mark.parametrize("position", [0, 1000, DATA.size])
def test_an_open_file_is_sent_from_its_position_and_closed(kind: str, position: int, door: Door, root: Path) -> None:
    given = at(position, SEEKABLE[kind](root))
    response = door.get(root, lambda: door.send_file(given, "a/b"))
    assert response.data == DATA.content[position:]
    assert response.content_length == DATA.size - position
    assert given.closed


@pytest.mark.parametrize("kind", SEEKABLE)
def test_behind_the_end_of_an_open_file_there_is_nothing(kind: str, door: Door, root: Path) -> None:
    given = at(DATA.size + 7, SEEKABLE[kind](root))
    response = door.get(root, lambda: door.send_file(given, "a/b"))
    # Of a BytesIO Flask promises all, and sends nothing.
    assert (response.status_code, response.data, response.content_length) == (200, b"", 0)
    assert given.closed


def test_an_offset_behind_the_end_is_a_mistake(root: Path) -> None:
    with IMPORTED.app(root).test_request_context(), io.BytesIO(b"12345") as given:
        with pytest.raises(ValueError, match="beyond the end"):
            ours.send_file(given, "a/b", offset=6)


@pytest.mark.parametrize("kind", SEEKABLE)
def test_an_open_file_has_validators_where_its_name_leads_to_it(kind: str, root: Path) -> None:
    app = IMPORTED.app(root, lambda: ours.send_file(at(0, SEEKABLE[kind](root)), "a/b"))
    response = get(app)
    lasting = kind in ("opened", "unbuffered", "for update")
    assert ("ETag" in response.headers, "Last-Modified" in response.headers) == (lasting, lasting)
    # A temporary file may be another one each time, and of the same second.
    assert get(app, If_Modified_Since=http_date(time.time() + 60)).status_code == (304 if lasting else 200)


def test_a_temporary_file_has_the_validators_that_are_given(root: Path) -> None:
    def view() -> Response:
        return ours.send_file(at(0, SEEKABLE["TemporaryFile"](root)), "a/b", etag="v1", last_modified=1_500_000_000)

    response = IMPORTED.get(root, view)
    assert (response.headers["ETag"], response.headers["Last-Modified"]) == ('"v1"', http_date(1_500_000_000))
    assert IMPORTED.get(root, view, If_None_Match='"v1"').status_code == 304


def test_a_file_that_was_removed_has_no_validators(root: Path) -> None:
    given = (root / "data.bin").open("rb")
    (root / "data.bin").unlink()
    response = IMPORTED.get(root, lambda: ours.send_file(given, "a/b"))
    assert response.data == DATA.content
    assert not {"ETag", "Last-Modified"} & set(response.headers.keys())


@pytest.mark.parametrize("kind", SEEKABLE)
@pytest.mark.parametrize("position", [0, 1000])
def test_an_open_file_has_ranges_from_its_position(kind: str, position: int, door: Door, root: Path) -> None:
    given = at(position, SEEKABLE[kind](root))
    response = door.get(root, lambda: door.send_file(given, "a/b"), Range="bytes=10-19")
    assert (response.status_code, response.data) == (206, DATA.content[position + 10 : position + 20])
    assert response.headers["Content-Range"] == f"bytes 10-19/{DATA.size - position}"
    assert given.closed


@pytest.mark.parametrize("kind", SEEKABLE)
@pytest.mark.parametrize("status", [304, 412, 416])
def test_an_open_file_is_closed_when_it_is_not_sent(kind: str, status: int, door: Door, root: Path) -> None:
    given = at(0, SEEKABLE[kind](root))
    response = door.get(root, lambda: door.send_file(given, "a/b", etag="v1"), **REQUESTS[status])
    assert (response.status_code, response.data) == (status, b"")
    assert given.closed


@pytest.mark.parametrize("offset", [0, 7])
def test_an_offset_that_is_said_wins_over_the_position(offset: int, root: Path) -> None:
    given = at(1000, io.BytesIO(DATA.content))
    assert (
        IMPORTED.get(root, lambda: ours.send_file(given, "a/b", offset=offset, count=5)).data
        == (DATA.content[offset : offset + 5])
    )


def test_a_window_of_a_path_is_a_representation_of_its_own(root: Path) -> None:
    app = IMPORTED.app(root, lambda: ours.send_file("data.bin", offset=100, count=50))
    whole, part = get(app), get(app, Range="bytes=10-19")
    assert whole.data == DATA.content[100:150]
    assert whole.headers["ETag"] == f'{DATA.etag[:-1]}-64-32"'
    assert (part.data, part.headers["Content-Range"]) == (DATA.content[110:120], "bytes 10-19/50")


def test_what_is_written_to_a_bytesio_later_is_not_sent(door: Door, root: Path) -> None:
    def view() -> Response:
        buffer = io.BytesIO(b"before")
        response = door.send_file(buffer, "a/b")
        buffer.write(b"after!")
        return response

    assert door.get(root, view).data == b"before"


class Reader:
    """The least that Flask takes for a file."""

    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)
        self.closed = False

    def read(self, size: int = -1) -> bytes:
        return self._content.read(size)

    def close(self) -> None:
        self.closed = True


class WithoutTell(Reader):
    def tell(self) -> int:
        raise NotImplementedError


class Reversed:
    """A file whose bytes are not those on the disk, although it looks much like a wrapper of tempfile's."""

    def __init__(self, file: Any) -> None:
        self.file = self.raw = self._file = file

    def read(self, size: int = -1) -> bytes:
        data: bytes = self.file.read(size)
        return data.translate(bytes(range(255, -1, -1)))

    def tell(self) -> int:
        position: int = self.file.tell()
        return position

    def close(self) -> None:
        self.file.close()

    @property
    def closed(self) -> bool:
        closed: bool = self.file.closed
        return closed


class ReversedBytesIO(io.BytesIO):
    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(size).translate(bytes(range(255, -1, -1)))


class ReversedReader(io.BufferedReader):
    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(size).translate(bytes(range(255, -1, -1)))


def recoded(root: Path) -> Any:
    (root / "latin-1.txt").write_bytes(b"\xe9t\xe9" * 1000)
    return codecs.EncodedFile((root / "latin-1.txt").open("rb"), "utf-8", "latin-1")


def zipped(root: Path) -> Any:
    with zipfile.ZipFile(root / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("member", DATA.content)
        archive.writestr("other", b"other")
    with zipfile.ZipFile(root / "a.zip") as archive:
        # The member keeps the archive's file open.
        return archive.open("member")


INVERTED = DATA.content.translate(bytes(range(255, -1, -1)))

STREAMS: dict[str, tuple[Callable[[Path], Any], bytes]] = {
    "GzipFile": (lambda root: gzip.GzipFile(root / "page.html.gz"), DATA.content),
    "zip member": (zipped, DATA.content),
    "reader": (lambda root: Reader(DATA.content), DATA.content),
    "reader without tell": (lambda root: WithoutTell(DATA.content), DATA.content),
    "upload on disk": (lambda root: FileStorage(at(0, SEEKABLE["spooled on disk"](root)), "name"), DATA.content),
    "upload in memory": (lambda root: FileStorage(io.BytesIO(DATA.content), "name"), DATA.content),
    "wrapper of a file": (lambda root: Reversed((root / "data.bin").open("rb")), INVERTED),
    "wrapper of a BytesIO": (lambda root: Reversed(io.BytesIO(DATA.content)), INVERTED),
    "heir of BytesIO": (lambda root: ReversedBytesIO(DATA.content), INVERTED),
    "heir of BufferedReader": (lambda root: ReversedReader(io.FileIO(root / "data.bin")), INVERTED),
    "recoded": (recoded, "été".encode() * 1000),
}


@pytest.mark.parametrize("kind", STREAMS)
def test_whatever_else_can_be_read_is_sent_as_it_reads_and_closed(kind: str, door: Door, root: Path) -> None:
    make, content = STREAMS[kind]
    given = make(root)
    response = door.get(root, lambda: door.send_file(given, "a/b"))
    assert response.data == content
    assert response.headers.get("Content-Length") in (None, str(len(content)))
    assert given.closed


@pytest.mark.parametrize("kind", STREAMS)
def test_whatever_else_can_be_read_has_ranges_that_are_right_or_none(kind: str, door: Door, root: Path) -> None:
    make, content = STREAMS[kind]
    given = make(root)
    response = door.get(root, lambda: door.send_file(given, "a/b"), Range="bytes=10-19")
    assert (response.status_code, response.data) in ((200, content), (206, content[10:20]))
    assert given.closed


def test_a_pipe_is_sent_to_its_end(door: Door, root: Path) -> None:
    with subprocess.Popen(["cat", root / "data.bin"], stdout=subprocess.PIPE) as process:
        assert door.get(root, lambda: door.send_file(process.stdout, "a/b")).data == DATA.content
        assert process.stdout is not None
        assert process.stdout.closed


@pytest.mark.parametrize("status", [304, 412])
@pytest.mark.parametrize("kind", ["GzipFile", "zip member", "reader"])
def test_a_stream_has_conditions_and_is_closed_without_being_sent(
    kind: str, status: int, door: Door, root: Path
) -> None:
    given = STREAMS[kind][0](root)
    response = door.get(root, lambda: door.send_file(given, "a/b", etag="v1"), "HEAD", **REQUESTS[status])
    assert (response.status_code, response.data, given.closed) == (status, b"", True)


def test_a_stream_is_not_given_to_the_server_as_a_file(door: Door, root: Path) -> None:
    # The descriptor of a GzipFile is that of the compressed bytes.
    app = door.app(root, lambda: door.send_file(gzip.GzipFile(root / "page.html.gz"), "a/b"))
    wrapped: list[Any] = []
    assert Client(behind_gunicorn(app, wrapped)).get("/", buffered=True).data == DATA.content
    assert wrapped == []


def test_a_stream_takes_further_directives_too(root: Path) -> None:
    given = Reader(b"personal")
    response = IMPORTED.get(root, lambda: ours.send_file(given, "a/b", max_age=60, private=True))  # type: ignore[arg-type]
    assert response.cache_control.private
    assert not response.cache_control.public


def test_a_stream_has_no_window(root: Path) -> None:
    with IMPORTED.app(root).test_request_context(), pytest.raises(TypeError):
        ours.send_file(Reader(b"x"), "a/b", offset=1)  # type: ignore[arg-type]


# --- X-Sendfile -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [{}, {"as_attachment": True}, {"max_age": 60}, {"etag": "v1"}], ids=str)
@pytest.mark.parametrize("fields", REQUESTS.values(), ids=str)
def test_x_sendfile_is_left_to_flask(arguments: dict[str, Any], fields: dict[str, str], door: Door, root: Path) -> None:
    def answer(door: Door, send: Callable[[Door], Response]) -> tuple[int, bytes, dict[str, Any]]:
        try:
            response = get(door.app(root, lambda: send(door), USE_X_SENDFILE=True), **fields)
        except RequestedRangeNotSatisfiable:
            return 416, b"", {}
        left_out = ("Date", "Expires")
        return response.status_code, response.data, {k: v for k, v in response.headers if k not in left_out}

    ways: list[Callable[[Door], Response]] = [
        lambda door: door.send_file("data.bin", **arguments),
        lambda door: door.send_from_directory("static", "app.css", **arguments),
    ]
    for send in ways:
        assert answer(door, send) == answer(STOCK, send)


def test_with_x_sendfile_the_applications_method_is_asked_once(root: Path) -> None:
    app = IMPORTED.app(root, lambda: ours.send_file("data.bin"), USE_X_SENDFILE=True)
    asked: list[str | None] = []
    app.get_send_file_max_age = asked.append  # type: ignore[method-assign, assignment]
    assert get(app).headers["Cache-Control"] == "no-cache"
    assert asked == [str(root / "data.bin")]


def test_x_sendfile_is_not_for_open_files(door: Door, root: Path) -> None:
    response = get(door.app(root, lambda: door.send_file(io.BytesIO(b"x"), "a/b"), USE_X_SENDFILE=True))
    assert (response.data, response.headers.get("X-Sendfile")) == (b"x", None)


@pytest.mark.parametrize("send", [
    lambda **how: ours.send_file("data.bin", **how),
    lambda **how: ours.send_from_directory("static", "app.css", **how),
])  # fmt: skip
def test_with_x_sendfile_a_window_and_directives_count_too(send: Callable[..., Response], root: Path) -> None:
    app = IMPORTED.app(root, lambda: send(offset=10, count=5), USE_X_SENDFILE=True)
    assert get(app).data == DATA.content[10:15]
    app = IMPORTED.app(root, lambda: send(max_age=60, private=True), USE_X_SENDFILE=True)
    assert not get(app).cache_control.public


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", REQUESTS)
@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_flasks_client_sees_what_a_server_would_send(
    status: int, buffered: bool, method: str, door: Door, root: Path
) -> None:
    app = door.app(root, lambda: door.send_file("data.bin", etag="v1"))
    with app.test_client().open("/", method=method, headers=REQUESTS[status], buffered=buffered) as response:
        # Ranges are GET's.
        expected = 200 if method == "HEAD" and status in (206, 416) else status
        assert response.status_code == expected
        assert response.data == (b"" if method == "HEAD" else BODIES[expected])


def test_several_ranges_are_several_parts(door: Door, root: Path) -> None:
    response = door.get(root, lambda: door.send_file("data.bin", "a/b"), Range="bytes=0-9,20-29,-5")
    assert response.status_code == 206
    parts = parse_multipart(response.headers["Content-Type"], response.data)
    assert [part.data for part in parts] == [DATA.content[:10], DATA.content[20:30], DATA.content[-5:]]
    assert all(("content-type", "a/b") in part.fields for part in parts)


def set_type(response: Response, name: str = "Content-Type") -> Response:
    response.headers[name] = "text/csv"
    return response


def set_mimetype(response: Response) -> Response:
    response.mimetype = "text/csv"
    return response


def set_content_type(response: Response) -> Response:
    response.content_type = "text/csv"
    return response


#: Ways to say a file's type after `send_file`, in the view or after it.
TYPED: dict[str, Callable[[Response], Any]] = {
    "headers": set_type,
    "in lower case": lambda response: set_type(response, "content-type"),
    "mimetype": set_mimetype,
    "content_type": set_content_type,
    "beside it": lambda response: (response, {"Content-Type": "text/csv"}),
    "beside it with the status": lambda response: (response, response.status_code, {"Content-Type": "text/csv"}),
    "after_request": lambda response: response,
}


@pytest.mark.parametrize("idiom", TYPED)
def test_a_type_that_is_said_afterwards_is_that_of_the_parts(idiom: str, door: Door, root: Path) -> None:
    app = door.app(root, lambda: TYPED[idiom](door.send_file("data.bin", etag="v1")))
    if idiom == "after_request":
        app.after_request(set_type)
    response = get(app, Range="bytes=0-9,20-29")
    kind, options = parse_options_header(response.headers["Content-Type"])
    assert (response.status_code, kind, list(options)) == (206, "multipart/byteranges", ["boundary"])
    assert response.content_length == len(response.data)
    parts = parse_multipart(response.headers["Content-Type"], response.data)
    assert [part.data for part in parts] == [DATA.content[:10], DATA.content[20:30]]
    assert all(dict(part.fields)["content-type"].startswith("text/csv") for part in parts)
    for fields in {}, {"Range": "bytes=0-9"}:
        assert get(app, **fields).mimetype == "text/csv"


def without_type(response: Response) -> Response:
    del response.headers["Content-Type"]
    return response


def with_parameter(response: Response) -> Response:
    response.mimetype_params["charset"] = "utf-8"
    return response


@pytest.mark.parametrize("change", [without_type, with_parameter])
def test_the_head_of_parts_says_that_they_are_parts(
    change: Callable[[Response], Response], door: Door, root: Path
) -> None:
    response = door.get(root, lambda: change(door.send_file("data.bin")), Range="bytes=0-9,20-29")
    parts = parse_multipart(response.headers["Content-Type"], response.data)
    assert [part.data for part in parts] == [DATA.content[:10], DATA.content[20:30]]


def test_a_coding_and_a_tag_that_a_view_says_are_those_of_whole_and_part(door: Door, root: Path) -> None:
    def view() -> Response:
        response = door.send_file("data.bin")
        response.headers["Content-Encoding"] = "zstd"
        response.set_etag("v2")
        return response

    app = door.app(root, view)
    for fields in {}, {"Range": "bytes=0-9"}, {"Range": "bytes=0-9,20-29"}:
        response = get(app, **fields)
        assert response.status_code == (206 if fields else 200)
        assert (response.headers["Content-Encoding"], response.headers["ETag"]) == ("zstd", '"v2"')


#: What describes a file, and invites a cache to keep it.
FILES_OWN = {
    "Cache-Control": "public, max-age=60",
    "ETag": '"v2"',
    "Last-Modified": "Sun, 06 Nov 1994 08:49:37 GMT",
    "Expires": "Sun, 06 Nov 2094 08:49:37 GMT",
    "Content-Disposition": "attachment",
    "Content-Type": "text/csv",
    "Content-Encoding": "zstd",
    "Content-Language": "de",
}


@pytest.mark.parametrize("status", [412, 416])
@pytest.mark.parametrize("late", [False, True], ids=["in the view", "after_request"])
def test_nothing_that_is_said_of_the_file_gets_into_a_refusal(status: int, late: bool, door: Door, root: Path) -> None:
    def say(response: Response) -> Response:
        response.headers.update(FILES_OWN)
        response.headers["X-Frame-Options"] = "DENY"
        return response

    def view() -> Response:
        response = door.send_file("data.bin", etag="v1")
        return response if late else say(response)

    app = door.app(root, view)
    if late:
        app.after_request(say)
    response = get(app, **REQUESTS[status])
    assert (response.status_code, response.data, response.content_length) == (status, b"", 0)
    assert not FILES_OWN.keys() & set(response.headers.keys())
    assert response.headers["X-Frame-Options"] == "DENY"
    assert response.headers.get("Content-Range") == (f"bytes */{DATA.size}" if status == 416 else None)


def test_a_page_for_a_refusal_has_fields_of_its_own(door: Door, root: Path) -> None:
    def explain(response: Response) -> Response:
        response.set_data("no such part")
        response.headers["Content-Type"] = "text/plain"
        response.headers["Cache-Control"] = "no-store"
        return response

    response = door.get(root, lambda: explain(door.send_file("data.bin")), **REQUESTS[416])
    assert (response.status_code, response.data, response.content_length) == (416, b"no such part", 12)
    assert (response.headers["Content-Type"], response.headers["Cache-Control"]) == ("text/plain", "no-store")


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"Range": "bytes=0-9", "If-None-Match": '"v1"'}, 304),
        ({"Range": "bytes=0-9", "If-Match": '"v2"'}, 412),
        ({"Range": f"bytes={DATA.size}-", "If-Match": '"v2"'}, 412),
        ({"Range": "items=0-9"}, 200),
        ({"Range": "bytes=9-0"}, 200),
        ({"Range": "bytes=0-9", "If-Range": '"v1"'}, 206),
        ({"Range": "bytes=0-9", "If-Range": 'W/"v1"'}, 200),
        ({"Range": "bytes=0-9", "If-Range": http_date(DATA.mtime + 60)}, 200),
        ({"Range": "bytes=0-9", "If-Range": http_date(DATA.mtime)}, 206),
    ],
    ids=str,
)
def test_what_flask_gets_wrong_is_right(fields: dict[str, str], status: int, door: Door, root: Path) -> None:
    def view() -> Response:
        return door.send_file("data.bin", etag="v1", last_modified=DATA.mtime)

    response = door.get(root, view, **{name.replace("-", "_"): value for name, value in fields.items()})
    assert response.status_code == status


def test_a_416_is_empty_and_is_not_kept(door: Door, root: Path) -> None:
    response = door.get(root, lambda: door.send_file("data.bin", etag="v1", max_age=60), **REQUESTS[416])
    assert response.headers["Content-Range"] == f"bytes */{DATA.size}"
    assert (response.data, response.headers["Content-Length"]) == (b"", "0")
    assert not {"ETag", "Last-Modified", "Cache-Control", "Expires", "Content-Disposition"} & set(
        response.headers.keys()
    )


def test_options_and_post_are_answered_as_in_flask(door: Door, root: Path) -> None:
    app = door.app(root, lambda: door.send_file("data.bin", etag="v1"))
    options = get(app, "OPTIONS")
    assert (options.status_code, options.allow.as_set()) == (200, {"get", "head", "options", "post"})
    posted = get(app, "POST", Range="bytes=0-9", If_None_Match='"v1"')
    assert (posted.status_code, posted.data) == (200, DATA.content)


@pytest.mark.parametrize("status", REQUESTS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_werkzeugs_lint_has_nothing_to_say(status: int, method: str, door: Door, root: Path) -> None:
    app = door.app(root, lambda: door.send_file("data.bin", etag="v1"))
    # It wants HEAD to have the bytes that its Content-Length promises.
    buffered = method == "GET"
    client = Client(LintMiddleware(app))
    with client.open("/", method=method, headers=REQUESTS[status], buffered=buffered) as response:
        expected = 200 if method == "HEAD" and status in (206, 416) else status
        assert response.status_code == expected
        if method == "HEAD":
            response.response = []


def test_a_file_that_was_cut_meanwhile_breaks_the_body_off(door: Door, root: Path) -> None:
    app = door.app(root, lambda: door.send_file("data.bin"))
    response = app.test_client().get("/")
    os.truncate(root / "data.bin", 1000)
    app = door.app(root, lambda: door.send_file("names.txt"))

    @app.after_request
    def cut(response: Response) -> Response:
        os.truncate(root / "names.txt", 1000)
        return response

    with pytest.raises(FileTruncatedError):
        get(app)
    response.close()


# --- the response -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=str)
def test_starlettes_response_says_the_same_in_every_field(
    case: Case, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TABLE_FILES", str(files.directory))
    there = TestClient(starlette_app(), headers={"accept-encoding": "identity"}).request(
        case.method, case.url_path(), headers=case.raw_fields
    )
    here = Client(flask_responses).open(
        case.url_path(), method=case.method, headers=Headers(list(case.fields)), buffered=True
    )
    starlettes = Answer.of(there.status_code, there.headers.multi_items(), there.content)
    flasks = Answer.of(here.status_code, list(here.headers), here.data)
    assert without_boundary(flasks) == without_boundary(starlettes)
    check(case, flasks, files)


def without_boundary(answer: Answer) -> tuple[int, list[tuple[str, str]], bytes]:
    """Status, fields in any order and body, with every boundary the same."""
    found = re.search("boundary=([0-9a-f]+)", "".join(answer.values("content-type")))
    fields = answer.fields if found is None else [(n, v.replace(found[1], "boundary")) for n, v in answer.fields]
    body = answer.body if found is None else answer.body.replace(found[1].encode(), b"boundary")
    return answer.status, sorted(fields), body


@pytest.mark.parametrize("status", REQUESTS)
def test_a_response_needs_no_application(status: int, root: Path) -> None:
    response = Client(ZeroCopyFileResponse(root / "data.bin", etag="v1")).get(
        "/", headers=REQUESTS[status], buffered=True
    )
    assert (response.status_code, response.data) == (status, BODIES[status])


def test_a_response_is_flasks_and_the_applications(root: Path) -> None:
    class Own(Response):
        pass

    app = IMPORTED.app(root)
    app.response_class = Own
    with app.app_context(), ZeroCopyFileResponse(root / "data.bin") as response:
        assert isinstance(response, ZeroCopyFileResponse)
        assert isinstance(response, Own)
        with ZeroCopyFileResponse(root / "data.bin") as another:
            assert type(another) is type(response)
    with ZeroCopyFileResponse(root / "data.bin") as response:
        assert type(response) is ZeroCopyFileResponse
        assert isinstance(response, Response)


def test_a_response_made_outside_of_the_application_keeps_its_class(door: Door, root: Path) -> None:
    response = ZeroCopyFileResponse(root / "data.bin")
    assert door.get(root, lambda: response, Range="bytes=0-9").data == DATA.content[:10]
    assert type(response) is ZeroCopyFileResponse


def test_an_heir_of_the_response_keeps_what_it_adds(root: Path) -> None:
    class Download(ZeroCopyFileResponse):
        def __init__(self, name: str) -> None:
            super().__init__(root / name, as_attachment=True)

        def get_wsgi_headers(self, environ: WSGIEnvironment) -> Headers:
            headers = super().get_wsgi_headers(environ)
            headers["X-Download"] = "1"
            return headers

    class Own(Response):
        pass

    app = IMPORTED.app(root, lambda: Download("data.bin"))
    app.response_class = Own
    response = get(app, Range="bytes=0-1")
    assert (response.status_code, response.headers["X-Download"]) == (206, "1")


def test_werkzeugs_response_from_a_view_has_the_right_bytes(door: Door, root: Path) -> None:
    response = door.get(root, lambda: zcresponse_werkzeug.ZeroCopyFileResponse(root / "data.bin"))
    assert (response.data, response.headers["Content-Length"]) == (DATA.content, str(DATA.size))


class Guarded(Response):
    """An application's own response class, that sees to a field as late as it can."""

    def get_wsgi_headers(self, environ: WSGIEnvironment) -> Headers:
        headers = super().get_wsgi_headers(environ)
        headers["X-Frame-Options"] = "DENY"
        return headers


@pytest.mark.parametrize("status", [200, 206, 304, 412])
def test_an_applications_response_class_has_its_say(status: int, door: Door, root: Path) -> None:
    app = Flask("tested", root_path=str(root))
    app.response_class = Guarded
    app.testing = True
    app.add_url_rule("/", "view", lambda: door.send_file("data.bin", etag="v1"))
    if door.upgrades:
        ZeroCopy(app)
    response = get(app, **{name.replace("-", "_"): value for name, value in REQUESTS[status].items()})
    assert (response.status_code, response.headers["X-Frame-Options"]) == (status, "DENY")


# --- what views do with it --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", REQUESTS.values(), ids=str)
def test_a_status_beside_the_response_gets_the_whole_file(fields: dict[str, str], door: Door, root: Path) -> None:
    app = door.app(root, lambda: (door.send_file("data.bin", etag="v1", max_age=60), 404))
    response = app.test_client().get("/", headers=fields, buffered=True)
    assert (response.status_code, response.data) == (404, DATA.content)
    assert response.headers["Content-Type"] == "application/octet-stream"
    assert "Content-Range" not in response.headers


def test_status_text_beside_the_response_is_kept(door: Door, root: Path) -> None:
    assert door.get(root, lambda: (door.send_file("data.bin"), "404 Nope")).status == "404 Nope"


def test_headers_beside_the_response_are_set(door: Door, root: Path) -> None:
    fields = {"X-A": "b", "Content-Type": "a/b", "Location": "/é"}
    response = door.get(root, lambda: (door.send_file("data.bin"), 201, fields))
    assert (response.status_code, response.headers["X-A"], response.headers["Content-Type"]) == (201, "b", "a/b")
    assert response.headers["Location"] == "/%C3%A9"
    assert response.data == DATA.content


def test_make_response_and_headers_in_the_view(door: Door, root: Path) -> None:
    def view() -> Response:
        response = flask.make_response(door.send_file("data.bin"))
        response.headers["X-A"] = "b"
        response.set_cookie("c", "d")
        response.headers["Cache-Control"] = "no-store"
        return response

    response = door.get(root, view, Range="bytes=0-9")
    assert (response.status_code, response.data) == (206, DATA.content[:10])
    assert (response.headers["X-A"], response.headers["Cache-Control"]) == ("b", "no-store")
    assert response.headers["Set-Cookie"].startswith("c=d")


def test_a_tag_set_in_the_view_is_evaluated_by_make_conditional(door: Door, root: Path) -> None:
    def view() -> Any:
        response = door.send_file("data.bin")
        response.set_etag("mine")
        return response.make_conditional(request)

    app = door.app(root, view)
    assert get(app).headers["ETag"] == '"mine"'
    assert get(app, If_None_Match='"mine"').status_code == 304
    assert get(app, If_Match='"other"').status_code == 412
    assert get(app, Range="bytes=0-9", If_Range='"mine"').data == DATA.content[:10]


def test_make_conditional_alone_evaluates_no_range(door: Door, root: Path) -> None:
    app = door.app(root, lambda: door.send_file("data.bin", conditional=False, etag="v1").make_conditional(request))
    assert (get(app, Range="bytes=0-1").status_code, get(app, If_None_Match='"v1"').status_code) == (200, 304)


def test_make_conditional_with_ranges_evaluates_both(door: Door, root: Path) -> None:
    def view() -> Any:
        response = door.send_file("data.bin", conditional=False, etag="v1")
        return response.make_conditional(request, accept_ranges=True, complete_length=DATA.size)

    app = door.app(root, view)
    for status, fields in REQUESTS.items():
        response = app.test_client().get("/", headers=fields, buffered=True)
        assert (response.status_code, response.data) == (status, BODIES[status])


def test_the_body_is_as_in_flask_until_it_is_sent(door: Door, root: Path) -> None:
    with door.app(root).test_request_context():
        with door.send_file("names.txt") as response:
            assert (response.direct_passthrough, response.is_streamed, response.is_sequence) == (True, True, False)
            assert (response.status_code, response.mimetype) == (200, "text/plain")
            response.direct_passthrough = False
            assert response.get_data() == DATA.content
            assert response.is_sequence


def test_a_frozen_response_can_be_kept_by_a_cache(door: Door, root: Path) -> None:
    kept: list[bytes] = []

    def view() -> Any:
        if kept:
            return pickle.loads(kept[0])
        with door.send_file("data.bin", etag="v1") as response:
            response.freeze()
        kept.append(pickle.dumps(response))
        return response

    app = door.app(root, view)
    for _ in range(2):
        response = get(app)
        assert (response.data, response.headers["ETag"]) == (DATA.content, '"v1"')


def test_a_listener_does_not_go_into_the_cache(root: Path) -> None:
    with IMPORTED.app(root).test_request_context():
        with ours.send_file("data.bin", on_transfer=lambda transfer: None) as response:
            response.freeze()
        assert pickle.loads(pickle.dumps(response)).get_data() == DATA.content


def test_an_async_view_sends_a_file(door: Door, root: Path) -> None:
    async def view() -> Response:
        await asyncio.sleep(0)
        return door.send_file("data.bin", etag="v1")

    app = door.app(root, view)
    for status, fields in REQUESTS.items():
        response = app.test_client().get("/", headers=fields, buffered=True)
        assert (response.status_code, response.data) == (status, BODIES[status])


def test_an_error_handler_sends_a_file(door: Door, root: Path) -> None:
    app = door.app(root, lambda: abort(404))
    app.register_error_handler(404, lambda error: (door.send_file("names.txt"), 404))
    for fields in REQUESTS.values():
        response = app.test_client().get("/", headers=fields, buffered=True)
        assert (response.status_code, response.mimetype, response.data) == (404, "text/plain", DATA.content)


def test_an_error_handler_sends_a_file_for_a_missing_one(door: Door, root: Path) -> None:
    app = door.app(root, lambda: door.send_file("missing"))
    app.register_error_handler(FileNotFoundError, lambda error: door.send_from_directory("static", "app.css"))
    assert get(app, Range="bytes=0-1").data == DATA.content[:2]


# --- functions around the request -------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", REQUESTS)
def test_an_after_request_function_sees_the_answer_and_adds_to_it(status: int, door: Door, root: Path) -> None:
    app = door.app(root, lambda: door.send_file("data.bin", etag="v1"))
    seen: list[tuple[int, str | None]] = []

    @app.after_request
    def add(response: Response) -> Response:
        seen.append((response.status_code, response.headers.get("Content-Range")))
        response.headers["X-A"] = "b"
        response.headers.add("Vary", "Origin")
        response.set_cookie("c", "d")
        return response

    response = app.test_client().get("/", headers=REQUESTS[status], buffered=True)
    assert seen == [(status, response.headers.get("Content-Range"))]
    assert (response.headers["X-A"], response.headers["Vary"]) == ("b", "Origin")
    assert response.headers["Set-Cookie"].startswith("c=d")
    assert response.data == BODIES[status]


@pytest.mark.parametrize("status", REQUESTS)
def test_the_session_is_saved(status: int, door: Door, root: Path) -> None:
    def view() -> Response:
        session["visits"] = session.get("visits", 0) + 1
        return door.send_file("data.bin", etag="v1")

    client = door.app(root, view).test_client()
    for visits in 1, 2:
        with client:
            response = client.get("/", headers=REQUESTS[status], buffered=True)
            assert (session["visits"], response.status_code) == (visits, status)
            assert "Cookie" in response.headers["Vary"]
        with client.session_transaction() as saved:
            assert saved["visits"] == visits


def compress_whole(response: Response) -> Response:
    """Flask-Compress's way, and that of most recipes."""
    if not 200 <= response.status_code < 300 or "Content-Encoding" in response.headers:
        return response
    response.direct_passthrough = False
    response.set_data(gzip.compress(response.get_data(), mtime=0))
    response.headers["Content-Encoding"] = "gzip"
    response.headers["Content-Length"] = str(response.content_length)
    return response


def compress_stream(response: Response) -> Response:
    """Flask-Compress's way with what is streamed."""
    chunks = response.iter_encoded()

    def compressed() -> Iterator[bytes]:
        yield gzip.compress(b"".join(chunks), mtime=0)

    response.direct_passthrough = False
    response.response = compressed()
    response.headers["Content-Encoding"] = "gzip"
    response.headers.pop("Content-Length", None)
    return response


@pytest.mark.parametrize("compress", [compress_whole, compress_stream])
def test_a_compressor_gets_the_bytes(compress: Callable[[Response], Response], door: Door, root: Path) -> None:
    app = door.app(root, lambda: door.send_file("data.bin"))
    app.after_request(compress)
    response = get(app)
    assert response.headers.getlist("Content-Encoding") == ["gzip"]
    assert gzip.decompress(response.data) == DATA.content
    assert response.headers.get("Content-Length") in (None, str(len(response.data)))


def test_a_compressor_says_the_same_length_to_head_as_in_flask(door: Door, root: Path) -> None:
    app = door.app(root, lambda: door.send_file("data.bin"))
    app.after_request(compress_whole)
    assert get(app, "HEAD").headers["Content-Length"] == get(app).headers["Content-Length"]


def test_a_compressor_leaves_what_has_no_body(door: Door, root: Path) -> None:
    app = door.app(root, lambda: door.send_file("data.bin", etag="v1"))
    app.after_request(compress_whole)
    assert (get(app, If_None_Match='"v1"').status_code, get(app, If_Match='"x"').data) == (304, b"")


@pytest.mark.parametrize("fields", REQUESTS.values(), ids=str)
@pytest.mark.parametrize("status", [None, 404])
def test_an_after_request_function_may_make_everything_conditional(
    fields: dict[str, str], status: int | None, door: Door, root: Path
) -> None:
    def view() -> Any:
        response = door.send_file("data.bin", etag="v1")
        return response if status is None else (response, status)

    answers = []
    for function in None, lambda response: response.make_conditional(request):
        app = door.app(root, view)
        app.after_request_funcs = {None: [function]} if function else {}
        response = app.test_client().get("/", headers=fields, buffered=True)
        answers.append((response.status, sorted(response.headers), response.data))
    assert answers[0] == answers[1]


@pytest.mark.parametrize("wrap", [FileWrapper, lambda file: iter(file.readlines()), lambda file: [file.read()]])
@pytest.mark.parametrize("fields", [{}, {"Range": "bytes=0-1"}], ids=["whole", "part"])
def test_an_after_request_function_may_put_another_body_in_its_place(
    wrap: Callable[[io.BytesIO], Any], fields: dict[str, str], door: Door, root: Path
) -> None:
    app = door.app(root, lambda: door.send_file("data.bin"))

    @app.after_request
    def replace(response: Response) -> Response:
        response.response, response.content_length = wrap(io.BytesIO(b"transformed")), 11
        return response

    response = get(app, **fields)
    assert (response.data, response.headers["Content-Length"]) == (b"transformed", "11")


def test_an_after_request_function_may_put_another_response_in_its_place(door: Door, root: Path) -> None:
    app = door.app(root, lambda: door.send_file("data.bin"))
    app.after_request(lambda response: Response("other", 202))
    response = get(app)
    assert (response.status_code, response.data) == (202, b"other")


@needs_proc
def test_an_error_in_an_after_request_function_leaves_nothing_open(door: Door, root: Path) -> None:
    app = door.app(root, lambda: door.send_file("data.bin"))

    @app.after_request
    def fail(response: Response) -> Response:
        raise RuntimeError("after the view")

    with warnings.catch_warnings():
        if door.upgrades:
            # A file that Flask has opened warns where it is collected together with the error's traceback.
            warnings.simplefilter("ignore", ResourceWarning)
        with pytest.raises(RuntimeError, match="after the view"):
            get(app)
        assert descriptors_beneath(root) == 0
        app.testing, app.logger.disabled = False, True
        assert get(app).status_code == 500
        assert descriptors_beneath(root) == 0


def test_teardown_functions_run_before_the_body_as_in_flask(door: Door, root: Path) -> None:
    heard: list[BaseException | None] = []
    app = door.app(root, lambda: door.send_file("data.bin"))
    app.teardown_request(heard.append)
    app.teardown_appcontext(heard.append)
    with app.test_client().get("/") as response:
        assert heard == [None, None]
        assert response.data == DATA.content


def test_in_a_with_block_the_request_stays_for_the_test(door: Door, root: Path) -> None:
    with door.app(root, lambda: door.send_file("data.bin")).test_client() as client:
        response = client.get("/?a=b", buffered=True)
        assert (request.args["a"], response.data) == ("b", DATA.content)


# --- the end ----------------------------------------------------------------------------------------------------------


def closing_view(door: Door, heard: list[bool]) -> Callable[[], Response]:
    def view() -> Response:
        response = door.send_file("data.bin", etag="v1")
        response.call_on_close(lambda: heard.append(True))
        return response

    return view


@pytest.mark.parametrize("status", REQUESTS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("buffered", [True, False])
def test_closing_functions_run_once(status: int, method: str, buffered: bool, door: Door, root: Path) -> None:
    heard: list[bool] = []
    client = door.app(root, closing_view(door, heard)).test_client()
    response = client.open("/", method=method, headers=REQUESTS[status], buffered=buffered)
    if not buffered:
        response.close()
    assert heard == [True]


@pytest.mark.parametrize("wrap", ["file_wrapper", "blocks"])
def test_closing_functions_run_once_when_the_body_breaks_off(wrap: str, door: Door, root: Path) -> None:
    heard: list[bool] = []
    app = door.app(root, closing_view(door, heard))

    @app.after_request
    def cut(response: Response) -> Response:
        os.truncate(root / "data.bin", 1000)
        return response

    client = Client(behind_gunicorn(app, []) if wrap == "file_wrapper" else app)
    with pytest.raises(FileTruncatedError):
        client.get("/", buffered=True)
    assert heard == [True]


def test_closing_functions_run_once_when_the_body_was_replaced(door: Door, root: Path) -> None:
    heard: list[bool] = []
    app = door.app(root, closing_view(door, heard))
    app.after_request(compress_whole)
    get(app)
    assert heard == [True]


@needs_proc
@pytest.mark.parametrize("status", REQUESTS)
@pytest.mark.parametrize("how", ["read", "close unread", "drop"])
def test_nothing_stays_open(status: int, how: str, door: Door, root: Path) -> None:
    client = door.app(root, lambda: door.send_file("data.bin", etag="v1")).test_client()
    response = client.get("/", headers=REQUESTS[status])
    if how == "read":
        response.get_data()
    if how != "drop":
        response.close()
        assert descriptors_beneath(root) == 0
    del response
    assert descriptors_beneath(root) == 0


@needs_proc
@pytest.mark.parametrize("given", ["data.bin", "opened"])
def test_a_response_that_a_view_drops_leaves_nothing_open_and_warns_of_nothing(
    given: str, door: Door, root: Path
) -> None:
    def view() -> str:
        door.send_file("data.bin" if given == "data.bin" else (root / "data.bin").open("rb"), "a/b")
        return "something else"

    assert door.get(root, view).data == b"something else"
    assert descriptors_beneath(root) == 0


@needs_proc
@pytest.mark.parametrize("change", [lambda r: r.freeze(), lambda r: r.set_data(b"x"), lambda r: None])
def test_a_closed_response_has_nothing_open_whatever_its_body_became(
    change: Callable[[Response], None], door: Door, root: Path
) -> None:
    with door.app(root).test_request_context():
        response = door.send_file("data.bin")
        change(response)
        response.close()
        assert descriptors_beneath(root) == 0


# --- servers that take files ------------------------------------------------------------------------------------------


def behind_gunicorn(app: WSGIApplication, wrapped: list[Any]) -> WSGIApplication:
    """What a server looks like that is known to send regions; its wrapper is the standard library's."""

    def wrap(file: Any, block: int = 8192) -> ServersWrapper:
        wrapped.append(file)
        return ServersWrapper(file, block)

    def server(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        environ["gunicorn.socket"] = None
        environ["SERVER_SOFTWARE"] = "gunicorn/23.0.0"
        environ["wsgi.file_wrapper"] = wrap
        try:
            return app(environ, start_response)
        finally:
            # gunicorn asks whether the body is of its own class.
            assert environ["wsgi.file_wrapper"] is wrap

    return server


@pytest.mark.parametrize("status", [200, 206])
@pytest.mark.parametrize("given", ["path", "opened", "NamedTemporaryFile", "stock response", "static"])
def test_a_server_is_given_the_file(status: int, given: str, door: Door, root: Path, transfers: list[Transfer]) -> None:
    def view() -> Response:
        if given == "path":
            return door.send_file("data.bin")
        if given == "stock response":
            return door.send_from_directory(root, "data.bin", conditional=True)
        return door.send_file(at(0, SEEKABLE[given](root)), "a/b")

    if given == "static" and not door.upgrades:
        pytest.skip("static folders are Flask's own")
    url = "/static/app.css" if given == "static" else "/"
    wrapped: list[Any] = []
    client = Client(behind_gunicorn(door.app(root, view), wrapped))
    response = client.get(url, headers=REQUESTS[status], buffered=True)
    assert (response.status_code, response.data) == (status, BODIES[status])
    assert [file.closed for file in wrapped] == [True]
    assert [transfer.way for transfer in transfers] == ["file_wrapper"]


def test_a_server_is_not_given_what_is_in_memory(door: Door, root: Path) -> None:
    wrapped: list[Any] = []
    app = door.app(root, lambda: door.send_file(io.BytesIO(DATA.content), "a/b"))
    assert Client(behind_gunicorn(app, wrapped)).get("/", buffered=True).data == DATA.content
    assert wrapped == []


def test_events_reach_the_responses_callable(root: Path) -> None:
    heard: list[Transfer] = []
    IMPORTED.get(root, lambda: ours.send_file("data.bin", on_transfer=heard.append, sendfile=False))
    (transfer,) = heard
    assert (transfer.way, transfer.status, transfer.bytes_sent, transfer.completed) == ("chunks", 200, DATA.size, True)


# --- the upgrade ------------------------------------------------------------------------------------------------------


def test_an_upgrade_can_wait_for_its_application(root: Path) -> None:
    zero_copy = ZeroCopy()
    for _ in range(2):
        app = STOCK.app(root, lambda: flask.send_file("data.bin"))
        zero_copy.init_app(app)
        assert app.extensions["zcresponse"] is zero_copy
        assert get(app, Range="bytes=0-1,4-5").mimetype == "multipart/byteranges"


def test_a_second_upgrade_changes_nothing(root: Path) -> None:
    app = UPGRADED.app(root, lambda: flask.send_file("data.bin"))
    before = app.response_class, app.wsgi_app
    ZeroCopy(app).init_app(app)
    assert (app.response_class, app.wsgi_app) == before
    assert get(app, Range="bytes=0-1").data == DATA.content[:2]


def test_an_upgrade_reaches_its_own_application_alone(root: Path) -> None:
    several = {"Range": "bytes=0-1,4-5"}
    upgraded, stock = (door.app(root, lambda: flask.send_file("data.bin")) for door in (UPGRADED, STOCK))
    assert get(upgraded, **several).mimetype == "multipart/byteranges"
    assert stock.response_class is Response
    with stock.test_request_context(headers=several), pytest.raises(RequestedRangeNotSatisfiable):
        flask.send_file("data.bin")


@pytest.mark.parametrize("status", REQUESTS)
def test_static_folders_are_upgraded(status: int, root: Path) -> None:
    app = UPGRADED.app(root)
    app.register_blueprint(Blueprint("b", "b", root_path=str(root), static_folder="static", url_prefix="/b"))
    for url in "/static/app.css", "/b/static/app.css":
        etag = get(app, url=url).headers["ETag"]
        fields = {name: value.replace('"v1"', etag) for name, value in REQUESTS[status].items()}
        response = app.test_client().get(url, headers=fields, buffered=True)
        assert (response.status_code, response.data) == (status, BODIES[status])
    assert get(app, url="/static/missing").status_code == 404


def test_a_blueprint_that_comes_later_is_upgraded_too(root: Path) -> None:
    app = UPGRADED.app(root)
    blueprint = Blueprint("later", "later")
    blueprint.add_url_rule("/later", "view", lambda: flask.send_file("data.bin"))
    app.register_blueprint(blueprint)
    assert get(app, url="/later", Range="bytes=0-1,4-5").mimetype == "multipart/byteranges"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_everything_else_passes_through(method: str, root: Path) -> None:
    def stream() -> Iterator[str]:
        yield from (request.path, "b", "c")

    views: dict[str, Callable[[], Any]] = {
        "/text": lambda: "text",
        "/json": lambda: jsonify(a=1),
        "/dict": lambda: {"a": 1},
        "/stream": lambda: stream_with_context(stream()),
        "/tuple": lambda: ("made", 201, {"X-A": "b"}),
        "/direct": lambda: Response(iter([b"a", b"b"]), direct_passthrough=True),
        "/redirect": lambda: flask.redirect("/text"),
        "/abort": lambda: abort(418),
        "/raise": lambda: 1 / 0,
        "/wsgi": lambda: STOCK.app(root, lambda: "inner"),
    }
    answers = []
    for door in STOCK, UPGRADED:
        app = door.app(root)
        app.config["PROPAGATE_EXCEPTIONS"] = False
        for url, view in views.items():
            app.add_url_rule(url, url, view)
        responses = [get(app, method, url) for url in views]
        answers.append([(r.status, sorted(r.headers), r.data) for r in responses])
    assert answers[0] == answers[1]


@pytest.mark.parametrize("fields", [{}, {"Range": "bytes=1-2"}, {"If-None-Match": '"v1"'}], ids=str)
def test_a_conditional_response_that_is_no_file_passes_through(fields: dict[str, str], root: Path) -> None:
    def view() -> Any:
        response = Response(b"abcdef")
        response.set_etag("v1")
        return response.make_conditional(request, accept_ranges=True, complete_length=6)

    answers = []
    for door in STOCK, UPGRADED:
        response = door.app(root, view).test_client().get("/", headers=fields, buffered=True)
        answers.append((response.status, response.data, response.headers.get("Content-Range")))
    assert answers[0] == answers[1]


class Csv(Response):
    """A view's own response class."""

    default_mimetype = "text/csv"

    def get_wsgi_headers(self, environ: WSGIEnvironment) -> Headers:
        headers = super().get_wsgi_headers(environ)
        headers["X-Rows"] = "1"
        return headers


def test_a_views_own_response_class_passes_through(root: Path) -> None:
    seen: list[type] = []
    app = UPGRADED.app(root, lambda: Csv("a,b"))

    @app.after_request
    def look(response: Response) -> Response:
        seen.append(type(response))
        return response

    response = get(app)
    assert (response.mimetype, response.data, response.headers["X-Rows"]) == ("text/csv", b"a,b", "1")
    assert issubclass(seen[0], Csv)


def test_responses_can_be_pickled_as_before(root: Path) -> None:
    with UPGRADED.app(root).test_request_context():
        for freeze in False, True:
            response: Any = jsonify(a=1)
            if freeze:
                response.freeze()
            response = pickle.loads(pickle.dumps(response))
            assert (response.get_json(), response.status_code) == ({"a": 1}, 200)


def partial(root: Path) -> Response:
    """A range as views made it themselves before Flask could."""
    file = at(10, (root / "data.bin").open("rb"))
    fields = {"Content-Range": f"bytes 10-19/{DATA.size}", "Content-Length": "10"}
    return Response(FileWrapper(file), 206, fields, direct_passthrough=True)


def test_a_range_that_a_view_made_itself_passes_through(root: Path) -> None:
    responses = [door.get(root, lambda: partial(root)) for door in (STOCK, UPGRADED)]
    for response in responses:
        assert response.status_code == 206
        assert response.headers["Content-Range"] == f"bytes 10-19/{DATA.size}"
        assert response.headers["Content-Length"] == "10"
        # A server sends no more than the length.
        assert response.data[:10] == DATA.content[10:20]


def test_the_beginning_of_a_file_that_a_view_chose_passes_through(root: Path) -> None:
    def view() -> Response:
        file = (root / "data.bin").open("rb")
        return Response(FileWrapper(file), headers={"Content-Length": "10"}, direct_passthrough=True)

    for door in STOCK, UPGRADED:
        response = door.get(root, view)
        assert response.headers["Content-Length"] == "10"
        assert response.data[:10] == DATA.content[:10]


class Shouting(FileWrapper):
    def __next__(self) -> bytes:
        return super().__next__().upper()


def test_an_heir_of_the_file_wrapper_passes_through(root: Path) -> None:
    view = lambda: Response(Shouting(io.BytesIO(b"abc")), direct_passthrough=True)  # noqa: E731
    assert [door.get(root, view).data for door in (STOCK, UPGRADED)] == [b"ABC", b"ABC"]


def test_a_file_wrapper_of_the_views_own_is_upgraded(root: Path) -> None:
    def view() -> Response:
        file = at(10, (root / "data.bin").open("rb"))
        return Response(request.environ["wsgi.file_wrapper"](file, 100), mimetype="a/b", direct_passthrough=True)

    wrapped: list[Any] = []
    app = UPGRADED.app(root, view)
    response = Client(behind_gunicorn(app, wrapped)).get("/", buffered=True)
    assert (response.data, response.content_length) == (DATA.content[10:], DATA.size - 10)
    assert len(wrapped) == 1


@pytest.mark.parametrize("status", REQUESTS)
def test_werkzeugs_send_file_in_a_view_keeps_its_answers(status: int, root: Path) -> None:
    def view() -> Any:
        return werkzeug.utils.send_file(root / "data.bin", request.environ, etag="v1")

    def answer(door: Door) -> tuple[int, Any, Any, bytes]:
        response = door.get(root, view, **{n.replace("-", "_"): v for n, v in REQUESTS[status].items()})
        fields = response.headers
        return response.status_code, fields.get("Accept-Ranges"), fields.get("Content-Type"), response.data

    assert answer(UPGRADED) == answer(STOCK)


def test_an_upgrades_arguments_count_for_every_file(root: Path) -> None:
    heard: list[Transfer] = []
    app = STOCK.app(root)
    views: list[Callable[[], Response]] = [
        lambda: flask.send_file("data.bin"),
        lambda: ours.send_file("data.bin"),
        lambda: ZeroCopyFileResponse(root / "data.bin"),
    ]
    for i, view in enumerate(views):
        app.add_url_rule(f"/{i}", str(i), view)
    ZeroCopy(app, on_transfer=heard.append, sendfile=False)
    wrapped: list[Any] = []
    client = Client(behind_gunicorn(app, wrapped))
    for i in range(len(views)):
        client.get(f"/{i}", buffered=True)
    assert [(transfer.way, "sendfile=False" in transfer.reason) for transfer in heard] == [("chunks", True)] * 3
    assert wrapped == []


def test_a_responses_own_arguments_win_over_the_upgrades(root: Path) -> None:
    heard: list[str] = []
    app = STOCK.app(root, lambda: ours.send_file("data.bin", on_transfer=lambda transfer: heard.append("own")))
    ZeroCopy(app, on_transfer=lambda transfer: heard.append("application's"))
    get(app)
    assert heard == ["own"]


# --- environ and middleware -------------------------------------------------------------------------------------------


def call(app: WSGIApplication, environ: WSGIEnvironment) -> bytes:
    """Call an application as a server does and return its whole body."""
    body = app(environ, lambda *_: lambda _: None)
    try:
        return b"".join(body)
    finally:
        if hasattr(body, "close"):
            body.close()


@pytest.mark.parametrize("view", [lambda: flask.send_file("data.bin"), lambda: "text", lambda: 1 / 0])
@pytest.mark.parametrize("offered", [True, False])
def test_the_server_finds_its_wrapper_again(view: Callable[[], Any], offered: bool, root: Path) -> None:
    environ = EnvironBuilder().get_environ()
    if offered:
        environ["wsgi.file_wrapper"] = ServersWrapper
    before = set(environ)
    app = UPGRADED.app(root, view)
    try:
        call(app, environ)
    except ZeroDivisionError:
        pass
    assert environ.get("wsgi.file_wrapper") is (ServersWrapper if offered else None)
    assert {name for name in environ if "file_wrapper" in name} == before & {"wsgi.file_wrapper"}


def test_a_view_may_take_the_wrapper_away(root: Path) -> None:
    def view() -> Response:
        request.environ.pop("wsgi.file_wrapper", None)
        return flask.send_file("data.bin")

    environ = EnvironBuilder().get_environ()
    environ["wsgi.file_wrapper"] = ServersWrapper
    assert call(UPGRADED.app(root, view), environ) == DATA.content


def through(app: WSGIApplication) -> WSGIApplication:
    return app


def generating(app: WSGIApplication) -> WSGIApplication:
    def middleware(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        body = app(environ, start_response)
        try:
            yield from body
        finally:
            if hasattr(body, "close"):
                body.close()

    return middleware


def copying(app: WSGIApplication) -> WSGIApplication:
    return lambda environ, start_response: app(dict(environ), start_response)


def listing(app: WSGIApplication) -> WSGIApplication:
    def middleware(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        body = app(environ, start_response)
        try:
            return list(body)
        finally:
            if hasattr(body, "close"):
                body.close()

    return middleware


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("middleware", [ProxyFix, generating, copying, listing])
@pytest.mark.parametrize("status", [200, 206, 304])
def test_middleware_before_and_after_the_upgrade(
    when: str, middleware: Callable[[WSGIApplication], WSGIApplication], status: int, root: Path
) -> None:
    app = STOCK.app(root, lambda: flask.send_file("data.bin", etag="v1"))
    for step in (middleware, ZeroCopy) if when == "before" else (ZeroCopy, middleware):
        if step is ZeroCopy:
            ZeroCopy(app)
        else:
            app.wsgi_app = step(app.wsgi_app)  # type: ignore[method-assign, assignment, arg-type]
    server = through if middleware is generating or middleware is listing else lambda app: behind_gunicorn(app, [])
    response = Client(server(app)).get("/", headers=REQUESTS[status], buffered=True)
    assert (response.status_code, response.data) == (status, BODIES[status])


def test_several_upgraded_applications_under_a_dispatcher(root: Path) -> None:
    apps = [door.app(root, lambda: flask.send_file("data.bin")) for door in (UPGRADED, UPGRADED, STOCK)]
    client = Client(behind_gunicorn(DispatcherMiddleware(apps[0], {"/b": apps[1], "/stock": apps[2]}), []))
    for url in "/", "/b/", "/stock/":
        assert client.get(url, headers={"Range": "bytes=0-9"}, buffered=True).data == DATA.content[:10]
    for url in "/", "/b/":
        response = client.get(url, headers={"Range": "bytes=0-1,4-5"}, buffered=True)
        assert response.mimetype == "multipart/byteranges"


@pytest.mark.parametrize("inner", [UPGRADED, IMPORTED, STOCK], ids=["upgraded", "imported", "stock"])
def test_an_upgraded_application_may_answer_with_another(inner: Door, root: Path) -> None:
    other = inner.app(root, lambda: inner.send_file("data.bin", etag="v1"))
    app = UPGRADED.app(root, lambda: other)
    for status in 200, 206, 304:
        response = Client(behind_gunicorn(app, [])).get("/", headers=REQUESTS[status], buffered=True)
        assert (response.status_code, response.data) == (status, BODIES[status])


# --- over and over ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES[::5], ids=str)
def test_the_table_passes_in_flasks_client_under_a_prefix(
    case: Case, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TABLE_FILES", str(files.directory))
    client = FlaskClient(flask_app, flask_app.response_class)
    with client.open(
        case.url_path(), base_url="https://example.org/prefix", method=case.method, headers=Headers(list(case.fields))
    ) as response:
        check(case, Answer.of(response.status_code, list(response.headers), response.get_data()), files)


def test_many_requests_leave_nothing_behind(door: Door, root: Path) -> None:
    client = door.app(root, lambda: door.send_file("data.bin", etag="v1")).test_client()
    began = time.perf_counter()
    for _ in range(20):
        for status, fields in REQUESTS.items():
            assert client.get("/", headers=fields, buffered=True).status_code == status
    assert time.perf_counter() - began < 60
    if os.path.isdir("/proc/self/fd"):
        assert descriptors_beneath(root) == 0
