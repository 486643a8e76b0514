"""Code shown is code run: every example by the command in its docstring, and every block of Python in the pages."""

from __future__ import annotations

import ast
import asyncio
import importlib
import inspect
import logging
import os
import random
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from flask import Flask
from starlette.applications import Starlette
from starlette.testclient import TestClient
from werkzeug.test import Client as WSGIClient

from tests.support import servers
from tests.support.kernel import trace_sendfile
from tests.support.memory import Client, scope
from tests.support.servers import ROOT, Server
from tests.support.table import Files
from zcresponse import Transfer
from zcresponse.asgi import send_file
from zcresponse.starlette import ZeroCopyFileResponse
from zcresponse.testing import PathsendServer, record_transfers

EXAMPLES = ROOT / "examples"
INDEX = (EXAMPLES / "site/index.html").read_bytes()
NOTES = (EXAMPLES / "site/notes.txt").read_bytes()
LOST = (EXAMPLES / "site/404.html").read_bytes()
TOKEN = {"Authorization": "Bearer secret"}
EXPORT = f"name,bytes\r\nwelcome,{len(INDEX)}\r\nnotes,{len(NOTES)}\r\n".encode()

#: What FastAPI answers to a request that carries no token at all: older releases say 403.
NO_TOKEN = (401, 403)

#: What each example answers: path, fields, status or several, body.
ANSWERS: dict[str, list[tuple[str, dict[str, str], int | tuple[int, ...], bytes | None]]] = {
    "asgi_app": [("/", {}, 200, INDEX), ("/", {"Range": "bytes=0-9"}, 206, INDEX[:10])],
    "fastapi_app": [
        ("/", {}, 200, INDEX),
        ("/", {"Range": "bytes=0-9"}, 206, INDEX[:10]),
        ("/downloads/notes", {}, NO_TOKEN, None),
        ("/downloads/notes", {"Authorization": "Bearer wrong"}, 401, None),
        ("/downloads/notes", {"Authorization": "Basic c2VjcmV0"}, NO_TOKEN, None),
        ("/downloads/notes", TOKEN, 200, NOTES),
        ("/downloads/notes", {**TOKEN, "Range": "bytes=0-9"}, 206, NOTES[:10]),
        ("/downloads/other", {}, NO_TOKEN, None),
        ("/downloads/other", TOKEN, 404, None),
    ],
    "flask_app": [
        ("/downloads/notes", {}, 401, None),
        ("/downloads/notes", {"Authorization": "Bearer wrong"}, 401, None),
        ("/downloads/notes", TOKEN, 200, NOTES),
        ("/downloads/notes", {**TOKEN, "Range": "bytes=0-9"}, 206, NOTES[:10]),
        ("/downloads/other", {}, 401, None),
        ("/downloads/other", TOKEN, 404, None),
        ("/watch/clip.mp4", {}, 200, None),
        ("/videos/missing.mp4", {}, 404, None),
        ("/videos/../flask_app.py", {}, 404, None),
        ("/export.csv", {}, 401, None),
        ("/export.csv", TOKEN, 200, EXPORT),
        ("/export.csv", {**TOKEN, "Range": "bytes=-10"}, 206, EXPORT[-10:]),
    ],
    "starlette_app": [
        ("/downloads/notes", {}, 401, None),
        ("/downloads/notes", {"Authorization": "Bearer wrong"}, 401, None),
        ("/downloads/notes", TOKEN, 200, NOTES),
        ("/downloads/notes", {**TOKEN, "Range": "bytes=0-9"}, 206, NOTES[:10]),
        ("/downloads/other", {}, 401, None),
        ("/downloads/other", TOKEN, 404, None),
    ],
    "flask_static": [
        ("/", {}, 200, None),
        ("/static/notes.txt", {}, 200, NOTES),
        ("/static/notes.txt", {"Range": "bytes=0-9"}, 206, NOTES[:10]),
        ("/static/missing", {}, 404, None),
    ],
    "starlette_static": [
        ("/", {}, 200, INDEX),
        ("/notes.txt", {"Range": "bytes=0-9"}, 206, NOTES[:10]),
        ("/a/page/of/the/router", {}, 200, INDEX),
        ("/missing.js", {}, 404, None),
        ("/.git/config", {}, 404, None),
        ("/a/.git/hooks/x", {}, 404, None),
        ("/api/version", {}, 200, None),
    ],
    "static_site": [
        ("/", {}, 200, INDEX),
        ("/notes.txt", {}, 200, NOTES),
        ("/notes.txt", {"Range": "bytes=0-9"}, 206, NOTES[:10]),
        ("/missing", {}, 404, LOST),
        ("/../static_site.py", {}, 404, LOST),
    ],
    "static_wsgi": [
        ("/", {}, 404, None),
        ("/notes.txt", {}, 200, NOTES),
        ("/notes.txt", {"Range": "bytes=0-9"}, 206, NOTES[:10]),
        ("/missing", {}, 404, None),
    ],
    # A worker class for the application of another example.
    "workers": [("/", {}, 200, INDEX), ("/", {"Range": "bytes=0-9"}, 206, INDEX[:10])],
    "wrapped_asgi": [
        ("/notes", {}, 200, NOTES),
        ("/page", {}, 200, INDEX),
        ("/page", {"Range": "bytes=0-9"}, 206, INDEX[:10]),
        ("/missing", {}, 404, None),
    ],
    "wrapped_wsgi": [
        ("/notes", {}, 200, NOTES),
        ("/notes", {"Range": "bytes=0-9"}, 206, NOTES[:10]),
        ("/page", {}, 200, INDEX),
        ("/page", {"Range": "bytes=0-9"}, 206, INDEX[:10]),
        ("/missing", {}, 404, None),
    ],
    "wsgi_app": [("/", {}, 200, INDEX), ("/", {"Range": "bytes=0-9"}, 206, INDEX[:10])],
}
WSGI = ["flask_app", "flask_static", "static_wsgi", "wrapped_wsgi", "wsgi_app"]
#: What serves nothing.
PROGRAMS = ["backup_over_sockets"]
APPLICATIONS = [name for name in ANSWERS if name not in ("workers", *WSGI)]


