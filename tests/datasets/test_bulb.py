from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.spatial import cKDTree
from sklearn.metrics import roc_auc_score

from stcsm.datasets import simulated_bulb

LAYERS = [
    "Granular Cell Layer",
    "Mitral Cell Layer",
    "Outer Plexiform Layer",
    "Glomerular Layer",
    "Olfactory Nerve Layer",
]
SEEDS = range(5)


@pytest.fixture(scope="module")
def bulbs() -> dict[int, ad.AnnData]:
    return {seed: simulated_bulb(seed=seed, image=False) for seed in SEEDS}


def totals(adata, axis):
    return np.asarray(adata.X.sum(axis=axis)).ravel()


def test_looks_like_a_real_one():
    adata = simulated_bulb()
    assert adata.shape == (600, 2000)
    assert sparse.isspmatrix_csr(adata.X)
    assert adata.X.dtype == np.float32
    assert (adata.X.data > 0).all()
    assert (adata.X.data == np.rint(adata.X.data)).all()
    assert adata.obs_names.is_unique
    assert adata.var_names.is_unique
    assert {"Penk", "Doc2g", "Slc6a11", "Calb2", "Kctd12"} <= set(adata.var_names)
    assert adata.obs["layer"].cat.categories.tolist() == LAYERS
    assert adata.uns["simulated_bulb"]["seed"] == 0


def test_same_seed_same_tissue_another_seed_another():
    first, again, other = (simulated_bulb(200, 300, seed=s, n_markers=5) for s in (3, 3, 4))
    np.testing.assert_array_equal(first.X.toarray(), again.X.toarray())
    pd.testing.assert_frame_equal(first.obs, again.obs)
    pd.testing.assert_frame_equal(first.var, again.var)
    image = [next(iter(a.uns["spatial"].values()))["images"]["hires"] for a in (first, again)]
    np.testing.assert_array_equal(*image)
    assert not np.array_equal(first.obsm["spatial_array"], other.obsm["spatial_array"])


def test_counts_do_not_depend_on_the_image_nor_on_the_global_seed():
    with_image = simulated_bulb(100, 200, n_markers=2)
    np.random.seed(1)  # noqa: NPY002
    without = simulated_bulb(100, 200, n_markers=2, image=False)
    np.testing.assert_array_equal(with_image.X.toarray(), without.X.toarray())
    assert np.random.get_state()[1][0] == 1  # noqa: NPY002


@pytest.mark.parametrize("lattice", ["square", "hex"])
@pytest.mark.parametrize("n_spots", [50, 333, 2000])
def test_exactly_as_many_spots_as_asked_in_one_piece(lattice, n_spots):
    adata = simulated_bulb(n_spots, 200, lattice=lattice, n_markers=2, image=False)
    assert adata.n_obs == n_spots
    assert adata.obs_names.is_unique
    assert (adata.obs["layer"].value_counts() > 0).all()
    pixels = adata.obsm["spatial"]
    distance, _ = cKDTree(pixels).query(pixels, k=2)
    (entry,) = adata.uns["spatial"].values()
    pitch = 2 * entry["scalefactors"]["spot_diameter_fullres"]
    assert distance[:, 1].max() < 1.2 * pitch
    assert distance[:, 1].min() > 0.75 * pitch


def test_hexagonal_lattice_is_numbered_as_visium_is():
    adata = simulated_bulb(300, 200, lattice="hex", n_markers=2, image=False)
    row, column = adata.obs["array_row"], adata.obs["array_col"]
    assert ((row + column) % 2 == (row + column).iloc[0] % 2).all()
    inner = adata.obs["layer"] == LAYERS[0]
    tree = cKDTree(adata.obsm["spatial"])
    assert np.mean([len(n) == 7 for n in tree.query_ball_point(adata.obsm["spatial"][inner], 105)]) > 0.95


def test_layers_lie_in_rings(bulbs):
    for adata in bulbs.values():
        centre = adata.obsm["spatial"].mean(axis=0)
        radius = np.linalg.norm(adata.obsm["spatial"] - centre, axis=1)
        means = [radius[adata.obs["layer"] == layer].mean() for layer in LAYERS]
        assert (np.diff(means) > 0).all()
        share = adata.obs["layer"].value_counts(normalize=True)[LAYERS]
        np.testing.assert_allclose(share, [0.26, 0.14, 0.23, 0.20, 0.17], atol=0.02)
        np.testing.assert_allclose(adata.obsm["layer_share"].sum(axis=1), 1)
        assert (adata.obsm["layer_share"].idxmax(axis=1) == adata.obs["layer"]).all()


def test_depth_is_what_the_counts_follow_and_confounds_one_layer(bulbs):
    for adata in bulbs.values():
        counts = totals(adata, 1)
        assert np.corrcoef(counts, adata.obs["depth"])[0, 1] > 0.9
        auroc = {layer: roc_auc_score(adata.obs["layer"] == layer, counts) for layer in LAYERS}
        assert auroc["Granular Cell Layer"] > 0.8  # 0.90 in replicate 11
        assert max(auroc[layer] for layer in LAYERS[1:]) < 0.6
        # depth also varies within a layer, so it is no label in disguise
        within = adata.obs["depth"].groupby(adata.obs["layer"], observed=True).std()
        assert (within > 0.15).all()


def test_programme_follows_no_layer_but_moves_its_genes(bulbs):
    for adata in bulbs.values():
        for layer in LAYERS:
            assert 0.3 < roc_auc_score(adata.obs["layer"] == layer, adata.obs["programme"]) < 0.7
        rate = adata.X.toarray() / adata.obs["depth"].to_numpy()[:, None]
        r = {}
        for kind in ("programme", "ubiquitous"):
            genes = (adata.var["kind"] == kind).to_numpy() & (totals(adata, 0) > 600)
            relative = (rate[:, genes] / rate[:, genes].mean(axis=0)).mean(axis=1)
            r[kind] = np.corrcoef(relative, adata.obs["programme"])[0, 1]
        assert r["programme"] > 0.75
        assert abs(r["ubiquitous"]) < 0.2


