"""Names and labels of any type as text."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from stcsm._text import as_text, by_its_text, did_you_mean, is_missing


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


LABELS = ["1: Granular", "2: Mitral", "3 Outer", "Nerve"]


@pytest.mark.parametrize(
    ("name", "label"),
    [("1: Granular", "1: Granular"), ("Granular", "1: Granular"), ("mitral", "2: Mitral"), ("Outer", "Outer")],
)
def test_a_label_is_found_by_its_text(name, label):
    assert by_its_text(name, LABELS) == label


def test_a_text_of_two_labels_is_none_of_them():
    assert by_its_text("Mitral", ["1: Mitral", "2: mitral"]) == "Mitral"
    assert by_its_text("Mitral", ["Mitral", "2: Mitral"]) == "Mitral"
    assert by_its_text("Mitral", ["2: Mitral", "2: Mitral"]) == "2: Mitral"


@pytest.mark.parametrize(
    ("name", "end"), [("penk", "; did you mean 'Penk'?"), ("Calb", "; did you mean 'Calb2'?"), ("zzz", ""), ("", "")]
)
def test_close_names_are_suggested(name, end):
    assert did_you_mean(name, ["Penk", "Calb2"]) == end
