"""Answers of other frameworks decided anew, and files that are only named: through the middleware, in memory."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from tests.support import others
from tests.support.memory import Client
from tests.support.table import CASES, DATA, FILES, Case, Files, Response, check, problems
from zcresponse.asgi import ZeroCopyMiddleware
from zcresponse.asgi.types import ASGIApp, Message
from zcresponse.testing import record_transfers


@pytest.fixture(scope="module", autouse=True)
def apps(files: Files) -> Iterator[None]:
    """The applications serve the table's files; and no descriptor is left open."""
    patch = pytest.MonkeyPatch()
    patch.setattr(others, "DIRECTORY", str(files.directory))
    before = set(os.listdir("/proc/self/fd"))
    yield
    patch.undo()
    assert set(os.listdir("/proc/self/fd")) == before


def upgraded(files: Files, **options: Any) -> ZeroCopyMiddleware:
    return ZeroCopyMiddleware(
        others.app, x_sendfile=[files.directory], x_accel_redirect={"/protected/": files.directory}, **options
    )


def ask(
    app: ASGIApp, path: str, *, method: str = "GET", query: str = "", fields: list[tuple[bytes, bytes]] | None = None
) -> Response:
    """One request, answered by messages that any server takes."""
    client = Client()
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": quote(path).encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": fields or [],
        "http_version": "1.1",
        "scheme": "http",
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "asgi": {"version": "3.0", "spec_version": "2.3"},
    }

    async def main() -> None:
        await app(scope, client.receive, client.send)

    asyncio.run(main())
    start, *rest = client.messages
    assert {message["type"] for message in rest} == {"http.response.body"}
    assert [message.get("more_body", False) for message in rest] == [True] * (len(rest) - 1) + [False]
    return Response.of(start["status"], start["headers"], b"".join(message.get("body", b"") for message in rest))


def ask_case(app: ASGIApp, case: Case, folder: str | None = None) -> Response:
    path = f"/{folder or ('dressed' if case.dressed else 'plain')}/{case.file}"
    return ask(app, path, method=case.method, fields=case.raw_fields)


# --- conditional=True -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_table_passes_for_an_application_that_sends_whole_files(case: Case, files: Files) -> None:
    check(case, ask_case(upgraded(files, conditional=True), case), files)


def _retagged(case: Case, tag: str) -> Case:
    """A row for an application that gives the file a tag of its own."""
    own = FILES[case.file].etag.strip('"')
    return replace(
        case,
        fields=tuple((name, value.replace(own, tag.strip('"'))) for name, value in case.fields),
        expect=tuple((name, value.replace(own, tag.strip('"')) if isinstance(value, str) else value)
                     for name, value in case.expect),
    )  # fmt: skip


@pytest.mark.parametrize("folder", ["starlette", "fastapi", "servestatic"])
def test_what_others_that_send_paths_leave_out_is_answered(folder: str, files: Files) -> None:
    app = upgraded(files, conditional=True)
    # servestatic does not find names with a percent sign.
    names = [name for name in FILES if folder != "servestatic" or "%" not in name]
    tags = {name: ask(app, f"/{folder}/{name}").values("etag")[0] for name in names}
    answered = 0
    for case in CASES:
        # It rounds the large file's time up, and downloads are another view's.
        if case.dressed or case.file == "large.bin" or case.file not in tags:
            continue
        retagged = _retagged(case, tags[case.file])
        bare = ask_case(others.app, retagged, folder)
        answer = ask_case(app, retagged, folder)
        if bare.status == 200 and case.method == "GET":
            check(retagged, answer, files)
            answered += case.status != 200
        else:
            # Ranges it answers itself, 400 and all; to HEAD it sends no file.
            assert _seen(answer) == _seen(bare)
    assert answered > 20


@pytest.mark.parametrize(
    ("folder", "options"), [("baize", {}), ("baize", {"zerocopysend": True}), ("servestatic", {"zerocopysend": True})]
)
def test_frameworks_that_send_bytes_or_descriptors_answer_as_they_do_bare(
    folder: str, options: dict[str, bool], files: Files
) -> None:
    app = upgraded(files, conditional=True, **options)
    for case in CASES:
        if case.is_static:
            assert _seen(ask_case(app, case, folder)) == _seen(ask_case(others.app, case, folder)), str(case)


@pytest.mark.parametrize("folder", others.FRAMEWORKS)
def test_without_it_frameworks_answer_as_they_do_bare(folder: str, files: Files) -> None:
    app = ZeroCopyMiddleware(others.app)
    for case in CASES:
        if case.is_static:
            assert _seen(ask_case(app, case, folder)) == _seen(ask_case(others.app, case, folder)), str(case)


def _seen(response: Response) -> tuple[int, list[tuple[str, str]], bytes]:
    """What two answers to the same request have in common: all but the time and what lies around parts."""
    # Older Starlette writes the boundary into Content-Range.
    several = "boundary" in str(response.fields)
    unlike = ("date", "content-type", "content-range") if several else ("date",)
    fields = sorted(field for field in response.fields if field[0] not in unlike)
    return response.status, fields, b"" if several else response.body


