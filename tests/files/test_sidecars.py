"""Copies beside a file: which are used, in which order, and what is left open."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from zcresponse.files import OpenedFile
from zcresponse.files.rooted import Root
from zcresponse.files.sidecars import SUFFIXES, find_sidecar

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX file systems")
BEST_FIRST = tuple(SUFFIXES)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "a.js").write_text("plain")
    return folder


def put(folder: Path, suffix: str, *, newer_ns: int = 0) -> None:
    """Lay a copy beside the file, so much newer than it is."""
    path = folder / f"a.js{suffix}"
    path.write_text(f"copy {suffix}")
    mtime_ns = (folder / "a.js").stat().st_mtime_ns + newer_ns
    os.utime(path, ns=(mtime_ns, mtime_ns))


def chosen(folder: Path, codings: Sequence[str] = BEST_FIRST, **options: bool) -> tuple[str, str] | None:
    """Return the coding and content that are found."""
    root = Root(folder, **options)
    plain = root.lookup("/a.js")
    assert isinstance(plain, OpenedFile)
    with plain:
        steps = find_sidecar(root, "/a.js", plain, codings)
        try:
            step = next(steps)
            while True:
                try:
                    found = step.root.lookup(step.url_path)
                except OSError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(found)
        except StopIteration as end:
            if end.value is None:
                return None
            file, coding = end.value
        with file:
            return coding, os.read(file.fd, 100).decode()


def test_the_first_coding_that_lies_there_is_taken(folder: Path) -> None:
    assert chosen(folder) is None
    put(folder, ".gz")
    assert chosen(folder) == ("gzip", "copy .gz")
    put(folder, ".zst")
    put(folder, ".br")
    assert chosen(folder) == ("br", "copy .br")
    assert chosen(folder, ("gzip", "br")) == ("gzip", "copy .gz")


def test_nothing_is_looked_for_that_the_client_does_not_take(folder: Path) -> None:
    put(folder, ".br")
    assert chosen(folder, ()) is None
    assert chosen(folder, ("gzip", "zstd")) is None


@pytest.mark.parametrize(("newer_ns", "used"), [(-1_000_000, False), (0, True), (10**9, True)])
def test_a_copy_older_than_its_file_is_not_used(folder: Path, newer_ns: int, used: bool) -> None:
    put(folder, ".br", newer_ns=newer_ns)
    assert (chosen(folder) is not None) == used


def test_an_old_copy_does_not_hide_a_good_one(folder: Path) -> None:
    put(folder, ".br", newer_ns=-(10**9))
    put(folder, ".gz")
    assert chosen(folder) == ("gzip", "copy .gz")


def test_an_empty_copy_is_not_used(folder: Path) -> None:
    put(folder, ".br")
    os.truncate(folder / "a.js.br", 0)
    os.utime(folder / "a.js.br")
    assert chosen(folder) is None


@posix
@pytest.mark.parametrize("kind", ["directory", "fifo", "link out", "link in", "loop"])
def test_what_is_no_file_of_the_root_is_passed_over(folder: Path, kind: str) -> None:
    put(folder, ".gz")
    copy = folder / "a.js.br"
    (folder.parent / "outside.br").write_text("outside")
    if kind == "directory":
        copy.mkdir()
    elif kind == "fifo":
        os.mkfifo(copy)
    else:
        copy.symlink_to({"link out": "../outside.br", "link in": "a.js.gz", "loop": "a.js.br"}[kind])
    assert chosen(folder) == ("gzip", "copy .gz")


@posix
def test_a_link_to_a_copy_is_followed_as_far_as_the_root_allows(folder: Path) -> None:
    put(folder, ".gz")
    (folder / "a.js.br").symlink_to("a.js.gz")
    assert chosen(folder, follow_symlinks=True) == ("br", "copy .gz")
    (folder / "a.js.br").unlink()
    (folder.parent / "outside.br").write_text("outside")
    (folder / "a.js.br").symlink_to("../outside.br")
    assert chosen(folder, follow_symlinks=True) == ("gzip", "copy .gz")


@posix
@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_what_is_passed_over_is_closed(folder: Path) -> None:
    (folder / "a.js.br").mkdir()
    put(folder, ".zst", newer_ns=-(10**9))
    before = len(os.listdir("/proc/self/fd"))
    assert chosen(folder) is None
    assert len(os.listdir("/proc/self/fd")) == before
