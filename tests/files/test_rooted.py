"""Lookups beneath a root: what is found, and how everything hostile is simply not there."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zcresponse import loops
from zcresponse.files import OpenedFile, linux, rooted
from zcresponse.files.rooted import DirectoryEntry, OpenedDirectory, Root
from zcresponse.files.urlpaths import is_reachable, split_path

WAYS = ("openat2", "walk", "by name")

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX file systems and calls")


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each of the three ways to look up, forced."""
    chosen: str = request.param
    if chosen == "openat2":
        if not linux.has_openat2():
            pytest.skip("no openat2 here")
    else:
        monkeypatch.setattr(linux, "_openat2_missing", True)
        if chosen == "by name":
            monkeypatch.setattr(rooted, "_CAN_WALK", False)
        elif not rooted._CAN_WALK:
            pytest.skip("no opening relative to a directory here")
    return chosen


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A root beside things that must stay out of reach."""
    root = tmp_path / "tree"
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "a.txt").write_bytes(b"a")
    (root / "sub" / "b.txt").write_bytes(b"bb")
    (root / "sub" / "deep" / "c.txt").write_bytes(b"ccc")
    (root / "with space & ü 🎉.txt").write_bytes(b"name")
    (root / "%2e%2e").write_bytes(b"a name that looks encoded")
    (tmp_path / "secret.txt").write_bytes(b"secret")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.txt").write_bytes(b"secret")
    # Its path begins like the root's.
    (tmp_path / "tree-2").mkdir()
    (tmp_path / "tree-2" / "secret.txt").write_bytes(b"secret")
    if os.name == "posix":
        _make_links(root, tmp_path)
    return root


def _make_links(root: Path, outside: Path) -> None:
    for name, target in (
        ("out-file", "../secret.txt"),
        ("out-file-abs", str(outside / "secret.txt")),
        ("out-dir", "../outside"),
        ("out-dir-abs", str(outside / "outside")),
        ("up", ".."),
        ("up-up", "sub/../.."),
        ("etc", "/etc"),
        ("slash", "/"),
        ("sibling", str(outside / "tree-2")),
        ("climb-abs", f"{root}/../secret.txt"),
        ("climb-far", "../" * 40 + "etc/passwd"),
        ("loop", "loop"),
        ("loop-a", "loop-b"),
        ("loop-b", "loop-a"),
        ("dangling", "nothing"),
        ("proc-root", "/proc/self/root"),
        ("proc-cwd", "/proc/self/cwd"),
        ("proc-fd", "/proc/self/fd/0"),
        ("stdin", "/dev/stdin"),
        ("null-link", "/dev/null"),
        ("to-out", "out-file"),
        ("sub/out-deep", "../../secret.txt"),
        ("fifo-link", "fifo"),
        # These stay inside.
        ("in-file", "a.txt"),
        ("in-dir", "sub"),
        ("in-abs", f"{root}/sub"),
        ("in-dots", "sub/../sub/./deep/.."),
        ("in-chain", "in-dir/deep/../b.txt"),
        ("sub/in-up", "../a.txt"),
        ("sub/deep/in-root", "../.."),
    ):
        (root / name).symlink_to(target)
    previous = "a.txt"
    for number in range(45):
        (root / f"chain-{number}").symlink_to(previous)
        previous = f"chain-{number}"
    os.mkfifo(root / "fifo")
    # The path of a socket has some 100 bytes at most.
    with socket.socket(socket.AF_UNIX) as unix, contextlib.chdir(root):
        unix.bind("socket")


def read(found: OpenedFile | OpenedDirectory) -> bytes:
    with found:
        assert isinstance(found, OpenedFile)
        with open(found.fd, "rb", closefd=False) as file:
            return file.read()


def lookup_on_loop(root: Root, path: str) -> OpenedFile | OpenedDirectory:
    return asyncio.run(root.lookup_async(path))


# --- what is not there ------------------------------------------------------------------------------------------------

HOSTILE = [
    "/..",
    "/../",
    "/../secret.txt",
    "../secret.txt",
    "..",
    ".",
    "/.",
    "/./",
    "/./a.txt",
    "/sub/./b.txt",
    "/sub/.",
    "/sub/..",
    "/sub/../a.txt",
    "/sub/../../secret.txt",
    "/sub/deep/../../../secret.txt",
    "/../tree/a.txt",
    "/../tree-2/secret.txt",
    "//",
    "///",
    "//a.txt",
    "//etc/passwd",
    "//server/share/a.txt",
    "/sub//b.txt",
    "/sub///",
    "/etc/passwd",
    "/tree/a.txt",
    "/..\\secret.txt",
    "\\",
    "\\..\\secret.txt",
    "/sub\\b.txt",
    "/sub\\..\\..\\secret.txt",
    "\\\\server\\share\\a.txt",
    "\\\\?\\C:\\Windows\\win.ini",
    "\\\\.\\pipe\\x",
    "C:\\Windows\\win.ini",
    "/C:\\Windows\\win.ini",
    "/C:/Windows/win.ini",
    "C:",
    "/c:a.txt",
    "/a.txt::$DATA",
    "/a.txt:stream",
    "/CON",
    "/nul.txt",
    "/com1",
    "/LPT9.log",
    "/a.txt.",
    "/a.txt ",
    "/\0",
    "/a.txt\0",
    "/a.txt\0.html",
    "\0/a.txt",
    "/sub/\0/b.txt",
    "/a.txt/",
    "/a.txt//",
    "/a.txt/.",
    "/a.txt/b",
    "/a.txt/../a.txt",
    "/sub/b.txt/",
    "/nothing",
    "/nothing/",
    "/nothing/a.txt",
    "/%2e%2e/secret.txt",
    "/%2e%2e%2fsecret.txt",
    "/..%2fsecret.txt",
    "/..%5csecret.txt",
    "/sub%2fb.txt",
    "/%252e%252e/secret.txt",
    "/\uff0e\uff0e/secret.txt",
    "/\u2024\u2024/secret.txt",
    "/..\u2215secret.txt",
    "/..\uff0fsecret.txt",
    "/.. /secret.txt",
    "/.../secret.txt",
    "/\ud800",
    "/\ud800\udc00/a.txt",
    "/\udcff",
    "/" + "x" * 255,
    "/" + "x" * 256,
    "/" + "x" * 100_000,
    "/" + "ü" * 128,
    "/" + "x/" * 3_000,
    "/" + "../" * 3_000 + "etc/passwd",
    "/sub/" * 2_000,
    "/\r\nX: y",
    "/~",
    "/~root/.profile",
    "/$HOME",
    "/*",
    "/file:///etc/passwd",
]

LINKS_OUT = [
    "/out-file",
    "/out-file-abs",
    "/out-dir",
    "/out-dir/",
    "/out-dir/secret.txt",
    "/out-dir-abs/secret.txt",
    "/up",
    "/up/secret.txt",
    "/up/tree/a.txt",
    "/up-up/secret.txt",
    "/etc/passwd",
    "/slash/etc/passwd",
    "/slash",
    "/sibling/secret.txt",
    "/climb-abs",
    "/climb-far",
    "/loop",
    "/loop/",
    "/loop/a.txt",
    "/loop-a",
    "/dangling",
    "/proc-root/etc/passwd",
    "/proc-cwd",
    "/proc-fd",
    "/stdin",
    "/null-link",
    "/to-out",
    "/sub/out-deep",
    "/fifo-link",
    "/chain-44",
]

# By name only the end of a way is seen, and these end inside.
FOUND_BY_NAME = {
    "/up/tree/a.txt": "out and in again",
    "/chain-44": "more links than a kernel follows",
}

LINKS_IN = [
    ("/in-file", b"a"),
    ("/in-dir/b.txt", b"bb"),
    ("/in-dir/deep/c.txt", b"ccc"),
    ("/in-abs/b.txt", b"bb"),
    ("/in-dots/b.txt", b"bb"),
    ("/in-chain", b"bb"),
    ("/sub/in-up", b"a"),
    ("/sub/deep/in-root/a.txt", b"a"),
    ("/chain-9", b"a"),
]

SPECIAL = ["/fifo", "/fifo/", "/socket", "/socket/a.txt"]


def test_the_table_of_hostile_paths_is_long_enough() -> None:
    assert len({*HOSTILE, *LINKS_OUT, *SPECIAL}) >= 60


@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize("path", HOSTILE, ids=lambda path: ascii(path)[:40])
def test_a_hostile_path_is_not_there(base: Path, way: str, path: str, follow: bool) -> None:
    root = Root(base, follow_symlinks=follow)
    for look in (root.lookup, lambda path: lookup_on_loop(root, path)):
        with pytest.raises(FileNotFoundError):
            look(path).close()


@posix
@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize("path", LINKS_OUT)
def test_a_link_that_leaves_the_root_is_not_there(base: Path, way: str, path: str, follow: bool) -> None:
    if way == "by name" and path in FOUND_BY_NAME:
        pytest.skip(FOUND_BY_NAME[path])
    root = Root(base, follow_symlinks=follow)
    for look in (root.lookup, lambda path: lookup_on_loop(root, path)):
        with pytest.raises(FileNotFoundError):
            look(path).close()


@posix
@pytest.mark.parametrize(("path", "content"), LINKS_IN)
def test_a_link_that_stays_inside_is_not_there_by_default(base: Path, way: str, path: str, content: bytes) -> None:
    with pytest.raises(FileNotFoundError):
        Root(base).lookup(path).close()


@posix
@pytest.mark.parametrize(("path", "content"), LINKS_IN)
def test_a_link_that_stays_inside_is_followed_when_asked(base: Path, way: str, path: str, content: bytes) -> None:
    root = Root(base, follow_symlinks=True)
    assert read(root.lookup(path)) == content
    assert read(lookup_on_loop(root, path)) == content


@posix
def test_a_link_that_leaves_the_root_is_followed_when_anywhere_is_asked(base: Path, tmp_path: Path, way: str) -> None:
    far = tmp_path / "far"
    far.mkdir()
    (far / "far.txt").write_bytes(b"far")
    (base / "away").symlink_to(far)
    (base / "away.txt").symlink_to(far / "far.txt")
    root = Root(base, follow_symlinks="anywhere")
    for path in ("/away/far.txt", "/away.txt"):
        assert read(root.lookup(path)) == read(lookup_on_loop(root, path)) == b"far"
    for path in ("/away/../a.txt", "/../far/far.txt", "/away/nothing", "/away.txt/"):
        with pytest.raises(FileNotFoundError):
            root.lookup(path).close()


def test_which_links_are_followed_is_told_in_known_words(base: Path) -> None:
    with pytest.raises(ValueError, match="follow_symlinks"):
        Root(base, follow_symlinks="everywhere")  # type: ignore[arg-type]


@posix
@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize("path", SPECIAL)
def test_a_special_file_is_not_there_and_nobody_waits_for_it(base: Path, way: str, path: str, follow: bool) -> None:
    with pytest.raises(FileNotFoundError):
        Root(base, follow_symlinks=follow).lookup(path).close()


@posix
@pytest.mark.parametrize("path", ["/null", "/zero", "/tty", "/full", "/stdin", "/fd/0", "/stdout"])
def test_devices_and_magic_links_are_not_there(way: str, path: str) -> None:
    for follow in (False, True):
        with pytest.raises(FileNotFoundError):
            Root("/dev", follow_symlinks=follow).lookup(path).close()


# The names are those of proc(5), in every process's directory.
@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
@pytest.mark.parametrize("path", ["root/etc/passwd", "cwd/README.md", "exe", "fd/0"])
def test_magic_links_of_proc_are_not_followed(way: str, path: str) -> None:
    for follow in (False, True):
        with pytest.raises(FileNotFoundError):
            Root("/proc/self", follow_symlinks=follow).lookup(f"/{path}").close()


@given(path=st.text(st.sampled_from("/\\.%2e5cf:~\0 a\udcff"), max_size=30))
def test_whatever_the_path_a_lookup_finds_something_inside_or_nothing(path: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        inside = Path(directory, "root")
        (inside / "a").mkdir(parents=True)
        (inside / "a" / "a").write_bytes(b"inside")
        Path(directory, "a").write_bytes(b"outside")
        try:
            found = Root(inside).lookup(path)
        except FileNotFoundError:
            return
        with found:
            assert os.path.realpath(found.path or "").startswith(os.path.realpath(inside))


@pytest.mark.parametrize(
    "name",
    ["con", "CON", "con.txt", "aux", "NUL", "nul.tar.gz", "prn ", "com1", "COM0", "com¹.txt", "lpt9", "conin$",
     "CONOUT$", "aux:", "a:b", "a.txt::$DATA", "C:", "a.", "a ", "a. .", "a?", "a*", "a|b", "a<b", 'a"b', "a\nb"],
)  # fmt: skip
def test_windows_would_read_more_into_this_name_than_a_name(name: str) -> None:
    assert not is_reachable(name, windows=True)
    with pytest.raises(FileNotFoundError):
        split_path(f"/sub/{name}/b", windows=True)


@pytest.mark.parametrize("name", ["a.txt", "console", "con1", "com10", "auxiliary", "nul_", ".hidden", "ü 🎉", "a.b.c"])
def test_an_ordinary_name_is_reachable_everywhere(name: str) -> None:
    assert is_reachable(name, windows=True)
    assert is_reachable(name, windows=False)


@pytest.mark.parametrize(
    ("path", "names", "asks_for_folder"),
    [
        ("", [], False),
        ("/", [], True),
        ("/a", ["a"], False),
        ("a", ["a"], False),
        ("/a/", ["a"], True),
        ("/a/b", ["a", "b"], False),
        ("/...", ["..."], False),
        ("/.a", [".a"], False),
        ("/%2f", ["%2f"], False),
    ],
)
def test_a_path_splits_into_names(path: str, names: list[str], asks_for_folder: bool) -> None:
    assert split_path(path, windows=False) == (names, asks_for_folder)


# --- what is there ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/a.txt", b"a"),
        ("a.txt", b"a"),
        ("/sub/b.txt", b"bb"),
        ("/sub/deep/c.txt", b"ccc"),
        ("/with space & ü 🎉.txt", b"name"),
        ("/%2e%2e", b"a name that looks encoded"),
    ],
)
def test_a_file_comes_out_open(base: Path, way: str, path: str, content: bytes, follow: bool) -> None:
    root = Root(base, follow_symlinks=follow)
    found = root.lookup(path)
    assert isinstance(found, OpenedFile)
    assert found.size == len(content)
    assert os.path.samefile(found.path or "", base / path.removeprefix("/"))
    assert read(found) == content
    assert read(lookup_on_loop(root, path)) == content


@pytest.mark.parametrize("path", ["", "/", "/sub", "/sub/", "/sub/deep/", "/empty"])
def test_a_directory_comes_out_open_with_a_slash_or_without(base: Path, way: str, path: str) -> None:
    root = Root(base)
    for found in (root.lookup(path), lookup_on_loop(root, path)):
        with found:
            assert isinstance(found, OpenedDirectory)
            assert stat.S_ISDIR(found.stat.st_mode)
            assert os.path.samefile(found.path, base / path.strip("/"))


@posix
def test_a_name_that_is_not_utf8_is_found_by_its_bytes(base: Path, way: str) -> None:
    _make_undecodable(base)
    assert read(Root(base).lookup("/" + os.fsdecode(b"n\xff.bin"))) == b"x"


def _make_undecodable(base: Path) -> None:
    try:
        with open(os.fsencode(base) + b"/n\xff.bin", "wb") as file:
            file.write(b"x")
    except OSError:
        pytest.skip("this file system takes no such name")


@posix
def test_the_root_may_be_a_link_and_is_looked_up_each_time(base: Path, tmp_path: Path, way: str) -> None:
    current = tmp_path / "current"
    current.symlink_to("tree")
    root = Root(current)
    assert read(root.lookup("/a.txt")) == b"a"
    new = tmp_path / "new"
    new.mkdir()
    (new / "a.txt").write_bytes(b"new")
    (tmp_path / "next").symlink_to("new")
    (tmp_path / "next").rename(current)
    assert read(root.lookup("/a.txt")) == b"new"
    assert read(lookup_on_loop(root, "/a.txt")) == b"new"


def test_a_new_tree_may_be_renamed_into_place(base: Path, tmp_path: Path, way: str) -> None:
    root = Root(base)
    assert read(lookup_on_loop(root, "/a.txt")) == b"a"
    base.rename(tmp_path / "old")
    for look in (root.lookup, lambda path: lookup_on_loop(root, path)):
        with pytest.raises(FileNotFoundError):
            look("/a.txt").close()
    (tmp_path / "outside").rename(base)
    assert read(lookup_on_loop(root, "/secret.txt")) == b"secret"


def test_a_relative_root_stays_where_it_was(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    root = Root("tree")
    monkeypatch.chdir(base / "sub")
    assert read(root.lookup("/a.txt")) == b"a"


@posix
def test_a_root_of_everything_works_too(base: Path, way: str) -> None:
    path = os.path.realpath(base / "a.txt")
    assert read(Root("/").lookup(path)) == b"a"
    assert read(Root("/", follow_symlinks=True).lookup(path)) == b"a"


# --- races ------------------------------------------------------------------------------------------------------------


def _until(both_sides_met: Callable[[], bool]) -> Iterator[int]:
    """Count to a few thousand, and on until the race was met, with an end should it never be."""
    for count in range(1_000_000):
        if count >= 3_000 and both_sides_met():
            return
        yield count


@posix
@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize("way", ["openat2", "walk"], indirect=True)
def test_a_folder_that_is_swapped_for_a_link_is_never_followed_out(base: Path, way: str, follow: bool) -> None:
    (base / "sub" / "secret.txt").write_bytes(b"public")
    swapped = base / "swapped"
    (base / "sub").rename(swapped)
    aside, link = base / "aside", base / "link"
    link.symlink_to("../outside")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            swapped.rename(aside)
            link.rename(swapped)
            swapped.rename(link)
            aside.rename(swapped)

    root = Root(base, follow_symlinks=follow)
    seen: set[bytes] = set()
    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in _until(lambda: len(seen) > 1):
            try:
                seen.add(read(root.lookup("/swapped/secret.txt")))
            except FileNotFoundError:
                seen.add(b"not there")
    finally:
        stop.set()
        thread.join()
    assert b"secret" not in seen
    # Both sides of the race were met.
    assert seen == {b"public", b"not there"}


@posix
@pytest.mark.parametrize("way", ["openat2", "walk"], indirect=True)
def test_a_folder_that_moves_out_while_a_link_climbs_leads_nowhere_else(base: Path, tmp_path: Path, way: str) -> None:
    # `deep` moves between the root and a folder outside of it; `../../a.txt` from there would be another file.
    (tmp_path / "outside" / "x").mkdir()
    (tmp_path / "outside" / "a.txt").write_bytes(b"secret")
    (base / "sub" / "deep" / "climb").symlink_to("../../a.txt")
    inside, outside = base / "sub" / "deep", tmp_path / "outside" / "x" / "deep"
    stop = threading.Event()

    def move() -> None:
        while not stop.is_set():
            inside.rename(outside)
            outside.rename(inside)

    root = Root(base, follow_symlinks=True)
    thread = threading.Thread(target=move)
    thread.start()
    seen: set[bytes] = set()
    try:
        for _ in _until(lambda: b"a" in seen):
            try:
                seen.add(read(root.lookup("/sub/deep/climb")))
            except FileNotFoundError:
                seen.add(b"not there")
            except BlockingIOError:
                # The kernel could not vouch for any of many tries.
                seen.add(b"busy")
    finally:
        stop.set()
        thread.join()
    assert b"secret" not in seen
    assert b"a" in seen


# --- the deployer's matters -------------------------------------------------------------------------------------------


@pytest.fixture
def as_nobody() -> Iterator[Path]:
    """A directory that everybody may pass through, seen without root's privileges."""
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        try:
            yield Path(directory)
        finally:
            if os.getuid() == 0:
                os.seteuid(0)


