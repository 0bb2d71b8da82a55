"""As a contender of the recovery benchmark, the published model gives the maps of the public functions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks._recovery.protocol import Draw, Task, make_task
from benchmarks._recovery.published import maps, on_published_grid
from stcsm import datasets, tl
from stcsm.models import GeneVAE


@pytest.fixture(scope="module")
def task() -> Task:
    adata = datasets.simulated_bulb(n_spots=200, n_genes=200, n_markers=20, seed=1, image=False)
    labels = adata.obs["layer"].astype(object).where(adata.obs["layer"].notna(), "").astype(str).to_numpy()
    whole = make_task(adata, labels, ks=(1,), draws=1, seed=0)
    return replace(whole, draws=whole.draws[:2])


def test_one_gene_is_the_published_pipeline(task):
    adata, rows = on_published_grid(task.half)
    np.testing.assert_array_equal(rows, np.arange(task.half.n_obs))
    model = GeneVAE.published(adata, seed=0)
    model.train(max_epochs=1, progress=False)
    found = maps(task, model)
    genes = list(dict.fromkeys(d.genes[0] for d in task.draws))
    tl.published_concepts(adata, model, genes)
    tl.saliency(adata, model, method="rectgrad", genes="concept", percentile=95, published=True)
    expected = adata.obsm["concept_saliency"]
    assert np.ptp(expected.to_numpy()) > 0
    for row, draw in zip(found, task.draws, strict=True):
        np.testing.assert_allclose(row, expected[draw.genes[0]], rtol=1e-3, atol=1e-6 * np.abs(row).max())


def test_what_does_not_fit_the_published_cells_is_binned(task):
    half = task.half.copy()
    half.obs, half.obsm["spatial_array"] = half.obs[[]], half.obsm["spatial_array"] * 3
    adata, rows = on_published_grid(half)
    assert adata.obs["array_row"].max() < 32
    assert adata.obs["array_col"].max() < 32
    assert adata.X.sum() == half.X.sum()
    counts = np.bincount(rows, minlength=adata.n_obs)
    np.testing.assert_array_equal(counts, adata.obs["n_spots"])
    model = GeneVAE.published(adata, seed=0)
    model.train(max_epochs=1, progress=False)
    asked = Task(half, task.labels, task.layers, (*task.draws, Draw(task.draws[0].layer, 1, task.draws[0].genes)))
    found = maps(asked, model)[:, rows]
    assert found.shape == (len(asked.draws), half.n_obs)
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found[0], found[-1])
