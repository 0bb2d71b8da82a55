"""Several sections in one frame get the rows and columns of one grid, and bins of their own."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
from scipy import sparse

from stcsm import datasets, pp, tl
from stcsm.models import GeneVAE


def on_array(seed: int, kept: np.ndarray) -> ad.AnnData:
    """Spots of a turned 8 x 9 array, off their points by a tenth."""
    rng = np.random.default_rng(seed)
    rows, cols = (x.ravel()[kept] for x in np.meshgrid(range(8), range(9), indexing="ij"))
    turn = np.array([[np.cos(0.3), np.sin(0.3)], [-np.sin(0.3), np.cos(0.3)]])
    xy = (np.column_stack([cols, rows]) + rng.normal(scale=0.05, size=(len(rows), 2))) @ turn * 55 + 400
    part = ad.AnnData(sparse.csr_matrix(rng.poisson(3.0, (len(rows), 20)).astype(np.float32)))
    part.obs["row"], part.obs["col"] = rows, cols
    part.obsm["spatial"] = xy
    part.obs_names = [f"s{i}" for i in kept]
    return part


def test_sections_on_one_array_get_one_grid():
    parts = {"a": on_array(0, np.arange(72)), "b": on_array(1, np.arange(20, 70))}
    both = ad.concat(parts, label="section", index_unique="-")
    pp.to_grid(both, batch_key="section")
    assert both.obs["array_row"].sub(both.obs["row"]).nunique() == 1
    assert both.obs["array_col"].sub(both.obs["col"]).nunique() == 1
    record = both.uns["stcsm"]["grid"]
    assert (record["n_cells"], record["most_spots_a_cell"], len(record["moved"])) == (72, 1, 0)
    GeneVAE.setup_anndata(both, batch_key="section")
    assert GeneVAE(both, smoothing=0.0, min_counts=1).describe()["n_positions"] == 72
    # Alone, a section has its own first row and column: the array positions would not be those of the other.
    alone = parts["b"].copy()
    pp.to_grid(alone)
    in_b = (both.obs["section"] == "b").to_numpy()
    assert (alone.obs["array_row"].to_numpy() != both.obs["array_row"].to_numpy()[in_b]).all()
    with pytest.raises(ValueError, match="square or hexagonal array"):
        pp.to_grid(ad.concat(parts, label="section", index_unique="-"))
    with pytest.raises(ValueError, match="section of each spot"):
        pp.to_grid(both, batch_key="slice")


def test_replicates_of_the_bulb_share_an_array(data_dir):
    parts = {str(r): datasets.mouse_olfactory_bulb(r, path=data_dir / "mob") for r in (11, 12)}
    both = ad.concat(parts, label="section", index_unique="-")
    pp.to_grid(both, spatial_key="spatial_array", batch_key="section")
    positions = both.obsm["spatial_array"]
    np.testing.assert_array_equal(both.obs["array_col"], np.floor(positions[:, 0] + 0.5))
    np.testing.assert_array_equal(both.obs["array_row"], np.floor(positions[:, 1] + 0.5))
    GeneVAE.setup_anndata(both, batch_key="section")


@pytest.fixture
def clouds() -> ad.AnnData:
    """Two sections of 900 cells in one frame, genes g0 to g19 on the left; the second has twice the counts."""
    parts = {}
    for seed, name in enumerate(("one", "two")):
        rng = np.random.default_rng(seed)
        xy = rng.uniform(size=(900, 2)) * [300, 200]
        rate = np.where((xy[:, 0] < 150)[:, None] == (np.arange(40) < 20), 2.0, 0.2) * (seed + 1)
        parts[name] = ad.AnnData(sparse.csr_matrix(rng.poisson(rate).astype(np.float32)))
        parts[name].obsm["spatial"] = xy
        parts[name].var_names = [f"g{i}" for i in range(40)]
        parts[name].obs_names = [f"c{i}" for i in range(900)]
    return ad.concat(parts, label="section", index_unique="-")


def test_bins_of_a_section_hold_its_own_cells_and_their_maps_come_back(clouds):
    pp.to_grid(clouds, bin_size=25, batch_key="section")
    bins = pp.bin_spots(clouds)
    for name in ("one", "two"):
        cells, own = clouds.obs["section"] == name, bins.obs["section"] == name
        np.testing.assert_array_equal(
            np.asarray(bins[own].X.sum(axis=0)).ravel(), np.asarray(clouds[cells].X.sum(axis=0)).ravel()
        )
    assert bins.obs_names.is_unique
    GeneVAE.setup_anndata(bins, batch_key="section")
    model = GeneVAE(bins, n_latent=4, n_hidden=16, smoothing=0.0)
    model.train(max_epochs=20, progress=False)
    tl.concepts(bins, model, genes={"left": ["g0", "g1", "g2"]})
    tl.saliency(bins, model)
    pp.from_bins(clouds, bins)
    found = clouds.obsm["concept_saliency"]["left"]
    assert found.notna().all()
    left = clouds.obsm["spatial"][:, 0] < 140
    for name in ("one", "two"):
        own = (clouds.obs["section"] == name).to_numpy()
        assert found[own & left].mean() > found[own & ~left].mean()
    # The cell's own bin, not that of the other section at the same position.
    cell = clouds.obs_names[1000]
    position = clouds.obs.loc[cell, ["array_row", "array_col"]].tolist()
    assert found[cell] == bins.obsm["concept_saliency"]["left"][f"bin_{position[0]}_{position[1]}-two"]


def test_bins_that_lost_their_sections_are_told_how_to_find_them(clouds):
    pp.to_grid(clouds, bin_size=25, batch_key="section")
    bins = pp.bin_spots(clouds)
    bins.obsm["concept_map"] = np.arange(bins.n_obs, dtype=float)[:, None]
    pp.to_grid(bins)
    with pytest.raises(ValueError, match=r"stand more than once; .*to_grid\(bins, batch_key=\.\.\.\)"):
        pp.from_bins(clouds, bins)
    pp.to_grid(bins, batch_key="section")
    pp.from_bins(clouds, bins)
    assert clouds.obsm["concept_map"].notna().all().all()