def _drop_privileges() -> None:
    if os.getuid() == 0:
        os.seteuid(65534)


@posix
def test_what_may_not_be_read_is_a_permission_error(as_nobody: Path, way: str) -> None:
    (as_nobody / "private.txt").write_bytes(b"x")
    (as_nobody / "private.txt").chmod(0)
    (as_nobody / "closed").mkdir()
    (as_nobody / "closed" / "a.txt").write_bytes(b"x")
    (as_nobody / "closed").chmod(0)
    root = Root(as_nobody)
    _drop_privileges()
    for path in ("/private.txt", "/closed/a.txt", "/closed/nothing"):
        for look in (root.lookup, lambda path: lookup_on_loop(root, path)):
            with pytest.raises(PermissionError):
                look(path).close()


@pytest.mark.skipif(not hasattr(os, "O_PATH"), reason="needs O_PATH")
@pytest.mark.parametrize("way", ["openat2", "walk"], indirect=True)
def test_a_directory_that_may_be_passed_but_not_listed_is_found(as_nobody: Path, way: str) -> None:
    (as_nobody / "drop").mkdir()
    (as_nobody / "drop" / "index.html").write_bytes(b"hello")
    (as_nobody / "drop").chmod(0o711 if os.getuid() == 0 else 0o100)
    root = Root(as_nobody)
    _drop_privileges()
    assert read(root.lookup("/drop/index.html")) == b"hello"
    with root.lookup("/drop/") as found:
        assert isinstance(found, OpenedDirectory)
        with pytest.raises(PermissionError):
            list(found.entries())


