"""What an application names by X-Sendfile and X-Accel-Redirect: the deployer's files and nothing else."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from zcresponse.files import OpenedFile
from zcresponse.files.named import NamedFiles

Fields = list[tuple[str, str]]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Two roots, one within the other, beside what must stay out of reach."""
    inner = tmp_path / "files" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "files" / "a.txt").write_text("a")
    (tmp_path / "files" / "100%.txt").write_text("percent")
    (tmp_path / "files" / "a b ✓.txt").write_text("odd")
    (tmp_path / "files" / "a%20b.txt").write_text("looks encoded")
    (tmp_path / "files" / "a?b.txt").write_text("question")
    (tmp_path / "files" / "inner%2fb.txt").write_text("looks like a path")
    (inner / "b.txt").write_text("b")
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "files-2").mkdir()
    (tmp_path / "files-2" / "secret.txt").write_text("secret")
    (tmp_path / "files" / "link").symlink_to("../secret.txt")
    (tmp_path / "files" / "folder-link").symlink_to("..")
    (tmp_path / "files" / "inside-link").symlink_to("a.txt")
    os.mkfifo(tmp_path / "files" / "fifo")
    return tmp_path


@pytest.fixture
def named(base: Path) -> NamedFiles:
    return NamedFiles([base / "files"], {"/protected/": base / "files", "/protected/deep": base / "files" / "inner"})


Lookup = Callable[[NamedFiles, Fields], OpenedFile]


@pytest.fixture(params=["sync", "async"])
def lookup(request: pytest.FixtureRequest) -> Iterator[Lookup]:
    """Both ways, which leave no descriptor behind."""
    before = set(os.listdir("/proc/self/fd"))
    if request.param == "sync":
        yield NamedFiles.lookup
    else:
        yield lambda named, fields: asyncio.run(named.lookup_async(fields))
    assert set(os.listdir("/proc/self/fd")) == before


def read(file: OpenedFile) -> str:
    with file:
        return os.pread(file.fd, 100, 0).decode()


def latin(text: str) -> str:
    """Text as a header has it: each byte of UTF-8 one character."""
    return text.encode().decode("latin-1")


@pytest.mark.parametrize(
    ("value", "content"),
    [
        ("a.txt", "a"),
        ("/a.txt", "a"),
        ("./inner/.//b.txt", "b"),
        ("100%.txt", "percent"),
        ("a b ✓.txt", "odd"),
        ("a%20b.txt", "looks encoded"),
        ("a?b.txt", "question"),
        ("inner%2fb.txt", "looks like a path"),
    ],
)
def test_a_path_is_found_beneath_its_directory(
    value: str, content: str, base: Path, named: NamedFiles, lookup: Lookup
) -> None:
    assert read(lookup(named, [("X-Sendfile", latin(f" {base}/files/{value}\t"))])) == content


@pytest.mark.parametrize(
    ("value", "content"),
    [
        ("/protected/a.txt", "a"),
        ("/protected//a.txt", "a"),
        ("/protected/a.txt?download=1", "a"),
        ("/protected/a%3Fb.txt?x", "question"),
        ("/protected/a%20b%20%e2%9c%93.txt", "odd"),
        ("/protected/a b ✓.txt", "odd"),
        ("/protected/inner/b.txt", "b"),
        ("/protected/inner%2Fb.txt", "b"),
        ("/protected/inner%252fb.txt", "looks like a path"),
        ("/protected/100%25.txt", "percent"),
        ("/protected/a%2520b.txt", "looks encoded"),
        ("/protected/deep/b.txt", "b"),
    ],
)
def test_a_uri_is_found_beneath_the_directory_of_its_beginning(
    value: str, content: str, named: NamedFiles, lookup: Lookup
) -> None:
    assert read(lookup(named, [("x-accel-redirect", latin(value))])) == content


@pytest.mark.parametrize("value", ["100%25.txt", "a%20b%20%E2%9C%93.txt", "a%2520b.txt", "inner%2Fb.txt", "a%2etxt"])
def test_a_path_is_not_decoded(value: str, base: Path, named: NamedFiles, lookup: Lookup) -> None:
    with pytest.raises(FileNotFoundError):
        lookup(named, [("X-Sendfile", f"{base}/files/{value}")])


