from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest

SPEC = importlib.util.find_spec("zcresponse.http")
assert SPEC is not None
assert SPEC.submodule_search_locations is not None
MODULES = sorted(Path(SPEC.submodule_search_locations[0]).glob("*.py"))

# Values, patterns and pure functions. Anything else wants a reason: most of the library must not be reachable here.
ALLOWED = {
    "__future__",
    "collections.abc",
    "dataclasses",
    "datetime",
    "enum",
    "functools",
    "re",
    "typing",
    "unicodedata",
    "urllib.parse",
}


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.stem))
def test_a_module_imports_only_pure_things_and_its_neighbours(module: Path) -> None:
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported = [str(node.module)]
        else:
            continue
        assert [name for name in imported if name not in ALLOWED and not name.startswith("zcresponse.http.")] == []


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.stem))
def test_a_module_asks_no_clock_and_opens_nothing(module: Path) -> None:
    tree = ast.parse(module.read_text(encoding="utf-8"))
    called = {node.func for node in ast.walk(tree) if isinstance(node, ast.Call)}
    names = {func.id for func in called if isinstance(func, ast.Name)}
    methods = {func.attr for func in called if isinstance(func, ast.Attribute)}
    assert names.isdisjoint({"open", "print", "input", "exec", "eval"})
    assert methods.isdisjoint({"now", "utcnow", "today"})
