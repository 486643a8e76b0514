"""Offloading through every door, in the frameworks' own test clients: one setting, and no view that knows of it."""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import flask
import pytest
from django.middleware.gzip import GZipMiddleware
from flask import Flask
from starlette.background import BackgroundTask
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware as StarletteGZip
from starlette.requests import Request
from starlette.testclient import TestClient
from werkzeug.exceptions import NotFound
from werkzeug.test import Client

from tests.support.django_project import MIDDLEWARE, ask, project
from tests.support.table import Response
from zcresponse import Offload, Transfer, asgi, django, starlette, werkzeug, wsgi
from zcresponse.errors import SettingError
from zcresponse.flask import ZeroCopy, ZeroCopyFileResponse, send_file, send_from_directory
from zcresponse.plan.offload import SETTING
from zcresponse.testing import record_transfers

CONTENT = bytes(range(256)) * 16
NAME = "a file, 100 percent.bin"

#: Asks a door for one file.
Ask: TypeAlias = Callable[[str, Mapping[str, str]], Response]


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """A file in a folder that is offloaded, for a name of which nothing is open when the test has ended."""
    path = tmp_path / NAME
    path.write_bytes(CONTENT)
    os.utime(path, (1_700_000_000, 1_700_000_000))
    yield path
    gc.collect()
    assert not any(_target(name) == str(path) for name in os.listdir("/proc/self/fd"))


