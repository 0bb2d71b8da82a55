"""Simulated faces, drawn once."""

from __future__ import annotations

from pathlib import Path

import pytest

from stcsm.datasets import simulated_faces


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 faces in the official layout, with masks."""
    return simulated_faces(tmp_path_factory.mktemp("faces") / "official", 200, progress=False)
