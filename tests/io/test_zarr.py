"""Elements that are written as copies of a first one are what anndata writes, for both formats of zarr."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import zarr
from anndata.io import read_elem, write_elem

from stcsm.io import _zarr

NAMES = [f"concept {i}" for i in range(30)]
RNG = np.random.default_rng(0)
FRAME = pd.DataFrame(RNG.normal(size=(5, 30)).astype(np.float32), columns=NAMES, index=list("abcde"))
VALUES = {
    "frame": FRAME,
    "frame with NaN": FRAME.where(FRAME > 0),
    "zeros": FRAME * 0,
    "double, big-endian": FRAME.astype(">f8"),
    "types": pd.DataFrame({"n": [1, 2], "b": [True, False], "t": ["x", "\u00fc"], "c": pd.Categorical(["u", "v"])}),
    "strings": pd.DataFrame({name: ["x", "yy", name] for name in NAMES}),
    "no columns": FRAME.iloc[:, :0],
    "concepts": {
        name: {
            "genes": np.array(["Penk", "Müller", name][: 1 + i % 3], dtype=object),
            "weights": np.full(1 + i % 3, i / 7),
            "vectors": RNG.normal(size=(2, 4)),
            "label": name,
            "estimator": "contrast",
            "found": i,
            "share": i / 3,
            "kept": bool(i % 2),
            "empty": np.array([], dtype=object),
            "inner": {"n": np.int64(i)},
        }
        for i, name in enumerate(NAMES)
    },
}


def assert_same(found, expected) -> None:
    if isinstance(expected, dict):
        assert list(found) == list(expected) or set(found) == set(expected)
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, pd.DataFrame):
        pd.testing.assert_frame_equal(found, expected)
    else:
        np.testing.assert_array_equal(found, expected)
        assert np.asarray(found).dtype.kind == np.asarray(expected).dtype.kind


@pytest.mark.filterwarnings("ignore:zarr v3 autosharding", "ignore:.*Zarr V3 spec", "ignore:.*Zarr format 3")
@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
def test_elements_come_back_as_those_that_anndata_writes(tmp_path, monkeypatch, value, zarr_format):
    group = zarr.open_group(tmp_path / "s.zarr", mode="w", zarr_format=zarr_format)
    write_elem(group, "expected", value)
    calls = []
    monkeypatch.setattr(_zarr, "write_elem", lambda *args, **how: (calls.append(args), write_elem(*args, **how)))
    _zarr.Writer(zarr_format).write(tmp_path / "s.zarr" / "found", value)
    group = zarr.open_group(tmp_path / "s.zarr", mode="r", use_consolidated=False)
    expected, found = (read_elem(group[name]) for name in ("expected", "found"))
    assert_same(found, expected)
    # the same attributes everywhere, so that any reader of the format takes it for the same
    for name in ("zarr.json", ".zattrs"):
        for path in (tmp_path / "s.zarr" / "expected").rglob(name):
            ours = tmp_path / "s.zarr" / "found" / path.relative_to(tmp_path / "s.zarr" / "expected")
            a, b = (json.loads(one.read_text()) for one in (path, ours))
            assert a.get("attributes", a) == b.get("attributes", b)
    if value is VALUES["frame"] or value is VALUES["concepts"]:
        assert len(calls) < (10 if value is VALUES["frame"] else 200)  # of 32 and 391 elements
