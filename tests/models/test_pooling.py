"""Coarse features, fine maps: the model sees sums over neighbouring spots, and maps come back to the spots."""

from __future__ import annotations

import json

import anndata as ad
import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse

from stcsm import tl
from stcsm.attribution import attribute
from stcsm.models import GeneVAE, _counts

SMALL = {"smoothing": 1.0, "n_latent": 4, "n_hidden": 16}
SIDE, GENES = 12, 60


def tissue(arrayed: bool = True, seed: int = 0) -> AnnData:
    """12 x 12 spots, left half A and right half B; genes a0.. are on in A, b0.. in B, the others everywhere."""
    rng = np.random.default_rng(seed)
    rows, cols = np.indices((SIDE, SIDE)).reshape(2, -1)
    left = (cols < SIDE // 2)[:, None]
    third = np.arange(GENES) // (GENES // 3)
    rate = np.select([(third == 0) & left, (third == 1) & ~left, third == 2], [3.0, 3.0, 1.0], 0.2)
    adata = AnnData(sparse.csr_matrix(rng.poisson(rate * rng.uniform(0.5, 2, (SIDE**2, 1))).astype(np.float32)))
    adata.obs_names = [f"s{i}" for i in range(SIDE**2)]
    adata.var_names = [f"{'abc'[t]}{g}" for g, t in enumerate(third)]
    adata.obs["region"] = np.where(left.ravel(), "A", "B")
    jitter = 0 if arrayed else rng.uniform(-0.4, 0.4, (SIDE**2, 2))
    adata.obsm["spatial"] = np.column_stack([cols, rows]) + jitter
    if arrayed:
        adata.obs["array_row"], adata.obs["array_col"] = rows, cols
    return adata


def fitted(adata: AnnData, resolution, batch_key=None, **kwargs) -> GeneVAE:
    GeneVAE.setup_anndata(adata, batch_key=batch_key)
    model = GeneVAE(adata, resolution=resolution, **{**SMALL, **kwargs})
    model.train(max_epochs=15, progress=False)
    return model


def feature_of(model: GeneVAE) -> np.ndarray:
    return model.maps_to_spots(np.arange(model.input_shape[0]))


@pytest.fixture(scope="module", params=[True, False], ids=["array", "points"])
def pooled(request) -> tuple[AnnData, GeneVAE]:
    adata = tissue(request.param)
    return adata, fitted(adata, 36)


def binned(adata: AnnData, feature: np.ndarray) -> AnnData:
    """The tissue binned by hand with the same cells."""
    cells = sparse.csr_matrix((np.ones(len(feature)), (feature, np.arange(len(feature)))))
    bins = AnnData(sparse.csr_matrix((cells @ adata.X).astype(np.float32)))
    bins.var_names = adata.var_names
    bins.obsm["spatial"] = (cells @ adata.obsm["spatial"]) / np.asarray(cells.sum(axis=1))
    return bins


def test_is_the_model_of_a_tissue_binned_by_hand(pooled):
    adata, model = pooled
    feature = feature_of(model)
    assert model.settings["resolution"] == 36
    assert model.describe()["n_features"] == 36
    assert np.array_equal(np.bincount(feature), np.full(36, 4))
    bins = binned(adata, feature)
    assert np.array_equal(model.samples.profiles(np.arange(GENES)).T, bins.X.toarray())
    other = fitted(bins, "full")
    assert np.array_equal(model.inputs(), other.inputs())
    z = model.get_latent_representation()
    assert np.array_equal(z, other.get_latent_representation())
    assert np.array_equal(model.decode(z), other.decode(z)[:, feature])
    assert model.get_elbo() == other.get_elbo()


def test_the_filter_s_width_is_chosen_on_features():
    adata = tissue()
    model = fitted(adata, 36, smoothing="auto")
    other = fitted(binned(adata, feature_of(model)), "full", smoothing="auto")
    assert model.settings["smoothing"] == other.settings["smoothing"]
    assert np.array_equal(model.get_latent_representation(), other.get_latent_representation())


@pytest.mark.parametrize("method", ["integrated_gradients", "epsilon_lrp", "deeplift"])
def test_attributions_of_a_gene_are_complete_over_spots(pooled, method):
    adata, model = pooled
    adata = adata.copy()
    tl.embed_genes(adata, model)
    tl.concepts(adata, model, genes={"A": list(adata.var_names[:20])})
    genes = ["a3", "b25", "c50"]
    found = tl.gene_saliency(adata, model, "A", genes, method=method)
    vector = np.asarray(adata.uns["stcsm"]["concepts"]["A"]["vectors"])[0].astype(np.float32)
    inputs = model.inputs(genes)
    over_features = attribute(model.encoder, inputs, vector, method).numpy()
    assert np.allclose(found.X.sum(axis=1), over_features.sum(axis=1), atol=1e-6)
    if method == "integrated_gradients":
        scores = [model.encoder(x).detach().numpy() @ vector for x in (inputs, 0 * inputs)]
        assert np.allclose(found.X.sum(axis=1), scores[0] - scores[1], atol=1e-2 * np.abs(scores).max())
    # A spot's share of its feature is its share of the gene's counts there.
    feature, x = feature_of(model), adata[:, genes].X.toarray().T
    for gene in range(3):
        whole, counts = (np.bincount(feature, v, 36) for v in (found.X[gene], x[gene]))
        has = counts[feature] > 0
        assert np.allclose(
            found.X[gene][has], (whole[feature] * x[gene] / np.maximum(counts[feature], 1))[has], atol=1e-6
        )


def test_mean_maps_are_those_of_single_genes(pooled):
    adata, model = pooled
    adata = adata.copy()
    tl.embed_genes(adata, model)
    tl.concepts(adata, model, genes={"A": list(adata.var_names[:20]), "B": list(adata.var_names[20:40])})
    genes = ["a3", "b25", "c50"]
    for method in ("integrated_gradients", "saliency", "rectgrad"):
        tl.saliency(adata, model, method=method, genes=genes, key_added="m")
        single = tl.gene_saliency(adata, model, "A", genes, method=method)
        assert np.allclose(adata.obsm["m"]["A"], single.X.mean(axis=0), atol=1e-6)
    tl.saliency(adata, model, genes=genes)
    gradient, feature = adata.obsm["concept_saliency"]["A"].to_numpy(), feature_of(model)
    assert len(np.unique(gradient)) <= 36
    assert np.array_equal(gradient, gradient[np.unique(feature, return_index=True)[1]][feature])


def test_every_step_takes_a_pooled_model(pooled):
    adata, model = pooled
    adata = adata.copy()
    tl.embed_genes(adata, model)
    tl.concepts(adata, model, groupby="region", estimator="profile")
    tl.concepts(adata, model, groupby="region")
    tl.saliency(adata, model, method="integrated_gradients")
    tl.significance(adata, model, n_random=20)
    tl.decoded(adata, model)
    tl.concept_map(adata, model)
    tl.sanity(adata, model, n_random=5, n_draws=1)
    for key in ("concept_saliency", "concept_saliency_pval", "concept_decoded", "concept_map"):
        assert np.isfinite(adata.obsm[key].to_numpy()).all()
    in_a = adata.obs["region"].to_numpy() == "A"
    maps = adata.obsm["concept_map"]["A"].to_numpy()
    assert maps[in_a].mean() > maps[~in_a].mean() + 1


def test_saves_and_loads(pooled, tmp_path):
    adata, model = pooled
    model.save(tmp_path / "model")
    same = GeneVAE.load(tmp_path / "model", adata)
    assert same.fingerprint() == model.fingerprint()
    assert np.array_equal(same.get_latent_representation(), model.get_latent_representation())
    # Another section at the same positions, which lacks some: the features are the model's.
    other = adata[5:].copy()
    moved = GeneVAE.load(tmp_path / "model", other, match="positions")
    assert np.array_equal(feature_of(moved), feature_of(model)[5:])
    counts = np.stack([np.bincount(feature_of(model)[5:], x, 36) for x in other.X.toarray().T])
    u = np.log1p(counts / (counts.sum(axis=1, keepdims=True) * counts.sum(axis=0) / counts.sum() + 0.5))
    assert np.allclose(moved.inputs(section=""), u, atol=1e-6)


def test_sections_share_their_features():
    first, second = tissue(), tissue(seed=1)[:140].copy()
    both = ad.concat({"one": first, "two": second}, label="section", index_unique="-")
    model = fitted(both, 36, batch_key="section")
    whole = fitted(both, "full", batch_key="section", smoothing=0.0)
    feature = feature_of(model)
    assert np.array_equal(feature[:144][:140], feature[144:])
    own = both[both.obs["section"] == "two"].X.toarray().T
    counts = np.stack([np.bincount(feature[144:], x, 36) for x in own])
    u = np.log1p(counts / (counts.sum(axis=1, keepdims=True) * counts.sum(axis=0) / counts.sum() + 0.5))
    assert np.allclose(model.inputs(section="two"), u, atol=1e-6)
    genes = np.arange(5)
    assert np.array_equal(model.expected_counts(genes), whole.expected_counts(genes))
    assert model.describe()["n_positions"] == 144
    tl.embed_genes(both, model)
    tl.concepts(both, model, genes={"A": list(both.var_names[:20])})
    assert np.isfinite(tl.gene_saliency(both, model, "A", ["a3"]).X).all()


def test_pools_counts_that_stay_in_a_file(pooled, tmp_path, monkeypatch):
    adata, model = pooled
    on_disk = adata.copy()
    on_disk.X = on_disk.X.tocsc()
    on_disk.write_h5ad(tmp_path / "counts.h5ad")
    monkeypatch.setattr(_counts, "IN_MEMORY", 0)
    other = fitted(ad.read_h5ad(tmp_path / "counts.h5ad", backed="r"), 36)
    assert isinstance(other.samples._store, _counts.ScratchGenes)
    assert np.array_equal(model.get_latent_representation(), other.get_latent_representation())
    assert other.fingerprint() == model.fingerprint()


def test_below_the_limit_nothing_changes(tmp_path):
    adata = tissue()
    model, full = fitted(adata, "auto"), fitted(adata, "full")
    assert model.settings["resolution"] == "full"
    assert not model.is_pooled
    assert model.fingerprint() == full.fingerprint() == fitted(adata, SIDE**2).fingerprint()
    model.save(tmp_path / "model")
    # A model of an earlier version has no resolution among its settings.
    (written,) = (tmp_path / "model").glob("*.json")
    saved = json.loads(written.read_text())
    del saved["settings"]["resolution"]
    written.write_text(json.dumps(saved))
    earlier = GeneVAE.load(tmp_path / "model", adata)
    assert np.array_equal(earlier.get_latent_representation(), model.get_latent_representation())


def test_automatic_resolution_pools_large_sections(monkeypatch):
    monkeypatch.setattr("stcsm.models._setup.MOST_FEATURES", 40)
    adata = tissue()
    GeneVAE.setup_anndata(adata)
    model = GeneVAE(adata, **SMALL)
    assert model.input_shape == (36,)
    assert model.settings["resolution"] == 40
    assert "pooled to 36 features" in model.summary_string
    assert not GeneVAE(adata, encoder="conv", **SMALL).is_pooled


@pytest.mark.parametrize("resolution", ["half", 1, True, 30.0, None])
def test_bad_resolution_is_refused(resolution):
    adata = tissue()
    GeneVAE.setup_anndata(adata)
    with pytest.raises(ValueError, match="Expected resolution to be 'auto', 'full' or"):
        GeneVAE(adata, resolution=resolution)
    with pytest.raises(ValueError, match="the cells of its grid, found 30; leave resolution out"):
        GeneVAE(adata, resolution=30, encoder="conv")
