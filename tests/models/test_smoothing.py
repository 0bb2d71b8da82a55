"""Width of the spatial filter, chosen by held-out counts."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse

from stcsm.models import GeneVAE
from stcsm.models._batches import most_counted


def section(scale: float, counts_per_gene: float, seed: int = 0) -> AnnData:
    """14 x 14 spots, 120 genes of one smooth pattern a gene; ``scale`` is its wavelength in spots."""
    rng = np.random.default_rng(seed)
    xy = np.stack(np.meshgrid(np.arange(14.0), np.arange(14.0)), -1).reshape(-1, 2)
    rate = np.empty((196, 120))
    for g in range(120):
        direction = rng.normal(size=2)
        wave = xy @ direction / np.linalg.norm(direction) * 2 * np.pi / scale + rng.uniform(0, 2 * np.pi)
        rate[:, g] = np.exp(1.2 * np.sin(wave))
    rate *= counts_per_gene / rate.sum(axis=0)
    adata = AnnData(sparse.csr_matrix(rng.poisson(rate).astype(np.float32)))
    adata.obsm["spatial"] = xy
    GeneVAE.setup_anndata(adata)
    return adata


def chosen(adata: AnnData, **settings) -> float:
    model = GeneVAE(adata, n_hidden=32, n_latent=8, **settings)
    assert model.settings["smoothing"] == "auto"
    model.train(max_epochs=1, max_steps=1, progress=False)
    return model.settings["smoothing"]


def test_broad_patterns_of_few_counts_want_a_wide_filter_and_fine_ones_none():
    broad = chosen(section(scale=40, counts_per_gene=100))
    fine = chosen(section(scale=2.3, counts_per_gene=4000))
    assert fine == 0
    assert broad >= 1


@pytest.mark.parametrize("counts_per_gene", [100, 1000])
def test_thin_stripes_are_not_filtered_away(counts_per_gene):
    adata = section(scale=40, counts_per_gene=counts_per_gene)
    stripe = (adata.obsm["spatial"][:, :1] % 2 == 0) == (np.arange(120) % 2 == 0)
    rate = np.where(stripe, 1.7, 0.3) * counts_per_gene / 196
    adata.X = sparse.csr_matrix(np.random.default_rng(0).poisson(rate).astype(np.float32))
    assert chosen(adata) == 0


def test_counts_without_a_pattern_have_nothing_to_filter():
    adata = section(scale=40, counts_per_gene=400)
    adata.X = sparse.csr_matrix(np.random.default_rng(0).poisson(2.0, adata.shape).astype(np.float32))
    assert chosen(adata) == 0


def test_the_choice_does_not_depend_on_the_blocks_that_are_read(monkeypatch, caplog):
    adata = section(scale=40, counts_per_gene=100)
    said = []
    for block in (256, 7):
        monkeypatch.setattr("stcsm.models._counts.BLOCK", block)
        caplog.clear()
        with caplog.at_level("INFO"):
            chosen(adata)
        said.append([r.getMessage() for r in caplog.records if r.getMessage().startswith("smoothing")])
    assert len(said[0]) == 1
    assert said[0] == said[1]


def test_faint_genes_are_ignored(monkeypatch):
    """Genes of few counts are noise, and a wide filter would remove it."""
    monkeypatch.setattr("stcsm.models._training.SEARCH_GENES", 100)
    fine = section(scale=4, counts_per_gene=400)
    faint = np.random.default_rng(1).poisson(0.15, size=(196, 1500)).astype(np.float32)
    adata = AnnData(sparse.hstack([sparse.csr_matrix(faint), fine.X], format="csr"), obsm=dict(fine.obsm))
    GeneVAE.setup_anndata(adata)
    model = GeneVAE(adata, n_hidden=32, n_latent=8)
    model.train(max_epochs=1, max_steps=1, progress=False)
    assert model.settings["smoothing"] <= 0.5


def test_a_faint_section_has_as_many_genes_in_the_search():
    deep, shallow = section(4, 400), section(4, 50)
    both = ad.concat({"deep": deep, "shallow": shallow}, label="section", index_unique="-")
    GeneVAE.setup_anndata(both, batch_key="section")
    model = GeneVAE(both, n_hidden=8, n_latent=4)
    chosen_samples = most_counted(model.samples, model.trained_samples, 20)
    assert np.bincount(model.samples.section(chosen_samples)).tolist() == [10, 10]
    totals = model.samples.gene_totals
    for b in range(2):
        own = model.trained_samples[model.samples.section(model.trained_samples) == b]
        picked = chosen_samples[model.samples.section(chosen_samples) == b]
        assert totals[picked].min() >= np.sort(totals[own])[-10]


def test_the_choice_is_kept_saved_and_repeated(tmp_path):
    adata = section(scale=40, counts_per_gene=100)
    models = [GeneVAE(adata, n_hidden=16, n_latent=4) for _ in range(2)]
    for model in models:
        model.train(max_epochs=5, progress=False)
    assert f"smoothing {model.settings['smoothing']}" in model.summary_string
    assert models[0].fingerprint() == models[1].fingerprint()
    width = models[0].settings["smoothing"]
    models[0].train(max_epochs=1, progress=False)
    assert models[0].settings["smoothing"] == width
    models[0].save(tmp_path / "model")
    assert GeneVAE.load(tmp_path / "model", adata).settings["smoothing"] == width


@pytest.mark.parametrize("width", [0.0, 0.5])
def test_a_given_width_is_not_searched(width):
    model = GeneVAE(section(scale=40, counts_per_gene=100), n_hidden=16, n_latent=4, smoothing=width)
    model.train(max_epochs=1, progress=False)
    assert model.settings["smoothing"] == width
