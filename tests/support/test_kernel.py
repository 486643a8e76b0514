"""The tracer counts what the kernel did, no more and no less."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import kernel
from tests.support.big import Comparison
from tests.support.kernel import Call, parse_strace, trace_sendfile, trace_syscalls
from tests.support.servers import Server, is_running, nginx, run_server, workers

SIZE = 3_000_001

# Answers a connection's request line "OFFSET COUNT" by that many calls of sendfile on a thread of its own.
TINY_SERVER = """
import os, socket, sys, threading
file = open(sys.argv[1], "rb")
listener = socket.create_server(("127.0.0.1", 0))
print(f"at ://127.0.0.1:{listener.getsockname()[1]}", flush=True)
def answer(client):
    with client:
        while words := client.recv(100).split():
            if words == [b"read"]:
                client.sendall(os.pread(file.fileno(), 1000, 0))
                continue
            at, left = map(int, words)
            while left:
                sent = os.sendfile(client.fileno(), file.fileno(), at, min(left, 65536))
                at, left = at + sent, left - sent
while True:
    threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()
"""


@pytest.fixture
def big(tmp_path: Path) -> Path:
    path = tmp_path / "a naïve <file>.bin"
    path.write_bytes(os.urandom(SIZE))
    return path


@pytest.fixture
def tiny(big: Path) -> Iterator[Server]:
    with run_server([sys.executable, "-c", TINY_SERVER, str(big)]) as server:
        yield server


def test_sendfile_is_counted_to_the_byte(tiny: Server, big: Path) -> None:
    with tiny.connect() as client, trace_sendfile(tiny.pid) as trace:
        client.send(b"17 2000003")
        assert client.receive_exactly(2_000_003) == big.read_bytes()[17 : 17 + 2_000_003]
    assert trace.total == trace.total_from(big) == 2_000_003
    assert trace.total_from(Path("/another")) == 0
    assert {(call.in_file, call.out_file[:4]) for call in trace.sendfiles} == {(str(big), "sock")}
    assert trace.sendfiles[0].offset == 17
    assert trace.counts["sendfile"] == len(trace.sendfiles) >= 2_000_003 // 65536
    assert trace.unfinished == []


def test_threads_that_start_later_and_several_at_once_are_counted(tiny: Server) -> None:
    with trace_sendfile(tiny.pid) as trace, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(tiny.connect()) for _ in range(4)]
        for client in clients:
            client.send(b"0 1500000")
        for client in clients:
            client.receive_exactly(1_500_000)
    assert trace.total == 4 * 1_500_000
    assert len({call.pid for call in trace.sendfiles}) == 4


def test_only_what_happens_within_the_block_is_counted(tiny: Server) -> None:
    with tiny.connect() as client:
        client.send(b"0 1000")
        client.receive_exactly(1000)
        with trace_sendfile(tiny.pid) as trace:
            client.send(b"read")
            client.receive_exactly(1000)
        client.send(b"0 1000")
        client.receive_exactly(1000)
    assert trace.total == 0
    assert is_running(tiny.pid)


def test_the_count_can_be_read_within_the_block(tiny: Server) -> None:
    with tiny.connect() as client, trace_sendfile(tiny.pid) as trace:
        assert trace.total == 0
        client.send(b"0 1000")
        client.receive_exactly(1000)
        assert trace.counts["sendfile"] == 1


def test_many_short_traces_lose_nothing(tiny: Server) -> None:
    for _ in range(10):
        with tiny.connect() as client, trace_sendfile(tiny.pid) as trace:
            client.send(b"5 70000")
            client.receive_exactly(70_000)
        assert [(call.offset, call.sent) for call in trace.sendfiles][:1] == [(5, trace.sendfiles[0].sent)]
        assert trace.total == 70_000


def test_errors_and_interruptions_move_nothing() -> None:
    text = """\
