from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from zcresponse.files import linux, places
from zcresponse.files.linux import Storage
from zcresponse.files.opened import open_and_learn, open_at_once


@pytest.fixture(autouse=True)
def nothing_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_storage_by_device", "_local_folders", "_remote_folders", "_elsewhere", "opened_before"):
        monkeypatch.setattr(places, name, {})


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[tuple[str, int, os.stat_result]]:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    fd = os.open(path, os.O_RDONLY)
    yield str(path), fd, os.fstat(fd)
    os.close(fd)


def learn(stat: os.stat_result, storage: Storage, seconds: float) -> None:
    places._storage_by_device[stat.st_dev] = (storage, time.monotonic() + seconds)


def test_what_was_learnt_lately_is_believed(opened: tuple[str, int, os.stat_result]) -> None:
    path, fd, stat = opened
    learn(stat, Storage.LOCAL, 29)
    assert places.local_storage(path, fd, stat, time.monotonic()) is Storage.LOCAL


def test_a_device_is_asked_anew_before_what_was_learnt_runs_out(opened: tuple[str, int, os.stat_result]) -> None:
    """Its number may be another file system's by now."""
    path, fd, stat = opened
    wrong = Storage.LOCAL if linux.storage_of(fd) is not Storage.LOCAL else Storage.PROBED
    learn(stat, wrong, 10)
    storage = places.local_storage(path, fd, stat, time.monotonic())
    assert storage is (None if linux.storage_of(fd) is Storage.UNKNOWN else linux.storage_of(fd))
    assert places._storage_by_device[stat.st_dev][0] is linux.storage_of(fd)


def test_a_device_of_which_nothing_is_known_is_left_to_a_thread(opened: tuple[str, int, os.stat_result]) -> None:
    path, fd, stat = opened
    assert places.local_storage(path, fd, stat, time.monotonic()) is None
    assert not places.may_open_at_once(path, time.monotonic())


def test_a_link_to_a_file_system_that_waits_is_not_opened_at_once_again(
    opened: tuple[str, int, os.stat_result],
) -> None:
    path, fd, stat = opened
    places.learn_folder(path, Storage.LOCAL)
    learn(stat, Storage.UNKNOWN, 29)
    assert places.local_storage(path, fd, stat, time.monotonic()) is None
    assert not places.may_open_at_once(path, time.monotonic())


def test_a_folder_that_may_never_answer_is_remembered(opened: tuple[str, int, os.stat_result]) -> None:
    path, _, _ = opened
    assert not places.is_remote(path)
    places.learn_folder(path, Storage.UNKNOWN)
    assert places.is_remote(path)
    assert not places.may_open_at_once(path, time.monotonic())


@pytest.mark.parametrize(("sends", "storage"), [(True, Storage.LOCAL), (False, Storage.UNKNOWN)])
def test_where_nothing_tells_files_are_local_only_if_the_kernel_can_send_them(
    opened: tuple[str, int, os.stat_result], monkeypatch: pytest.MonkeyPatch, sends: bool, storage: Storage
) -> None:
    monkeypatch.setattr(linux, "_libc", None)
    monkeypatch.setattr(linux, "AVAILABLE", sends)
    assert linux.storage_of(opened[1]) is storage


def test_a_name_that_was_just_looked_up_is_surely_cached_for_a_moment(tmp_path: Path) -> None:
    path = str(tmp_path / "file")
    (tmp_path / "file").write_bytes(b"content")
    open_and_learn(path).close()
    for _ in range(2):
        file = open_at_once(path)
        assert file is not None
        assert os.pread(file.fileno(), 10, 0) == b"content"
        file.close()
    seen = places.opened_before[path]
    assert 0 < seen.sure_until - time.monotonic() <= places.SURE_FOR_S
    # Then the kernel is asked again, and what it says counts for another moment.
    seen.sure_until = 0.0
    file = open_at_once(path)
    assert file is not None
    file.close()
    assert seen.sure_until > time.monotonic()


@pytest.mark.parametrize("sure", [True, False])
def test_a_file_that_is_gone_is_left_to_a_thread(sure: bool, tmp_path: Path) -> None:
    path = str(tmp_path / "file")
    (tmp_path / "file").write_bytes(b"content")
    open_and_learn(path).close()
    file = open_at_once(path)
    assert file is not None
    file.close()
    places.opened_before[path].sure_until = time.monotonic() + 60 if sure else 0.0
    (tmp_path / "file").unlink()
    assert open_at_once(path) is None
    (tmp_path / "file").symlink_to("/etc/hostname")
    assert open_at_once(path) is None


def test_a_relative_name_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"content")
    monkeypatch.chdir(tmp_path)
    open_and_learn("file").close()
    file = open_at_once("file")
    assert file is not None
    assert file.path == str(tmp_path / "file")
    file.close()
    assert "file" not in places.opened_before
