"""What every test may use: the table's files on a disk."""

from __future__ import annotations

import pytest

from tests.support.table import Files, make_files

pytest_plugins = ["zcresponse.testing"]


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The table's files, written once."""
    return make_files(tmp_path_factory.mktemp("table"))
