"""Marker scores in blocks are those of scanpy's t-test, in its order."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy import sparse

from stcsm.concepts import highest, marker_scores
from stcsm.io import read
from stcsm.space import stored_blocks


def scanpy_ranking(counts, labels: np.ndarray, names: pd.Index):
    """Names and scores of ``rank_genes_groups`` on log-normalised counts."""
    whole = ad.AnnData(
        sparse.csr_matrix(counts, dtype=np.float32),
        obs=pd.DataFrame({"label": pd.Categorical(labels)}, index=np.arange(len(labels)).astype(str)),
        var=pd.DataFrame(index=names),
    )
    sc.pp.normalize_total(whole, target_sum=1e4)
    sc.pp.log1p(whole)
    sc.tl.rank_genes_groups(whole, "label", method="t-test")
    return whole.uns["rank_genes_groups"]


def same_as_scanpy(counts, labels: pd.Series, names: pd.Index) -> None:
    """Same genes in the same order and the same scores, spots without a label or a count left out."""
    depth = np.asarray(counts.sum(axis=1)).ravel()
    used = labels.notna().to_numpy() & (depth > 0)
    kept = sorted(labels[used].unique())
    expected = scanpy_ranking(counts[used], labels[used].to_numpy(dtype=object), names)
    codes = np.where(used, pd.Categorical(labels, kept).codes, -1)
    for matrix in (sparse.csr_matrix(counts), sparse.csc_matrix(counts)):
        scores = marker_scores(matrix, depth, codes, len(kept))
        for k, label in enumerate(kept):
            order = highest(scores[k])
            assert list(names[order]) == list(expected["names"][label])
            np.testing.assert_allclose(scores[k][order], expected["scores"][label], rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("sizes", [(60, 70, 70), (2, 3, 195)])
def test_scores_are_those_of_scanpy(sizes, monkeypatch):
    monkeypatch.setattr(stored_blocks, "__defaults__", (10_000,))  # several blocks
    rng = np.random.default_rng(0)
    counts = sparse.csr_matrix(rng.poisson(0.3, size=(205, 500)).astype(np.float32))
    labels = pd.Series(np.repeat(["a", "b", "c", None], [*sizes, 205 - sum(sizes)]), dtype=object)
    same_as_scanpy(counts, labels, pd.Index([f"g{i}" for i in range(500)]))


@pytest.mark.filterwarnings("ignore")
def test_markers_of_the_bulb_are_those_of_scanpy(data_dir):
    bulb = read(data_dir / "mob" / "Rep11_MOB_count_matrix-1.tsv.gz")
    layers = pd.read_csv(data_dir / "mob" / "Rep11_layers.csv", index_col=0).iloc[:, -1]
    same_as_scanpy(sparse.csr_matrix(bulb.X), layers.reindex(bulb.obs_names), bulb.var_names)


@pytest.mark.filterwarnings("ignore")
def test_markers_of_the_cortex_are_those_of_scanpy(data_dir):
    cortex = ad.read_h5ad(data_dir / "visium" / "dlpfc151510.h5ad")
    same_as_scanpy(sparse.csr_matrix(cortex.X), cortex.obs["layer"].astype(object), cortex.var_names)


def test_a_gene_without_variance_scores_zero():
    counts = np.zeros((6, 3), dtype=np.float32)
    counts[:, 0], counts[:3, 1] = 4, 4
    scores = marker_scores(counts, counts.sum(axis=1), np.array([0, 0, 0, 1, 1, 1]), 2)
    assert list(scores[:, 2]) == [0, 0]
    assert scores[0, 1] > 0 > scores[0, 0]  # half of each spot's counts, against all of them
