"""`python -m tests.benchmarks`, with small files and few rounds: that it measures, and not what."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.servers import ROOT
from zcresponse.bench import measure, usage
from zcresponse.bench.figures import KIB, MIB

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc tells what was used")

if sys.platform == "linux":
    from tests.benchmarks.peers import PEERS, reason_against
    from tests.benchmarks.scenarios import SCENARIOS, SIZES


def benchmarks(tmp_path: Path, *args: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-W", "error", "-m", "tests.benchmarks", *args, "--directory", str(tmp_path / "files")]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, cwd=ROOT, check=False)


def test_scenarios_name_peers_that_there_are() -> None:
    for scenario in SCENARIOS.values():
        assert set(scenario.peers) <= set(PEERS)
        assert set(scenario.against) <= set(PEERS)
        assert len(set(scenario.peers)) == len(scenario.peers)
    assert {peer.stock for peer in PEERS.values()} - {""} <= set(PEERS)
    assert (min(SIZES.values()), max(SIZES.values())) == (KIB, 1024 * MIB)


def test_what_is_not_installed_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {name: reason_against(peer) for name, peer in PEERS.items() if reason_against(peer)} == {}
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    alone = [name for name, peer in PEERS.items() if not reason_against(peer)]
    # What is left needs no more than the tests themselves do.
    assert all(name.startswith(("zcresponse", "Starlette", "raw ", "constant")) for name in alone), alone
    assert "Starlette, TLS" not in alone
    assert reason_against(PEERS["proxied, Starlette"]) == "nginx is not installed"
    assert reason_against(PEERS["zcresponse chunks, daphne"]) == "daphne is not installed"


def test_scenarios_end_in_tables_a_json_file_and_plots(tmp_path: Path) -> None:
    out = ["--json", str(tmp_path / "figures.json"), "--plots", str(tmp_path / "plots")]
    peers = ["--peer", "raw 8 KiB", "--peer", "raw sendfile"]
    done = benchmarks(tmp_path, "raw", "published-8KiB", *peers, "--rounds", "2", "--size", "1MiB", "--syscalls", *out)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"(?m)^raw sendfile( +[\d.e+]+){5}( +(-|[\d.]+))+$", done.stdout), done.stdout
    assert "deviation of seconds" in done.stdout
    report = json.loads((tmp_path / "figures.json").read_text())
    assert report["size"] == MIB
    assert list(report["scenarios"]) == ["raw", "published-8KiB"]
    reading = report["scenarios"]["raw"]["raw 8 KiB"]
    assert len(reading["MB/s"]["values"]) == 2
    # 128 blocks of 8 KiB, each read and sent.
    assert 256 <= reading["system calls per GiB"]["mean"] / 1024 <= 300
    for name in ("raw", "published-8KiB"):
        assert "<svg" in (tmp_path / "plots" / f"{name}.svg").read_text()
    assert "system calls per GiB" in (tmp_path / "plots" / "raw-kernel.svg").read_text()
    assert "context switches per GiB" in (tmp_path / "plots" / "published-8KiB-kernel.svg").read_text()


@pytest.mark.parametrize("where", [", TLS", ", hypercorn", ", daphne"])
def test_chunks_are_measured_on_other_servers(where: str, tmp_path: Path) -> None:
    peers = [word for peer in (f"zcresponse chunks{where}", f"Starlette{where}") for word in ("--peer", peer)]
    done = benchmarks(tmp_path, "chunks", *peers, "--rounds", "1", "--size", "1MiB")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(rf"(?m)^zcresponse chunks{where} +[\d.]", done.stdout), done.stdout


@pytest.mark.parametrize("framework", ["Starlette", "Flask"])
def test_an_application_and_what_stands_in_front_are_one_peer(framework: str, tmp_path: Path) -> None:
    name = f"offloaded, {framework}"
    (tmp_path / "a.bin").write_bytes(bytes(3_000_000))
    with PEERS[name].start(tmp_path) as server:
        commands = [Path(f"/proc/{each}/cmdline").read_bytes() for each in usage.processes(server.pid)]
        figures = measure.download(server, "a.bin", expected=3_000_000)
    assert any(b"nginx" in words for words in commands)
    assert any(b"zcresponse.bench.apps" in words for words in commands)
    assert figures["CPU s per GiB"] > 0


def test_the_crossover_is_told_and_drawn(tmp_path: Path) -> None:
    args = [
        "--rounds",
        "1",
        "--size",
        "1MiB",
        "--plots",
        str(tmp_path),
        "--peer",
        "raw 64 KiB",
        "--peer",
        "raw sendfile",
    ]
    done = benchmarks(tmp_path, "crossover-cpu", *args)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"(?m)^raw sendfile beats raw 64 KiB (from \d+ KiB on|at none of these sizes)$", done.stdout)
    assert "<svg" in (tmp_path / "crossover-cpu.svg").read_text()


@pytest.mark.parametrize(
    ("scenario", "peer"), [("range", "aiohttp"), ("readers", "zcresponse"), ("latency-cold", "zcresponse")]
)
def test_a_scenario_of_many_clients_comes_to_its_end(tmp_path: Path, scenario: str, peer: str) -> None:
    args = ["--rounds", "1", "--seconds", "1", "--size", "3MiB", "--peer", peer]
    done = benchmarks(tmp_path, scenario, *args)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(rf"(?m)^{peer}( +[\d.e+-]+)+$", done.stdout), done.stdout


def test_a_scenario_that_fails_does_not_end_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # With strange tools on the path: a wrk that does not measure.
    (tmp_path / "wrk").symlink_to(shutil.which("true") or "true")
    monkeypatch.setenv("PATH", str(tmp_path))
    args = ["--rounds", "1", "--size", "1MiB", "--peer", "constant", "--peer", "raw sendfile"]
    done = benchmarks(tmp_path, "small-1KiB", "raw", *args)
    assert done.returncode == 1
    assert "small-1KiB: failed: " in done.stderr
    assert done.stderr.endswith("failed: small-1KiB\n")
    assert "raw: the big file from bare sockets" in done.stdout


@pytest.mark.parametrize(
    ("args", "said"), [(["nothing"], "no scenario begins with nothing"), (["--size", "x"], "no size")]
)
def test_what_is_not_there_is_a_usage_error(tmp_path: Path, args: list[str], said: str) -> None:
    done = benchmarks(tmp_path, *args)
    assert done.returncode == 2
    assert said in done.stderr