HOSTILE = [
    "",
    " ",
    "/",
    "..",
    "a.txt",
    "~/a.txt",
    "/etc/passwd",
    "/proc/self/environ",
    "//etc/passwd",
    "file:///etc/passwd",
    "http://127.0.0.1/protected/a.txt",
    "@named",
    "{files}",
    "{files}/",
    "{files}/inner",
    "{files}/inner/",
    "{files}/a.txt/",
    "{files}/a.txt/.",
    "{files}/nothing",
    "{files}/../secret.txt",
    "{files}/%2e%2e/secret.txt",
    "{files}/%2E%2E%2Fsecret.txt",
    "{files}/..%2fsecret.txt",
    "{files}/inner/../../secret.txt",
    "{files}/..\\secret.txt",
    "{files}/..%5csecret.txt",
    "{files}-2/secret.txt",
    "{files}/link",
    "{files}/inside-link",
    "{files}/folder-link/secret.txt",
    "{files}/fifo",
    "{files}/a.txt\0",
    "{files}/a.txt%00",
    "{files}/a.txt%00.png",
    "{files}/a.txt\r\nSet-Cookie: a=b",
    "{files}/a.txt%0d%0aSet-Cookie:%20a=b",
    "{files}/%ff%fe",
    "{files}/\u2713",
    "{files}/" + "a" * 5000,
    "{files}/" + "a/" * 3000 + "a",
    "{files}" + "/.." * 50 + "/etc/passwd",
]


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("field", ["X-Sendfile", "X-Accel-Redirect"])
def test_nothing_hostile_is_there(field: str, value: str, base: Path, named: NamedFiles, lookup: Lookup) -> None:
    files = f"{base}/files" if field == "X-Sendfile" else "/protected"
    with pytest.raises(FileNotFoundError):
        lookup(named, [(field, value.replace("{files}", files))])


def test_several_fields_name_nothing(base: Path, named: NamedFiles, lookup: Lookup) -> None:
    path, uri = ("X-Sendfile", f"{base}/files/a.txt"), ("X-Accel-Redirect", "/protected/a.txt")
    for fields in ([path, path], [path, uri], [uri, uri], []):
        with pytest.raises(FileNotFoundError):
            lookup(named, fields)


def test_links_that_stay_inside_are_followed_where_that_is_asked_for(base: Path, lookup: Lookup) -> None:
    named = NamedFiles([base / "files"], follow_symlinks=True)
    assert read(lookup(named, [("X-Sendfile", f"{base}/files/inside-link")])) == "a"
    with pytest.raises(FileNotFoundError):
        lookup(named, [("X-Sendfile", f"{base}/files/link")])


def test_a_relative_directory_is_made_absolute_at_once(
    base: Path, lookup: Lookup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(base)
    named = NamedFiles(["files"])
    monkeypatch.chdir("/")
    assert read(lookup(named, [("X-Sendfile", f"{base}/files/a.txt")])) == "a"


def test_a_field_without_directories_is_left_to_others(base: Path) -> None:
    assert NamedFiles().fields == set()
    assert NamedFiles([base]).fields == {"x-sendfile"}
    assert NamedFiles(x_accel_redirect={"/": base}).fields == {"x-accel-redirect"}


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"x_sendfile": "/srv"}, TypeError),
        ({"x_sendfile": Path("/")}, TypeError),
        ({"x_sendfile": None}, TypeError),
        ({"x_sendfile": [""]}, ValueError),
        ({"x_sendfile": [None]}, ValueError),
        ({"x_sendfile": [b"/"]}, ValueError),
        ({"x_accel_redirect": ["/"]}, TypeError),
        ({"x_accel_redirect": {"/": None}}, ValueError),
        ({"x_sendfile": ["/nothing/there"]}, FileNotFoundError),
        ({"x_sendfile": [__file__]}, NotADirectoryError),
        ({"x_accel_redirect": {"protected/": "/"}}, ValueError),
        ({"x_accel_redirect": {"": "/"}}, ValueError),
        ({"x_accel_redirect": {"/": "/nothing/there"}}, FileNotFoundError),
        ({"follow_symlinks": "anywhere"}, TypeError),
    ],
)
def test_a_mistake_of_the_deployers_is_told_at_once(arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(arguments))):
        NamedFiles(**arguments)
