"""The command line, in processes of its own."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.servers import ROOT, Server, descendants, is_running, run_server, wait_until, workers
from tests.support.table import STATIC_CASES, Case, Files
from tests.support.wire import check_on_wire
from zcresponse import __version__

# Not -X dev: its asyncio reports what took long, which a busy machine decides.
COMMAND = [sys.executable, "-W", "error", "-m", "zcresponse"]

needs_ipv6 = pytest.mark.skipif(not socket.has_ipv6 or not os.path.exists("/proc/net/if_inet6"), reason="needs IPv6")


def environment(**extra: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ZCRESPONSE_")}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **extra}


def run(*args: str, python: list[str] | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*(python or COMMAND), *args], capture_output=True, text=True, timeout=60, env=environment(**env), check=False
    )


@contextlib.contextmanager
def serving(directory: Path, *args: str, announced: str = r"://127\.0\.0\.1:(\d+)/", **env: str) -> Iterator[Server]:
    argv = [*COMMAND, "serve", str(directory), "--port", "0", *args]
    # The start line promises that somebody answers, so nothing else is waited for.
    with run_server(argv, announced=announced, ready=lambda server: True, env=env) as server:
        yield server


def fetch(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=20) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


@pytest.fixture
def site(tmp_path: Path) -> Path:
    root = tmp_path / "site"
    (root / "folder").mkdir(parents=True)
    (root / "a.txt").write_text("hello")
    (root / "folder" / "b.txt").write_text("there")
    if os.name == "posix":
        (root / "link.txt").symlink_to("a.txt")
    return root


# --- serving ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("http", ["h11", "httptools"])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_the_common_table_holds(loop: str, http: str, files: Files) -> None:
    with serving(files.directory, "--loop", loop, "--http", http) as server:
        for case in STATIC_CASES:
            run_case(server, case, files)
    assert server.log().count("\n") == 2, server.log()


def run_case(server: Server, case: Case, files: Files) -> None:
    with server.connect() as connection:
        check_on_wire(connection, case, files, static=True)


def test_the_current_directory_is_served_by_default(site: Path) -> None:
    argv = [*COMMAND, "serve", "--port", "0"]
    with run_server(argv, cwd=site, ready=lambda server: True) as server:
        assert fetch(f"http://127.0.0.1:{server.port}/a.txt") == (200, b"hello")
    assert server.log().startswith(f"Serving {site} on http://127.0.0.1:{server.port}/ (")


def test_a_directory_is_listed_redirected_and_left_by_no_path(site: Path) -> None:
    with serving(site) as server:
        base = f"http://127.0.0.1:{server.port}"
        status, page = fetch(base)
        assert status == 200
        assert b'href="./folder/"' in page
        assert fetch(f"{base}/folder/b.txt") == (200, b"there")
        # urllib follows the redirect.
        assert b"b.txt" in fetch(f"{base}/folder")[1]
        assert fetch(f"{base}/..%2fsite/a.txt")[0] == 404
        assert fetch(f"{base}/link.txt")[0] == 404


def test_hidden_names_are_served_only_when_asked(site: Path) -> None:
    (site / ".env").write_text("password")
    for options, status in ((), 404), (("--hidden",), 200):
        with serving(site, *options) as server:
            base = f"http://127.0.0.1:{server.port}"
            assert fetch(f"{base}/.env")[0] == status
            assert (b".env" in fetch(base)[1]) == (status == 200)


def test_options_say_what_is_listed_followed_and_kept(site: Path) -> None:
    with serving(site, "--no-listing", "--follow-symlinks", "--max-age", "60", "--access-log") as server:
        base = f"http://127.0.0.1:{server.port}"
        assert fetch(base)[0] == 404
        with urllib.request.urlopen(f"{base}/link.txt", timeout=20) as response:
            assert response.read() == b"hello"
            assert response.headers["Cache-Control"] == "max-age=60"
            assert response.headers["Server"] is None
    assert re.search(r'^\d\d:\d\d:\d\d 127\.0\.0\.1:\d+ "GET /link\.txt HTTP/1\.1" 200', server.log(), re.MULTILINE)


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({}, "sendfile: the kernel moves the bytes"),
        ({"ZCRESPONSE_SENDFILE": "off"}, "no sendfile, ZCRESPONSE_SENDFILE is off"),
        ({"ZCRESPONSE_PATHSEND": "off"}, "no sendfile, ZCRESPONSE_PATHSEND is off"),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="sendfile is POSIX")
def test_the_start_line_says_who_moves_the_bytes(site: Path, env: dict[str, str], said: str) -> None:
    with serving(site, **env) as server:
        assert said in server.log()
        assert fetch(f"http://127.0.0.1:{server.port}/a.txt") == (200, b"hello")


@needs_ipv6
@pytest.mark.parametrize(
    ("host", "shown", "reached"),
    [("::1", "[::1]", ["[::1]"]), ("::", "[::]", ["[::1]", "127.0.0.1"]), ("localhost", "localhost", ["localhost"])],
)
def test_other_addresses_work(site: Path, host: str, shown: str, reached: list[str]) -> None:
    with serving(site, "--host", host, announced=rf"http://{re.escape(shown)}:(\d+)/") as server:
        for address in reached:
            assert fetch(f"http://{address}:{server.port}/a.txt") == (200, b"hello")


@pytest.mark.skipif(sys.platform != "linux", reason="counts processes by /proc")
def test_several_workers_serve_and_stop_together(site: Path) -> None:
    with serving(site, "--workers", "2", "--no-listing", "--max-age", "5") as server:
        base = f"http://127.0.0.1:{server.port}"
        assert fetch(f"{base}/a.txt") == (200, b"hello")
        assert fetch(base)[0] == 404
        wait_until(lambda: len(workers(server.pid)) == 2, what="two workers")
        family = descendants(server.pid)
        assert server.stop(signal.SIGINT) == 0
        assert not server.killed
        wait_until(lambda: not any(map(is_running, family)), what="the workers to end")
    assert server.log().count("Serving ") == 1
    assert "Traceback" not in server.log()


# --- stopping ---------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_it_ends_well(site: Path, how: signal.Signals, loop: str) -> None:
    with serving(site, "--loop", loop) as server:
        with server.connect() as connection:
            assert connection.get("/a.txt").body == b"hello"
            # An idle connection keeps nobody waiting.
            assert server.stop(how) == 0
    lines = server.log().splitlines()
    assert len(lines) == 2, lines
    assert lines[0].startswith("Serving ")
    assert lines[1] == "Stopped."


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("sendfile", ["on", "off"])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_second_ctrl_c_ends_running_downloads_quietly(site: Path, loop: str, sendfile: str) -> None:
    with open(site / "large.bin", "wb") as file:
        file.truncate(256 * 1024 * 1024)
    with serving(site, "--loop", loop, ZCRESPONSE_SENDFILE=sendfile) as server:
        with server.connect() as connection:
            connection.send(b"GET /large.bin HTTP/1.1\r\nHost: x\r\n\r\n")
            assert connection.read_head().status == 200
            server.process.send_signal(signal.SIGINT)
            # It takes no new connections once it has heard the first one.
            wait_until(lambda: not _connects(server.port), what="the listener to close")
            assert server.stop(signal.SIGINT) == 0
            assert not server.killed
    assert server.log().splitlines()[1:] == ["Stopped."], server.log()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_running_downloads_are_given_some_time_and_then_cut(site: Path) -> None:
    with open(site / "large.bin", "wb") as file:
        file.truncate(256 * 1024 * 1024)
    with serving(site, "--workers", "2") as server:
        with server.connect() as finishing, server.connect() as stalled:
            for connection in (finishing, stalled):
                connection.send(b"GET /large.bin HTTP/1.1\r\nHost: x\r\n\r\n")
                assert connection.read_head().status == 200
            server.process.send_signal(signal.SIGINT)
            assert len(finishing.receive_exactly(8 * 1024 * 1024)) == 8 * 1024 * 1024
            assert server.process.wait(30) == 0
    assert "Traceback" not in server.log()
    assert server.log().splitlines()[-1] == "Stopped."


def _connects(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


# --- what cannot be served --------------------------------------------------------------------------------------------


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("name", "said"),
    [("nothing", "no such directory"), ("a.txt", "not a directory"), ("a.txt/x", "not a directory"), ("", "no such")],
)
def test_what_is_no_directory_is_told_in_one_line(site: Path, name: str, said: str) -> None:
    done = run("serve", str(site / name) if name else "")
    assert done.returncode == 1
    assert said in one_line(done)


def test_a_taken_port_is_told_in_one_line(site: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run("serve", str(site), "--port", port)
        assert done.returncode == 1
        assert f"--port {port} on 127.0.0.1: in use already" in one_line(done)
        assert run("serve", str(site), "--port", port, "--workers", "2").returncode == 1


def test_a_forbidden_port_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import click

    from zcresponse.commands import serve

    # Which ports are forbidden, and to whom, differs between machines.
    def refuse(*_: object, **__: object) -> socket.socket:
        raise PermissionError(13, "Permission denied (while attempting to bind)")

    monkeypatch.setattr(socket, "create_server", refuse)
    with pytest.raises(click.ClickException, match=r"--port 80 on 127\.0\.0\.1: not permitted"):
        serve._listen("127.0.0.1", 80)


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("192.0.2.1", "not an address of this machine"),
        ("no-such-host.invalid", "no such address"),
        ("a" * 70, "no such"),
    ],
)
def test_an_impossible_host_is_told_in_one_line(site: Path, host: str, said: str) -> None:
    done = run("serve", str(site), "--host", host, "--port", "0")
    assert done.returncode == 1
    assert said in one_line(done)


def test_a_bad_setting_is_told_in_one_line(site: Path) -> None:
    done = run("serve", str(site), "--port", "0", ZCRESPONSE_STALL_TIMEOUT="soon")
    assert done.returncode == 1
    assert "ZCRESPONSE_STALL_TIMEOUT" in one_line(done)


@pytest.mark.parametrize(
    "args", [("--port", "x"), ("--port", "70000"), ("--workers", "0"), ("--loop", "x"), ("--max-age", "-1"), ("--x",)]
)
def test_a_bad_option_is_a_usage_error(args: tuple[str, ...]) -> None:
    done = run("serve", *args)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert args[0] in done.stderr


def test_where_there_is_no_sendfile_files_are_read(site: Path) -> None:
    python = [sys.executable, "-W", "error", "-m", "tests.support.without_sendfile", "zcresponse", "serve", str(site)]
    with run_server([*python, "--port", "0"], announced=r"://127\.0\.0\.1:(\d+)/") as server:
        assert fetch(f"http://127.0.0.1:{server.port}/folder/b.txt") == (200, b"there")
        assert "no sendfile(2) on this platform: bytes are read and written" in server.log()


# --- the command itself -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [(), ("bench",), ("compress",), ("serve",)])
def test_the_version_is_told(command: tuple[str, ...]) -> None:
    assert run(*command, "--version").stdout == f"zcresponse {__version__}\n"


def test_help_teaches() -> None:
    assert "serve" in run("--help").stdout
    help_text = run("serve", "--help").stdout
    for word in ("--host", "--port", "127.0.0.1", "8000", "Ctrl-C", "zcresponse serve ~/videos", "ZCRESPONSE_SENDFILE"):
        assert word in help_text


def test_an_unknown_command_is_a_usage_error() -> None:
    done = run("fly")
    assert done.returncode == 2
    assert "No such command 'fly'" in done.stderr


@pytest.mark.parametrize("module", ["click", "uvicorn", "h11"])
def test_a_missing_package_is_told_in_one_line(module: str) -> None:
    code = (
        f"import sys; sys.modules[{module!r}] = None; sys.argv[1:] = ['serve', '.']\n"
        "from zcresponse.cli import main; main()"
    )
    done = run(python=[sys.executable, "-c", code])
    assert done.returncode == 1
    assert f"{module} is not installed" in one_line(done)
    assert "pip install 'zcresponse[serve]'" in done.stderr


@pytest.mark.parametrize(("module", "option"), [("uvloop", "--loop"), ("httptools", "--http")])
def test_a_missing_choice_is_told_in_one_line(site: Path, module: str, option: str) -> None:
    # An importer that finds everything but this.
    code = (
        "import sys, importlib.util as util; find = util.find_spec\n"
        f"util.find_spec = lambda name, *a: None if name == {module!r} else find(name, *a)\n"
        f"sys.argv[1:] = ['serve', {str(site)!r}, '--port', '0', {option!r}, {module!r}]\n"
        "from zcresponse.cli import main; main()"
    )
    done = run(python=[sys.executable, "-c", code])
    assert done.returncode == 1
    assert f"{option} {module}: {module} is not installed" in one_line(done)