def test_markers_have_the_fold_change_they_claim(bulbs):
    """Unmixing the counts by the layers' shares gives back each marker's fold change, claimed against observed."""
    claimed, observed = [], []
    for adata in bulbs.values():
        genes = (adata.var["kind"] == "marker").to_numpy() & (totals(adata, 0) > 500)
        rate = adata.X.toarray()[:, genes] / adata.obs["depth"].to_numpy()[:, None]
        pure = np.linalg.lstsq(adata.obsm["layer_share"].to_numpy(), rate, rcond=None)[0]  # rate in each layer alone
        own = pure[adata.var["layer"].cat.codes.to_numpy()[genes], np.arange(genes.sum())]
        observed += list(np.log(own / ((pure.sum(axis=0) - own) / (len(LAYERS) - 1))))
        claimed += list(np.log(adata.var["strength"].to_numpy()[genes]))
    slope, offset = np.polyfit(claimed, observed, 1)
    assert slope == pytest.approx(1, abs=0.06)
    assert offset == pytest.approx(0, abs=0.06)
    assert np.corrcoef(claimed, observed)[0, 1] > 0.96


def test_genes_of_two_layers_are_high_in_both(bulbs):
    adata = bulbs[0]
    pairs = adata.varm["layer_fold"][adata.var["kind"] == "two_layers"]
    assert ((pairs > 1).sum(axis=1) == 2).all()
    strongest = adata.var[adata.var["kind"] == "two_layers"]["strength"].idxmax()
    assert adata.var.loc[strongest, "layer"] == "none"
    assert adata.varm["layer_fold"].loc[strongest].max() == pytest.approx(6)


def test_markers_span_strength_and_abundance_independently(bulbs):
    adata = bulbs[0]
    for name in LAYERS:
        markers = adata.var["layer"] == name
        strength, count = adata.var["strength"][markers], totals(adata, 0)[markers]
        assert strength.max() == pytest.approx(8)
        assert strength.min() == pytest.approx(1.5)
        assert np.quantile(count, 0.9) > 8 * np.quantile(count, 0.1)
        assert abs(np.corrcoef(strength, np.log1p(count))[0, 1]) < 0.6


def test_counts_are_overdispersed(bulbs):
    adata = bulbs[0]
    flat = (adata.var["kind"] == "ubiquitous").to_numpy()
    counts = adata.X.toarray()[:, flat & (totals(adata, 0) > adata.n_obs)]
    mean = adata.obs["depth"].to_numpy()[:, None] * (counts.sum(axis=0) / adata.obs["depth"].sum())
    dispersion = ((counts - mean) ** 2 - mean).sum(axis=0) / (mean**2).sum(axis=0)
    assert np.median(dispersion) == pytest.approx(0.2, abs=0.06)


def test_some_genes_are_too_rare_to_train_on(bulbs):
    share = np.mean([(totals(adata, 0) < 20).mean() for adata in bulbs.values()])
    assert 0.05 < share < 0.25  # 0.25 in replicate 11
    assert all(adata.X.sum() / adata.n_obs == pytest.approx(2500, rel=0.03) for adata in bulbs.values())


def test_survives_h5ad_and_reads_back_as_st_text(tmp_path):
    from stcsm.io import read

    adata = simulated_bulb(120, 200, n_markers=3)
    adata.write_h5ad(tmp_path / "bulb.h5ad")
    again = read(tmp_path / "bulb.h5ad")
    pd.testing.assert_frame_equal(again.obs, adata.obs)
    pd.testing.assert_frame_equal(again.varm["layer_fold"], adata.varm["layer_fold"])
    assert again.uns["simulated_bulb"]["lattice"] == "square"
    table = pd.DataFrame(adata.X.toarray().astype(int), index=adata.obs_names, columns=adata.var_names)
    table.to_csv(tmp_path / "bulb.tsv", sep="\t")
    text = read(tmp_path / "bulb.tsv")
    np.testing.assert_array_equal(text.X.toarray(), adata.X.toarray())
    np.testing.assert_allclose(text.obsm["spatial_array"], adata.obsm["spatial_array"])


def test_spots_lie_on_the_drawn_section_and_cores_are_dark():
    adata = simulated_bulb()
    (entry,) = adata.uns["spatial"].values()
    image, scale = entry["images"]["hires"], entry["scalefactors"]["tissue_hires_scalef"]
    assert image.dtype == np.uint8
    assert max(image.shape) == 600
    column, row = np.rint(adata.obsm["spatial"] * scale).astype(int).T
    saturation = image.max(axis=2).astype(int) - image.min(axis=2)
    assert (saturation[row, column] > 20).mean() > 0.99
    assert (saturation[:10] < 20).all()
    darkness = pd.Series(255 - image.mean(axis=2)[row, column]).groupby(adata.obs["layer"].to_numpy()).mean()
    assert darkness.idxmax() == "Granular Cell Layer"
    assert darkness.idxmin() == "Outer Plexiform Layer"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_spots": 49}, "at least 50 spots"),
        ({"n_genes": 199}, "at least 200 genes"),
        ({"lattice": "triangle"}, "'square' or 'hex'"),
        ({"n_markers": 0}, "1 to 200 markers"),
        ({"n_markers": 201}, "1 to 200 markers"),
        ({"counts_per_spot": 0}, "above 0"),
        ({"counts_per_spot": float("nan")}, "above 0"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        simulated_bulb(**settings)
