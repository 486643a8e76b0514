"""Where a path leads to a directory or to nothing: redirects, errors, the order of a listing."""

from __future__ import annotations

import errno
from urllib.parse import unquote_to_bytes, urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zcresponse.files.rooted import DirectoryEntry
from zcresponse.http.request import RequestHead
from zcresponse.plan import ResponsePlan
from zcresponse.plan.directory import (
    encode_name,
    index_path,
    make_listing,
    natural_key,
    plan_bad_method,
    plan_error,
    plan_listing,
    plan_not_found,
    plan_redirect,
)

GET, HEAD = RequestHead("GET"), RequestHead("HEAD")


def field(plan: ResponsePlan, name: str) -> str | None:
    values = [value for key, value in plan.fields if key.lower() == name.lower()]
    assert len(values) <= 1
    return values[0] if values else None


def body(plan: ResponsePlan) -> bytes:
    return b"".join(segment for segment in plan.segments if isinstance(segment, bytes))


# --- methods and errors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "get", "X", ""])
def test_other_methods_are_refused_with_what_is_allowed(method: str) -> None:
    plan = plan_bad_method(RequestHead(method))
    assert plan is not None
    assert plan.status == 405
    assert field(plan, "Allow") == "GET, HEAD"
    assert body(plan)


@pytest.mark.parametrize("request_head", [GET, HEAD])
def test_get_and_head_are_not_refused(request_head: RequestHead) -> None:
    assert plan_bad_method(request_head) is None


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (FileNotFoundError(errno.ENOENT, "no such file"), 404),
        (PermissionError(errno.EACCES, "permission denied"), 403),
        (PermissionError(errno.EPERM, "not permitted"), 403),
        (OSError(errno.EMFILE, "too many open files"), 503),
        (OSError(errno.ENFILE, "too many open files in system"), 503),
        (OSError(errno.ENOMEM, "cannot allocate memory"), 503),
        (BlockingIOError(errno.EAGAIN, "try again"), 503),
    ],
)
def test_an_error_is_answered_by_what_it_means(error: OSError, status: int) -> None:
    plan = plan_error(GET, error)
    assert plan is not None
    assert plan.status == status
    assert field(plan, "Content-Type") == "text/plain; charset=utf-8"
    assert field(plan, "Content-Length") == str(len(body(plan)))
    assert (field(plan, "Retry-After") == "1") == (status == 503)
    # Nothing of the machine is told.
    assert (error.strerror or "").encode() not in body(plan).lower()


def test_other_errors_are_the_servers_to_answer() -> None:
    assert plan_error(GET, OSError(errno.EIO, "input/output error")) is None


def test_head_is_answered_as_get_without_the_body() -> None:
    got, head = plan_not_found(GET), plan_not_found(HEAD)
    assert head.fields == got.fields
    assert head.segments == ()
    listing, listing_head = plan_listing(GET, "/", []), plan_listing(HEAD, "/", [])
    assert listing_head.fields == listing.fields
    assert listing_head.segments == ()


# --- index files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "index", "expected"),
    [
        ("/", "index.html", "/index.html"),
        ("/a/", "index.html", "/a/index.html"),
        ("/a/", "start.htm", "/a/start.htm"),
        ("/a", "index.html", None),
        ("", "index.html", None),
        ("/a/", None, None),
    ],
)
def test_an_index_file_stands_for_a_path_with_a_slash(path: str, index: str | None, expected: str | None) -> None:
    assert index_path(path, index) == expected


# --- redirects --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "query", "location"),
    [
        ("/docs", b"", "./docs/"),
        ("/a/b/docs", b"", "./docs/"),
        ("/docs", b"a=1&b=2", "./docs/?a=1&b=2"),
        ("/docs", b"q=%20+x", "./docs/?q=%20+x"),
        ("/docs", b"q=/?:@!$'()*,;", "./docs/?q=/?:@!$'()*,;"),
        ("/with space", b"", "./with%20space/"),
        ("/ü", b"", "./%C3%BC/"),
        ("/n\udcff", b"", "./n%FF/"),
        ("/half\ud800", b"", "./half%ED%A0%80/"),
        ("/javascript:alert(1)", b"", "./javascript%3Aalert%281%29/"),
        ("/a?b#c", b"", "./a%3Fb%23c/"),
        ("/%2e%2e", b"", "./%252e%252e/"),
        ("/a\r\nSet-Cookie: b=c", b"", "./a%0D%0ASet-Cookie%3A%20b%3Dc/"),
        ("/a", b"x\r\nSet-Cookie: b=c", "./a/?x%0D%0ASet-Cookie:%20b=c"),
        ("/a", b'x"<>\\^`{|}\xff\x00#y', "./a/?x%22%3C%3E%5C%5E%60%7B%7C%7D%FF%00%23y"),
        ("//evil.com", b"", "./evil.com/"),
        ("/\\evil.com", b"", "./%5Cevil.com/"),
        ("///evil.com/..", b"", "./../"),
    ],
)
def test_a_redirect_adds_the_slash_and_keeps_the_query(path: str, query: bytes, location: str) -> None:
    plan = plan_redirect(GET, path, query)
    assert plan.status == 301
    assert field(plan, "Location") == location
    assert field(plan, "Cache-Control") == "no-cache"
    assert body(plan)


