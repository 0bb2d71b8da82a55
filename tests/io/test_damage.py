"""Whatever happens to a file, the answer is data or a ValueError that names the file: no other exception."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stcsm.io import read_labels, read_st

from .conftest import COUNTS, GENES, SPOTS, table_text

COUNT_TEXT = table_text(SPOTS, GENES, COUNTS).encode()
LABEL_TEXT = b'spot,layer\n1x1,"L1"\n2x1,L2\n3x1,\n'
READERS = {"counts": (COUNT_TEXT, read_st), "labels": (LABEL_TEXT, read_labels)}


@st.composite
def damaged(draw, whole: bytes) -> bytes:
    """`whole` after a few cuts, deletions, insertions and changed bytes."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        what = draw(st.sampled_from(["cut", "delete", "insert", "change"]))
        if what == "cut":
            del data[at:]
        elif what == "delete":
            del data[at : at + draw(st.integers(1, 20))]
        elif what == "insert":
            data[at:at] = draw(
                st.one_of(st.binary(max_size=5), st.sampled_from([b"\t", b"\n", b'"', b"\x00", b",", b"x"]))
            )
        elif data:
            data[at] = draw(st.integers(0, 255))
    return bytes(data)


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzipped"])
@pytest.mark.parametrize("kind", READERS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_are_read_or_refused(tmp_path, kind, zipped, data):
    whole, reader = READERS[kind]
    path = tmp_path / "damaged.txt"
    if zipped and data.draw(st.booleans()):
        path.write_bytes(data.draw(damaged(gzip.compress(whole, mtime=0))))
    else:
        content = data.draw(damaged(whole))
        path.write_bytes(gzip.compress(content) if zipped else content)
    try:
        result = reader(path)
    except ValueError as error:
        message = str(error)
    else:
        message = str(path)
        assert len(result) > 0
        if kind == "counts":
            assert np.isfinite(result.X.data).all()
            assert np.isfinite(result.obsm["spatial"]).all()
    assert str(path) in message
