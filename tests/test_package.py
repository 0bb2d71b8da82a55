"""Imports stay cheap, and go one way only."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "scvi", "scanpy", "squidpy", "anndata", "lightning")


@pytest.mark.parametrize("code", ["import stcsm", "import sys; sys.argv = ['stcsm', '--help']; import stcsm.cli"])
def test_import_loads_nothing_heavy(code):
    check = f"{code}; import sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_imports_go_one_way():
    root = Path(__file__).resolve().parents[1]
    code = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
    out = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert out.returncode == 0, out.stdout[-2000:] + out.stderr[-2000:]
