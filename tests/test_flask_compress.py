"""File responses beside Flask-Compress: untouched, or compressed as a whole and told apart from the file itself."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import brotli
import flask
import pytest
from flask import Flask
from flask_compress import Compress
from werkzeug.test import TestResponse

from tests.support.table import parse_multipart
from zcresponse import Transfer
from zcresponse.flask import ZeroCopy, ZeroCopyFileResponse, send_file
from zcresponse.testing import FileWrapperServer
from zcresponse.wsgi import ZeroCopyMiddleware

PAGE = b"<p>one line of a page, and another that is not quite the same\n" * 700
DECODE: dict[str, Callable[[bytes], bytes]] = {
    "br": brotli.decompress,
    "gzip": gzip.decompress,
    "deflate": zlib.decompress,
}

DOORS: dict[str, Callable[[Path], Any]] = {
    "send_file": lambda path: send_file(path, etag="v1"),
    "response": lambda path: ZeroCopyFileResponse(path, etag="v1"),
    "upgraded": lambda path: flask.send_file(path, etag="v1"),
}
CONFIGS: dict[str, dict[str, Any]] = {
    "br": {},
    "gzip": {"COMPRESS_ALGORITHM_STREAMING": ["gzip"]},
    "deflate": {"COMPRESS_ALGORITHM_STREAMING": ["deflate"]},
    "none": {"COMPRESS_STREAMS": False},
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "page.html"
    path.write_bytes(PAGE)
    os.utime(path, (1_700_000_000, 1_700_000_000))
    return path


@pytest.fixture(params=DOORS)
def door(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def make(door: str, path: Path, config: str = "br") -> Flask:
    app = Flask(__name__)
    app.config.update(CONFIGS[config])
    Compress(app)
    app.add_url_rule("/", "view", lambda: DOORS[door](path))
    if door == "upgraded":
        ZeroCopy(app)
    return app


def get(app: Flask, method: str = "GET", **fields: str) -> TestResponse:
    headers = {"Accept-Encoding": "br, gzip, deflate"} | {name.replace("_", "-"): fields[name] for name in fields}
    return app.test_client().open("/", method=method, headers=headers, buffered=True)


@pytest.mark.parametrize("config", CONFIGS)
def test_a_whole_file_is_compressed_as_a_whole(config: str, door: str, path: Path) -> None:
    response = get(make(door, path, config))
    coding = response.headers.get("Content-Encoding", "none")
    assert coding == config
    assert DECODE.get(coding, bytes)(response.data) == PAGE
    assert response.headers["ETag"] == ('"v1"' if coding == "none" else f'"v1:{coding}"')
    assert response.headers["Vary"] == "Accept-Encoding"
    assert response.headers.get("Content-Length") == (str(len(PAGE)) if coding == "none" else None)


@pytest.mark.parametrize("config", CONFIGS)
def test_a_part_is_one_of_the_file_itself_or_the_answer_is_whole(config: str, door: str, path: Path) -> None:
    response = get(make(door, path, config), Range="bytes=5-2999")
    coding = response.headers.get("Content-Encoding", "none")
    if door == "response" and config != "none":
        # It is decided when it is sent, and had become something else by then.
        assert (response.status_code, coding, DECODE[coding](response.data)) == (200, config, PAGE)
        return
    assert (response.status_code, coding, response.data) == (206, "none", PAGE[5:3000])
    assert response.headers["Content-Range"] == f"bytes 5-2999/{len(PAGE)}"
    assert response.headers["Content-Length"] == "2995"
    assert (response.headers["ETag"], response.headers["Vary"]) == ('"v1"', "Accept-Encoding")


def test_several_parts_are_of_the_file_itself(path: Path) -> None:
    response = get(make("send_file", path), Range="bytes=0-1,5-2999")
    assert (response.status_code, response.headers.get("Content-Encoding")) == (206, None)
    parts = parse_multipart(response.headers["Content-Type"], response.data)
    assert [part.data for part in parts] == [PAGE[:2], PAGE[5:3000]]


@pytest.mark.parametrize("order", ["read first", "field first"])
def test_a_part_that_a_recipe_compresses_is_one_of_the_file_itself(order: str, door: str, path: Path) -> None:
    app = Flask(__name__)
    app.add_url_rule("/", "view", lambda: DOORS[door](path))
    if door == "upgraded":
        ZeroCopy(app)

    @app.after_request
    def compress(response: flask.Response) -> flask.Response:
        response.direct_passthrough = False
        if order == "field first":
            response.headers["Content-Encoding"] = "gzip"
        response.set_data(gzip.compress(response.get_data()))
        response.headers["Content-Encoding"] = "gzip"
        return response

    response = get(app, Range="bytes=5-2999")
    if response.status_code == 200:
        assert gzip.decompress(response.data) == PAGE
    else:
        assert (response.data, response.headers.get("Content-Encoding")) == (PAGE[5:3000], None)
        assert response.headers["Content-Length"] == "2995"


def test_a_part_of_the_file_is_no_part_of_its_compressed_form(door: str, path: Path) -> None:
    app = make(door, path)
    response = get(app, Range="bytes=5-2999", If_Range='"v1:br"')
    assert (response.status_code, brotli.decompress(response.data)) == (200, PAGE)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_other_answers_have_no_body_and_no_coding(method: str, config: str, door: str, path: Path) -> None:
    app = make(door, path, config)
    requests = {304: {"If_None_Match": '"v1"'}, 412: {"If_Match": '"another"'}, 416: {"Range": f"bytes={len(PAGE)}-"}}
    for status, fields in requests.items():
        response = get(app, method, **fields)
        coded = "Content-Encoding" in response.headers
        if door == "response" or (method == "HEAD" and status == 416):
            # As above; and a Range is for GET alone.
            assert response.status_code in (200, status)
        else:
            assert response.status_code == status
        assert not coded or response.status_code == 200
        if response.status_code != 200 or method == "HEAD":
            assert response.data == b""


def test_what_is_not_compressed_is_moved_by_the_server(path: Path, transfers: list[Transfer]) -> None:
    app = make("send_file", path)
    app.wsgi_app = server = FileWrapperServer(app.wsgi_app)  # type: ignore[method-assign]
    assert get(app, Range="bytes=5-2999").data == PAGE[5:3000]
    assert [(given.offset, given.count) for given in server.handed_over] == [(5, 2995)]
    assert [transfer.way for transfer in transfers] == ["file_wrapper"]


def test_a_compressed_file_passes_the_middleware_untouched(path: Path) -> None:
    app = make("send_file", path)
    app.wsgi_app = ZeroCopyMiddleware(app.wsgi_app, conditional=True)  # type: ignore[method-assign]
    response = get(app)
    assert (response.headers["Content-Encoding"], brotli.decompress(response.data)) == ("br", PAGE)
    assert get(app, Range="bytes=5-2999").data == PAGE[5:3000]
