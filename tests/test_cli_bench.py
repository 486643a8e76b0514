"""`zcresponse bench` in processes of its own, with small files and few runs. Timings assert nothing."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.support.servers import wait_until
from tests.test_cli import COMMAND, environment, one_line, run
from zcresponse.bench.peers import RAW, SERVERS, Peer
from zcresponse.bench.servers import run as run_server
from zcresponse.commands.bench import command

linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc tells what was used")
posix = pytest.mark.skipif(os.name != "posix", reason="POSIX signals")

FEW = ("--runs", "3", "--size", "256KiB")
ONE_WAY = ("--only", "raw", "--match", "zcresponse.sendfile")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, with an empty one for what is temporary."""
    (tmp_path / "temporary").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))


def bench(*args: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "bench", *args], capture_output=True, text=True, timeout=timeout_s, env=environment(), check=False
    )


def in_this_process(*args: str) -> Result:
    return CliRunner().invoke(command, args)


def report(path: str = "run.json") -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(Path(path).read_text())
    return loaded


def nothing_is_left(tmp_path: Path) -> bool:
    return not list((tmp_path / "temporary").iterdir())


# --- what is measured and told ----------------------------------------------------------------------------------------


@linux
def test_bare_sockets_are_measured_in_a_table_a_json_file_and_a_plot(tmp_path: Path) -> None:
    done = bench(*FEW, "--only", "raw", "--json", "run.json")
    assert (done.returncode, done.stderr) == (0, "")
    found = report()
    assert list(found["figures"]) == [peer.name for peer in RAW]
    for name, figures in found["figures"].items():
        assert list(figures) == ["seconds", "MB/s", "CPU s per GiB", "context switches per GiB"]
        assert all(len(figure["values"]) == 3 and figure["mean"] >= 0 for figure in figures.values())
        assert re.search(rf"(?m)^{re.escape(name)}( +[\d.]+){{5}} +(-|[\d.]+) *$", done.stdout), done.stdout
    assert found["file"] == {"size": 262_144, "made": True}
    assert found["runs"] == 3
    assert found["compared_with"]["shutil.copyfileobj"] == "read and send, 64 KiB"
    assert found["machine"]["python"] == f"CPython {sys.version.split()[0]}"
    assert Path("zcresponse-bench.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert sorted(os.listdir()) == ["run.json", "zcresponse-bench.png"]
    assert nothing_is_left(tmp_path)


@linux
def test_a_framework_is_measured_as_it_is_and_with_zcresponse(tmp_path: Path) -> None:
    done = bench(*FEW, "--match", "starlette, uvicorn", "--match", "flask, gunicorn", "--json", "run.json", "--no-plot")
    assert (done.returncode, done.stderr) == (0, "")
    compared = report()["compared_with"]
    assert compared == {
        "Starlette, uvicorn": None,
        "Starlette, uvicorn, zcresponse": "Starlette, uvicorn",
        "Flask, gunicorn sync": None,
        "Flask, gunicorn sync, zcresponse": "Flask, gunicorn sync",
        "Flask, gunicorn gthread": None,
        "Flask, gunicorn gthread, zcresponse": "Flask, gunicorn gthread",
        "Flask, gunicorn gevent": None,
        "Flask, gunicorn gevent, zcresponse": "Flask, gunicorn gevent",
    }
    assert len(re.findall(r"(?m)^  with zcresponse( +[\d.]+){6} *$", done.stdout)) == 4, done.stdout
    assert os.listdir() == ["run.json"]
    assert nothing_is_left(tmp_path)


@linux
@pytest.mark.parametrize("peer", SERVERS, ids=lambda peer: peer.name)
def test_every_peer_can_be_measured(peer: Any, tmp_path: Path) -> None:
    assert peer.missing() == ""
    from zcresponse.bench import measure

    (tmp_path / "a.bin").write_bytes(bytes(3_000_000))
    with peer.start(tmp_path) as server:
        figures = measure.download(server, "a.bin")
    assert figures["MB/s"] == pytest.approx(3 / figures["seconds"])
    assert figures["CPU s per GiB"] > 0


@linux
def test_system_calls_are_counted_on_demand() -> None:
    done = bench(*FEW, "--only", "raw", "--match", "8 KiB", "--syscalls", "--json", "run.json", "--no-plot")
    assert done.returncode == 0
    calls = report()["figures"]["read and send, 8 KiB"]["system calls per GiB"]["values"]
    # 32 blocks of 8 KiB in 256 KiB: as many reads, as many sends, and a few for the connection.
    assert len(calls) == 1
    assert 64 <= calls[0] / 4096 <= 100
    assert "calls" in done.stdout


def test_a_file_of_ones_own_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "my data #1.bin"
    path.write_bytes(bytes(100_000))
    before = path.stat()
    done = bench(str(path), "--runs", "1", *ONE_WAY, "--plot", "my.svg", "--json", "run.json")
    assert done.returncode == 0
    assert report()["file"] == {"size": 100_000, "made": False}
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert xml.etree.ElementTree.parse("my.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert nothing_is_left(tmp_path)


@linux
def test_a_terminal_sees_a_bar_and_a_pipe_sees_no_colours() -> None:
    import pty

    ours, theirs = pty.openpty()
    argv = [*COMMAND, "bench", *FEW, *ONE_WAY, "--no-plot"]
    env = environment(TERM="xterm", COLUMNS="100")
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=theirs, env=env, text=True) as process:
        os.close(theirs)
        seen = b""
        try:
            while data := os.read(ours, 65536):
                seen += data
        except OSError:
            # The end of a terminal that nobody holds any more.
            pass
        finally:
            os.close(ours)
        assert process.stdout is not None
        out = process.stdout.read()
    assert process.returncode == 0
    assert b"zcresponse.sendfile" in seen
    assert b"3/4" in seen
    assert "\x1b" not in out
    assert "\u2501" not in out


@posix
@pytest.mark.parametrize("path", ["-", "/dev/stdout"])
def test_figures_for_programs_can_go_to_standard_output(path: str) -> None:
    done = bench(*FEW, *ONE_WAY, "--json", path, "--no-plot")
    assert done.returncode == 0
    assert list(json.loads(done.stdout)["figures"]) == ["zcresponse.sendfile"]
    assert re.search(r"(?m)^zcresponse\.sendfile +\d", done.stderr)
    assert os.path.islink("/dev/stdout")


@linux
def test_names_and_figures_are_whole_in_a_narrow_terminal() -> None:
    import pty

    ours, theirs = pty.openpty()
    argv = [*COMMAND, "bench", *FEW, "--match", "flask, waitress", "--no-plot"]
    env = environment(TERM="dumb", COLUMNS="40")
    with subprocess.Popen(argv, stdout=theirs, stderr=subprocess.DEVNULL, env=env) as process:
        os.close(theirs)
        seen = b""
        try:
            while data := os.read(ours, 65536):
                seen += data
        except OSError:
            pass
        finally:
            os.close(ours)
    assert process.returncode == 0
    assert b"Flask, waitress" in seen
    assert "\u2026".encode() not in seen


def test_who_reads_the_file_into_memory_is_left_out_when_it_is_big(monkeypatch: pytest.MonkeyPatch) -> None:
    greedy = replace(RAW[0], name="greedy", most=1000)
    monkeypatch.setattr("zcresponse.commands.bench.RAW", (greedy, RAW[-1]))
    done = in_this_process(*FEW, "--only", "raw", "--no-plot")
    assert done.exit_code == 0
    assert "Left out: greedy: reads the file into memory, so only up to 1000 B" in done.output
    assert [peer.name for peer in SERVERS if peer.most] == ["Django, uvicorn"]


def test_settings_and_modules_of_the_users_own_servers_are_not_met(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("gunicorn.conf.py").write_text("raise SystemExit('a configuration for another')")
    Path("flask.py").write_text("raise SystemExit('another flask')")
    for name, value in (("WEB_CONCURRENCY", "3"), ("GRANIAN_WORKERS", "3"), ("GUNICORN_CMD_ARGS", "--workers 3")):
        monkeypatch.setenv(name, value)
    args = (*FEW, "--match", "flask, gunicorn", "--match", "starlette, granian", "--match", "8 KiB")
    done = in_this_process(*args, "--no-plot", "--json", "run.json")
    assert done.exit_code == 0, done.output
    assert report()["left_out"] == {}


# --- trouble ----------------------------------------------------------------------------------------------------------


SHRINKS = """
import os, socket, sys
with socket.create_server(("127.0.0.1", 0)) as listener:
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    for number in range(100):
        with listener.accept()[0] as connection:
            if number == 3:
                os.truncate(sys.argv[1], 1)
            if connection.recv(4096):
                body = open(sys.argv[1], "rb").read()
                connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n%b" % (len(body), body))
"""


def test_a_file_that_changes_meanwhile_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(1000))
    shrinks = Peer("shrinks", lambda directory: run_server([sys.executable, "-c", SHRINKS, str(path)]))
    monkeypatch.setattr("zcresponse.commands.bench.RAW", (shrinks,))
    done = in_this_process(str(path), "--only", "raw", "--runs", "3", "--no-plot")
    assert done.exit_code == 1
    assert done.output == "Error: the file has changed while it was measured: 1 bytes, not 1000\n"
    assert nothing_is_left(tmp_path)


def test_an_answer_of_another_length_is_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    other = Peer("other", lambda directory: run_server([sys.executable, "-c", f"LENGTH = 2{IMPATIENT}"]))
    monkeypatch.setattr("zcresponse.commands.bench.RAW", (other, RAW[-1]))
    done = in_this_process(*FEW, "--only", "raw", "--no-plot")
    assert done.exit_code == 1
    assert "Left out: other: answered with 2 bytes instead of 262144" in done.output


@linux
def test_a_full_standard_output_is_told_in_one_line() -> None:
    with open("/dev/full", "wb") as full:
        argv = [*COMMAND, "bench", *FEW, *ONE_WAY, "--no-plot"]
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, env=environment(), check=False)
    assert (done.returncode, done.stderr) == (1, "Error: standard output: No space left on device\n")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("a.svg", "--plot", "a.svg"), "FILE and --plot are the same file: a.svg"),
        (("a.svg", "--plot", "b.svg", "--json", "./a.svg"), "FILE and --json are the same file: a.svg"),
        (("a.svg", "--plot", "hard.svg"), "FILE and --plot are the same file: hard.svg"),
        (("--json", "new.svg", "--plot", "./new.svg"), "--json and --plot are the same file: new.svg"),
    ],
)
def test_files_that_would_be_written_over_are_usage_errors(args: tuple[str, ...], said: str) -> None:
    Path("a.svg").write_bytes(b"mine")
    os.link("a.svg", "hard.svg")
    done = in_this_process(*args)
    assert done.exit_code == 2
    assert said in done.output
    assert Path("a.svg").read_bytes() == b"mine"


