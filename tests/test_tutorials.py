"""Tutorials run from top to bottom."""

from __future__ import annotations

from pathlib import Path

import pytest

TUTORIALS = sorted((Path(__file__).resolve().parents[1] / "tutorials").glob("*.md"))


def run(path: Path, folder: Path) -> None:
    jupytext = pytest.importorskip("jupytext")
    nbclient = pytest.importorskip("nbclient")
    notebook = jupytext.read(path)
    nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": folder}}
    ).execute()


@pytest.mark.slow
@pytest.mark.parametrize("path", TUTORIALS, ids=lambda p: p.stem)
def test_tutorial_runs(path, tmp_path):
    run(path, tmp_path)


@pytest.mark.slow
def test_bulb_tutorial_runs_on_the_real_tissue(data_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("STCSM_TUTORIAL", "mob")
    monkeypatch.setenv("STCSM_DATA_DIR", str(data_dir.resolve()))
    run(next(p for p in TUTORIALS if p.stem == "bulb"), tmp_path)