@given(path=st.text(), query=st.binary())
def test_a_redirect_never_leaves_the_site_nor_splits_a_header(path: str, query: bytes) -> None:
    location = field(plan_redirect(GET, "/" + path, query), "Location")
    assert location is not None
    assert location.isascii()
    assert location.isprintable()
    assert " " not in location
    parts = urlsplit(location)
    assert (parts.scheme, parts.netloc, parts.fragment) == ("", "", "")
    for base in ("http://here.example/x", "http://here.example//x", "http://here.example"):
        assert urlsplit(urljoin(base, location)).netloc == "here.example"


# --- listings ---------------------------------------------------------------------------------------------------------


def entry(name: str, *, directory: bool = False, size: int = 0, mtime_ns: int = 0) -> DirectoryEntry:
    return DirectoryEntry(name, directory, size, mtime_ns)


@pytest.mark.parametrize(
    "names",
    [
        ["file1", "file2", "file10"],
        ["a1b2", "a1b10", "a2b1"],
        ["1.txt", "2.txt", "10.txt", "a.txt"],
        ["A", "b", "C"],
        ["a", "A1"],
        ["v1.9", "v1.10"],
        ["x" * 20, "x" * 20 + "1"],
        ["0", "00", "01", "1"],
        ["9" * 250, "1" + "0" * 250],
        ["", "a"],
        ["Ä", "ä1"],
    ],
)
def test_names_are_in_the_order_in_which_people_count(names: list[str]) -> None:
    backwards = list(reversed(names))
    assert sorted(backwards, key=natural_key) == names


@given(st.lists(st.text()))
def test_any_names_can_be_put_in_one_order(names: list[str]) -> None:
    backwards = list(reversed(names))
    assert sorted(backwards, key=natural_key) == sorted(names, key=natural_key)


def test_directories_come_first_and_say_no_size() -> None:
    listing = make_listing("/", [entry("b", size=5, mtime_ns=1_999_999_999), entry("z", directory=True, size=4096)])
    assert [(row.name, row.href, row.is_directory, row.size, row.mtime) for row in listing.rows] == [
        ("z", "./z/", True, None, 0),
        ("b", "./b", False, 5, 1),
    ]


def test_the_root_has_no_parent() -> None:
    listing = make_listing("/", [])
    assert listing.parent is None
    assert [(crumb.name, crumb.href) for crumb in listing.crumbs] == [("", "./")]


def test_crumbs_lead_up_step_by_step() -> None:
    listing = make_listing("/a/b c/d/", [])
    assert listing.parent == "../"
    assert [crumb.name for crumb in listing.crumbs] == ["", "a", "b c", "d"]
    here = "http://here.example/mounted/a/b%20c/d/"
    assert [urljoin(here, crumb.href) for crumb in listing.crumbs] == [
        "http://here.example/mounted/",
        "http://here.example/mounted/a/",
        "http://here.example/mounted/a/b%20c/",
        here,
    ]


@given(st.binary(min_size=1).filter(lambda name: b"/" not in name and name not in (b".", b"..")))
def test_a_link_leads_to_the_very_name(raw: bytes) -> None:
    name = raw.decode("utf-8", "surrogateescape")
    assert unquote_to_bytes(encode_name(name)) == raw
    (row,) = make_listing("/", [entry(name)]).rows
    assert urljoin("http://here.example/d/", row.href) == f"http://here.example/d/{encode_name(name)}"


def test_a_listing_allows_nothing_to_run_or_load() -> None:
    plan = plan_listing(GET, "/", [entry("<script>")])
    assert plan.status == 200
    assert field(plan, "Content-Type") == "text/html; charset=utf-8"
    assert field(plan, "Content-Security-Policy") == "default-src 'none'; style-src 'unsafe-inline'"
    assert field(plan, "X-Content-Type-Options") == "nosniff"
    assert field(plan, "Cache-Control") == "no-cache"
    assert field(plan, "Content-Length") == str(len(body(plan)))