def conversation(*messages: Message, extensions: dict[str, Any] | None = None, conditional: bool = True) -> list[Any]:
    """What a server gets, and after which message of the application."""
    got: list[Any] = []

    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            for number, message in enumerate(messages):
                await send(message)
                got.append(number)

        async def send(message: Any) -> None:
            got.append(message["type"].rpartition(".")[2])

        scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "extensions": extensions or {}}
        await ZeroCopyMiddleware(app, conditional=conditional)(scope, Client().receive, send)

    asyncio.run(main())
    return got


def start(*fields: tuple[bytes, bytes], status: int = 200) -> Message:
    return {"type": "http.response.start", "status": status, "headers": list(fields)}


def body(data: bytes, *, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


def test_a_head_waits_for_the_next_message_alone() -> None:
    head = start((b"content-length", b"2"))
    assert conversation(head, body(b"a", more=True), body(b"b")) == [0, "start", "body", 1, "body", 2]


@pytest.mark.parametrize("head", [start(), start((b"content-encoding", b"br")), start(status=404)])
@pytest.mark.parametrize("extensions", [{}, {"http.response.pathsend": {}}])
def test_a_stream_does_not_wait(head: Message, extensions: dict[str, Any]) -> None:
    assert conversation(head, body(b"ab"), extensions=extensions) == ["start", 0, "body", 1]


def test_a_path_that_cannot_be_opened_is_an_error_before_the_head() -> None:
    path = {"type": "http.response.pathsend", "path": "/nothing/there"}
    for conditional in (False, True):
        with pytest.raises(FileNotFoundError):
            conversation(start((b"content-length", b"2")), path, conditional=conditional)


def test_an_answer_whose_length_is_not_the_files_is_an_error_before_the_head(files: Files) -> None:
    path = {"type": "http.response.pathsend", "path": str(files.path("small.bin"))}
    with pytest.raises(RuntimeError, match="1024 bytes, its Content-Length is 2000"):
        conversation(start((b"content-length", b"2000")), path)


def test_our_own_responses_are_left_alone(files: Files) -> None:
    app = upgraded(files, conditional=True)
    with record_transfers() as transfers:
        for fields in ([], [(b"range", b"bytes=5-9")], [(b"if-none-match", DATA.etag.encode())]):
            ask(app, "/ours/data.bin", fields=fields)
    assert [(t.way, t.status, t.bytes_sent) for t in transfers] == [
        ("chunks", 200, 300_000),
        ("chunks", 206, 5),
        ("none", 304, 0),
    ]


# --- X-Sendfile and X-Accel-Redirect ----------------------------------------------------------------------------------


def named(*pairs: tuple[str, str], status: int = 200) -> str:
    query = [item for field, value in pairs for item in (("field", field), ("value", value))]
    return urlencode([*query, ("status", str(status))], encoding="latin-1")


FIELDS = ("X-Sendfile", "x-accel-redirect")


@pytest.mark.parametrize("case", [case for case in CASES if not case.dressed], ids=str)
def test_the_table_passes_for_a_file_that_is_named(case: Case, files: Files) -> None:
    path = str(files.path(case.file)).encode().decode("latin-1")
    field, value = (FIELDS[0], path) if len(case.name) % 2 else (FIELDS[1], f"/protected/{quote(case.file)}")
    answer = ask(upgraded(files), "/named", method=case.method, query=named((field, value)), fields=case.raw_fields)
    assert not answer.values(field)
    assert answer.values("set-cookie") == ["a=1"]
    # Its own type wins over the file's.
    expect = tuple(pair for pair in case.expect if pair[0] != "content-type")
    found = problems(replace(case, expect=expect), answer, files)
    assert [problem for problem in found if "has content-type ['text/plain']" not in problem] == []


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_another_status_keeps_its_own_body_and_not_the_field(method: str, files: Files) -> None:
    for status in (201, 204, 302, 304, 403, 404, 412, 416, 500):
        query = named(("X-Sendfile", str(files.path("small.bin"))), status=status)
        answer = ask(upgraded(files), "/named", method=method, query=query)
        assert (answer.status, answer.values("x-sendfile")) == (status, [])
        assert answer.body == (b"" if method == "HEAD" else b"the application's own")


def test_a_part_that_somebody_has_chosen_is_chosen_anew(files: Files) -> None:
    query = named(("X-Sendfile", str(files.path("small.bin"))), ("Content-Range", "bytes 5-9/1024"), status=206)
    answer = ask(upgraded(files), "/named", query=query, fields=[(b"range", b"bytes=0-3")])
    assert (answer.status, answer.values("content-range")) == (206, ["bytes 0-3/1024"])
    assert ask(upgraded(files), "/named", query=query).body == FILES["small.bin"].content


HOSTILE = [
    "",
    "/",
    "a.txt",
    "/etc/passwd",
    "//etc/passwd",
    "/proc/self/environ",
    "file:///etc/passwd",
    "http://localhost/protected/small.bin",
    "@named",
    "{root}",
    "{root}/",
    "{root}/nothing",
    "{root}/small.bin/",
    "{root}/..",
    "{root}/../secret.txt",
    "{root}/%2e%2e/secret.txt",
    "{root}/%2E%2E%2Fsecret.txt",
    "{root}/..\\secret.txt",
    "{root}/..%5csecret.txt",
    "{root}/./../secret.txt",
    "{root}-2/secret.txt",
    "{root}/link",
    "{root}/folder/secret.txt",
    "{root}/fifo",
    "{root}/small.bin\0",
    "{root}/small.bin%00",
    "{root}/small.bin\r\nSet-Cookie: evil=1",
    "{root}/small.bin%0d%0aSet-Cookie: evil=1",
    "{root}/\xff\xfe",
    "{root}/" + "a" * 5000,
    "{root}/" + "a/" * 3000,
]


@pytest.fixture(scope="module")
def trap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with a file, beside what must stay out of reach."""
    base = tmp_path_factory.mktemp("trap")
    root = base / "root"
    root.mkdir()
    (root / "small.bin").write_bytes(b"small")
    for secret in (base / "secret.txt", base / "root-2" / "secret.txt"):
        secret.parent.mkdir(exist_ok=True)
        secret.write_bytes(b"secret")
    (root / "link").symlink_to("../secret.txt")
    (root / "folder").symlink_to("..")
    os.mkfifo(root / "fifo")
    return root


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_nothing_hostile_leaves_the_root(value: str, field: str, method: str, trap: Path) -> None:
    app = ZeroCopyMiddleware(others.app, x_sendfile=[trap], x_accel_redirect={"/protected/": trap})
    value = value.replace("{root}", str(trap) if field == "X-Sendfile" else "/protected")
    answer = ask(app, "/named", method=method, query=named((field, value)))
    assert answer.status == 404
    assert answer.body == (b"" if method == "HEAD" else b"Not found\n")
    assert {name for name, _ in answer.fields} == {"content-type", "content-length"}


def test_a_name_that_looks_encoded_means_no_other_file(tmp_path: Path) -> None:
    (tmp_path / "bob").mkdir()
    (tmp_path / "bob" / "secret.txt").write_bytes(b"bob's")
    # A name that somebody else has chosen.
    (tmp_path / "bob%2fsecret.txt").write_bytes(b"mallory's")
    app = ZeroCopyMiddleware(others.app, x_sendfile=[tmp_path])
    query = named(("X-Sendfile", f"{tmp_path}/bob%2fsecret.txt"))
    assert ask(app, "/named", query=query).body == b"mallory's"
    (tmp_path / "bob%2fsecret.txt").unlink()
    assert ask(app, "/named", query=query).status == 404


def test_several_fields_are_nothing(trap: Path) -> None:
    app = ZeroCopyMiddleware(others.app, x_sendfile=[trap], x_accel_redirect={"/protected/": trap})
    path, uri = ("X-Sendfile", f"{trap}/small.bin"), ("X-Accel-Redirect", "/protected/small.bin")
    assert ask(app, "/named", query=named(path)).body == b"small"
    for pairs in ((path, path), (path, uri), (uri, uri)):
        answer = ask(app, "/named", query=named(*pairs))
        assert (answer.status, {name for name, _ in answer.fields}) == (404, {"content-type", "content-length"})


def test_a_file_that_may_not_be_read_is_403(trap: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object) -> None:
        raise PermissionError(13, "denied")

    app = ZeroCopyMiddleware(others.app, x_sendfile=[trap])
    monkeypatch.setattr("zcresponse.files.rooted.Root.lookup_async", refuse)
    assert ask(app, "/named", query=named(("X-Sendfile", f"{trap}/small.bin"))).status == 403


def test_a_field_that_is_not_switched_on_is_left_to_a_front_server(trap: Path) -> None:
    app = ZeroCopyMiddleware(others.app, x_sendfile=[trap])
    answer = ask(app, "/named", query=named(("X-Accel-Redirect", "/protected/small.bin")))
    assert answer.values("x-accel-redirect") == ["/protected/small.bin"]
    assert answer.body == b"the application's own"


@pytest.mark.parametrize(
    ("kind", "messages"),
    [
        ("websocket", ["websocket.http.response.start", "websocket.http.response.body"]),
        ("websocket", ["websocket.accept"]),
        ("http", ["http.response.start", "http.response.body", "http.response.trailers"]),
    ],
)
def test_no_field_leaves_in_another_message(kind: str, messages: list[str], trap: Path) -> None:
    got: list[Any] = []
    named_here = (b"X-Sendfile", f"{trap}/small.bin".encode())

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            start = message == "http.response.start"
            await send({"type": message, "status": 200, "headers": [(b"a", b"b")] if start else [named_here]})

    async def send(message: Any) -> None:
        got.append(message)

    scope = {"type": kind, "method": "GET", "path": "/", "headers": []}
    asyncio.run(ZeroCopyMiddleware(app, x_sendfile=[trap])(scope, Client().receive, send))
    assert [message["type"] for message in got] == messages
    assert {field for message in got for field in message["headers"]} <= {(b"a", b"b")}