@posix
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_it_ends_its_servers_and_leaves_no_file(tmp_path: Path, how: signal.Signals) -> None:
    argv = [*COMMAND, "bench", "--runs", "100000", "--size", "1MiB", "--match", "KiB"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as process:
        # The file's folder, and one for each server that has been started.
        wait_until(lambda: len(list((tmp_path / "temporary").iterdir())) == 3, timeout=60, what="the servers")
        time.sleep(0.2)
        process.send_signal(how)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert (out, err) == (b"", b"Stopped: nothing was written, and what was made is removed.\n")
    assert os.listdir() == []
    assert nothing_is_left(tmp_path)
    if sys.platform == "linux":
        assert not servers_on(tmp_path)


def servers_on(tmp_path: Path) -> list[bytes]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(entry.read_bytes())
        except OSError:
            continue
    return [words for words in found if os.fsencode(tmp_path) in words and b"zcresponse.bench" in words]


def test_a_server_that_cannot_be_started_is_left_out_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "")
    broken = Path("broken")
    broken.mkdir()
    (broken / "waitress.py").write_text("raise SystemExit('waitress is broken')\n")
    monkeypatch.setenv("PYTHONPATH", str(broken.absolute()))
    done = in_this_process(*FEW, "--match", "waitress", "--match", "zcresponse.sendfile", "--no-plot")
    assert done.exit_code == 1
    assert "Left out: Flask, waitress: ended with 1: waitress is broken" in done.output
    assert re.search(r"(?m)^zcresponse\.sendfile +\d", done.output)


