"""Nothing is replaced but files, and they as a whole."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from zcresponse.bench.output import check_writable, is_same, write_whole

posix = pytest.mark.skipif(os.name != "posix", reason="links, pipes and devices")


def test_a_file_is_made_and_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 250)
    for data in b"first", b"second":
        check_writable(path)
        write_whole(path, data)
        assert path.read_bytes() == data
    assert os.listdir(tmp_path) == [path.name]


@posix
def test_who_may_read_it_stays_and_is_what_the_umask_leaves_at_first(tmp_path: Path) -> None:
    path = tmp_path / "file"
    before = os.umask(0o027)
    try:
        write_whole(path, b"first")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    path.chmod(0o604)
    write_whole(path, b"second")
    assert stat.S_IMODE(path.stat().st_mode) == 0o604


def test_an_error_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no")

    path = tmp_path / "file"
    path.write_bytes(b"before")
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(PermissionError):
        write_whole(path, b"after")
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["file"]


@posix
@pytest.mark.parametrize("there", [False, True])
def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path: Path, there: bool) -> None:
    (tmp_path / "folder").mkdir()
    target, link = tmp_path / "folder" / "target", tmp_path / "link"
    if there:
        target.write_bytes(b"before")
    link.symlink_to("folder/target")
    check_writable(link)
    write_whole(link, b"after")
    assert link.is_symlink()
    assert target.read_bytes() == b"after"


@posix
def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(fifo.read_bytes()))
    reader.start()
    check_writable(fifo)
    write_whole(fifo, b"through it")
    reader.join()
    assert read == [b"through it"]
    assert stat.S_ISFIFO(fifo.stat().st_mode)


@posix
def test_a_device_stays(tmp_path: Path) -> None:
    check_writable(Path("/dev/null"))
    write_whole(Path("/dev/null"), b"gone")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@posix
@pytest.mark.parametrize("path", ["/dev/stdout", "given"])
def test_standard_output_is_written_to_by_any_name(tmp_path: Path, path: str) -> None:
    code = "import sys; from pathlib import Path; from zcresponse.bench.output import write_whole\n"
    code += "print('before'); write_whole(Path(sys.argv[1]), b'it\\n'); print('after')"
    with (tmp_path / "given").open("wb") as given:
        subprocess.run([sys.executable, "-c", code, path], stdout=given, check=True, cwd=tmp_path)
    assert (tmp_path / "given").read_text() == "before\nit\nafter\n"
    assert os.path.islink("/dev/stdout")


@posix
def test_what_cannot_be_written_is_told_before(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        for path in tmp_path, tmp_path / "nowhere" / "file", tmp_path / "socket":
            with pytest.raises(OSError):
                check_writable(path)


@posix
@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_takes_no_new_file_is_told_before(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match="no file can be made"):
        check_writable(path)
    tmp_path.chmod(0o700)


def test_one_file_is_known_by_any_name(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert is_same(first, tmp_path / "." / "first")
    assert not is_same(first, second)
    first.touch()
    os.link(first, second)
    assert is_same(first, second)
    assert not is_same(Path(os.devnull), Path(os.devnull))
