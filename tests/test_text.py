"""Names and labels of any type as text."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from stcsm._text import as_text, is_missing


@pytest.mark.parametrize(
    "value", [None, float("nan"), pd.NA, pd.NaT, "", " ", "NA", "n/a", "<NA>", "None", "null", "NaN", np.float32("nan")]
)
def test_what_is_missing(value):
    assert is_missing(value)


@pytest.mark.parametrize("value", [0, False, "0", "unknown", "Nanog", "-", "L1"])
def test_what_is_there(value):
    assert not is_missing(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [("7.0", "7.0"), (7, "7"), (7.0, "7"), (np.float32(7), "7"), (7.5, "7.5"), (b"Th", "Th"), (True, "True")],
)
def test_names_as_text(value, text):
    assert as_text(value) == text
