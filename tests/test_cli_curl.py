"""The main job, as people do it: a big file from `zcresponse serve` with curl, and who moved its bytes."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import servers
from tests.support.kernel import trace_sendfile
from tests.support.servers import Server
from tests.support.table import parse_multipart

MIB = 1024 * 1024


@pytest.fixture(
    scope="module",
    params=[pytest.param(32 * MIB, id="32 MiB"), pytest.param(1024 * MIB, id="1 GiB", marks=pytest.mark.campaign)],
)
def big(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of one big file, whose pages do not repeat."""
    path = tmp_path_factory.mktemp("served") / "big.bin"
    source = random.Random(request.param)
    with path.open("wb") as file:
        for _ in range(request.param // (16 * MIB)):
            file.write(source.randbytes(16 * MIB))
    os.utime(path, (1_700_000_000, 1_700_000_000))
    yield path
    path.unlink()


@pytest.fixture(params=[(loop, http) for loop in ("asyncio", "uvloop") for http in ("h11", "httptools")], ids="-".join)
def server(request: pytest.FixtureRequest, big: Path) -> Iterator[Server]:
    loop, http = request.param
    argv = [sys.executable, "-m", "zcresponse", "serve", str(big.parent), "--port", "0", "--loop", loop, "--http", http]
    with servers.run_server(argv, announced=r"http://127\.0\.0\.1:(\d+)/") as server:
        assert "the kernel moves the bytes" in server.log()
        yield server
    assert "Traceback" not in server.log()


def sha256(path: Path, start: int = 0, stop: int | None = None) -> str:
    with path.open("rb") as file:
        if start == 0 and stop is None:
            return hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(start)
        return hashlib.sha256(file.read((path.stat().st_size if stop is None else stop) - start)).hexdigest()


def test_curl_gets_a_big_file_in_every_way_and_the_kernel_moves_it(server: Server, big: Path, tmp_path: Path) -> None:
    size = big.stat().st_size
    got = tmp_path / "got"
    moved: list[tuple[str, int, int]] = []

    def curl(*arguments: str, promised: int) -> str:
        url = f"http://127.0.0.1:{server.port}/big.bin"
        with trace_sendfile(server.pid) as trace:
            done = subprocess.run(
                ["curl", "-sS", "--fail", "-o", got, "-w", "%{http_code} %{content_type}", *arguments, url],
                check=True,
                capture_output=True,
                text=True,
            )
        moved.append((done.stdout, promised, trace.total_from(big)))
        return done.stdout

    assert curl(promised=size).startswith("200")
    assert sha256(got) == sha256(big)

    start, stop = size // 8 + 3, size - 5
    assert curl("-r", f"{start}-{stop - 1}", promised=stop - start).startswith("206")
    assert sha256(got) == sha256(big, start, stop)

    parts = [(size // 2, size - 1000), (7, size // 4)]
    asked = ",".join(f"{start}-{stop - 1}" for start, stop in parts)
    status, media_type = curl("-r", asked, promised=sum(stop - start for start, stop in parts)).split(" ", 1)
    assert status == "206"
    for part, (start, stop) in zip(parse_multipart(media_type, got.read_bytes()), parts, strict=True):
        assert hashlib.sha256(part.data).hexdigest() == sha256(big, start, stop)

    broken_off = size // 3
    with big.open("rb") as whole, got.open("wb") as file:
        file.write(whole.read(broken_off))
    assert curl("-C", "-", promised=size - broken_off).startswith("206")
    assert sha256(got) == sha256(big)

    for told, promised, by_kernel in moved:
        assert promised * 0.999 <= by_kernel <= promised, told
    got.unlink()
