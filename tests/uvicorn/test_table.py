"""The common table on real uvicorn processes, each answer followed by a second request on the same connection."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tests.support import servers
from tests.support.servers import Server
from tests.support.table import CASES, Case, Files
from tests.support.wire import check_on_wire


@dataclass(frozen=True)
class Setup:
    """One way to run an application on uvicorn."""

    name: str
    app: str = "tests.support.doors:app"
    loop: str = "uvloop"
    http: str = "httptools"
    tls: bool = False
    env: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


_OURS = {
    "httptools": "zcresponse.uvicorn:ZeroCopyHttpToolsProtocol",
    "h11": "zcresponse.uvicorn:ZeroCopyH11Protocol",
}
SETUPS = [
    *(
        Setup(f"{loop}-{parser}", loop=loop, http=http)
        for loop in ("asyncio", "uvloop")
        for parser, http in _OURS.items()
    ),
    *(
        Setup(f"stock-{loop}-{parser}", loop=loop, http=parser)
        for loop, parser in (("asyncio", "h11"), ("uvloop", "httptools"))
    ),
    *(
        Setup(f"middleware-{loop}-{parser}", app="tests.support.doors:wrapped", loop=loop, http=parser)
        for loop in ("asyncio", "uvloop")
        for parser in _OURS
    ),
    Setup("installed", app="tests.support.doors:installed"),
    Setup("plain-asgi", app="tests.support.doors:bare", http=_OURS["httptools"]),
    Setup("tls-uvloop-httptools", http=_OURS["httptools"], tls=True),
    Setup("tls-asyncio-h11", loop="asyncio", http=_OURS["h11"], tls=True),
    Setup("switched-off", http=_OURS["httptools"], env={"ZCRESPONSE_SENDFILE": "off"}),
]


@pytest.fixture(scope="module", params=SETUPS, ids=str)
def server(request: pytest.FixtureRequest, files: Files) -> Iterator[Server]:
    setup: Setup = request.param
    with servers.uvicorn(
        setup.app,
        loop=setup.loop,
        http=setup.http,
        tls=servers.certificate() if setup.tls else None,
        env={"TABLE_FILES": str(files.directory), **setup.env},
        python=("-X", "dev", "-W", "error"),
    ) as server:
        yield server
        assert "Traceback" not in server.log()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_table_passes_over_a_socket(case: Case, server: Server, files: Files) -> None:
    with server.connect() as connection:
        check_on_wire(connection, case, files)
