"""Small counts for models."""

from __future__ import annotations

import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse


@pytest.fixture
def counts() -> AnnData:
    """30 spots x 40 genes, one spot and one gene without a count, one gene with three."""
    rng = np.random.default_rng(0)
    x = rng.poisson(2.0, size=(30, 40)).astype(np.float32)
    x[4] = 0
    x[:, 7] = 0
    x[:, 8] = 0
    x[:3, 8] = 1
    a = AnnData(sparse.csr_matrix(x))
    a.obs_names = [f"s{i}" for i in range(30)]
    a.var_names = [f"g{i}" for i in range(40)]
    a.obsm["spatial"] = rng.uniform(size=(30, 2))
    return a
