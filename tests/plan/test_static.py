"""What a site answers: which file, in which coding, with which fields; on a real directory, without a server."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.table import Response
from zcresponse.files import FileRegion, OpenedFile
from zcresponse.files.rooted import Lookup
from zcresponse.http.request import RequestHead
from zcresponse.plan.static import HASHED_NAME, Site, Step, run_steps, take_step

YEAR = "public, max-age=31536000, immutable"
CONTENT = {"br": b"<brotli>", "zstd": b"<zstandard!>", "gzip": b"<gz>", "": b"console.log('plain, the longest of all')"}
ENDS = {"br": ".br", "zstd": ".zst", "gzip": ".gz", "": ""}


def ask(site: Site, url_path: str | None, method: str = "GET", **head: Any) -> Response:
    """Ask and read the whole answer, as a server would."""
    mount = head.pop("mount", "")
    plan, file = run_steps(site.answer(RequestHead(method, **head), url_path, mount=mount))
    body = b""
    for segment in plan.segments:
        if isinstance(segment, FileRegion):
            body += os.pread(segment.file.fileno(), segment.count, segment.offset)
        else:
            body += segment
    if file is not None:
        file.close()
    return Response.of(plan.status, plan.fields, body)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "docs").mkdir(parents=True)
    (tree / "index.html").write_text("<p>home")
    (tree / "docs" / "index.html").write_text("<p>docs")
    (tree / "404.html").write_text("<p>lost")
    for coding, end in ENDS.items():
        (tree / f"app.js{end}").write_bytes(CONTENT[coding])
    for path in tree.rglob("*"):
        # Old enough for strong tags, and of one age, as copies made by a build are.
        os.utime(path, (1_700_000_000, 1_700_000_000))
    return tree


# --- several directories ----------------------------------------------------------------------------------------------


@pytest.fixture
def trees(tmp_path: Path) -> list[Path]:
    for name, files in {
        "one": ["a.txt", "x/1.txt", "file"],
        "two": ["a.txt", "b.txt", "x/2.txt", "y/index.html"],
    }.items():
        for file in files:
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{name} {file}")
    (tmp_path / "one" / "y").mkdir()
    (tmp_path / "two" / "file").mkdir()
    return [tmp_path / "one", tmp_path / "two"]


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/a.txt", 200, b"one a.txt"),
        ("/b.txt", 200, b"two b.txt"),
        ("/x/1.txt", 200, b"one x/1.txt"),
        ("/x/2.txt", 200, b"two x/2.txt"),
        # The index file of any comes before the directory itself.
        ("/y/", 200, b"two y/index.html"),
        ("/y", 301, b"Moved permanently\n"),
        ("/file", 200, b"one file"),
        ("/c.txt", 404, b"Not found\n"),
    ],
)
def test_directories_are_looked_through_in_order(trees: list[Path], path: str, status: int, body: bytes) -> None:
    got = ask(Site(trees), path)
    assert (got.status, got.body) == (status, body)


def test_a_listing_shows_what_lies_in_any_of_them(trees: list[Path]) -> None:
    page = ask(Site(trees, listing=True), "/x/").body
    assert b"1.txt" in page
    assert b"2.txt" in page
    page = ask(Site(trees, listing=True), "/").body
    assert page.count(b">a.txt<") == 1
    assert b'href="./file"' in page


def test_what_may_not_be_read_in_the_first_is_not_sought_in_the_next(trees: list[Path]) -> None:
    site = Site(trees)

    def take(step: Step) -> Any:
        if isinstance(step, Lookup) and step.root is site.roots[0]:
            raise PermissionError(13, "permission denied")
        return take_step(step)

    assert run_steps(site.answer(RequestHead("GET"), "/b.txt"), take).plan.status == 403


# --- hidden names -----------------------------------------------------------------------------------------------------


@pytest.fixture
def dotted(tree: Path) -> Path:
    for name in (
        ".env",
        ".git/config",
        "docs/.htpasswd",
        ".well-known/security.txt",
        ".well-known/.x",
        "docs/.well-known/y",
    ):
        path = tree / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    return tree


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/.env", False),
        (".env", False),
        ("/.git/config", False),
        ("/.git/", False),
        ("/.git", False),
        ("/docs/.htpasswd", False),
        ("/.well-known/security.txt", True),
        (".well-known/security.txt", True),
        ("/.well-known/.x", False),
        ("/docs/.well-known/y", False),
        ("/.WELL-KNOWN/security.txt", False),
    ],
)
def test_hidden_names_are_not_there_unless_asked(dotted: Path, path: str, shown: bool) -> None:
    assert (ask(Site(dotted), path).status == 200) == shown
    if os.path.isfile(dotted / path.strip("/")):
        assert ask(Site(dotted, hidden=True), path).status == 200


def test_hidden_names_are_not_listed_unless_asked(dotted: Path) -> None:
    shown = {hidden: ask(Site(dotted, listing=True, index=None, hidden=hidden), "/").body for hidden in (False, True)}
    assert b".env" not in shown[False]
    assert b".well-known" not in shown[False]
    assert b".env" in shown[True]


def test_nothing_hidden_is_even_looked_up(dotted: Path) -> None:
    asked: list[Step] = []

    def take(step: Step) -> Any:
        asked.append(step)
        return take_step(step)

    assert run_steps(Site(dotted).answer(RequestHead("GET"), "/.env"), take).plan.status == 404
    assert asked == []


# --- directories ------------------------------------------------------------------------------------------------------


def test_there_is_no_redirect_to_where_nothing_can_be(tree: Path) -> None:
    assert ask(Site(tree), "/docs").status == 301
    assert ask(Site(tree, index=None, listing=True), "/docs").status == 301
    assert ask(Site(tree, index=None), "/docs").status == 404
    assert ask(Site(tree, index=None), "").status == 404


def test_the_place_itself_is_redirected_by_its_own_name(tree: Path) -> None:
    assert ask(Site(tree), "", mount="/api/files").values("location") == ["./files/"]


# --- the page for what is not there -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/nothing", "/nothing/", "/.env", None, "/../x", "/app.js/"])
def test_a_page_goes_with_every_404(tree: Path, path: str | None) -> None:
    got = ask(Site(tree, not_found="404.html"), path)
    assert (got.status, got.body) == (404, b"<p>lost")
    assert got.values("content-type") == ["text/html; charset=utf-8"]


def test_the_page_is_not_to_be_kept_nor_compared(tree: Path) -> None:
    site = Site(
        tree, not_found="404.html", max_age=60, suffix_headers={".html": {"ETag": '"x"', "X-Frame-Options": "DENY"}}
    )
    for head in (
        {},
        {"if_none_match": "*"},
        {"range": "bytes=0-1"},
        {"if_modified_since": "Fri, 01 Jan 2100 00:00:00 GMT"},
    ):
        got = ask(site, "/nothing", **head)
        assert (got.status, got.body) == (404, b"<p>lost")
        assert {name for name, _ in got.fields} == {"content-type", "content-length", "x-frame-options"}


def test_the_page_has_no_body_for_head_and_its_length_all_the_same(tree: Path) -> None:
    got = ask(Site(tree, not_found="404.html"), "/nothing", "HEAD")
    assert (got.status, got.values("content-length"), got.body) == (404, ["7"], b"")


def test_asked_for_itself_the_page_is_a_file(tree: Path) -> None:
    assert ask(Site(tree, not_found="404.html"), "/404.html").status == 200


@pytest.mark.parametrize("page", ["missing.html", "docs", "docs/index.html/x"])
def test_without_the_page_the_answer_is_plain(tree: Path, page: str) -> None:
    got = ask(Site(tree, not_found=page), "/nothing")
    assert (got.status, got.body) == (404, b"Not found\n")


def test_the_page_may_lie_deeper_and_be_compressed(tree: Path) -> None:
    (tree / "docs" / "index.html.gz").write_bytes(b"<gz>")
    got = ask(Site(tree, not_found="docs/index.html", precompressed=True), "/nothing", accept_encoding="gzip")
    assert (got.status, got.body) == (404, b"<gz>")
    assert got.values("content-encoding") == ["gzip"]
    assert got.values("vary") == ["Accept-Encoding"]


# --- copies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip, deflate, br, zstd", "br"),
        ("gzip, zstd", "zstd"),
        ("gzip", "gzip"),
        ("br;q=0.1, gzip", "gzip"),
        ("br;q=0, *", "zstd"),
        ("identity", ""),
        ("", ""),
        (None, ""),
        # Nothing that is here would do: the file is of more use than an error.
        ("deflate, identity;q=0", ""),
    ],
)
def test_the_copy_that_the_client_likes_best_is_sent(tree: Path, accepted: str | None, coding: str) -> None:
    got = ask(Site(tree, precompressed=True), "/app.js", accept_encoding=accepted)
    assert (got.status, got.body) == (200, CONTENT[coding])
    assert got.values("content-encoding") == ([coding] if coding else [])
    assert got.values("content-length") == [str(len(CONTENT[coding]))]
    assert got.values("content-type") == ["text/javascript; charset=utf-8"]
    assert got.values("vary") == ["Accept-Encoding"]


def test_the_deployers_order_decides_and_only_the_codings_named_are_used(tree: Path) -> None:
    site = Site(tree, precompressed=["gzip", "br"])
    assert ask(site, "/app.js", accept_encoding="br, gzip, zstd").body == CONTENT["gzip"]
    assert ask(site, "/app.js", accept_encoding="zstd").body == CONTENT[""]


def test_without_negotiation_nothing_varies(tree: Path) -> None:
    got = ask(Site(tree), "/app.js", accept_encoding="br")
    assert got.body == CONTENT[""]
    assert got.values("vary") == []


@pytest.mark.parametrize("path", ["/index.html", "/app.js.gz", "/docs/"])
def test_what_has_no_copy_varies_all_the_same(tree: Path, path: str) -> None:
    got = ask(Site(tree, precompressed=True), path, accept_encoding="br")
    assert got.status == 200
    assert got.values("vary") == ["Accept-Encoding"]
    assert got.values("content-encoding") == []


def test_a_copy_asked_for_by_its_name_is_just_a_file(tree: Path) -> None:
    (tree / "app.js.gz.br").write_bytes(b"never")
    got = ask(Site(tree, precompressed=True), "/app.js.gz", accept_encoding="br, gzip")
    assert got.body == CONTENT["gzip"]
    assert got.values("content-type") == ["application/gzip"]


def test_every_coding_has_a_tag_of_its_own(tree: Path) -> None:
    # The same size and time, as a build may well leave them.
    for end in (".br", ".zst"):
        (tree / f"app.js{end}").write_bytes(CONTENT["gzip"])
        os.utime(tree / f"app.js{end}", (1_700_000_000, 1_700_000_000))
    site = Site(tree, precompressed=True)
    tags = {ask(site, "/app.js", accept_encoding=coding).values("etag")[0] for coding in ENDS}
    assert len(tags) == 4
    assert all(tag.startswith('"') for tag in tags)


def test_a_tag_of_ones_own_is_told_apart_too(tree: Path) -> None:
    for options in ({"etag": "v1"}, {"file_headers": lambda path, file: {"ETag": '"v1"'}}):
        site = Site(tree, precompressed=True, **options)
        assert ask(site, "/app.js", accept_encoding="br").values("etag") == ['"v1-br"']
        assert ask(site, "/app.js").values("etag") == ['"v1"']


def test_conditions_are_about_the_coding_that_would_be_sent(tree: Path) -> None:
    site = Site(tree, precompressed=True)
    tag = ask(site, "/app.js", accept_encoding="br").values("etag")[0]
    unmodified = ask(site, "/app.js", accept_encoding="br", if_none_match=f'"x", {tag}')
    assert unmodified.status == 304
    assert unmodified.values("vary") == ["Accept-Encoding"]
    assert unmodified.values("etag") == [tag]
    assert unmodified.values("content-encoding") == []
    assert ask(site, "/app.js", accept_encoding="gzip", if_none_match=tag).status == 200
    failed = ask(site, "/app.js", accept_encoding="gzip", if_match=tag)
    assert (failed.status, failed.values("vary")) == (412, ["Accept-Encoding"])


def test_a_range_is_one_of_the_encoded_bytes(tree: Path) -> None:
    site = Site(tree, precompressed=True)
    got = ask(site, "/app.js", accept_encoding="zstd", range="bytes=1-4")
    assert (got.status, got.body) == (206, CONTENT["zstd"][1:5])
    assert got.values("content-range") == [f"bytes 1-4/{len(CONTENT['zstd'])}"]
    assert got.values("content-encoding") == ["zstd"]
    beyond = ask(site, "/app.js", accept_encoding="gzip", range="bytes=20-")
    assert (beyond.status, beyond.values("content-range")) == (416, [f"bytes */{len(CONTENT['gzip'])}"])
    other = ask(site, "/app.js", accept_encoding="gzip", range="bytes=1-4", if_range=got.values("etag")[0])
    assert (other.status, other.body) == (200, CONTENT["gzip"])


def test_head_tells_of_the_copy(tree: Path) -> None:
    got = ask(Site(tree, precompressed=True), "/app.js", "HEAD", accept_encoding="br")
    assert (got.values("content-encoding"), got.values("content-length"), got.body) == (["br"], ["8"], b"")


def test_an_index_file_has_copies_too(tree: Path) -> None:
    (tree / "index.html.br").write_bytes(b"<br>")
    assert ask(Site(tree, precompressed=True), "/", accept_encoding="br").body == b"<br>"


def test_a_coding_joins_the_one_that_a_file_has_already(tree: Path) -> None:
    site = Site(tree, precompressed=True, suffix_headers={".js": {"Content-Encoding": "x-own"}})
    assert ask(site, "/app.js", accept_encoding="br").values("content-encoding") == ["x-own, br"]
    assert ask(site, "/app.js").values("content-encoding") == ["x-own"]


# --- fields -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "hashed"),
    [
        ("app.3f9a1c07.js", True),
        ("app-3f9a1c07.js", True),
        ("app.3f9a1c07b2d4.min.css", True),
        ("chunk.0123456789abcdef0123.js.map", True),
        ("a.b.c-d.55e7cbb9ba48.svg", True),
        ("app.js", False),
        ("app.3f9a1c0.js", False),
        ("app.3f9a1c07", False),
        ("app.3F9A1C07.js", False),
        ("app.3f9a1c07x.js", False),
        # A date and a word are none.
        ("report-20240131.csv", False),
        ("report.20240131120000.csv", False),
        ("rose-fabaceae.jpg", False),
        ("dir.3f9a1c07.d/app.js", False),
    ],
)
def test_a_hash_is_told_from_a_date_and_a_word(name: str, hashed: bool) -> None:
    assert (HASHED_NAME.search(f"/static/{name}") is not None) == hashed


@pytest.mark.parametrize("hashed_names", [True, r"3f9a", re.compile("^/app"), lambda path: path == "/app.3f9a1c07.js"])
def test_hashed_names_are_for_good_and_others_as_the_options_say(tree: Path, hashed_names: Any) -> None:
    (tree / "app.3f9a1c07.js").write_text("x")
    site = Site(tree, hashed_names=hashed_names, max_age=60)
    assert ask(site, "/app.3f9a1c07.js").values("cache-control") == [YEAR]
    assert ask(site, "/docs/").values("cache-control") == ["max-age=60"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, YEAR),
        ({"no_cache": True}, YEAR),
        ({"private": True, "max_age": 60}, "private, max-age=31536000, immutable"),
        ({"no_store": True}, "no-store"),
        ({"no_store": True, "private": True}, "private, no-store"),
    ],
)
def test_hashed_names_are_kept_by_nobody_who_may_not(tree: Path, options: Any, said: str) -> None:
    (tree / "app.3f9a1c07.js").write_text("hashed")
    assert ask(Site(tree, hashed_names=True, **options), "/app.3f9a1c07.js").values("cache-control") == [said]


def test_fields_are_given_by_the_end_of_the_name_and_the_longest_wins(tree: Path) -> None:
    site = Site(
        tree,
        max_age=60,
        suffix_headers={
            ".html": {"Cache-Control": "no-cache"},
            "": [("X-All", "1"), ("X-Which", "all"), ("Link", "<a>"), ("Link", "<b>")],
            ".JS": {"x-which": "js", "Content-Type": "text/x-own"},
        },
    )
    page, script = ask(site, "/"), ask(site, "/app.js")
    assert (page.values("x-all"), page.values("x-which"), page.values("link")) == (["1"], ["all"], ["<a>", "<b>"])
    assert page.values("cache-control") == ["no-cache"]
    assert (script.values("x-which"), script.values("cache-control")) == (["js"], ["max-age=60"])
    assert script.values("content-type") == ["text/x-own"]


def test_a_callable_has_the_last_word_and_sees_the_file(tree: Path) -> None:
    seen: list[tuple[str, int]] = []

    def own(url_path: str, file: OpenedFile) -> list[tuple[str, str]]:
        seen.append((url_path, file.size))
        return [("Cache-Control", "no-store"), ("X-Which", "callable"), ("Content-Length", "999999")]

    (tree / "app.3f9a1c07.js").write_text("hashed")
    site = Site(
        tree, hashed_names=True, file_headers=own, suffix_headers={".js": {"X-Which": "js"}}, precompressed=True
    )
    got = ask(site, "/app.3f9a1c07.js")
    assert (got.values("cache-control"), got.values("x-which")) == (["no-store"], ["callable"])
    assert got.values("content-length") == ["6"]
    ask(site, "/app.js", accept_encoding="br")
    assert ask(site, "/docs/").values("vary") == ["Accept-Encoding"]
    assert seen == [("/app.3f9a1c07.js", 6), ("/app.js", 8), ("/docs/index.html", 7)]


@pytest.mark.parametrize(
    "field",
    [
        ("X-A", "a\r\nSet-Cookie: b=c"),
        ("X-A\r\nX-B", "a"),
        ("X-A", "\0"),
        ("X-A", " a"),
        ("X-A", "a\t"),
        ("", "a"),
        ("X A", "a"),
        ("X-A", "\u20ac"),
        ("Transfer-Encoding", "chunked"),
        ("connection", "close"),
    ],
)
@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_a_callable_cannot_inject(tree: Path, field: tuple[str, str]) -> None:
    site = Site(tree, file_headers=lambda path, file: [field], precompressed=True)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ValueError, match="file_headers"):
        ask(site, "/app.js", accept_encoding="br")
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_callable_may_have_nothing_to_say(tree: Path) -> None:
    assert ask(Site(tree, file_headers=lambda path, file: None), "/app.js").status == 200
    with pytest.raises(TypeError, match="file_headers"):
        ask(Site(tree, file_headers=lambda path, file: [("X-A", 5)]), "/app.js")  # type: ignore[list-item]


def test_an_error_of_a_callable_is_no_404(tree: Path) -> None:
    def fail(path: str, file: OpenedFile) -> dict[str, str]:
        raise FileNotFoundError("a manifest that is not there")

    with pytest.raises(FileNotFoundError, match="manifest"):
        ask(Site(tree, file_headers=fail), "/app.js")


# --- construction -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "named"),
    [
        ({"not_found": "/"}, ValueError, "not_found"),
        ({"not_found": ""}, ValueError, "not_found"),
        ({"not_found": "../404.html"}, ValueError, "not_found"),
        ({"not_found": "errors/"}, ValueError, "not_found"),
        ({"precompressed": ["deflate"]}, ValueError, "precompressed"),
        ({"precompressed": ["gz"]}, ValueError, "precompressed"),
        ({"precompressed": "br"}, TypeError, "precompressed"),
        ({"hashed_names": "("}, ValueError, "hashed_names"),
        ({"hashed_names": 5}, TypeError, "hashed_names"),
        ({"suffix_headers": {".js": {"X-A": "a\nb"}}}, ValueError, "suffix_headers"),
        ({"suffix_headers": {".js": {"X-A:": "a"}}}, ValueError, "suffix_headers"),
        ({"file_headers": {"X-A": "a"}}, TypeError, "file_headers"),
        ({"status": 204}, TypeError, "status"),
        ({"fields": []}, TypeError, "fields"),
        ({"max_age": -1}, ValueError, "max_age"),
        ({"index": 5}, TypeError, "index: "),
        ({"index": "a/b"}, ValueError, "index: "),
        ({"not_found": 5}, TypeError, "not_found: "),
        ({"listing": "no"}, TypeError, "listing: "),
        ({"hidden": "no"}, TypeError, "hidden: "),
        ({"suffix_headers": {5: {}}}, TypeError, "suffix_headers: "),
        ({"suffix_headers": {".js": 5}}, TypeError, "suffix_headers: "),
        ({"suffix_headers": {".js": ["X-A: a"]}}, TypeError, "suffix_headers: "),
        ({"filename": 5}, TypeError, "filename: "),
        ({"media_type": 5}, TypeError, "media_type: "),
        ({"disposition": "at tach"}, ValueError, "disposition: "),
        ({"precompressed": 5}, TypeError, "precompressed"),
        ({"suffix_headers": [1]}, TypeError, "suffix_headers"),
        ({"suffix_headers": None}, TypeError, "suffix_headers"),
        ({"etag": 5}, TypeError, "etag"),
    ],
)
def test_what_cannot_be_meant_is_told_at_once(tree: Path, options: dict[str, Any], error: Any, named: str) -> None:
    with pytest.raises(error, match=named):
        Site(tree, **options)


@pytest.mark.parametrize("directory", [None, 5, b"/", [b"/"], [None]])
def test_what_is_no_path_is_no_directory(directory: Any) -> None:
    with pytest.raises(TypeError, match="directory: "):
        Site(directory)


def test_every_directory_must_exist_unless_it_may_come_later(tree: Path) -> None:
    with pytest.raises(FileNotFoundError, match="directory"):
        Site([tree, tree / "later"])
    with pytest.raises(ValueError, match="directory"):
        Site([])
    site = Site(tree / "later", check_dir=False)
    assert ask(site, "/a").status == 404
    (tree / "later").mkdir()
    (tree / "later" / "a").touch()
    assert ask(site, "/a").status == 200


# --- ends -------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
@pytest.mark.parametrize("path", ["/app.js", "/docs/", "/nothing", "/"])
def test_whoever_stops_in_the_middle_leaves_nothing_open(tree: Path, path: str) -> None:
    site = Site([tree, tree], precompressed=True, listing=True, index=None, not_found="404.html")
    before = len(os.listdir("/proc/self/fd"))
    for stop_after in range(6):
        steps = site.answer(RequestHead("GET", accept_encoding="gzip;q=0.5, *"), path)
        left = [stop_after]

        def take(step: Step, left: list[int] = left) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return take_step(step)

        try:
            answer = run_steps(steps, take)
        except KeyboardInterrupt:
            pass
        else:
            if answer.file is not None:
                answer.file.close()
        assert len(os.listdir("/proc/self/fd")) == before


def test_an_error_that_only_the_server_can_answer_comes_out(tree: Path) -> None:
    def take(step: Step) -> Any:
        raise OSError(5, "input/output error")

    with pytest.raises(OSError, match="input/output"):
        run_steps(Site(tree).answer(RequestHead("GET"), "/app.js"), take)
    fail: Callable[[Step], Any] = take
    with pytest.raises(OSError, match="input/output"):
        run_steps(Site(tree, listing=True).answer(RequestHead("GET"), "/docs/"), fail)
