"""Writers of files in every shape people have them, right and wrong."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

SPOTS = ["16.92x9.015", "17x10", "2.5x-1"]
GENES = ["Penk", "Doc2g", "Kctd12", "2010300C02Rik"]
COUNTS = np.array([[1, 0, 3, 0], [0, 0, 20, 7], [5, 1, 0, 0]])


def table_text(rows, columns, values, *, corner: str | None = "", separator="\t", end="\n", quote="") -> str:
    """A table as text; without `corner` the header has one cell less than the rows, as R writes it."""
    head = [] if corner is None else [corner]
    lines = [head + [f"{quote}{c}{quote}" for c in columns]]
    lines += [[f"{quote}{r}{quote}", *map(str, v)] for r, v in zip(rows, values, strict=True)]
    return end.join(separator.join(line) for line in lines) + end


@pytest.fixture
def write(tmp_path: Path):
    """Write text (or bytes) to a file and return its path; gzipped where the name ends in .gz."""

    def _write(content: str | bytes, name: str = "counts.tsv") -> Path:
        data = content.encode() if isinstance(content, str) else content
        path = tmp_path / name
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return _write


@pytest.fixture
def st_file(write):
    """A right ST file, or one with lines replaced (by number, from 1) or cells set."""

    def _st_file(lines: dict[int, str] | None = None, name: str = "counts.tsv", **layout) -> Path:
        text = table_text(SPOTS, GENES, COUNTS, **layout).split("\n")
        for number, line in (lines or {}).items():
            text[number - 1] = line
        return write("\n".join(text), name)

    return _st_file
