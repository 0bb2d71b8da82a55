"""Where tests find real tissues and golden numbers; they skip, naming the variable, where these are absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Before anything imports torch: the arrays of tests are too small to share, and threads of torch that wait for one
# another while something else has their core turn seconds into minutes.
os.environ.setdefault("OMP_NUM_THREADS", "1")

SHARED = Path(__file__).resolve().parents[2] / "shared"


def _folder(variable: str, default: Path) -> Path:
    folder = Path(os.environ.get(variable, default))
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent; set {variable} to the folder that holds it")
    return folder


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of real tissues (``mob/``, ``visium/``)."""
    return _folder("STCSM_DATA_DIR", SHARED / "data")


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Folder of the published code's numbers."""
    return _folder("STCSM_GOLDEN_DIR", SHARED / "golden")