def _target(name: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{name}")
    except OSError:
        return ""


@pytest.fixture
def offload(path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the deployer has said, in the environment."""
    setting = f"X-Accel-Redirect {path.parent}=/_media"
    monkeypatch.setenv(SETTING, setting)
    return setting


def _wsgi_client(app: Any, url: str = "/") -> Ask:
    def ask(method: str, fields: Mapping[str, str]) -> Response:
        got = Client(app).open(url, method=method, headers=dict(fields), buffered=True)
        return Response.of(got.status_code, list(got.headers), got.data)

    return ask


def _asgi_client(app: Any, url: str = "/") -> Ask:
    def ask(method: str, fields: Mapping[str, str]) -> Response:
        got = TestClient(app).request(method, url, headers=dict(fields))
        return Response.of(got.status_code, got.headers.multi_items(), got.content)

    return ask


def _flask(view: Callable[[], Any], config: Mapping[str, object] | None = None, *, upgraded: bool = False) -> Flask:
    app = Flask(__name__)
    app.config.update(config or {})
    app.add_url_rule("/", view_func=view, endpoint="view")
    if upgraded:
        ZeroCopy(app)
    return app


def _flask_static(path: Path) -> Flask:
    app = Flask(__name__, static_folder=path.parent, static_url_path="")
    ZeroCopy(app)
    return app


def _starlette(response: Callable[[], Any]) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await response()(scope, receive, send)

    return app


def _asgi_file(path: Path, **options: Any) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asgi.send_file(scope, receive, send, path, **options)

    return app


def _respond(request: Any, path: Path) -> Any:
    return django.ZeroCopyFileResponse(path)


def _serve(request: Any, path: Path) -> Any:
    return django.serve(request, path.name, document_root=path.parent)


def _django(way: str, *middleware: Any, view: Callable[[Any, Path], Any] = _respond) -> Callable[[Path], Ask]:
    def door(path: Path) -> Ask:
        def asked(method: str, fields: Mapping[str, str]) -> Response:
            with project(lambda request: view(request, path), *middleware):
                return ask(way, method, **{name.replace("-", "_"): value for name, value in fields.items()})

        return asked

    return door


#: Each makes what asks for a file behind a door.
DOORS: dict[str, Callable[[Path], Ask]] = {
    "wsgi": lambda path: _wsgi_client(lambda environ, start: wsgi.send_file(environ, start, path)),
    "wsgi, static": lambda path: _wsgi_client(wsgi.static_app(path.parent), f"/{NAME}"),
    "werkzeug": lambda path: _wsgi_client(lambda environ, start: werkzeug.ZeroCopyFileResponse(path)(environ, start)),
    "flask": lambda path: _wsgi_client(_flask(lambda: send_file(path))),
    "flask, directory": lambda path: _wsgi_client(_flask(lambda: send_from_directory(path.parent, path.name))),
    "flask, response": lambda path: _wsgi_client(_flask(lambda: ZeroCopyFileResponse(path))),
    "flask, upgraded": lambda path: _wsgi_client(_flask(lambda: flask.send_file(path), upgraded=True)),
    "django, wsgi": _django("wsgi"),
    "django, middleware": _django("stock wsgi", MIDDLEWARE),
    "django, asgi": _django("asgi"),
    "django, static": _django("wsgi", view=_serve),
    "django, static on asgi": _django("asgi", view=_serve),
    "django, stock asgi": _django("stock asgi", MIDDLEWARE),
    "asgi": lambda path: _asgi_client(_asgi_file(path)),
    "asgi, static": lambda path: _asgi_client(asgi.static_app(path.parent), f"/{NAME}"),
    "starlette": lambda path: _asgi_client(_starlette(lambda: starlette.ZeroCopyFileResponse(path))),
    "starlette, static": lambda path: _asgi_client(starlette.ZeroCopyStaticFiles(directory=path.parent), f"/{NAME}"),
    "flask, static": lambda path: _wsgi_client(_flask_static(path), f"/{NAME}"),
    "wsgi, middleware": lambda path: _wsgi_client(
        wsgi.ZeroCopyMiddleware(_flask(lambda: send_file(path)), conditional=True)
    ),
    "asgi, middleware": lambda path: _asgi_client(
        asgi.ZeroCopyMiddleware(_starlette(lambda: starlette.ZeroCopyFileResponse(path)), conditional=True)
    ),
}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("door", DOORS)
def test_every_door_names_the_file_and_sends_no_byte_of_it(door: str, method: str, path: Path, offload: str) -> None:
    with record_transfers() as transfers:
        answer = DOORS[door](path)(method, {"Range": "bytes=0-0", "If-None-Match": "*"})
    assert (answer.status, answer.body) == (200, b"")
    assert answer.values("x-accel-redirect") == ["/_media/a%20file%2C%20100%20percent.bin"]
    assert answer.values("content-length") == ["0"]
    assert answer.values("accept-ranges") == []
    assert len(answer.values("etag")) == len(answer.values("last-modified")) == len(answer.values("content-type")) == 1
    if "stock asgi" not in door:
        length = len(CONTENT) if method == "GET" else 0
        assert transfers == [Transfer("offload", "the front server sends the file", 200, length, None, None, None)]


@pytest.mark.parametrize("door", DOORS)
def test_without_the_setting_the_same_view_sends_the_file(door: str, path: Path) -> None:
    answer = DOORS[door](path)("GET", {"Range": "bytes=0-99"})
    assert (answer.status, answer.body) == (206, CONTENT[:100])
    assert answer.values("x-accel-redirect") == []


@pytest.mark.parametrize("door", DOORS)
def test_a_client_cannot_ask_for_it(door: str, path: Path) -> None:
    asked = {"X-Accel-Redirect": "/_media/x", "X-Sendfile": "/etc/passwd", "X-Sendfile-Type": "X-Accel-Redirect"}
    answer = DOORS[door](path)("GET", {**asked, "X-Accel-Mapping": f"{path.parent}=/_media"})
    assert (answer.status, answer.body) == (200, CONTENT)
    assert answer.values("x-accel-redirect") == answer.values("x-sendfile") == []


@pytest.mark.parametrize("door", [door for door in DOORS if "stock asgi" not in door])
def test_what_lies_elsewhere_is_sent_here_and_it_is_said_why(
    door: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SETTING, "X-Sendfile /srv/elsewhere")
    with record_transfers() as transfers:
        answer = DOORS[door](path)("GET", {"Range": "bytes=1-2"})
    assert (answer.status, answer.body) == (206, CONTENT[1:3])
    assert transfers[0].reason.startswith("not offloaded: the file lies in none of the directories; ")


# --- who chooses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", ["text", "value"])
def test_flask_and_django_have_a_setting(setting: str, path: Path) -> None:
    chosen = f"X-Sendfile '{path.parent}'" if setting == "text" else Offload("X-Sendfile", [path.parent])
    app = _flask(lambda: send_file(path), {SETTING: chosen})
    assert _wsgi_client(app)("GET", {}).values("x-sendfile") == [str(path)]
    with project(lambda request: django.ZeroCopyFileResponse(path), **{SETTING: chosen}):
        for way in "wsgi", "asgi":
            assert ask(way).values("x-sendfile") == [str(path)]


def test_a_frameworks_setting_wins_over_the_environment(path: Path, offload: str) -> None:
    for setting, field in ((False, ""), (None, "x-accel-redirect"), (f"X-Sendfile '{path.parent}'", "x-sendfile")):
        app = _flask(lambda: send_file(path), {SETTING: setting})
        answer = _wsgi_client(app)("GET", {})
        assert [name for name in ("x-accel-redirect", "x-sendfile") if answer.values(name)] == [field][: bool(field)]
        assert answer.body == (b"" if field else CONTENT)


def test_a_mistake_in_a_setting_is_told_at_the_start(path: Path) -> None:
    app = _flask(lambda: send_file(path), {SETTING: "X-Sendfile media"})
    with pytest.raises(SettingError, match="'media'"):
        ZeroCopy(app)
    with project(lambda request: None, **{SETTING: "X-Sendfile media"}):
        for start in django.get_wsgi_application, django.get_asgi_application:
            with pytest.raises(SettingError, match="'media'"):
                start()
        with pytest.raises(SettingError, match="'media'"):
            django.ZeroCopyMiddleware(lambda request: None)


@pytest.mark.parametrize("chosen", ["other", "nothing", "the environment's"])
def test_a_middleware_may_choose_for_what_is_below_it(chosen: str, path: Path, offload: str) -> None:
    other = Offload("X-Sendfile", {path.parent: "/there"})
    given: Any = {"other": other, "nothing": False, "the environment's": None}[chosen]
    fields = {"other": ["x-sendfile"], "nothing": [], "the environment's": ["x-accel-redirect"]}[chosen]
    view = _starlette(lambda: starlette.ZeroCopyFileResponse(path))
    for client in (
        _wsgi_client(wsgi.ZeroCopyMiddleware(_flask(lambda: send_file(path)), offload=given)),
        _asgi_client(asgi.ZeroCopyMiddleware(view, offload=given)),
    ):
        answer = client("GET", {})
        assert [name for name in ("x-accel-redirect", "x-sendfile") if answer.values(name)] == fields
        assert answer.body == (b"" if fields else CONTENT)


@pytest.mark.parametrize("middleware", [asgi.ZeroCopyMiddleware, wsgi.ZeroCopyMiddleware])
def test_a_middleware_does_not_take_out_what_the_front_server_is_to_read(
    middleware: Any, path: Path, offload: str
) -> None:
    with pytest.raises(ValueError, match="offload: files that X-Accel-Redirect names are sent here"):
        middleware(print, x_accel_redirect={"/_media/": path.parent})
    middleware(print, x_accel_redirect={"/_media/": path.parent}, offload=False)
    middleware(print, x_sendfile=[path.parent])


SENT_HERE = "ZCRESPONSE_OFFLOAD: files that X-Sendfile names are sent here, by a ZeroCopyMiddleware with x_sendfile="


def test_nor_what_flask_or_a_middleware_below_says(path: Path) -> None:
    chosen = Offload("X-Sendfile", [path.parent])
    flask_app = _flask(lambda: send_file(path), {SETTING: chosen, "PROPAGATE_EXCEPTIONS": True})
    below = asgi.ZeroCopyMiddleware(_starlette(lambda: starlette.ZeroCopyFileResponse(path)), offload=chosen)
    for client in (
        _wsgi_client(wsgi.ZeroCopyMiddleware(flask_app, x_sendfile=[path.parent])),
        _asgi_client(asgi.ZeroCopyMiddleware(below, x_sendfile=[path.parent])),
    ):
        with pytest.raises(SettingError, match=SENT_HERE):
            client("GET", {})
    other = wsgi.ZeroCopyMiddleware(flask_app, x_accel_redirect={"/_media/": path.parent})
    assert _wsgi_client(other)("GET", {}).values("x-sendfile") == [str(path)]


def test_nor_what_django_says(path: Path) -> None:
    setting = f"X-Sendfile '{path.parent}'"
    with project(lambda request: django.ZeroCopyFileResponse(path), **{SETTING: setting}):
        around = wsgi.ZeroCopyMiddleware(django.get_wsgi_application(), x_sendfile=[path.parent])
        with pytest.raises(SettingError, match=SENT_HERE):
            _wsgi_client(around)("GET", {})


# --- files that do not stay -------------------------------------------------------------------------------------------


def test_a_file_that_somebody_may_delete_is_sent_here(path: Path, offload: str) -> None:
    def with_background() -> Any:
        return starlette.ZeroCopyFileResponse(path, background=BackgroundTask(lambda: None))

    for app in (
        _starlette(with_background),
        _starlette(lambda: starlette.ZeroCopyFileResponse(path, removed_later=True)),
        _asgi_file(path, removed_later=True),
    ):
        assert _asgi_client(app)("GET", {"Range": "bytes=0-9"}).body == CONTENT[:10]


def test_a_temporary_file_that_goes_with_its_object_is_sent_here(path: Path, offload: str) -> None:
    def view() -> Any:
        file = tempfile.NamedTemporaryFile(dir=path.parent)  # noqa: SIM115 - it goes with the response
        file.write(CONTENT)
        file.seek(0)
        return flask.send_file(file, download_name=NAME)

    answer = _wsgi_client(_flask(view, upgraded=True))("GET", {})
    assert (answer.status, answer.body, answer.values("x-accel-redirect")) == (200, CONTENT, [])


@pytest.mark.parametrize("late", [False, True])
def test_a_flask_response_with_something_to_do_at_the_end_is_sent_here(late: bool, path: Path, offload: str) -> None:
    def view() -> Any:
        response = send_file(path, conditional=not late)
        response.call_on_close(path.unlink)
        return response.make_conditional(flask.request.environ, True) if late else response

    answer = _wsgi_client(_flask(view))("GET", {"Range": "bytes=0-9"})
    assert (answer.status, answer.body, answer.values("x-accel-redirect")) == (206, CONTENT[:10], [])
    assert not path.exists()


@pytest.mark.parametrize("way", ["wsgi", "asgi"])
def test_a_django_response_with_something_to_do_at_the_end_is_sent_here(way: str, path: Path, offload: str) -> None:
    def view(request: Any) -> Any:
        response = django.ZeroCopyFileResponse(path)
        response._resource_closers.append(path.unlink)
        return response

    with project(view):
        answer = ask(way, Range="bytes=0-9")
    assert (answer.status, answer.body, answer.values("x-accel-redirect")) == (206, CONTENT[:10], [])
    assert not path.exists()


@pytest.mark.parametrize(
    "app",
    [
        lambda path: _wsgi_client(_flask(lambda: send_file(path, sendfile=False))),
        lambda path: _wsgi_client(lambda environ, start: wsgi.send_file(environ, start, path, sendfile=False)),
        lambda path: _wsgi_client(wsgi.static_app(path.parent, sendfile=False), f"/{NAME}"),
        lambda path: _asgi_client(_asgi_file(path, sendfile=False)),
        lambda path: _asgi_client(asgi.static_app(path.parent, sendfile=False), f"/{NAME}"),
        lambda path: _asgi_client(_starlette(lambda: starlette.ZeroCopyFileResponse(path, sendfile=False))),
        lambda path: _wsgi_client(_flask(lambda: send_file(path.open("rb"), download_name=NAME))),
        lambda path: _wsgi_client(_flask(lambda: send_file(path, count=100))),
    ],
)
def test_one_response_can_be_kept_back(app: Callable[[Path], Ask], path: Path, offload: str) -> None:
    answer = app(path)("GET", {"Range": "bytes=0-9"})
    assert answer.body == CONTENT[:10]
    assert answer.values("x-accel-redirect") == []


# --- what others do to a response -------------------------------------------------------------------------------------


def test_a_flask_response_without_conditions_is_sent_here(path: Path, offload: str) -> None:
    # The front server would answer them.
    answer = _wsgi_client(_flask(lambda: send_file(path, conditional=False)))("GET", {"Range": "bytes=0-9"})
    assert (answer.status, answer.body) == (200, CONTENT)


def test_with_another_status_the_file_is_sent_here(path: Path, offload: str) -> None:
    answer = _wsgi_client(_flask(lambda: (send_file(path), 404)))("GET", {})
    assert (answer.status, answer.body, answer.values("x-accel-redirect")) == (404, CONTENT, [])


def test_another_body_in_its_place_is_sent(path: Path, offload: str) -> None:
    def view() -> Any:
        response = send_file(path)
        assert "X-Accel-Redirect" in response.headers
        response.direct_passthrough = False
        response.set_data(response.get_data()[:3] + b" and no more")
        return response

    answer = _wsgi_client(_flask(view))("GET", {})
    assert (answer.status, answer.body) == (200, CONTENT[:3] + b" and no more")
    assert answer.values("x-accel-redirect") == []
    assert answer.values("content-length") == [str(len(answer.body))]


def test_a_frozen_response_has_the_file(path: Path, offload: str) -> None:
    with _flask(lambda: "").test_request_context():
        response = send_file(path)
        response.direct_passthrough = False
        response.freeze()
    assert response.get_data() == CONTENT
    assert "X-Accel-Redirect" not in response.headers


def test_what_django_compresses_is_sent_here(path: Path, offload: str) -> None:
    def view(request: Any) -> Any:
        return django.ZeroCopyFileResponse(path, request=request)

    for decide, middleware in ((view, GZipMiddleware), (lambda request: django.ZeroCopyFileResponse(path), MIDDLEWARE)):
        stack = [f"{GZipMiddleware.__module__}.{GZipMiddleware.__qualname__}"]
        with project(decide, *stack, *([middleware] if middleware is MIDDLEWARE else [])):
            answer = ask("wsgi", Accept_Encoding="gzip")
        assert answer.values("content-encoding") == ["gzip"]
        assert answer.values("x-accel-redirect") == []
        assert answer.body[:2] == b"\x1f\x8b"


def test_another_status_in_django_has_the_file(path: Path, offload: str) -> None:
    def view(request: Any) -> Any:
        response = django.ZeroCopyFileResponse(path, request=request)
        assert response["X-Accel-Redirect"]
        response.status_code = 404
        return response

    with project(view):
        answer = ask("wsgi")
    assert (answer.status, answer.body, answer.values("x-accel-redirect")) == (404, CONTENT, [])


def test_starlettes_middleware_lets_it_pass(path: Path, offload: str) -> None:
    async def add(request: Request, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers["X-Seen"] = "yes"
        return response

    app = StarletteGZip(BaseHTTPMiddleware(_starlette(lambda: starlette.ZeroCopyFileResponse(path)), add))
    answer = _asgi_client(app)("GET", {"Accept-Encoding": "gzip"})
    assert (answer.status, answer.body, answer.values("x-seen")) == (200, b"", ["yes"])
    assert answer.values("content-encoding") == []
    assert len(answer.values("x-accel-redirect")) == 1


def test_flasks_own_x_sendfile_stays_flasks(path: Path, offload: str) -> None:
    answer = _wsgi_client(_flask(lambda: send_file(path), {"USE_X_SENDFILE": True}))("GET", {})
    assert answer.values("x-sendfile") == [str(path)]
    assert answer.values("x-accel-redirect") == []


def test_a_missing_file_is_missed_here(path: Path, offload: str) -> None:
    with pytest.raises(NotFound), _flask(lambda: "").test_request_context():
        send_from_directory(path.parent, "none")