@posix
def test_running_out_of_descriptors_passes_through(base: Path, way: str) -> None:
    import resource

    root = Root(base)
    root.lookup("/a.txt").close()
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        with pytest.raises(OSError) as caught:
            root.lookup("/a.txt").close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert caught.value.errno == errno.EMFILE


LEASE_HOLDER = """
import fcntl, os, signal, sys
fd = os.open(sys.argv[1], os.O_RDWR)
fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
# The kernel asks for the lease by SIGIO, which ends the process and so gives it back.
print("held", flush=True)
signal.pause()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="leases are Linux's")
@pytest.mark.parametrize("way", ["openat2", "walk"], indirect=True)
def test_a_lease_on_a_file_is_waited_for(base: Path, way: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LEASE_HOLDER, str(base / "a.txt")], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        if holder.stdout.readline() != "held\n":
            pytest.skip("this file system grants no leases")
        assert read(Root(base).lookup("/a.txt")) == b"a"


@pytest.mark.skipif(not linux.has_openat2(), reason="needs openat2")
def test_one_bad_name_does_not_switch_openat2_off(base: Path) -> None:
    # What a file system refuses with EINVAL looks as if the kernel did not know the call; here a bad flag does so.
    with pytest.raises(OSError):
        linux.openat2(os.fsencode(base / "a.txt"), os.O_RDONLY | 1 << 40, linux.RESOLVE_BENEATH)
    assert linux.has_openat2()


# --- on the event loop ------------------------------------------------------------------------------------------------


@pytest.fixture
def local(base: Path) -> Path:
    """The same tree, where it is known to be on a file system that answers from memory."""
    fd = os.open(base, os.O_RDONLY)
    try:
        storage = linux.storage_of(fd)
    finally:
        os.close(fd)
    if storage is linux.Storage.UNKNOWN or not linux.has_openat2():
        pytest.skip("needs openat2 and a local file system")
    return base


@pytest.mark.parametrize("path", ["/a.txt", "/sub/b.txt", "/sub", "/", "/sub/deep/"])
def test_a_lookup_that_was_learnt_needs_no_thread(local: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Root(local)

    async def run() -> None:
        (await root.lookup_async(path)).close()

        async def no_thread(*_: object, **__: object) -> None:
            raise AssertionError("a thread was asked")

        monkeypatch.setattr(loops, "in_thread", no_thread)
        (await root.lookup_async(path)).close()

    asyncio.run(run())


def test_a_new_file_in_a_known_folder_is_found_by_a_thread_or_without(local: Path) -> None:
    root = Root(local)

    async def run() -> bytes:
        (await root.lookup_async("/a.txt")).close()
        with pytest.raises(FileNotFoundError):
            await root.lookup_async("/new.txt")
        (local / "new.txt").write_bytes(b"new")
        return read(await root.lookup_async("/new.txt"))

    assert asyncio.run(run()) == b"new"


def test_a_cancelled_lookup_leaves_no_descriptor_open(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Root(base)
    entered, leave, closed = threading.Event(), threading.Event(), threading.Event()
    lookup = Root.lookup

    def slow(self: Root, path: str) -> OpenedFile | OpenedDirectory:
        entered.set()
        leave.wait(20)
        return lookup(self, path)

    def close(found: OpenedFile | OpenedDirectory) -> None:
        found.close()
        closed.set()

    monkeypatch.setattr(Root, "lookup", slow)
    monkeypatch.setattr(rooted, "_close", close)

    async def run() -> None:
        task = asyncio.create_task(root.lookup_async("/a.txt"))
        await asyncio.to_thread(entered.wait, 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        leave.set()
        assert await asyncio.to_thread(closed.wait, 20)

    asyncio.run(run())


# --- directories ------------------------------------------------------------------------------------------------------


def entries(found: OpenedFile | OpenedDirectory) -> dict[str, DirectoryEntry]:
    with found:
        assert isinstance(found, OpenedDirectory)
        return {entry.name: entry for entry in found.entries()}


def test_entries_tell_what_can_be_asked_for(base: Path, way: str) -> None:
    found = entries(Root(base).lookup("/"))
    assert set(found) == {"a.txt", "sub", "empty", "with space & ü 🎉.txt", "%2e%2e"}
    assert found["sub"].is_directory
    assert not found["a.txt"].is_directory
    assert found["a.txt"].size == 1
    assert found["a.txt"].mtime_ns == (base / "a.txt").stat().st_mtime_ns


@posix
def test_entries_follow_links_inside_and_none_that_lead_out(base: Path, way: str) -> None:
    found = entries(Root(base, follow_symlinks=True).lookup("/"))
    links = {name for name in found if (base / name).is_symlink() and not name.startswith("chain-")}
    assert links == {"in-file", "in-dir", "in-abs", "in-dots", "in-chain"}
    assert found["in-dir"].is_directory
    assert found["in-chain"].size == 2
    deep = entries(Root(base, follow_symlinks=True).lookup("/sub/deep/"))
    assert deep["in-root"].is_directory


@posix
def test_names_that_are_not_utf8_survive_and_unreachable_ones_are_left_out(base: Path, way: str) -> None:
    _make_undecodable(base)
    (base / "back\\slash").write_bytes(b"")
    found = entries(Root(base).lookup("/"))
    assert os.fsdecode(b"n\xff.bin") in found
    assert "back\\slash" not in found


def test_entries_can_be_gone_through_twice_and_at_once(base: Path, way: str) -> None:
    with Root(base).lookup("/sub") as found:
        assert isinstance(found, OpenedDirectory)
        pairs = list(zip(found.entries(), found.entries(), strict=True))
        assert [first for first, _ in pairs] == [second for _, second in pairs]
        assert {first.name for first, _ in pairs} == {"b.txt", "deep"}


def test_a_directory_closes_once_and_then_refuses(base: Path, way: str) -> None:
    found = Root(base).lookup("/sub")
    assert isinstance(found, OpenedDirectory)
    found.close()
    found.close()
    assert found.closed
    with pytest.raises(ValueError):
        list(found.entries())


@posix
def test_a_directory_that_nobody_closed_is_closed_with_a_warning() -> None:
    found = Root(os.sep).lookup("/")
    assert isinstance(found, OpenedDirectory)
    fd = found.fd
    with pytest.warns(ResourceWarning, match="unclosed directory"):
        del found
        gc.collect()
    with pytest.raises(OSError):
        os.fstat(fd)


@posix
def test_a_directory_that_was_handed_over_is_closed_quietly() -> None:
    found = Root(os.sep).lookup("/")
    assert isinstance(found, OpenedDirectory)
    fd = found.fd
    found.hand_over()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del found
        gc.collect()
    with pytest.raises(OSError):
        os.fstat(fd)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_no_lookup_leaves_a_descriptor_open(base: Path, way: str) -> None:
    loops.LOCAL.submit(int).result()
    before = len(os.listdir("/proc/self/fd"))
    for follow in (False, True):
        root = Root(base, follow_symlinks=follow)
        for path in (*HOSTILE, *LINKS_OUT, *SPECIAL, *(path for path, _ in LINKS_IN), "/a.txt", "/sub/", "/"):
            with contextlib.suppress(FileNotFoundError):
                root.lookup(path).close()
            with contextlib.suppress(FileNotFoundError):
                lookup_on_loop(root, path).close()
    assert len(os.listdir("/proc/self/fd")) == before