11 sendfile(6<socket:[88]>, 5</tmp/a\\303\\257 \\74b>, [10] => [110], 200) = 100
12 sendfile(7, 8, NULL, 4096 <unfinished ...>
11 sendfile(6<socket:[88]>, 5</tmp/x>, [110], 200) = -1 EAGAIN (Resource temporarily unavailable)
12 <... sendfile resumed>)        = 4096
11 --- SIGTERM {si_signo=SIGTERM, si_code=SI_USER, si_pid=1, si_uid=0} ---
11 sendfile(6<TCP:[1.1.1.1:1->2.2.2.2:2]>, 5</tmp/x>, [0], 200) = ? ERESTARTSYS (To be restarted if SA_RESTART is set)
13 sendfile(6, 5</tmp/x>, [0] <unfinished ...>
13 <... sendfile resumed> => [7], 200)  = 7
14 <... sendfile resumed> => [7], 200)  = 7
15 sendfile(6, 5</tmp/x>, [0], 200 <detached ...>
12 +++ exited with 0 +++
16 sendfile(6, 5</tmp/x>, [0], 20"""
    calls = parse_strace(text)
    assert [(call.pid, call.returned, call.errno) for call in calls] == [
        (11, 100, ""),
        (12, 4096, ""),
        (11, -1, "EAGAIN"),
        (11, None, "ERESTARTSYS"),
        (13, 7, ""),
        (14, 7, ""),
        (15, None, ""),
        (16, None, ""),
    ]
    first, second, again, restarted, halves = (kernel._sendfile_call(call) for call in calls[:5])
    assert (first.in_file, first.offset, first.asked, first.sent) == ("/tmp/aï <b", 10, 200, 100)
    assert (second.in_file, second.offset, second.asked, second.sent) == ("", None, 4096, 4096)
    assert (again.sent, again.errno) == (0, "EAGAIN")
    assert restarted.sent == 0
    assert (halves.offset, halves.sent) == (0, 7)


def test_other_lines_are_read_too() -> None:
    text = """\
7 mmap(NULL, 8) = 0x7f00
7 openat(AT_FDCWD</>, "a) = 3", O_RDONLY) = 5</a>
7 exit_group(0) = ?
read(3, "", 1) = 0
"""
    assert [(call.name, call.returned) for call in parse_strace(text)] == [
        ("mmap", 0x7F00),
        ("openat", 5),
        ("exit_group", None),
        ("read", 0),
    ]
    assert parse_strace("") == []
    assert isinstance(parse_strace("7 x() = 0")[0], Call)


def test_calls_are_counted_by_name(tiny: Server) -> None:
    with tiny.connect() as client:
        client.send(b"read")
        client.receive_exactly(1000)
        with trace_syscalls(tiny.pid) as trace:
            for _ in range(7):
                client.send(b"read")
                client.receive_exactly(1000)
    assert trace.counts["pread64"] == 7
    assert trace.counts["sendto"] == 7
    assert trace.counts["sendfile"] == 0


def test_only_the_names_asked_for_are_counted(tiny: Server) -> None:
    with tiny.connect() as client, trace_syscalls(tiny.pid, names=["pread64", "no_such_call"]) as trace:
        client.send(b"read")
        client.receive_exactly(1000)
    assert trace.counts == {"pread64": 1}


def test_the_workers_of_a_master_are_traced(big: Path) -> None:
    received = Comparison(big, 1000)
    with nginx(big.parent, workers=2) as server, trace_sendfile(server.pid) as trace:
        pids = workers(server.pid)
        with server.connect() as client:
            target = "/a%20na%C3%AFve%20%3Cfile%3E.bin"
            streamed = client.stream(target, ("Range", "bytes=1000-"), take=received.take)
    assert (streamed.status, streamed.count) == (206, SIZE - 1000)
    assert received.same
    assert trace.total_from(big) == SIZE - 1000
    assert {call.pid for call in trace.sendfiles} <= pids


def test_a_process_that_ended_fails_the_test() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with pytest.raises(pytest.fail.Exception, match="strace"), trace_sendfile(ended.pid):
        pytest.fail("traced a process that is not there")


def test_a_machine_without_strace_fails_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(pytest.fail.Exception, match="not installed"), trace_sendfile(os.getpid()):
        pass


def test_a_failure_within_the_block_is_the_one_that_is_told(tiny: Server) -> None:
    with pytest.raises(ZeroDivisionError), trace_sendfile(tiny.pid):
        _ = 1 / 0
    assert is_running(tiny.pid)
