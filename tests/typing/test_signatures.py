"""What a type checker says of the doors: read by `mypy --strict`, and run.

`assert_type` pins what is right. A call that is wrong stands under a `type: ignore` with its code: the day it is no
longer an error, `warn_unused_ignores` is one. Wrong calls that Python itself refuses are run too.
"""

from __future__ import annotations

import inspect
import os
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, assert_type
from wsgiref.types import WSGIApplication

import pytest
from django.views.static import serve as stock_serve
from fastapi import FastAPI
from flask import Flask
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from zcresponse import (
    FileRegion,
    OpenedFile,
    RequestHead,
    ResponsePlan,
    Transfer,
    asgi,
    django,
    open_file,
    plan_file_response,
    wsgi,
)
from zcresponse.asgi import ZeroCopyMiddleware, send_file, static_app
from zcresponse.events import OnTransfer, Way, subscribe
from zcresponse.flask import ZeroCopy
from zcresponse.plan.static import StaticOptions
from zcresponse.starlette import ZeroCopyFileResponse, ZeroCopyStaticFiles, install
from zcresponse.testing import FileWrapperServer, HandedOver, PathsendServer, record_transfers
from zcresponse.uvicorn import ZeroCopyH11Protocol, ZeroCopyHttpToolsProtocol

HERE = Path(__file__)


def test_the_package_says_that_it_is_typed() -> None:
    assert (resources.files("zcresponse") / "py.typed").is_file()


# --- events -----------------------------------------------------------------------------------------------------------


def returns_nothing(transfer: Transfer) -> None:
    """The usual listener."""


def returns_something(transfer: Transfer) -> int:
    """What a listener returns is nobody's business."""
    return transfer.bytes_promised


def takes_anything(*args: object) -> None:
    """Such as `print`."""


class Collector:
    """A listener that is a method."""

    def __init__(self) -> None:
        self.all: list[Transfer] = []

    def add(self, transfer: Transfer) -> None:
        """Keep it."""
        self.all.append(transfer)


def listeners() -> list[OnTransfer]:
    """All kinds of them."""
    return [returns_nothing, returns_something, takes_anything, Collector().add, print]


def test_every_callable_that_takes_a_transfer_is_a_listener() -> None:
    for listener in listeners():
        ZeroCopyFileResponse(HERE, on_transfer=listener)
        static_app(HERE.parent, on_transfer=listener)
        with subscribe(listener):
            pass


def test_the_wsgi_middleware_takes_what_frameworks_make() -> None:
    app = Flask("app")
    for make in app, app.wsgi_app, wsgi.static_app(HERE.parent), wsgi.ZeroCopyMiddleware(app):
        wrapped = wsgi.ZeroCopyMiddleware(
            make,
            conditional=True,
            x_sendfile=[HERE.parent, str(HERE.parent)],
            x_accel_redirect={"/files/": HERE.parent},
            follow_symlinks=True,
            on_transfer=print,
            sendfile=False,
        )
        application: WSGIApplication = wrapped
        assert_type(FileWrapperServer(application, ranges=False).handed_over, list[HandedOver])
    if TYPE_CHECKING:
        wsgi.ZeroCopyMiddleware(app, True)  # type: ignore[call-arg]
        wsgi.ZeroCopyMiddleware(app, x_accel_redirect=["/files/"])  # type: ignore[arg-type]


def test_both_static_applications_take_the_same_options() -> None:
    for make in asgi.static_app, wsgi.static_app:
        make(
            [HERE.parent, str(HERE.parent)],
            index=None,
            follow_symlinks="anywhere",
            hidden=True,
            not_found="404.html",
            precompressed=["gzip"],
            hashed_names=lambda path: path.startswith("/assets/"),
            suffix_headers={".js": {"X-A": "1"}, "": [("X-B", "2")]},
            file_headers=lambda path, file: {"X-Size": str(file.size)},
            max_age=60,
            on_transfer=print,
        )


def test_the_doors_for_static_files_take_them_too() -> None:
    options: StaticOptions = {"precompressed": True, "hashed_names": r"\.[0-9a-f]{8}\.", "hidden": True, "max_age": 60}
    files = ZeroCopyStaticFiles(directory=HERE.parent, html=True, on_transfer=print, **options)
    assert_type(Mount("/files", files, name="files").app, ASGIApp)
    ZeroCopy(Flask("app"), static=options, sendfile=False)
    if TYPE_CHECKING:
        ZeroCopyStaticFiles(HERE.parent)  # type: ignore[call-arg]
        ZeroCopyStaticFiles(directory=HERE.parent, no_such=1)  # type: ignore[call-arg]
        ZeroCopy(Flask("app"), static={"no_such": 1})  # type: ignore[arg-type]