def test_every_example_is_run_here() -> None:
    assert sorted(path.stem for path in EXAMPLES.glob("*.py")) == sorted([*ANSWERS, *PROGRAMS])


def test_the_example_with_sockets_sends_and_copies(tmp_path: Path) -> None:
    given, copy = EXAMPLES / "asgi_app.py", tmp_path / "copy"
    argv = [sys.executable, str(EXAMPLES / "backup_over_sockets.py"), str(given), str(copy)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    size = given.stat().st_size
    assert re.fullmatch(rf"{size} bytes copied\n{size} bytes sent, [1-9]\d+ compressed\n", run.stdout)
    assert copy.read_bytes() == given.read_bytes()


TESTS = sorted(path.stem for path in EXAMPLES.glob("testing/*.py"))


def shown_test(name: str) -> Any:
    module = importlib.import_module(f"examples.testing.{name}")
    (test,) = (value for name, value in vars(module).items() if name.startswith("test_"))
    return test


@pytest.mark.parametrize("name", TESTS)
def test_a_test_that_is_shown_passes(name: str) -> None:
    shown_test(name)()


@pytest.mark.parametrize("name", TESTS)
def test_a_test_that_is_shown_fails_where_nothing_is_given_to_the_server(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = shown_test(name)
    monkeypatch.setenv("ZCRESPONSE_SENDFILE", "off")
    # A real server would ask the environment before it offers anything.
    monkeypatch.setattr("zcresponse.asgi.transport.offer_in", lambda scope: None)
    with pytest.raises((AssertionError, ValueError)):
        test()


def is_expected(status: int, expected: int | tuple[int, ...]) -> bool:
    return status in expected if isinstance(expected, tuple) else status == expected


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOWNLOAD_TOKEN", "secret")


def application(name: str) -> Any:
    return importlib.import_module(f"examples.{name}").app


@pytest.mark.usefixtures("token")
@pytest.mark.parametrize("name", APPLICATIONS)
def test_an_example_answers_in_the_test_client(name: str) -> None:
    client = TestClient(application(name))
    for path, fields, status, body in ANSWERS[name]:
        response = client.get(path, headers=fields)
        assert is_expected(response.status_code, status), (path, fields)
        assert body is None or response.content == body


@pytest.mark.usefixtures("token")
@pytest.mark.parametrize("name", APPLICATIONS)
def test_an_example_hands_its_files_to_the_server_and_opens_none_for_those_without_access(name: str) -> None:
    client = TestClient(PathsendServer(application(name)))
    for path, fields, status, body in ANSWERS[name]:
        with record_transfers() as transfers:
            client.get(path, headers=fields)
        if body is not None:
            assert [(transfer.way, transfer.status) for transfer in transfers] == [("pathsend", status)]
        else:
            # A framework's refusal is no transfer; that of a directory is one without a file.
            assert all(transfer.way == "chunks" and is_expected(transfer.status, status) for transfer in transfers)


@pytest.mark.usefixtures("token")
@pytest.mark.parametrize("name", WSGI)
def test_a_wsgi_example_answers_in_the_test_client(name: str) -> None:
    client = WSGIClient(application(name))
    for path, fields, status, body in ANSWERS[name]:
        with record_transfers() as transfers:
            response = client.get(path, headers=fields, buffered=True)
        assert is_expected(response.status_code, status), (path, fields)
        assert body is None or response.data == body
        # A refusal opens nothing; in memory no server takes a file.
        if body is not None:
            assert [(transfer.way, transfer.status) for transfer in transfers] == [("chunks", status)]
        else:
            # A framework's is no transfer.
            assert all(transfer.reason == "the body is not a file" for transfer in transfers)


@pytest.mark.usefixtures("token")
def test_the_flask_example_lets_no_cache_share_what_one_user_may_have() -> None:
    client = application("flask_app").test_client()
    for path, cache_control, name in [
        ("/downloads/notes", "private, no-cache", "notes.txt"),
        ("/export.csv", "no-store", "export.csv"),
    ]:
        with client.get(path, headers=TOKEN) as response:
            assert response.headers["Cache-Control"] == cache_control
            assert response.headers["Content-Disposition"] == f'attachment; filename="{name}"'
    with client.get("/downloads/notes") as response:
        assert response.www_authenticate.type == "bearer"


def command(name: str) -> tuple[dict[str, str], list[str]]:
    """The variables and arguments of the command in an example's docstring."""
    shown = ast.get_docstring(ast.parse((EXAMPLES / f"{name}.py").read_text("utf-8")))
    assert shown is not None
    words = shlex.split(shown.splitlines()[-1])
    env = dict(word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word))
    return env, words[len(env) :]


def run(name: str, **more: str) -> AbstractContextManager[Server]:
    """Run the command, at a port of its own, with `more` variables."""
    env, (program, *arguments) = command(name)
    env.update(more)
    argv = [sys.executable, "-m", program, *arguments]
    if program == "uvicorn":
        return servers.run_server([*argv, "--port", "0"], announced=r"running on http://127\.0\.0\.1:(\d+)", env=env)
    assert program == "gunicorn"
    return servers.gunicorn(*arguments, env=env)


@pytest.mark.parametrize("name", ANSWERS)
def test_the_command_in_an_examples_docstring_serves_it(name: str) -> None:
    with run(name) as server:
        with server.connect() as connection:
            for path, fields, status, body in ANSWERS[name]:
                response = connection.get(path, *fields.items())
                assert is_expected(response.status, status), (path, fields)
                assert body is None or response.body == body
        assert "Traceback" not in server.log()


@pytest.mark.parametrize("name", ["asgi_app", "workers"])
def test_the_plain_example_tells_that_its_file_went_the_best_way(name: str) -> None:
    with run(name) as server:
        with server.connect() as connection:
            connection.get("/")
        # A small file that is cached leaves in one write with the head.
        servers.wait_until(lambda: f"{len(INDEX)} bytes by joined\n" in server.log(), what="the line")


def test_the_plain_wsgi_example_tells_how_its_small_file_was_sent() -> None:
    with run("wsgi_app") as server:
        with trace_sendfile(server.pid) as trace, server.connect() as connection:
            assert connection.get("/").body == INDEX
        assert trace.total_from(EXAMPLES / "site/index.html") == 0
        line = f"{len(INDEX)} bytes by chunks: a small body costs gunicorn less as bytes\n"
        servers.wait_until(lambda: line in server.log(), what="the line")


def test_the_flask_examples_video_is_sought_in_and_the_kernel_moves_it(tmp_path: Path) -> None:
    content = random.Random("clip").randbytes(3_000_000)
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(content)
    with run("flask_app", VIDEOS=str(tmp_path)) as server:
        with trace_sendfile(server.pid) as trace, server.connect() as connection:
            page = connection.get("/watch/clip.mp4").body.decode()
            (source,) = re.findall('<video controls src="([^"]+)">', page)
            # As a player does it: from the start, then from where the user clicks.
            for start in 0, 2_000_000, 1_000_000:
                response = connection.get(source, ("Range", f"bytes={start}-"))
                assert response.status == 206
                assert response.values("content-type") == ["video/mp4"]
                assert response.values("content-range") == [f"bytes {start}-{len(content) - 1}/{len(content)}"]
                assert response.body == content[start:]
            response = connection.request("HEAD", source)
            assert (response.status, response.values("content-length")) == (200, [str(len(content))])
        assert trace.total_from(clip) == 3_000_000 + 1_000_000 + 2_000_000


# --- pages ------------------------------------------------------------------------------------------------------------


class Block:
    """One fenced block of Python in a page."""

    def __init__(self, page: Path, line: int, code: str) -> None:
        self.page = page.relative_to(ROOT).as_posix()
        self.line = line
        # So that a traceback shows the page and its line.
        self.code = "\n" * line + code

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    def compile(self) -> Any:
        return compile(self.code, str(ROOT / self.page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)

    def run(self, **names: Any) -> dict[str, Any]:
        """Run it with what the page takes for granted, and return all its names."""
        names["__name__"] = "page"
        waiting = eval(self.compile(), names)
        if inspect.isawaitable(waiting):
            asyncio.run(_wait(waiting))
        return names


async def _wait(waiting: Any) -> None:
    await waiting


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
_FENCE = re.compile(r"^( *)```python[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_SNIPPET = re.compile(r'^ *--8<-- "([^"]+)"$', re.MULTILINE)


def fenced() -> Iterator[Block]:
    for page in PAGES:
        text = page.read_text("utf-8")
        for found in _FENCE.finditer(text):
            code = inspect.cleandoc(found[2]) if found[1] else found[2]
            yield Block(page, text.count("\n", 0, found.start()) + 1, code)


ALL = list(fenced())
BLOCKS = [block for block in ALL if not _SNIPPET.search(block.code)]


def the_block(page: str, holds: str) -> Block:
    """The only block of a page with some text."""
    (block,) = (block for block in BLOCKS if block.page == page and holds in block.code)
    return block


def test_pages_include_whole_examples() -> None:
    included = {name for block in ALL for name in _SNIPPET.findall(block.code)}
    assert included
    assert all((ROOT / name).is_file() for name in included)
    assert len(ALL) > len(BLOCKS) > 5


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_of_python_compiles(block: Block) -> None:
    block.compile()


#: Names that pages take for granted, by the text of a block that needs them. What is not here is run as it stands.
GIVEN: dict[str, Any] = {
    "@app.get(": lambda: {"app": FastAPI()},
    "ZeroCopy(app": lambda: {"app": Flask("page")},
    "settings.STATIC_URL": lambda: {
        "settings": SimpleNamespace(STATIC_URL="static/", STATIC_ROOT=Path("site")),
        "urlpatterns": [],
    },
    "install(app)": lambda: {"app": Starlette()},
    "ZeroCopyMiddleware(app": lambda: {"app": Starlette()},
    # For the settings of a project.
    "get_wsgi_application()": lambda: vars(importlib.import_module("tests.support.django_doors")),
}
# These need more than a name: they have tests of their own below.
_APART = ("uvicorn.run(", "await send_file(")


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if not any(text in block.code for text in _APART)], ids=str
)
def test_a_block_of_python_runs(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for directory in ("site", "theme"):
        Path(directory).mkdir()
    # What a page does to logging must not outlive the test.
    monkeypatch.setattr(logging, "basicConfig", lambda: None)
    level = logging.getLogger("zcresponse").level
    try:
        block.run(
            **{name: value for text, names in GIVEN.items() if text in block.code for name, value in names().items()}
        )
    finally:
        logging.getLogger("zcresponse").setLevel(level)


def test_the_tutorials_application_serves_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("files").mkdir()
    Path("files/big.bin").write_bytes(b"big" * 1000)
    app = the_block("docs/tutorial/first-download.md", "Route(").run()["app"]
    response = TestClient(app).get("/download")
    assert response.content == b"big" * 1000
    assert response.headers["content-disposition"] == 'attachment; filename="big.bin"'


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_the_first_view_that_is_shown_makes_a_response(page: str) -> None:
    view = the_block(page, "async def download").run(app=FastAPI())["download"]
    response = asyncio.run(view(*([None] if inspect.signature(view).parameters else [])))
    assert isinstance(response, ZeroCopyFileResponse)
    assert response.headers["content-disposition"] == 'attachment; filename="model.bin"'


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_the_first_flask_view_that_is_shown_sends_a_file(page: str, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(b"model" * 1000)
    names: dict[str, Any] = {"__name__": "page"}
    exec(the_block(page, "app = Flask(").code.replace("/srv/data/model.bin", str(path)), names)
    response = names["app"].test_client().get("/download", headers={"Range": "bytes=-5"}, buffered=True)
    assert (response.status_code, response.data) == (206, b"model")
    assert response.headers["content-disposition"] == 'attachment; filename="model.bin"'


def test_the_werkzeug_application_that_is_shown_sends_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.bin").write_bytes(b"model" * 1000)
    app = the_block("docs/how-to/wsgi.md", "zcresponse.werkzeug").run()["app"]
    response = WSGIClient(app).get("/", headers={"Range": "bytes=-5"}, buffered=True)
    assert (response.status_code, response.data) == (206, b"model")
    assert response.headers["content-disposition"] == 'attachment; filename="model.bin"'


def test_the_flask_view_with_a_temporary_file_sends_and_closes_it() -> None:
    files: list[Any] = []

    def write_rows(file: Any) -> None:
        file.write(b"a,b\n")
        files.append(file)

    view = the_block("docs/how-to/temporary-files.md", "zcresponse.flask").run(write_rows=write_rows)["export"]
    app = Flask("page")
    app.add_url_rule("/", view_func=view)
    assert app.test_client().get("/", buffered=True).data == b"a,b\n"
    assert [file.closed for file in files] == [True]


def test_the_test_that_is_shown_for_flask_passes_and_fails(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(b"x")
    shown: dict[str, Any] = {"__name__": "page"}
    exec(the_block("docs/how-to/testing.md", "app.test_client()").code.replace("/srv/data/model.bin", str(path)), shown)
    shown["test_the_download_is_sent_to_its_end"]()
    path.unlink()
    with pytest.raises(AssertionError):
        shown["test_the_download_is_sent_to_its_end"]()


def test_the_view_with_a_temporary_file_sends_and_deletes_it() -> None:
    names = the_block("docs/how-to/temporary-files.md", "async def export").run(
        write_rows=lambda file: file.write(b"a,b\n")
    )
    response = asyncio.run(names["export"](None))
    app = Starlette()
    app.add_route("/", lambda request: response)
    path = Path(response.path)
    assert path.exists()
    assert TestClient(app).get("/").content == b"a,b\n"
    assert not path.exists()


def test_the_call_with_a_temporary_file_is_one() -> None:
    block = the_block("docs/how-to/temporary-files.md", "await send_file(")

    async def call(tmp: Path) -> bytes:
        client = Client()
        await eval(
            block.compile(),
            {"send_file": send_file, "scope": scope(), "receive": client.receive, "send": client.send, "path": tmp},
        )
        return b"".join(client.bodies)

    with tempfile.NamedTemporaryFile(delete=False) as file:
        file.write(b"temporary")
    assert asyncio.run(call(Path(file.name))) == b"temporary"
    assert not Path(file.name).exists()


def test_the_program_that_is_shown_starts_uvicorn_with_arguments_that_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[uvicorn.Config] = []
    monkeypatch.setattr(uvicorn, "run", lambda app, **options: made.append(uvicorn.Config(app, **options)))
    the_block("docs/how-to/uvicorn.md", "uvicorn.run(").run()
    (config,) = made
    assert config.http == "zcresponse.uvicorn:ZeroCopyProtocol"


def test_the_subscription_that_is_shown_hears_of_transfers(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    app = Starlette()
    app.add_route("/", lambda request: ZeroCopyFileResponse(files.path("small.bin")))
    code = the_block("docs/reference/events.md", "subscribe(print)").code
    exec(code.replace("    ...", "    get()"), {"get": lambda: TestClient(app).get("/")})
    assert capsys.readouterr().out.startswith(f"{Transfer.__name__}(way='chunks'")
