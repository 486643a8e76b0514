from __future__ import annotations

import asyncio
import os
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.pages import make_cold, resident_pages
from tests.support.servers import wait_until
from zcresponse import loops
from zcresponse.errors import FileTruncatedError
from zcresponse.files import OpenedFile, linux, open_file, reading
from zcresponse.files.linux import Storage

MIB = 1024 * 1024
CONTENT = random.Random(7).randbytes(3 * MIB + 5)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[OpenedFile]:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    with path.open("rb") as written:
        os.fsync(written.fileno())
    with open_file(path) as file:
        if file.storage is not Storage.PROBED:
            pytest.fail(f"{tmp_path} must lie on a local disk file system")
        yield file


def drop(file: OpenedFile, offset: int = 0, count: int = 0) -> None:
    """Drop pages from the cache."""
    os.posix_fadvise(file.fileno(), offset, count, os.POSIX_FADV_DONTNEED)


def cache_all_but(file: OpenedFile, start: int, stop: int) -> None:
    """Have every page in the cache but those of `[start, stop)`.

    Pages are kept in larger units than a page, and a part of a unit is not dropped: so all is dropped, and read again
    without readahead. Now and then the kernel reads a page more than it was asked for all the same.
    """

    def leave_out() -> bool:
        make_cold(Path(file.path or ""))
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        for position in [*range(0, start, 4096), *range(stop, len(CONTENT), 4096)]:
            os.pread(file.fileno(), 4096, position)
        # It does not look like one in memory while it is on its way.
        time.sleep(0.05)
        return not set(range(start // 4096, stop // 4096)).intersection(resident_pages(file.fileno()))

    wait_until(leave_out, what="a hole among the pages in memory")


def wait_until_cold(file: OpenedFile, looks_cold: Callable[[], bool]) -> None:
    """Look at dropped pages until they look cold.

    A look that finds nothing makes the kernel read ahead, and what is on its way from the disk is not dropped.
    """

    def is_cold() -> bool:
        drop(file)
        return looks_cold()

    wait_until(is_cold)


INTERVALS = [(0, 10), (5, 64 * 1024), (MIB - 1, 2), (0, len(CONTENT)), (len(CONTENT) - 1, 1)]


@pytest.mark.parametrize(("offset", "count"), INTERVALS)
def test_cached_bytes_come_at_once(file: OpenedFile, offset: int, count: int) -> None:
    assert reading.read_cached(file, offset, count) == CONTENT[offset : offset + count]
    assert reading.are_cached(file, offset, count)


@pytest.mark.parametrize(("offset", "count"), INTERVALS)
def test_cold_bytes_are_none_until_a_thread_has_read_them(file: OpenedFile, offset: int, count: int) -> None:
    wait_until_cold(file, lambda: reading.read_cached(file, offset, count) is None)
    wait_until_cold(file, lambda: not reading.are_cached(file, offset, count))
    assert asyncio.run(reading.read(file, offset, count)) == CONTENT[offset : offset + count]
    # The kernel may say EAGAIN once more while it is still reading ahead.
    wait_until(lambda: reading.read_cached(file, offset, count) is not None)
    assert reading.read_cached(file, offset, count) == CONTENT[offset : offset + count]


def test_a_missing_page_in_the_middle_is_no_short_read(file: OpenedFile) -> None:
    def is_missed() -> bool:
        cache_all_but(file, MIB, MIB + 64 * 1024)
        data = reading.read_cached(file, 0, 2 * MIB)
        # What was asked for may be there a moment later: the question lets the kernel read it.
        assert data is None or data == CONTENT[: 2 * MIB]
        return data is None

    wait_until(is_missed, what="a hole that is there when it is asked for")


@pytest.mark.parametrize("dropped", [0, reading.PROBE_STEP, 4 * reading.PROBE_STEP])
def test_probes_see_a_hole_of_their_distance(file: OpenedFile, dropped: int) -> None:
    cache_all_but(file, dropped, dropped + reading.PROBE_STEP)
    assert not reading.are_cached(file, 0, 5 * reading.PROBE_STEP)


def test_paging_in_makes_pages_resident_and_closes_its_descriptor(file: OpenedFile) -> None:
    drop(file)
    before = set(os.listdir("/proc/self/fd"))
    reading.submit(file, reading.page_in, 4096, MIB, MIB).result(10)
    wait_until(lambda: reading.are_cached(file, 4096, MIB))
    wait_until(lambda: set(os.listdir("/proc/self/fd")) == before)


def test_a_job_that_is_cancelled_before_it_begins_leaves_no_descriptor(file: OpenedFile) -> None:
    before = set(os.listdir("/proc/self/fd"))
    gate = threading.Event()
    busy = [loops.LOCAL.submit(gate.wait, 10) for _ in range(loops.MAX_THREADS)]
    job = reading.submit(file, reading.read_blocking, 0, 10)
    assert job.cancel()
    gate.set()
    assert all(each.result(10) for each in busy)
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("storage", Storage)
def test_every_storage_gives_the_bytes(file: OpenedFile, storage: Storage) -> None:
    file.storage = storage
    before = set(os.listdir("/proc/self/fd"))
    assert asyncio.run(reading.read(file, 7, MIB)) == CONTENT[7 : 7 + MIB]
    if storage is Storage.UNKNOWN:
        assert reading.read_cached(file, 0, 1) is None
    assert set(os.listdir("/proc/self/fd")) == before


def test_the_end_of_the_file_is_a_short_count_and_an_error_when_more_was_promised(file: OpenedFile) -> None:
    end = len(CONTENT)
    assert reading.read_cached(file, end - 3, 10) == CONTENT[-3:]
    with pytest.raises(FileTruncatedError, match=r"7 before the promised end"):
        asyncio.run(reading.read(file, end - 3, 10))
    drop(file)
    with pytest.raises(FileTruncatedError):
        asyncio.run(reading.read(file, end, 1))


@pytest.fixture
def on_overlayfs(tmp_path: Path) -> Iterator[OpenedFile]:
    """A file as containers see it. To mount needs root."""
    folders = {name: tmp_path / name for name in ("lower", "upper", "work", "merged")}
    for folder in folders.values():
        folder.mkdir()
    (folders["lower"] / "file").write_bytes(CONTENT)
    options = "lowerdir={lower},upperdir={upper},workdir={work}".format(**folders)
    if os.geteuid() != 0:
        pytest.skip("only root can mount an overlay")
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, folders["merged"]], check=True)
    try:
        with open_file(folders["merged"] / "file") as file:
            yield file
    finally:
        subprocess.run(["umount", folders["merged"]], check=True)


