"""Benchmarks take labels as the analysis does."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from benchmarks.recovery import labels_of


def test_a_text_of_missing_labels_is_none():
    obs = pd.DataFrame({"area": ["a", "nan", None, "b"]}, index=list("wxyz"))
    adata = AnnData(np.ones((4, 2), np.float32), obs=obs)
    with pytest.warns(UserWarning, match="1 spots have a text that stands for no label"):
        np.testing.assert_array_equal(labels_of(adata, "area"), ["a", "", "", "b"])
