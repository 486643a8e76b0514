"""Files whose pages are not in memory, or may never be known to be: the loop's thread never waits for them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.kernel import Call, Trace, trace_sendfile, trace_syscalls
from tests.support.pages import make_cold
from tests.support.servers import wait_until
from tests.support.sites import HUGE, MIDDLE, SMALL, Site, content, own_file, site_fixture, vault
from tests.support.wire import Connection

site = site_fixture()

_READS = ("preadv", "preadv2", "pread64", "read", "readv", "sendfile", "sendfile64", "mmap")


@pytest.fixture(params=[10_000, 100_000, 9_000_000])
def cold_file(request: pytest.FixtureRequest) -> Iterator[tuple[Path, bytes]]:
    with own_file(request.param) as (path, data):
        make_cold(path)
        yield path, data


def _of(trace: Trace, path: Path) -> list[Call]:
    return [call for call in trace.calls if f"<{path.resolve()}>" in call.arguments]


def test_a_cold_file_is_paged_in_by_threads(site: Site, cold_file: tuple[Path, bytes]) -> None:
    path, data = cold_file
    with site.unharmed(), trace_syscalls(site.pid, names=_READS) as trace, site.connect() as connection:
        assert connection.get(f"/file/{path.name}").body == data
        assert connection.get(f"/file/{SMALL}").body == content(SMALL)
    calls = _of(trace, path)
    on_the_loop = [call for call in calls if call.pid == site.pid]
    in_threads = [call for call in calls if call.pid != site.pid]
    # The loop's thread asks for nothing that could wait, and moves only what is there.
    assert {call.name for call in on_the_loop} <= {"preadv2", "sendfile", "sendfile64"}
    assert all("RWF_NOWAIT" in call.arguments for call in on_the_loop if call.name == "preadv2")
    # Threads read, and never see a socket. The probe itself begins to read ahead: a small file can be there so soon
    # that no thread is needed.
    assert {call.name for call in in_threads} <= {"pread64"}
    assert in_threads or len(data) < 1_000_000
    _assert_present_before_it_is_moved(calls)


def _assert_present_before_it_is_moved(calls: list[Call]) -> None:
    """Each sendfile stands after a read or a successful probe of its first and last page."""
    known: set[int] = set()
    step = 128 * 1024
    for call in calls:
        if call.name.startswith("sendfile"):
            offset = re.search(r">, \[(\d+)\]", call.arguments)
            assert offset is not None
            assert int(offset[1]) // step in known or int(offset[1]) % step == 0, (call, sorted(known))
            if call.returned:
                assert (int(offset[1]) + call.returned - 1) // step in known, (call, sorted(known))
        elif call.returned is not None and call.returned >= 0:
            offset = re.search(r", (\d+)(?:, RWF_NOWAIT)?$", call.arguments)
            assert offset is not None, call
            known.add(int(offset[1]) // step)


def test_a_cold_range_reads_that_range_only(site: Site) -> None:
    with own_file(64 * 1024 * 1024) as (path, data):
        make_cold(path)
        with site.unharmed(), trace_syscalls(site.pid, names=_READS) as trace, site.connect() as connection:
            response = connection.get(f"/file/{path.name}", ("Range", "bytes=30000000-30999999"))
            assert response.body == data[30_000_000:31_000_000]
        for call in _of(trace, path):
            if call.name == "pread64":
                offset = re.search(r", (\d+)$", call.arguments)
                assert offset is not None
                assert 30_000_000 <= int(offset[1]) < 31_000_000


def test_a_cold_file_that_was_cut_ends_the_connection(site: Site) -> None:
    with own_file(24 * 1024 * 1024) as (path, data), site.unharmed(faults=["FileTruncatedError"]):
        make_cold(path)
        with site.stall(f"/file/{path.name}") as connection:
            first = connection.receive_exactly(100_000)
            with path.open("r+b") as file:
                file.truncate(16 * 1024 * 1024)
            rest = connection.read_to_end()
        assert first + rest == data[: 16 * 1024 * 1024]


def test_a_client_leaves_while_pages_come(site: Site) -> None:
    with site.unharmed(serves=25):
        for how in (Connection.reset, Connection.close) * 5:
            with own_file(24 * 1024 * 1024) as (path, _):
                make_cold(path)
                how(site.stall(f"/file/{path.name}"))


def test_a_client_leaves_while_no_thread_is_free(site: Site) -> None:
    # The job that would page in has not begun when it is given up: its duplicate must not stay open.
    site.get(f"/file/{MIDDLE}")
    with own_file(24 * 1024 * 1024) as (path, _), site.unharmed():
        assert site.get(f"/file/{path.name}", ("Range", "bytes=0-9")).status == 206
        make_cold(path)
        with site.connect() as control:
            assert control.get("/control/threads/block").status == 200
            try:
                with site.connect() as connection:
                    connection.send(f"GET /file/{path.name} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
                    if site.setup.parser:
                        connection.read_head()
                    connection.reset()
                site_report = site.transfers(2)[-1]
                assert site_report["completed"] is False
            finally:
                assert control.get("/control/threads/free").status == 200


@pytest.mark.parametrize("spare", [1, 2])
def test_a_cold_file_is_sent_without_a_spare_descriptor(site: Site, spare: int) -> None:
    # One is for the file itself, a second for the socket's duplicate; none is left for a thread's.
    with own_file(24 * 1024 * 1024) as (path, data), site.unharmed():
        with site.connect(receive_buffer=65536) as connection, site.connect() as control:
            for each in (connection, control):
                assert each.get(f"/file/{path.name}", ("Range", "bytes=0-9")).status == 206
            make_cold(path)
            assert control.get(f"/control/descriptors/{spare}").status == 200
            try:
                connection.send(f"GET /file/{path.name} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
                assert connection.read_head().status == 200
                assert connection.receive_exactly(len(data)) == data
            finally:
                assert control.get("/control/descriptors/restore").status == 200


# --- storage that tells nothing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [SMALL, MIDDLE, HUGE])
def test_a_file_on_unknown_storage_is_read_by_threads(site: Site, name: str) -> None:
    path = vault() / name
    with site.unharmed(), trace_syscalls(site.pid, names=_READS) as trace, site.connect() as connection:
        assert connection.get(f"/file/{name}?storage=unknown").body == content(name)
        assert connection.get(f"/file/{MIDDLE}").status == 200
    first = next(index for index, call in enumerate(trace.calls) if f"<{path.resolve()}>" in call.arguments)
    calls = [call for call in trace.calls[first:] if f"<{path.resolve()}>" in call.arguments]
    if name == MIDDLE:
        # The second request moves the same file by sendfile.
        calls = [call for call in calls if call.pid != site.pid]
    assert calls
    assert all(call.pid != site.pid for call in calls)
    assert {call.name for call in calls} == {"pread64"}


def test_a_file_on_unknown_storage_says_so(site: Site) -> None:
    with site.unharmed(), trace_sendfile(site.pid) as trace:
        with site.connect(receive_buffer=8192) as connection:
            assert connection.get(f"/file/{HUGE}?storage=unknown").body == content(HUGE)
        report = site.transfers()[-1]
        assert (report["way"], report["completed"], report["bytes_sent"]) == ("chunks", True, len(content(HUGE)))
        assert report["reason"]
    assert trace.total == 0


def test_ranges_on_unknown_storage_are_right(site: Site) -> None:
    with site.unharmed(), site.connect() as connection:
        response = connection.get(f"/file/{HUGE}?storage=unknown", ("Range", "bytes=1000003-20000002"))
        assert response.body == content(HUGE)[1_000_003:20_000_003]
        assert connection.get(f"/file/{SMALL}").body == content(SMALL)


def test_a_client_leaves_a_file_on_unknown_storage(site: Site) -> None:
    with site.unharmed(serves=25):
        for how in (Connection.reset, Connection.close) * 5:
            how(site.stall(f"/file/{HUGE}?storage=unknown"))


def test_a_file_on_unknown_storage_is_cut_short(site: Site) -> None:
    with own_file(24 * 1024 * 1024) as (path, data), site.unharmed(faults=["FileTruncatedError"]):
        with site.stall(f"/file/{path.name}?storage=unknown") as connection:
            with path.open("r+b") as file:
                file.truncate(16 * 1024 * 1024)
            received = connection.read_to_end()
        assert received == data[: 16 * 1024 * 1024]
        wait_until(lambda: site.transfers()[-1]["completed"] is False, what="the report")