def test_a_containers_file_system_does_not_tell_what_is_cached(on_overlayfs: OpenedFile) -> None:
    assert on_overlayfs.storage is Storage.LOCAL
    assert reading.read_cached(on_overlayfs, 0, 10) is None
    assert asyncio.run(reading.read(on_overlayfs, 7, MIB)) == CONTENT[7 : 7 + MIB]


def test_a_file_system_without_an_answer_to_probes_is_asked_once(on_overlayfs: OpenedFile) -> None:
    on_overlayfs.storage = Storage.PROBED
    assert not reading.are_cached(on_overlayfs, 0, 10)
    assert on_overlayfs.storage is Storage.LOCAL
    on_overlayfs.storage = Storage.PROBED
    assert reading.read_cached(on_overlayfs, 0, 10) is None
    assert on_overlayfs.storage is Storage.LOCAL


def test_memory_is_read_without_probing() -> None:
    with open_file(os.memfd_create("test")) as file:
        os.write(file.fileno(), CONTENT)
        assert file.storage is Storage.RESIDENT
        assert reading.read_cached(file, 3, MIB) == CONTENT[3 : 3 + MIB]
        assert reading.are_cached(file, 0, MIB)


def test_without_rwf_nowait_nothing_is_taken_for_cached(file: OpenedFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_NOWAIT", None)
    assert reading.read_cached(file, 0, 1) is None
    assert not reading.are_cached(file, 0, 1)
    assert asyncio.run(reading.read(file, 0, 5)) == CONTENT[:5]


# --- with Python's lock -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "count"), [(0, 1), (0, 1024), (5, 64 * 1024), (MIB - 1, 4097), (3 * MIB, 5), (3 * MIB + 4, 1)]
)
def test_what_is_cached_is_read_without_letting_go_of_the_lock(file: OpenedFile, offset: int, count: int) -> None:
    assert linux.read_held(file.fd, offset, count) == CONTENT[offset : offset + count]
    assert reading.read_cached(file, offset, count) == CONTENT[offset : offset + count]


@pytest.mark.parametrize(("offset", "count"), [(0, 0), (0, 64 * 1024 + 1), (3 * MIB, 6), (3 * MIB + 5, 1), (0, -1)])
def test_what_is_not_all_there_is_left_to_the_plain_call(file: OpenedFile, offset: int, count: int) -> None:
    assert linux.read_held(file.fd, offset, count) is None


def test_what_is_not_cached_is_not_waited_for_with_the_lock(file: OpenedFile) -> None:
    cache_all_but(file, MIB, MIB + 64 * 1024)
    assert linux.read_held(file.fd, MIB - 10, 20) is None
    assert linux.read_held(file.fd, MIB - 10, 10) == CONTENT[MIB - 10 : MIB]


def test_each_thread_reads_into_a_place_of_its_own(file: OpenedFile) -> None:
    def reads(start: int) -> bool:
        return all(linux.read_held(file.fd, start, count) == CONTENT[start : start + count] for count in range(1, 3000))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(reads, range(0, 8 * 5000, 5000)))


@pytest.mark.parametrize("missing", ["_preadv2_held", "_NOWAIT"])
def test_without_the_call_the_plain_one_reads(file: OpenedFile, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linux, missing, None if missing == "_preadv2_held" else 0)
    assert linux.read_held(file.fd, 0, 10) is None
    assert reading.read_cached(file, 0, 10) == CONTENT[:10]
