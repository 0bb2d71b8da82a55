from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from stcsm._features import background_spots, control_features

CONTROLS = [
    "Blank-1", "blank-23", "BLANK_0006", "Blank", "BlankCodeword_0001",
    "NegPrb3", "NegPrb", "NegProbe-WTX", "Negative01", "NegControlProbe_00042", "NegControlCodeword_0500",
    "antisense_BCL2L15", "DeprecatedCodeword_0001", "DEPRECATED_ENSMUSG00000000157", "UnassignedCodeword_0001",
    "Unassigned_7", "Intergenic_Region_12", "SystemControl12", "FalseCode5",
]  # fmt: skip
GENES = ["BLNK", "NEGR1", "Blanket1", "DEPDC1", "Gapdh", "Unas1", "ENSG00000121270", "SYS1", "antisensus", "1"]


@pytest.mark.parametrize("as_index", [False, True])
def test_control_probes_are_known_by_their_names(as_index):
    names = pd.Index(CONTROLS + GENES) if as_index else CONTROLS + GENES
    np.testing.assert_array_equal(control_features(names), [True] * len(CONTROLS) + [False] * len(GENES))
    assert control_features([]).shape == (0,)


def test_feature_types_say_what_is_no_gene():
    kinds = ["Gene Expression", "Antibody Capture", "CRISPR Guide Capture", np.nan, "gene expression", ""]
    expected = [False, True, True, False, False, False]
    np.testing.assert_array_equal(control_features(list("abcdef"), kinds), expected)
    np.testing.assert_array_equal(control_features(list("abcdef"), pd.Categorical(kinds[:2] * 3)), [False, True] * 3)
    # words of another vocabulary do not say which features are genes
    np.testing.assert_array_equal(control_features(["a", "Blank-1"], ["protein_coding", "lncRNA"]), [False, True])
    np.testing.assert_array_equal(control_features(["a", "Blank-1"], ["Gene Expression"] * 2), [False, True])


@pytest.mark.parametrize(
    "values",
    [
        [0, 1, 1],
        [0.0, 1.0, np.nan],
        [False, True, True],
        ["0", "1", None],
        ["False", "True", "True"],
        pd.Categorical(["0", "1", "1"]),
        pd.array([0, 1, None], dtype="Int64"),
        np.array([0, 1, 1], dtype=np.uint8),
    ],
)
def test_background_spots(values):
    np.testing.assert_array_equal(background_spots(pd.Series(values)), [True, False, False])