# Takes the connection of who looks whether it is there, two that do not count, and one that does.
IMPATIENT = """
import socket
with socket.create_server(("127.0.0.1", 0)) as listener:
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    for _ in range(4):
        with listener.accept()[0] as connection:
            if connection.recv(4096):
                connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % LENGTH + bytes(LENGTH))
    print("out of patience", flush=True)
"""


def test_a_server_that_fails_on_the_way_is_left_out_and_the_others_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    impatient = Peer("impatient", lambda directory: run_server([sys.executable, "-c", f"LENGTH = 262144{IMPATIENT}"]))
    monkeypatch.setattr("zcresponse.commands.bench.RAW", (impatient, RAW[-1]))
    done = in_this_process(*FEW, "--only", "raw", "--json", "run.json")
    assert done.exit_code == 1
    # Its socket may be closed with a connection that it has not accepted.
    told = r"(?m)^Left out: impatient: .*(refused|reset by peer); its log ends with: out of patience$"
    assert re.search(told, done.output)
    assert list(report()["figures"]) == ["zcresponse.sendfile"]
    assert list(report()["left_out"]) == ["impatient"]
    assert Path("zcresponse-bench.png").exists()


def test_what_is_not_installed_is_left_out_and_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "granian" else find(name))
    done = in_this_process(*FEW, "--match", "granian", "--match", "zcresponse.sendfile", "--no-plot")
    assert done.exit_code == 0
    assert "Left out: Starlette, granian: granian is not installed" in done.output
    alone = in_this_process(*FEW, "--match", "granian", "--no-plot")
    assert alone.exit_code == 1
    assert "nothing could be measured" in alone.output


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["nothing.bin"], "nothing.bin: no such file"),
        (["."], ".: no regular file"),
        (["empty.bin"], "empty.bin: empty, so there is nothing to measure"),
        (["--json", "nowhere/run.json"], "nowhere/run.json: no such directory"),
        (["--json", "empty.bin/run.json"], "empty.bin/run.json: no such directory"),
        (["--json", "."], ".: a directory, not a file"),
        (["--plot", "nowhere/run.png"], "nowhere/run.png: no such directory"),
        (["--size", "900TB"], "--size: 819 TiB do not fit"),
        (["--match", "no such way"], "--match: no way of sending has 'no such way' in its name"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line_before_anything_is_measured(args: list[str], said: str) -> None:
    Path("empty.bin").touch()
    done = in_this_process(*args)
    assert done.exit_code == 1
    assert re.fullmatch(rf"Error: {re.escape(said)}(, .+ are free)?\n", done.output)


@pytest.mark.parametrize(
    "args",
    [("--size", "much"), ("--size", "0"), ("--runs", "0"), ("--only", "some"), ("--plot", "run.txt")],
)
def test_a_bad_option_is_a_usage_error(args: tuple[str, str]) -> None:
    done = in_this_process(*args)
    assert done.exit_code == 2
    assert args[0] in done.output


def test_help_teaches() -> None:
    assert "bench" in run("--help").stdout
    help_text = run("bench", "--help").stdout
    for word in (
        "zcresponse bench --only raw --runs 10",
        "64MiB",
        "default: 100",
        "context switches",
        "loopback",
        "exits",
    ):
        assert word in help_text


@pytest.mark.parametrize("module", ["click", "matplotlib", "rich"])
def test_a_missing_package_is_told_in_one_line(module: str) -> None:
    code = (
        f"import sys; sys.modules[{module!r}] = None; sys.argv[1:] = ['bench', '--runs', '1']\n"
        "from zcresponse.cli import main; main()"
    )
    done = run(python=[sys.executable, "-c", code])
    assert done.returncode == 1
    assert f"{module} is not installed" in one_line(done)
    assert "pip install 'zcresponse[bench]'" in done.stderr


def test_without_a_plot_matplotlib_is_not_needed() -> None:
    code = (
        f"import sys; sys.modules['matplotlib'] = None; sys.argv[1:] = ['bench', '--no-plot', *{FEW + ONE_WAY!r}]\n"
        "from zcresponse.cli import main; main()"
    )
    assert run(python=[sys.executable, "-c", code]).returncode == 0
