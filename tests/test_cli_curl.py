"""The main job, as people do it: a big file from `zcresponse serve` with curl, and who moved its bytes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import servers
from tests.support.big import MIB, Comparison, same_bytes, write_big
from tests.support.kernel import trace_sendfile
from tests.support.servers import Server
from tests.support.table import parse_multipart

_ALL = [(loop, http) for loop in ("asyncio", "uvloop") for http in ("h11", "httptools")]


@pytest.fixture(scope="module")
def big(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of one big file."""
    path = tmp_path_factory.mktemp("served") / "big.bin"
    write_big(path, request.param)
    yield path
    path.unlink()


@pytest.fixture
def server(request: pytest.FixtureRequest, big: Path) -> Iterator[Server]:
    loop, http = request.param
    argv = [sys.executable, "-m", "zcresponse", "serve", str(big.parent), "--port", "0", "--loop", loop, "--http", http]
    with servers.run_server(argv, announced=r"http://127\.0\.0\.1:(\d+)/") as server:
        assert "the kernel moves the bytes" in server.log()
        yield server
    assert "Traceback" not in server.log()


@pytest.mark.parametrize(
    ("big", "server"),
    [
        *(pytest.param(32 * MIB, each, id="-".join(("32 MiB", *each))) for each in _ALL),
        # Each loop and each parser once.
        *(
            pytest.param(1024 * MIB, each, id="-".join(("1 GiB", *each)), marks=pytest.mark.campaign)
            for each in _ALL[::3]
        ),
    ],
    indirect=True,
)
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
    assert same_bytes(got, big, 0, size)

    start, stop = size // 8 + 3, size - 5
    assert curl("-r", f"{start}-{stop - 1}", promised=stop - start).startswith("206")
    assert same_bytes(got, big, start, stop)

    parts = [(size - size // 8, size - 1000), (7, size // 16)]
    asked = ",".join(f"{start}-{stop - 1}" for start, stop in parts)
    status, media_type = curl("-r", asked, promised=sum(stop - start for start, stop in parts)).split(" ", 1)
    assert status == "206"
    for part, (start, stop) in zip(parse_multipart(media_type, got.read_bytes()), parts, strict=True):
        received = Comparison(big, start)
        received.take(part.data)
        assert (received.count, received.same) == (stop - start, True)

    broken_off = size // 3
    with big.open("rb") as whole, got.open("wb") as file:
        file.write(whole.read(broken_off))
    assert curl("-C", "-", promised=size - broken_off).startswith("206")
    assert same_bytes(got, big, 0, size)

    for told, promised, by_kernel in moved:
        assert promised * 0.999 <= by_kernel <= promised, told
    got.unlink()