@pytest.mark.parametrize(("ours", "theirs"), [(ZeroCopyStaticFiles, StaticFiles), (django.serve, stock_serve)])
def test_a_drop_in_takes_what_the_stock_one_takes(ours: Any, theirs: Any) -> None:
    taken, expected = (inspect.signature(each).parameters for each in (ours, theirs))
    assert list(taken)[: len(expected)] == list(expected)
    for name, parameter in expected.items():
        assert (taken[name].kind, taken[name].default) == (parameter.kind, parameter.default)


def fields_of(transfer: Transfer) -> None:
    """The types of an account's fields."""
    assert_type(transfer.way, Literal["none", "sendfile", "joined", "pathsend", "file_wrapper", "offload", "chunks"])
    assert_type(transfer.way, Way)
    assert_type(transfer.reason, str)
    assert_type(transfer.status, int)
    assert_type(transfer.bytes_promised, int)
    assert_type(transfer.bytes_sent, int | None)
    assert_type(transfer.duration_s, float | None)
    assert_type(transfer.completed, bool | None)


def test_an_account_has_its_fields_and_cannot_be_changed() -> None:
    transfer = Transfer("chunks", "", 200, 1, 1, 0.1, True)
    fields_of(transfer)
    with pytest.raises(AttributeError):
        transfer.status = 404  # type: ignore[misc]
    with pytest.raises(AttributeError):
        transfer.bytes  # type: ignore[attr-defined]  # noqa: B018
    with record_transfers() as transfers:
        assert_type(transfers, list[Transfer])


# --- Starlette and FastAPI --------------------------------------------------------------------------------------------


def test_a_response_takes_what_file_response_takes_and_options_by_keyword() -> None:
    response = ZeroCopyFileResponse(
        HERE,
        200,
        {"X-View": "1"},
        "text/plain",
        BackgroundTask(print),
        "name.txt",
        os.stat(HERE),
        "inline",
        offset=0,
        count=None,
        closefd=True,
        on_transfer=print,
        sendfile=None,
        removed_later=True,
        etag='"v1"',
        last_modified=datetime.now(UTC),
        max_age=60,
        immutable=False,
        private=True,
        no_cache=False,
        no_store=False,
    )
    as_stock: FileResponse = response
    as_any: Response = response
    assert as_stock is as_any


def test_a_response_takes_every_kind_of_file() -> None:
    ZeroCopyFileResponse("file")
    ZeroCopyFileResponse(b"file")
    ZeroCopyFileResponse(HERE)
    with HERE.open("rb") as buffered, HERE.open("rb", buffering=0) as raw:
        ZeroCopyFileResponse(buffered)
        ZeroCopyFileResponse(raw)
        ZeroCopyFileResponse(raw.fileno(), closefd=False)
        ZeroCopyFileResponse(open_file(buffered, closefd=False))


def test_options_have_several_types_each() -> None:
    ZeroCopyFileResponse(HERE, etag=False, last_modified=False)
    ZeroCopyFileResponse(HERE, etag=True, last_modified=True)
    ZeroCopyFileResponse(HERE, last_modified=1_600_000_000)
    ZeroCopyFileResponse(HERE, last_modified=1.5, max_age=None)


def test_frameworks_take_the_response_and_the_application() -> None:
    async def view(request: Any) -> Response:
        return ZeroCopyFileResponse(HERE)

    starlette = Starlette(routes=[Route("/", view), Mount("/files", static_app(HERE.parent))])
    install(starlette)
    app = FastAPI(default_response_class=ZeroCopyFileResponse)

    @app.get("/", response_class=ZeroCopyFileResponse)
    async def path() -> Path:
        return HERE

    install(app)
    starlette.add_middleware(ZeroCopyMiddleware)
    wrapped: ASGIApp = ZeroCopyMiddleware(app, zerocopysend=True, stall_timeout_s=1.5)
    served: ASGIApp = PathsendServer(wrapped, ranges=False)
    assert callable(served)


def test_wrong_calls_that_python_refuses_are_type_errors() -> None:
    with pytest.raises(TypeError):
        ZeroCopyFileResponse()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        ZeroCopyFileResponse(HERE, maxage=60)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        ZeroCopyFileResponse(HERE, 200, None, None, None, None, None, "inline", 0)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        install()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        ZeroCopyMiddleware(static_app(HERE.parent), True)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        static_app(HERE.parent, "index.html")  # type: ignore[call-arg, arg-type]
    with pytest.raises(TypeError):
        static_app(HERE.parent, removed_later=True)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        open_file(HERE, 10)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        PathsendServer(static_app(HERE.parent), False)  # type: ignore[call-arg]


# --- plain ASGI -------------------------------------------------------------------------------------------------------


