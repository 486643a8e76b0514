"""Static folders of Flask: as Flask has them, and as `ZeroCopy(app, static=...)` answers for them."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import brotli
import pytest
from flask import Blueprint, Flask, Response, request
from werkzeug.test import TestResponse

from tests.support.asking import ask_wsgi
from tests.support.table import STATIC_CASES, Case, Files, check
from tests.support.table import Response as Answer
from zcresponse import Transfer
from zcresponse.files.rooted import Root
from zcresponse.flask import ZeroCopy
from zcresponse.wsgi import static_app

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX file systems")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in (tmp_path / "static", tmp_path / "bp" / "static"):
        (folder / "docs").mkdir(parents=True)
        (folder / "app.js").write_text("plain")
        (folder / "app.js.br").write_bytes(brotli.compress(b"plain"))
        (folder / "app.3f9a1c07.js").write_text("hashed")
        (folder / "docs" / "page.html").write_text("<p>page")
        (folder / "404.html").write_text("<p>nowhere")
        (folder / ".env").write_text("secret")
    for path in tmp_path.rglob("*"):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    return tmp_path


def make_app(root: Path, static: Any = None, *, upgraded: bool = True, **settings: Any) -> Flask:
    app = Flask("tested", root_path=str(root), static_folder="static")
    app.config["TESTING"] = True
    if upgraded:
        ZeroCopy(app, static=static, **settings)
    # It comes after the upgrade.
    blueprint = Blueprint("bp", "bp", root_path=str(root / "bp"), static_folder="static", url_prefix="/bp")
    app.register_blueprint(blueprint)
    return app


def get(app: Flask, url: str, method: str = "GET", **headers: str) -> TestResponse:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return app.test_client().open(url, method=method, headers=named, buffered=True)


@pytest.fixture(params=["/static", "/bp/static"])
def folder(request: pytest.FixtureRequest) -> str:
    return str(request.param)


PATHS = "/app.js /app.js/ /docs /docs/ /docs/page.html /docs/../app.js /nothing /../x /docs/%2e%2e/app.js".split()


@pytest.mark.parametrize("static", [None, {"hidden": True}])
@pytest.mark.parametrize("path", [*PATHS, "/.env"])
def test_a_path_is_answered_as_by_flask(root: Path, folder: str, path: str, static: Any) -> None:
    answers = []
    for app in (make_app(root, upgraded=False), make_app(root, static)):
        for method in ("GET", "HEAD", "POST", "OPTIONS"):
            got = get(app, folder + path, method)
            fields = [got.headers.get(name, "") for name in ("Content-Type", "Content-Disposition", "Cache-Control")]
            # A name stands with quotes or without.
            fields[1] = fields[1].replace('"', "")
            fields.append(",".join(sorted(got.headers.get("Allow", "").split(", "))))
            answers.append((got.status_code, got.data, fields))
    assert answers[:4] == answers[4:]


@pytest.mark.parametrize("case", [case for case in STATIC_CASES if case.method in ("GET", "HEAD")], ids=str)
def test_the_common_table_holds(case: Case, files: Files) -> None:
    app = Flask("tested", static_folder=str(files.directory), static_url_path="/static")
    ZeroCopy(app, static={"precompressed": True})
    url = "/static" + case.url_path(static=True)
    if url.endswith("/"):
        pytest.skip("a slash at the end is nothing to Flask")
    headers = [(name.decode(), value.decode("latin-1")) for name, value in case.raw_fields]
    got = app.test_client().open(url, method=case.method, headers=headers, buffered=True)
    kept = [field for field in got.headers.items() if field[0] not in ("Vary", "Cache-Control", "Content-Disposition")]
    check(case, Answer.of(got.status_code, kept, got.data), files)


def test_options_are_those_of_a_static_application(root: Path, folder: str) -> None:
    app = make_app(root, {"precompressed": True, "hashed_names": True, "not_found": "404.html"})
    coded = get(app, f"{folder}/app.js", Accept_Encoding="br")
    assert brotli.decompress(coded.data) == b"plain"
    assert (coded.headers["Content-Encoding"], coded.headers["Vary"]) == ("br", "Accept-Encoding")
    assert coded.headers["Content-Disposition"] == 'inline; filename="app.js"'
    assert coded.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert get(app, f"{folder}/app.js", Accept_Encoding="br", If_None_Match=coded.headers["ETag"]).status_code == 304
    assert get(app, f"{folder}/app.js", If_None_Match=coded.headers["ETag"]).status_code == 200
    part = get(app, f"{folder}/app.js", Accept_Encoding="br", Range="bytes=1-2")
    assert (part.status_code, part.data) == (206, coded.data[1:3])
    hashed = get(app, f"{folder}/app.3f9a1c07.js")
    assert hashed.headers.getlist("Cache-Control") == ["public, max-age=31536000, immutable"]
    for path in ("/.env", "/nothing", "/docs"):
        missing = get(app, folder + path)
        assert (missing.status_code, missing.data) == (404, b"<p>nowhere")
        assert not {"Cache-Control", "Content-Disposition"} & set(missing.headers.keys())


@pytest.mark.parametrize(
    ("suffix", "media_type"),
    [("br", "application/octet-stream"), ("gz", "application/gzip"), ("zst", "application/zstd")],
)
def test_a_copy_asked_for_by_its_name_is_what_a_static_application_says(
    root: Path, suffix: str, media_type: str
) -> None:
    (root / "static" / f"plain.css.{suffix}").write_bytes(b"coded")
    theirs = ask_wsgi(static_app(root / "static", precompressed=True), f"/plain.css.{suffix}")
    got = get(make_app(root, {"precompressed": True}), f"/static/plain.css.{suffix}")
    assert [got.headers["Content-Type"]] == [media_type] == theirs.values("Content-Type")
    assert "Content-Encoding" not in got.headers


def test_how_long_files_are_kept_is_flasks_to_say(root: Path, folder: str) -> None:
    for app in (make_app(root), make_app(root, {})):
        app.config["SEND_FILE_MAX_AGE_DEFAULT"] = 60
        assert get(app, f"{folder}/app.js").headers["Cache-Control"] == "public, max-age=60"
    assert get(make_app(root, {"max_age": 5}), f"{folder}/app.js").headers["Cache-Control"] == "max-age=5"


def test_what_comes_before_and_after_a_request_still_does(root: Path, folder: str) -> None:
    app = make_app(root, {})

    @app.before_request
    def refuse() -> tuple[str, int] | None:
        return None if "key" in request.args else ("no", 401)

    @app.after_request
    def sign(response: Response) -> Response:
        response.headers["X-Signed"] = "yes"
        return response

    @app.errorhandler(404)
    def missing(error: Exception) -> tuple[str, int]:
        return "own page", 404

    assert get(app, f"{folder}/app.js").status_code == 401
    assert get(app, f"{folder}/app.js?key=1", Range="bytes=0-1").headers["X-Signed"] == "yes"
    assert get(app, f"{folder}/nothing?key=1").data == b"own page"


def test_a_view_may_send_a_static_file(root: Path) -> None:
    app = make_app(root, {"precompressed": True})
    app.add_url_rule("/page", "page", lambda: app.send_static_file("app.js"), methods=["GET", "POST"])
    assert get(app, "/page", Accept_Encoding="br").headers["Content-Encoding"] == "br"
    assert get(app, "/page", "POST").data == b"plain"


def test_a_way_of_ones_own_to_send_them_stays(root: Path) -> None:
    class Own(Flask):
        def send_static_file(self, filename: str) -> Response:
            return Response("own")

    app = Own("tested", root_path=str(root), static_folder="static")
    ZeroCopy(app, static={})
    assert get(app, "/static/app.js").data == b"own"
    other = make_app(root, {})
    other.send_static_file = lambda filename: Response("set")  # type: ignore[method-assign]
    assert get(other, "/static/app.js").data == b"set"


def test_types_that_the_machine_knows_count_where_ours_do_not(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mimetypes

    mimetypes.init()
    monkeypatch.setitem(mimetypes.types_map, ".zzz", "application/x-zzz")
    (root / "static" / "a.zzz").touch()
    (root / "static" / "a.nothing").touch()
    app = make_app(root, {})
    assert get(app, "/static/a.zzz").headers["Content-Type"] == "application/x-zzz"
    assert get(app, "/static/a.nothing").headers["Content-Type"] == "application/octet-stream"


@posix
def test_links_that_lead_inside_are_followed(root: Path, folder: str) -> None:
    static = root / folder.strip("/")
    (root / "outside.txt").write_text("outside")
    (static / "in.txt").symlink_to("app.js")
    (static / "out.txt").symlink_to(root / "outside.txt")
    app = make_app(root, {})
    assert get(app, f"{folder}/in.txt").data == b"plain"
    assert get(app, f"{folder}/out.txt").status_code == 404
    assert get(make_app(root, {"follow_symlinks": "anywhere"}), f"{folder}/out.txt").data == b"outside"


def test_running_out_of_descriptors_is_no_404(root: Path, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def lookup(self: Root, url_path: str) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(Root, "lookup", lookup)
    got = get(make_app(root, {}), f"{folder}/app.js")
    assert (got.status_code, got.headers["Retry-After"]) == (503, "1")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_forbidden(root: Path, folder: str) -> None:
    (root / folder.strip("/") / "app.js").chmod(0)
    assert get(make_app(root, {}), f"{folder}/app.js").status_code == 403


@pytest.mark.parametrize(
    ("static", "named"),
    [
        (True, "static: "),
        ("x", "static: "),
        ({"index": "a"}, "index"),
        ({"listing": True}, "listing"),
        ({"x": 1}, "x"),
        ({"precompressed": ["xz"]}, "xz"),
    ],
)
def test_a_mistake_is_told_at_once(static: Any, named: str) -> None:
    with pytest.raises((TypeError, ValueError), match=named):
        ZeroCopy(static=static)


def test_how_it_went_is_told(root: Path, folder: str) -> None:
    seen: list[Transfer] = []
    app = make_app(root, {}, on_transfer=seen.append, sendfile=False)
    get(app, f"{folder}/app.js")
    assert [(each.way, each.reason) for each in seen] == [("chunks", "switched off by sendfile=False")]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_nothing_stays_open_whatever_is_answered(root: Path, folder: str) -> None:
    app = make_app(root, {"precompressed": True, "not_found": "404.html"})
    get(app, f"{folder}/app.js")
    before = len(os.listdir("/proc/self/fd"))
    for path in PATHS:
        for headers in ({}, {"If_None_Match": "*"}, {"Range": "bytes=9-"}, {"Accept_Encoding": "br"}):
            get(app, folder + path, **headers)
    assert len(os.listdir("/proc/self/fd")) == before
