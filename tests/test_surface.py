"""What users may import, pinned; and that a door loads nothing that it does not need."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

SURFACE = {
    "zcresponse": [
        "FileRegion",
        "Offload",
        "OpenedFile",
        "RequestHead",
        "ResponsePlan",
        "Transfer",
        "__version__",
        "open_file",
        "plan_file_response",
    ],
    "zcresponse.asgi": ["ZeroCopyMiddleware", "send_file", "static_app"],
    "zcresponse.django": [
        "ZeroCopyFileResponse",
        "ZeroCopyMiddleware",
        "get_asgi_application",
        "get_wsgi_application",
        "serve",
        "static",
    ],
    "zcresponse.errors": [
        "DeliveryError",
        "FileTruncatedError",
        "NotARegularFileError",
        "SettingError",
        "ZeroCopyError",
    ],
    "zcresponse.events": ["OnTransfer", "Transfer", "Way", "logger", "report", "subscribe"],
    "zcresponse.flask": ["ZeroCopy", "ZeroCopyFileResponse", "send_file", "send_from_directory"],
    "zcresponse.sendfile": ["AVAILABLE", "CLIENT_GONE", "copy_file", "is_refusal", "send_region", "sendfile"],
    "zcresponse.starlette": ["ZeroCopyFileResponse", "ZeroCopyStaticFiles", "install"],
    "zcresponse.testing": ["FileWrapperServer", "HandedOver", "PathsendServer", "record_transfers"],
    "zcresponse.werkzeug": ["ZeroCopyFileResponse"],
    "zcresponse.wsgi": ["ZeroCopyMiddleware", "send_file", "static_app"],
    "zcresponse.uvicorn": ["ZeroCopyH11Protocol", "ZeroCopyHttpToolsProtocol", "ZeroCopyProtocol"],
}


@pytest.mark.parametrize("module", SURFACE)
def test_a_module_offers_these_names(module: str) -> None:
    loaded = importlib.import_module(module)
    assert sorted(loaded.__all__) == sorted(SURFACE[module])
    assert all(hasattr(loaded, name) for name in SURFACE[module])


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("zcresponse", "starlette fastapi uvicorn anyio h11 httptools uvloop trio click pytest"),
        ("zcresponse.asgi", "starlette fastapi uvicorn anyio h11 httptools uvloop trio click pytest"),
        (
            "zcresponse.wsgi",
            "werkzeug flask django starlette uvicorn anyio h11 httptools trio click pytest gevent eventlet",
        ),
        ("zcresponse.werkzeug", "flask django starlette uvicorn anyio h11 httptools trio click pytest gevent eventlet"),
        ("zcresponse.flask", "django starlette uvicorn anyio h11 httptools trio pytest gevent eventlet"),
        ("zcresponse.starlette", "fastapi uvicorn h11 httptools uvloop trio click pytest"),
        ("zcresponse.uvicorn", "starlette fastapi uvloop trio pytest"),
    ],
)
def test_a_door_loads_no_other_framework(module: str, unwanted: str) -> None:
    code = f"import {module}, sys; print(*(name for name in {unwanted.split()} if name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []
