"""A directory as an application: every answer, mounts, odd paths, and nothing from outside."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.asking import ask_asgi as call
from tests.support.asking import exchange
from tests.support.table import STATIC_CASES, Case, Files, Response, check
from zcresponse import Transfer
from zcresponse.asgi.static import StaticApp, route_path, static_app
from zcresponse.files.rooted import Root
from zcresponse.testing import PathsendServer

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX file systems")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    root = tmp_path / "site"
    (root / "docs" / "inner").mkdir(parents=True)
    (root / "no index").mkdir()
    (root / "odd" / "index.html").mkdir(parents=True)
    (root / "index.html").write_text("<p>home")
    (root / "docs" / "index.html").write_text("<p>docs")
    (root / "docs" / "start.htm").write_text("<p>start")
    (root / "no index" / "a.txt").write_text("a")
    (root / "data.bin").write_bytes(bytes(range(256)))
    (tmp_path / "secret.txt").write_text("secret")
    if os.name == "posix":
        (root / "link.txt").symlink_to("data.bin")
        (root / "out.txt").symlink_to("../secret.txt")
        (root / "loop").symlink_to("loop")
        os.mkfifo(root / "fifo")
    return root


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", STATIC_CASES, ids=str)
def test_the_common_table_holds(case: Case, files: Files) -> None:
    app = static_app(files.directory)
    check(case, call(app, case.url_path(static=True), case.method, case.raw_fields), files)


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_server_that_takes_files_is_given_them(site: Path, ranges: bool, method: str) -> None:
    app = PathsendServer(static_app(site), ranges=ranges)
    got = call(app, "/data.bin", method)
    assert got.status == 200
    assert got.body == (b"" if method == "HEAD" else bytes(range(256)))


def test_options_go_into_every_file_answer(site: Path) -> None:
    app = static_app(site, max_age=60, etag=False, media_type="text/x-mine")
    got = call(app, "/data.bin")
    assert got.values("cache-control") == ["max-age=60"]
    assert got.values("etag") == []
    assert got.values("content-type") == ["text/x-mine"]


def test_transfers_are_told(site: Path) -> None:
    seen: list[Transfer] = []
    app = static_app(site, on_transfer=seen.append, sendfile=False)
    call(PathsendServer(app), "/data.bin")
    call(PathsendServer(app), "/nothing")
    call(PathsendServer(app), "/data.bin", "HEAD")
    assert [(each.status, each.way, each.reason, each.bytes_sent) for each in seen] == [
        (200, "chunks", "switched off by sendfile=False", 256),
        (404, "chunks", "the body is not a file", len("Not found\n")),
        (200, "none", "", 0),
    ]


# --- directories ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("target", "body"), [("/", b"<p>home"), ("/docs/", b"<p>docs"), ("/docs/?x=1", b"<p>docs")])
def test_an_index_file_stands_for_its_directory(site: Path, target: str, body: bytes) -> None:
    got = call(static_app(site, listing=True), target)
    assert (got.status, got.body) == (200, body)
    assert got.values("content-type") == ["text/html; charset=utf-8"]
    assert got.values("etag")


def test_the_index_file_may_have_another_name_or_none(site: Path) -> None:
    assert call(static_app(site, index="start.htm"), "/docs/").body == b"<p>start"
    assert call(static_app(site, index="start.htm"), "/").status == 404
    assert call(static_app(site, index=None), "/docs/").status == 404
    assert b"Index of" in call(static_app(site, index=None, listing=True), "/docs/").body


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("/docs", "./docs/"),
        ("/docs?a=1&b=%20", "./docs/?a=1&b=%20"),
        ("/docs/inner", "./inner/"),
        ("/no%20index", "./no%20index/"),
    ],
)
def test_a_directory_without_a_slash_is_redirected(site: Path, target: str, location: str) -> None:
    for method in ("GET", "HEAD"):
        got = call(static_app(site), target, method)
        assert got.status == 301
        assert got.values("location") == [location]


def test_a_directory_without_index_is_listed_only_when_asked(site: Path) -> None:
    assert call(static_app(site), "/no%20index/").status == 404
    got = call(static_app(site, listing=True), "/no%20index/")
    assert got.status == 200
    assert b'href="./a.txt"' in got.body
    assert got.values("content-length") == [str(len(got.body))]
    assert got.values("content-security-policy") == ["default-src 'none'; style-src 'unsafe-inline'"]
    head = call(static_app(site, listing=True), "/no%20index/", "HEAD")
    assert (head.status, head.fields, head.body) == (200, got.fields, b"")


def test_a_directory_by_the_name_of_an_index_file_is_no_index(site: Path) -> None:
    got = call(static_app(site, listing=True), "/odd/")
    assert got.status == 200
    assert b'href="./index.html/"' in got.body


def test_conditions_are_not_for_listings(site: Path) -> None:
    got = call(
        static_app(site, listing=True), "/no%20index/", headers=[(b"if-none-match", b"*"), (b"range", b"bytes=0-1")]
    )
    assert got.status == 200


@posix
def test_every_link_of_a_listing_can_be_followed(tmp_path: Path) -> None:
    names = [
        "a b.txt",
        "a%20b.txt",
        "%2e%2e",
        "a?b",
        "a#b",
        "ü🎉",
        "a:b",
        "~",
        "&lt;",
        "javascript:x",
        "\n",
        "a'\"<>",
        "...",
    ]
    raw = [os.fsencode(name) for name in names] + [b"\xff", b"\xc3", b"%FF", b"\xef\xbf\xbd"]
    for number, name in enumerate(raw):
        with open(os.fsencode(tmp_path) + b"/" + name, "wb") as file:
            file.write(b"%d" % number)
    app = static_app(tmp_path, listing=True, hidden=True)
    page = call(app, "/").body.decode()
    hrefs = [part.partition('"')[0] for part in page.split('<li class="f"><a href="./')[1:]]
    assert len(hrefs) == len(raw)
    assert sorted(int(call(app, "/" + href).body) for href in hrefs) == list(range(len(raw)))


def test_a_long_listing_does_not_stop_the_loop(tmp_path: Path) -> None:
    for number in range(10_000):
        (tmp_path / f"file {number}").touch()
    app = static_app(tmp_path, listing=True)
    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/", "headers": []}

    async def run() -> int:
        turns = 0
        task = asyncio.create_task(exchange(app, scope))
        while not task.done():
            turns += 1
            await asyncio.sleep(0)
        page = (await task).body
        assert page.count(b"<li ") == 10_000
        assert page.index(b">file 9<") < page.index(b">file 10<") < page.index(b">file 9999<")
        return turns

    # On the loop it would be a handful.
    assert asyncio.run(run()) > 100


# --- what is not answered ---------------------------------------------------------------------------------------------

HOSTILE = [
    "/..",
    "/../secret.txt",
    "/%2e%2e/secret.txt",
    "/%2e%2e%2fsecret.txt",
    "/..%2fsecret.txt",
    "/..%5csecret.txt",
    "/docs%2findex.html",
    "/docs%2Findex.html",
    "/docs%5cindex.html",
    "/docs%5Cindex.html",
    "/docs/..%2fdata.bin",
    "/docs/%2e%2e/data.bin",
    "/./data.bin",
    "/%2e/data.bin",
    "/docs//index.html",
    "//docs/",
    "//data.bin",
    "//evil.com",
    "//evil.com/",
    "//evil.com/..",
    "/%2fevil.com",
    "/%5cevil.com",
    "/\\evil.com",
    "/data.bin/",
    "/data.bin/x",
    "/data.bin%00",
    "/data.bin%00.html",
    "/%00",
    "/C:/Windows/win.ini",
    "/C:%5cWindows%5cwin.ini",
    "/%5c%5cserver%5cshare",
    "/%252e%252e/secret.txt",
    "/%25",
    "/%c0%ae%c0%ae/secret.txt",
    "/%e0%80%ae%e0%80%ae/secret.txt",
    "/..%c0%afsecret.txt",
    "/%ff",
    "/%ed%a0%80",
    "/data.bin%20",
    "/data.bin.",
    "/nothing",
    "/nothing/",
    "/link.txt",
    "/out.txt",
    "/loop",
    "/loop/x",
    "/fifo",
    "/" + "x" * 300,
    "/" + "x" * 60_000,
    "/" + "x/" * 3_000,
    "/%0d%0aSet-Cookie:%20a=b",
]


@posix
@pytest.mark.parametrize("target", HOSTILE, ids=lambda target: target[:40])
@pytest.mark.parametrize("root_path", ["", "/mounted"])
def test_a_hostile_path_is_not_found(site: Path, target: str, root_path: str) -> None:
    for app in (static_app(site), static_app(site, listing=True, follow_symlinks=False)):
        got = call(app, root_path + target, root_path=root_path)
        assert got.status == 404
        assert got.body == b"Not found\n"
        assert got.values("content-type") == ["text/plain; charset=utf-8"]


@posix
def test_a_link_inside_is_followed_when_asked(site: Path) -> None:
    app = static_app(site, follow_symlinks=True)
    assert call(app, "/link.txt").body == bytes(range(256))
    assert call(app, "/out.txt").status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "FOO"])
def test_other_methods_are_refused_whatever_the_path(site: Path, method: str) -> None:
    for target in ("/", "/data.bin", "/nothing", "/docs"):
        got = call(static_app(site), target, method)
        assert got.status == 405
        assert got.values("allow") == ["GET, HEAD"]


@posix
def test_running_out_of_descriptors_is_503_and_passes(site: Path) -> None:
    import resource

    app = static_app(site, listing=True)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def run() -> list[Response]:
        answers = []
        for limit in (None, 0, None):
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
            try:
                for path in ("/data.bin", "/no index/"):
                    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": path, "headers": []}
                    answers.append(await exchange(app, scope))
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, before)
        return answers

    answers = asyncio.run(run())
    assert [answer.status for answer in answers] == [200, 200, 503, 503, 200, 200]
    assert answers[2].values("retry-after") == ["1"]


@pytest.mark.parametrize(
    ("error", "status"), [(PermissionError(errno.EACCES, "no"), 403), (OSError(errno.ENOMEM, "no"), 503)]
)
def test_errors_of_a_lookup_are_answered(
    site: Path, error: OSError, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(self: Root, path: str) -> None:
        raise error

    monkeypatch.setattr(Root, "lookup_async", fail)
    assert call(static_app(site), "/data.bin").status == status


def test_an_error_of_the_disk_is_left_to_the_server(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(self: Root, path: str) -> None:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(Root, "lookup_async", fail)
    with pytest.raises(OSError):
        call(static_app(site), "/data.bin")


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_a_request_that_is_cancelled_while_a_copy_is_sought_leaves_nothing_open(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lookup_async = Root.lookup_async

    async def wait_for_copies(self: Root, path: str) -> Any:
        if path.endswith(".br"):
            await asyncio.Event().wait()
        return await lookup_async(self, path)

    monkeypatch.setattr(Root, "lookup_async", wait_for_copies)
    app = static_app(site, precompressed=True)
    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/data.bin"}
    scope["headers"] = [(b"accept-encoding", b"br")]

    async def run() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(exchange(app, scope), 0.2)

    before = len(os.listdir("/proc/self/fd"))
    asyncio.run(run())
    assert len(os.listdir("/proc/self/fd")) == before


# --- where the application stands -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "raw_path", "root_path", "expected"),
    [
        ("/a", b"/a", "", "/a"),
        ("/m/a", b"/m/a", "/m", "/a"),
        ("/m/", b"/m/", "/m", "/"),
        ("/m", b"/m", "/m", ""),
        ("/m/a", b"/m/a", "/m/", "/a"),
        ("/m/m/a", b"/m/m/a", "/m", "/m/a"),
        # A server or framework that strips it.
        ("/a", b"/a", "/m", "/a"),
        ("/", b"/", "/m", "/"),
        ("/mm/a", b"/mm/a", "/m", "/mm/a"),
        ("", b"", "", "/"),
        ("/a", None, "", "/a"),
        ("/a", b"/a?b%2fc", "", "/a"),
        ("/a/b", b"/a%2fb", "", None),
        ("/a/b", b"/a%2Fb", "", None),
        ("/a\\b", b"/a%5Cb", "", None),
        ("/n\ufffd", b"/n%FF", "", "/n\udcff"),
        ("/m/n\ufffd", b"/m/n%FF", "/m", "/n\udcff"),
        ("/\ufffd", b"/%EF%BF%BD", "", "/\ufffd"),
        # A middleware has put another path in.
        ("/other\ufffd", b"/n%FF", "", "/other\ufffd"),
    ],
)
@posix
def test_the_path_below_the_mount_point_is_found(
    path: str, raw_path: bytes | None, root_path: str, expected: str | None
) -> None:
    scope: dict[str, Any] = {"type": "http", "path": path, "raw_path": raw_path, "root_path": root_path}
    assert route_path(scope) == expected


@pytest.mark.parametrize("outer", ["", "/outer"])
def test_it_can_be_mounted_in_starlette(site: Path, outer: str) -> None:
    from starlette.applications import Starlette
    from starlette.routing import Mount

    mounted: Any = Mount("/static", app=static_app(site, listing=True))
    app = Starlette(routes=[Mount("/outer", routes=[mounted]) if outer else mounted])
    assert call(app, f"{outer}/static/data.bin").body == bytes(range(256))
    assert call(app, f"{outer}/static/").body == b"<p>home"
    assert call(app, f"{outer}/static/docs").values("location") == ["./docs/"]
    assert b"Parent directory" in call(app, f"{outer}/static/no%20index/").body
    assert call(app, f"{outer}/static/../secret.txt").status == 404
    # And below a root_path of the server's.
    assert call(app, f"/api{outer}/static/docs/", root_path="/api").body == b"<p>docs"


def test_the_mount_point_itself_is_redirected(site: Path) -> None:
    assert call(static_app(site), "/mounted", root_path="/mounted").values("location") == ["./mounted/"]
    # Where the front is stripped, the name is all that is left of it.
    assert call(static_app(site), "", root_path="/mounted").values("location") == ["./mounted/"]
    assert call(static_app(site), "").body == b"<p>home"


def test_it_takes_part_in_lifespan(site: Path) -> None:
    incoming = iter(["lifespan.startup", "lifespan.shutdown"])
    sent: list[str] = []

    async def receive() -> Any:
        return {"type": next(incoming)}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    asyncio.run(static_app(site)({"type": "lifespan"}, receive, send))
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_it_turns_a_websocket_away(site: Path) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(static_app(site)({"type": "websocket", "path": "/data.bin"}, receive, send))
    assert sent == [{"type": "websocket.close", "code": 1000}]


def test_another_protocol_is_a_clear_error(site: Path) -> None:
    with pytest.raises(ValueError, match="telnet"):
        call(static_app(site), "/", type="telnet")


# --- construction -----------------------------------------------------------------------------------------------------


def test_the_directory_must_be_one(site: Path) -> None:
    with pytest.raises(FileNotFoundError, match="directory"):
        static_app(site / "nothing")
    for path in (site / "data.bin", site / "data.bin" / "x"):
        with pytest.raises(NotADirectoryError, match="directory"):
            static_app(path)
    # A variable that was not set would otherwise serve the current directory.
    with pytest.raises(FileNotFoundError, match="directory"):
        static_app("")


@pytest.mark.parametrize("index", ["", "..", "a/b", "a\\b", "\0"])
def test_the_index_must_be_a_name(site: Path, index: str) -> None:
    with pytest.raises(ValueError, match="index"):
        static_app(site, index=index)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"max_age": -1}, "max_age"),
        ({"immutable": True, "no_cache": True}, "immutable"),
        ({"media_type": "a\r\nb"}, "media_type"),
        ({"etag": "a b"}, "etag"),
    ],
)
def test_impossible_options_are_told_at_once(site: Path, options: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        static_app(site, **options)


def test_an_unknown_option_is_told_at_once(site: Path) -> None:
    with pytest.raises(TypeError, match="colour"):
        static_app(site, colour="red")  # type: ignore[call-arg]


def test_the_function_is_the_class(site: Path) -> None:
    assert isinstance(static_app(site), StaticApp)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_no_answer_leaves_a_descriptor_open(site: Path) -> None:
    app = static_app(site, listing=True, follow_symlinks=True)
    call(app, "/docs/")
    before = len(os.listdir("/proc/self/fd"))
    for target in (*HOSTILE, "/", "/docs", "/docs/", "/no%20index/", "/odd/", "/data.bin", quote("/no index/a.txt")):
        for method in ("GET", "HEAD", "POST"):
            call(app, target, method)
    assert len(os.listdir("/proc/self/fd")) == before


def test_it_loads_without_any_framework_or_server() -> None:
    import subprocess

    code = "import zcresponse.asgi.static, sys; print({'starlette', 'uvicorn', 'click'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
