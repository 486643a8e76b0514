"""Files and popular compressors: an untouched file, or a correctly compressed one, or a 500 that names the switch."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

import brotli
import pytest

from tests.support import servers
from tests.support.compressors import COMPRESSORS, DROPPING
from tests.support.servers import Server
from tests.support.table import FILES, Files, parse_multipart
from tests.support.wire import WireResponse

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

DECODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.decompress,
    "br": brotli.decompress,
    "zstd": zstd.decompress,
}

Start = Callable[..., AbstractContextManager[Server]]


@dataclass(frozen=True)
class Setup:
    """A server, and where the middleware stands to the compressors.

    Attributes:
        drops: Whether a compressor can drop a file.
    """

    name: str
    start: Start
    app: str
    drops: bool

    def __str__(self) -> str:
        return f"{self.name}-{self.app}"


_OURS = partial(servers.uvicorn, http="zcresponse.uvicorn:ZeroCopyProtocol")
SETUPS = [
    Setup("protocol", _OURS, "bare", drops=True),
    Setup("protocol", _OURS, "above", drops=True),
    Setup("uvicorn", servers.uvicorn, "below", drops=True),
    Setup("uvicorn", servers.uvicorn, "above", drops=False),
    Setup("hypercorn", servers.hypercorn, "below", drops=True),
    Setup("nonecorn", servers.nonecorn, "below", drops=True),
    Setup("granian", servers.granian, "below", drops=True),
    Setup("daphne", servers.daphne, "above", drops=False),
]


def started(setup: Setup, files: Files, **env: str) -> AbstractContextManager[Server]:
    return setup.start(f"tests.support.compressors:{setup.app}", env={"TABLE_FILES": str(files.directory), **env})


@pytest.fixture(scope="module", params=SETUPS, ids=str)
def setup(request: pytest.FixtureRequest) -> Setup:
    chosen: Setup = request.param
    return chosen


@pytest.fixture(scope="module")
def server(setup: Setup, files: Files) -> Iterator[Server]:
    with started(setup, files) as server:
        yield server


def ask(server: Server, path: str, accepted: str, *fields: tuple[str, str], method: str = "GET") -> WireResponse:
    with server.connect() as connection:
        return connection.request(method, path, [("Accept-Encoding", accepted), *fields])


def decoded(response: WireResponse) -> bytes:
    assert response.status == 200
    (coding,) = response.values("content-encoding") or ("identity",)
    if coding == "identity":
        assert response.values("content-length") == [str(len(response.body))]
        return response.body
    return DECODERS[coding](response.body)


NAMES = ("small.bin", "data.bin", "large.bin")

#: The folders of our own responses.
OURS = ("ours", "static", "folder")


def check_parts(server: Server, path: str, accepted: str) -> None:
    """Ask for parts of a file, which have to be its plain bytes."""
    file = FILES[path.rpartition("/")[2]]
    for wanted, places in [
        ("bytes=5-2999", [(5, 3000)]),
        ("bytes=-3000", [(file.size - 3000, file.size)]),
        ("bytes=5-2999,10000-12999", [(5, 3000), (10_000, 13_000)]),
    ]:
        response = ask(server, path, accepted, ("Range", wanted))
        assert response.status == 206
        assert response.values("content-encoding") in ([], ["identity"])
        assert response.values("content-length") == [str(len(response.body))]
        if len(places) == 1:
            ((start, stop),) = places
            assert response.values("content-range") == [f"bytes {start}-{stop - 1}/{file.size}"]
            assert response.body == file.content[start:stop]
        else:
            (content_type,) = response.values("content-type")
            parts = parse_multipart(content_type, response.body)
            assert [(part.start, part.stop, part.size) for part in parts] == [(*place, file.size) for place in places]
            assert [part.data for part in parts] == [file.content[start:stop] for start, stop in places]


@pytest.mark.parametrize("compressor", COMPRESSORS)
@pytest.mark.parametrize("accepted", ["identity", "gzip", "br", "zstd"])
def test_a_file_arrives_or_the_log_names_the_switch(
    compressor: str, accepted: str, setup: Setup, server: Server
) -> None:
    seen = len(server.log())
    dropped = setup.drops and DROPPING.get(compressor) == accepted
    for folder in ("ours", "stock"):
        for name in NAMES:
            response = ask(server, f"/{compressor}/{folder}/{name}", accepted)
            if dropped:
                assert response.status == 500
            else:
                assert decoded(response) == FILES[name].content
    assert server.log()[seen:].count("ZCRESPONSE_PATHSEND=off") == (2 * len(NAMES) if dropped else 0)


@pytest.mark.parametrize("compressor", COMPRESSORS)
@pytest.mark.parametrize("accepted", ["identity", "gzip", "br", "zstd", "gzip, br, zstd"])
def test_a_part_of_a_file_is_never_compressed(compressor: str, accepted: str, setup: Setup, server: Server) -> None:
    # granian takes whole files alone: parts go in pieces.
    dropped = setup.drops and setup.name != "granian" and DROPPING.get(compressor, "-") in accepted
    for folder in OURS:
        for name in ("data.bin", "large.bin"):
            path = f"/{compressor}/{folder}/{name}"
            if dropped:
                assert ask(server, path, accepted, ("Range", "bytes=5-2999")).status == 500
            else:
                check_parts(server, path, accepted)


@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_other_answers_are_compressed_as_ever(compressor: str, server: Server) -> None:
    for accepted in ("identity", "gzip", "br", "zstd"):
        assert decoded(ask(server, f"/{compressor}/text", accepted)) == b"text " * 1000
        assert ask(server, f"/{compressor}/ours/large.bin", accepted, method="HEAD").body == b""


@pytest.mark.parametrize("setup", [SETUPS[0], SETUPS[2], SETUPS[4], SETUPS[6]], ids=str)
def test_the_switch_gives_every_compressor_its_files(setup: Setup, files: Files) -> None:
    with started(setup, files, ZCRESPONSE_PATHSEND="off") as server:
        for compressor in COMPRESSORS:
            for accepted in ("identity", "gzip", "br", "zstd"):
                for folder in ("ours", "stock"):
                    response = ask(server, f"/{compressor}/{folder}/data.bin", accepted)
                    assert decoded(response) == FILES["data.bin"].content
                    if DROPPING.get(compressor) == accepted:
                        assert response.values("content-encoding") == [accepted]
                for folder in OURS:
                    check_parts(server, f"/{compressor}/{folder}/data.bin", accepted)
        assert "ZCRESPONSE_PATHSEND" not in server.log()
