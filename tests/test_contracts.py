"""The two contracts of import-linter against private imports and cycles refuse what they are there for."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import grimp
import pytest
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"
TYPES = ("private_modules", "acyclic_siblings")


def contracts_for(package: str) -> str:
    """The repository's own two contracts, as a configuration for another package."""
    table = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    found = [contract for contract in table if contract["type"] in TYPES]
    assert sorted(contract["type"] for contract in found) == sorted(TYPES)
    lines = ["[tool.importlinter]", f'root_package = "{package}"']
    for contract in found:
        lines.append("[[tool.importlinter.contracts]]")
        # Strings and lists of strings read the same in JSON and TOML.
        lines += [f"{key} = {json.dumps(value).replace('stcsm', package)}" for key, value in contract.items()]
    return "\n".join(lines) + "\n"


def lint(folder: Path, **modules: str) -> tuple[int, str]:
    """Write a toy package of two subpackages with these additions, and lint it."""
    files = {
        "__init__": "",
        "_keys": "",
        "a/__init__": "from toy.a._work import f",
        "a/_work": "from toy import _keys\nfrom toy.a._parts import g\nf = g",
        "a/_parts": "g = 1",
        "b/__init__": "from toy.b._work import h",
        "b/_work": "from toy import a\nh = a.f",
    }
    for name, text in (files | {name.replace("__", "/", 1): text for name, text in modules.items()}).items():
        path = folder / "toy" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
    (folder / "pyproject.toml").write_text(contracts_for("toy"), encoding="utf-8")
    code = (
        "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports; "
        "raise SystemExit(lint_imports(config_filename='pyproject.toml', no_cache=True))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_a_clean_package_passes(tmp_path):
    status, text = lint(tmp_path)
    assert status == 0, text
    assert "2 kept, 0 broken" in text


@pytest.mark.parametrize(
    "line",
    [
        "from toy.a._parts import g",
        "from toy.a import _parts",
        "import toy.a._parts",
        "def f():\n    from toy.a._parts import g\n    return g",
    ],
)
def test_a_private_module_of_another_package_is_refused(tmp_path, line):
    status, text = lint(tmp_path, b___more=line)
    assert status == 1, text
    assert "toy.b._more -> toy.a._parts" in text


@pytest.mark.parametrize(
    "line",
    ["from toy.a import _work", "def f():\n    from toy.a._work import f\n    return f"],
    ids=["top", "function"],
)
def test_a_cycle_within_a_package_is_refused(tmp_path, line):
    status, text = lint(tmp_path, a___parts=f"{line}\ng = 1")
    assert status == 1, text
    assert "No cycles are allowed in toy.a" in text


def test_a_cycle_between_packages_is_refused(tmp_path):
    status, text = lint(tmp_path, a___parts="def f():\n    from toy import b\n    return b\ng = 1")
    assert status == 1, text
    assert "No cycles are allowed in toy." in text


def test_no_cycle_goes_through_a_package_itself():
    """The contract compares siblings; a module that imports the package it lies in is a cycle too."""
    graph = grimp.build_graph("stcsm", cache_dir=None)
    modules = sorted(graph.modules)
    number = {name: i for i, name in enumerate(modules)}
    pairs = [(number[a], number[b]) for a in modules for b in graph.find_modules_directly_imported_by(a)]
    rows, columns = zip(*pairs, strict=True)
    edges = csr_array(([1] * len(pairs), (rows, columns)), shape=(len(modules), len(modules)))
    _, component = connected_components(edges, connection="strong")
    cycles: dict[int, list[str]] = {}
    for name, i in zip(modules, component, strict=True):
        cycles.setdefault(int(i), []).append(name)
    assert [names for names in cycles.values() if len(names) > 1] == []