async def bare(scope: Scope, receive: Receive, send: Send) -> None:
    """An application written with Starlette's types."""
    result = await send_file(  # type: ignore[func-returns-value]
        scope,
        receive,
        send,
        HERE,
        status=200,
        headers=[("X-View", "1")],
        offset=0,
        count=10,
        closefd=True,
        on_transfer=print,
        sendfile=False,
        removed_later=True,
        media_type="text/plain",
        filename="name.txt",
        disposition="inline",
        etag=True,
        last_modified=1.5,
        max_age=60,
        immutable=True,
        private=True,
        no_cache=False,
        no_store=False,
    )
    assert_type(result, None)


def test_applications_are_asgi_applications() -> None:
    apps: list[ASGIApp] = [bare, static_app(HERE.parent), static_app(str(HERE.parent), index=None, listing=True)]
    assert all(callable(ZeroCopyMiddleware(app)) for app in apps)


def test_protocol_classes_have_settings() -> None:
    class Patient(ZeroCopyHttpToolsProtocol):
        stall_timeout_s = 600.0
        sendfile = False

    assert Patient.sendfile is False
    with pytest.raises(TypeError, match="pathsend"):

        class Mistaken(ZeroCopyH11Protocol):
            pathsend = "off"  # type: ignore[assignment]


# --- the core ---------------------------------------------------------------------------------------------------------


def test_the_core_is_typed() -> None:
    request = RequestHead("GET", range="bytes=0-9")
    assert_type(request.range, str | None)
    with open_file(HERE, offset=0, count=None, closefd=True) as file:
        assert_type(file, OpenedFile)
        assert_type(file.size, int)
        assert_type(file.mtime_ns, int)
        assert_type(file.path, str | None)
        assert_type(file.region(0, 10), FileRegion)
        plan = plan_file_response(request, file, media_type="text/plain", max_age=60)
        assert_type(plan, ResponsePlan)
        assert_type(plan.status, int)
        assert_type(plan.fields, list[tuple[str, str]])
        assert_type(plan.segments, tuple[bytes | FileRegion, ...])
        assert_type(plan.body_length, int)


# Wrong calls that Python lets pass, or that would fail only later: read, not run.
if TYPE_CHECKING:

    def no_argument() -> None:
        """Not a listener."""

    def wrong_listener(transfer: str) -> None:
        """Takes something else."""

    def wrong_values(transfer: Transfer, scope: Scope, receive: Receive, send: Send, app: ASGIApp) -> None:
        ZeroCopyFileResponse(HERE, on_transfer=no_argument)  # type: ignore[arg-type]
        ZeroCopyFileResponse(HERE, on_transfer=wrong_listener)  # type: ignore[arg-type]
        ZeroCopyFileResponse(HERE, on_transfer="log")  # type: ignore[arg-type]
        ZeroCopyFileResponse(None)  # type: ignore[arg-type]
        ZeroCopyFileResponse(HERE, "200")  # type: ignore[arg-type]
        ZeroCopyFileResponse(HERE, max_age="60")  # type: ignore[arg-type]
        ZeroCopyFileResponse(HERE, etag=5)  # type: ignore[arg-type]
        ZeroCopyFileResponse(HERE, last_modified="yesterday")  # type: ignore[arg-type]
        ZeroCopyFileResponse(HERE, immutable=None)  # type: ignore[arg-type]
        ZeroCopyFileResponse(HERE, sendfile="off")  # type: ignore[arg-type]
        ZeroCopyFileResponse(HERE, removed_later="yes")  # type: ignore[arg-type]
        ZeroCopyFileResponse(HERE, disposition="inline")  # type: ignore[call-arg]
        ZeroCopyFileResponse(HERE, headers=[("X-View", "1")])  # type: ignore[arg-type]
        send_file(scope, receive, send)  # type: ignore[call-arg, unused-coroutine]
        send_file(scope, receive, send, HERE, 200)  # type: ignore[call-arg, unused-coroutine]
        send_file(scope, receive, send, HERE, headers={"X-View": "1"})  # type: ignore[dict-item, unused-coroutine]
        send_file(scope, receive, send, HERE, background=None)  # type: ignore[call-arg, unused-coroutine]
        static_app(5)  # type: ignore[arg-type]
        static_app(HERE, index=True)  # type: ignore[arg-type]
        static_app(HERE, precompressed=1)  # type: ignore[arg-type]
        wsgi.static_app(HERE, file_headers={"X-A": "1"})  # type: ignore[arg-type]
        install(app)  # type: ignore[arg-type]
        ZeroCopyMiddleware(app, stall_timeout_s="60")  # type: ignore[arg-type]
        subscribe(wrong_listener)  # type: ignore[arg-type]
        open_file(None)  # type: ignore[arg-type]
        RequestHead(b"GET")  # type: ignore[arg-type]
        # Last, because a checker takes what follows for unreachable.
        assert transfer.way == "zerocopy"  # type: ignore[comparison-overlap]
