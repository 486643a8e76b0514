"""What every test may use: the table's files on a disk."""

from __future__ import annotations

import gc
import signal
from pathlib import Path

import pytest

from tests.support.table import Files, make_files

pytest_plugins = ["zcresponse.testing"]


def pytest_configure() -> None:
    """Let Ctrl-C end the servers that the tests start, in the background of a shell too, which has it ignored there."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


# The files that take longest, so that in a run that is shared none of them is the last one and alone; the first is the
# longest.
_LONG = [
    "django_door/test_servers.py",
    "wsgi/test_matrix.py",
    "uvicorn/test_campaigns.py",
    "uvicorn/test_ending.py",
    "asgi/test_middleware.py",
    "uvicorn/test_stalled.py",
    "wsgi/test_hubs.py",
    "uvicorn/test_server_options.py",
    "asgi/test_servers.py",
    "test_cli.py",
    "test_cli_curl.py",
    "django_door/test_table.py",
    "uvicorn/test_zero_copy.py",
    "front/test_offload.py",
    "bench/test_scenarios.py",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first; xdist keeps the order with `--no-loadscope-reorder`."""
    here = Path(__file__).parent
    places = {here / name: place for place, name in enumerate(_LONG)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


def pytest_sessionfinish() -> None:
    """Undo `frozen`: Hypothesis, imported late, asks who refers to what, and is told nothing of what is frozen."""
    gc.unfreeze()


@pytest.fixture(scope="module", autouse=True)
def frozen() -> None:
    """What is there before a module's first test need not be gone through after each: half a second every time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The table's files, written once."""
    return make_files(tmp_path_factory.mktemp("table"))
