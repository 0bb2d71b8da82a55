"""A small tissue with two regions, and a model trained on it once."""

from __future__ import annotations

import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse

from stcsm.models import GeneVAE


def make_tissue(seed: int = 0, n_genes: int = 90) -> AnnData:
    """8 x 8 spots, left half A and right half B; genes a0.. are on in A, b0.. in B, the others everywhere."""
    rng = np.random.default_rng(seed)
    xy = np.stack(np.meshgrid(np.arange(8.0), np.arange(8.0)), -1).reshape(-1, 2)
    left = xy[:, 0] < 4
    third = n_genes // 3
    rate = np.ones((64, n_genes))
    rate[:, :third] = np.where(left[:, None], 4.0, 0.4)
    rate[:, third : 2 * third] = np.where(left[:, None], 0.4, 4.0)
    depth = rng.uniform(0.5, 2.0, size=(64, 1))
    counts = rng.poisson(rate * depth).astype(np.float32)
    counts[:, -1] = 0
    counts[:, -2] = 0
    counts[:3, -2] = 1
    adata = AnnData(sparse.csr_matrix(counts))
    adata.obs_names = [f"spot{i}" for i in range(64)]
    adata.var_names = [f"{'abc'[min(g // third, 2)]}{g % third}" for g in range(n_genes)]
    adata.obs["region"] = np.where(left, "A/left", "B")
    adata.obsm["spatial"] = xy
    return adata


@pytest.fixture(scope="session")
def trained() -> tuple[AnnData, GeneVAE]:
    """Tissue and trained model; tests work on copies of the tissue."""
    adata = make_tissue()
    GeneVAE.setup_anndata(adata)
    model = GeneVAE(adata, n_latent=6, n_hidden=32)
    model.train(max_epochs=60, progress=False)
    return adata, model


@pytest.fixture
def tissue(trained) -> AnnData:
    """Fresh copy of the tissue."""
    return trained[0].copy()


@pytest.fixture
def model(trained) -> GeneVAE:
    """The trained model."""
    return trained[1]
