"""Spots get cells; counts are never lost; maps on bins come back to the points."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from stcsm import datasets, pp, tl
from stcsm.models import GeneVAE


@pytest.fixture
def cloud() -> ad.AnnData:
    """900 cells at random over 300 x 200 micrometres, 40 genes, the first half on the left."""
    rng = np.random.default_rng(0)
    xy = rng.uniform(size=(900, 2)) * [300, 200]
    rate = np.where((xy[:, 0] < 150)[:, None] == (np.arange(40) < 20), 2.0, 0.2)
    a = ad.AnnData(sparse.csr_matrix(rng.poisson(rate).astype(np.float32)))
    a.obs_names = [f"c{i}" for i in range(900)]
    a.var_names = [f"g{i}" for i in range(40)]
    a.obsm["spatial"] = xy
    a.obs["side"] = pd.Categorical(np.where(xy[:, 0] < 150, "left", "right"))
    return a


@pytest.mark.parametrize("replicate", [1, 2, 11, 12])
def test_bulb_arrays(data_dir, replicate):
    adata = datasets.mouse_olfactory_bulb(replicate, path=data_dir / "mob")
    before, positions = adata.copy(), adata.obsm["spatial_array"].copy()
    pp.to_grid(adata)
    np.testing.assert_array_equal(adata.obs["array_col"], np.floor(positions[:, 0] + 0.5))
    np.testing.assert_array_equal(adata.obs["array_row"], np.floor(positions[:, 1] + 0.5))
    record = adata.uns["stcsm"]["grid"]
    assert record["kind"] == "square"
    assert len(record["moved"]) == 0
    assert record["n_cells"] == adata.n_obs
    assert (adata.X != before.X).nnz == 0
    np.testing.assert_array_equal(adata.obsm["spatial"], before.obsm["spatial"])
    np.testing.assert_array_equal(adata.obsm["spatial_array"], positions)


def test_visium_positions_are_found_again_from_pixels(data_dir):
    adata = ad.read_h5ad(data_dir / "visium" / "dlpfc151510.h5ad")
    rows, cols = adata.obs["array_row"].to_numpy().copy(), adata.obs["array_col"].to_numpy().copy()
    pp.to_grid(adata)
    assert adata.uns["stcsm"]["grid"]["kind"] == "given"
    np.testing.assert_array_equal(adata.obs["array_row"], rows)
    pp.to_grid(adata, spatial_key="spatial")
    assert adata.uns["stcsm"]["grid"]["kind"] == "hexagonal"
    assert len(np.unique(adata.obs["array_row"] - rows)) == 1
    assert len(np.unique(adata.obs["array_col"] - cols)) == 1


def test_clash_is_reported_and_no_count_is_lost(caplog):
    rows, cols = (v.ravel() for v in np.meshgrid(range(7), range(7), indexing="ij"))
    xy = np.column_stack([cols, rows]).astype(float)
    xy[25] = xy[24]
    a = ad.AnnData(sparse.csr_matrix(np.ones((49, 3), np.float32)), obsm={"spatial": xy})
    pp.to_grid(a)
    assert "1 of 49 spots" in caplog.text
    assert a.uns["stcsm"]["grid"]["moved"].tolist() == ["25"]
    assert not a.obs.duplicated(["array_row", "array_col"]).any()
    assert a.X.sum() == 147


def test_fractional_array_coordinates_are_kept():
    rng = np.random.default_rng(0)
    rows, cols = (v.ravel() for v in np.meshgrid(range(6), range(6), indexing="ij"))
    xy = np.column_stack([cols, rows]) + rng.uniform(-0.1, 0.1, size=(36, 2))
    a = ad.AnnData(sparse.csr_matrix(np.ones((36, 2), np.float32)), obsm={"spatial": xy * 50})
    a.obs["array_col"], a.obs["array_row"] = xy.T
    pp.to_grid(a)
    np.testing.assert_array_equal(a.obsm["spatial_array"], xy)
    np.testing.assert_array_equal(a.obs["array_row"], rows)


def test_bins_add_up_and_maps_come_back(cloud, tmp_path):
    pp.to_grid(cloud, bin_size=20)
    assert cloud.uns["stcsm"]["grid"]["n_rows"] == 10
    assert cloud.uns["stcsm"]["grid"]["n_cols"] == 15
    bins = pp.bin_spots(cloud, labels="side")
    assert bins.X.sum() == cloud.X.sum()
    assert bins.obs["n_spots"].sum() == 900
    one = bins.obs.iloc[17]
    inside = (cloud.obs["array_row"] == one["array_row"]) & (cloud.obs["array_col"] == one["array_col"])
    np.testing.assert_array_equal(bins.X[17].toarray()[0], cloud.X[inside.to_numpy()].sum(axis=0).A1)
    np.testing.assert_allclose(bins.obsm["spatial"][17], cloud.obsm["spatial"][inside].mean(axis=0))
    GeneVAE.setup_anndata(bins)
    model = GeneVAE(bins, encoder="conv", n_latent=4, n_hidden=16)
    model.train(max_epochs=30, progress=False)
    tl.concepts(bins, model, genes={"left": ["g1", "g2"]})
    tl.decoded(bins, model)
    pp.from_bins(cloud, bins)
    values = cloud.obsm["concept_decoded"]["left"]
    assert values.notna().all()
    assert (values[inside] == bins.obsm["concept_decoded"]["left"].iloc[17]).all()
    left = (cloud.obs["side"] == "left").to_numpy()
    assert values[left].mean() > values[~left].mean()
    cloud.write_h5ad(tmp_path / "cells.h5ad")


def test_units_and_target_size(cloud):
    cloud.obsm["spatial"] *= 4
    pp.to_grid(cloud, bin_size=20, microns_per_unit=0.25)
    rows = cloud.obs["array_row"].to_numpy()
    cloud.uns["spatial"] = {"x": {"scalefactors": {"microns_per_pixel": 0.25}}}
    pp.to_grid(cloud, bin_size=20)
    np.testing.assert_array_equal(cloud.obs["array_row"], rows)
    pp.to_grid(cloud, n_bins=12)
    assert cloud.obs["array_col"].max() == 11
    assert cloud.uns["stcsm"]["grid"]["n_cols"] == 12


@pytest.mark.parametrize("kind", ["csc", "dense", "backed"])
def test_kind_of_matrix_does_not_matter(cloud, kind, tmp_path):
    pp.to_grid(cloud, bin_size=30)
    expected = pp.bin_spots(cloud).X.toarray()
    if kind == "backed":
        cloud.write_h5ad(tmp_path / "c.h5ad")
        other = ad.read_h5ad(tmp_path / "c.h5ad", backed="r")
    else:
        other = cloud.copy()
        other.X = other.X.tocsc() if kind == "csc" else other.X.toarray()
    np.testing.assert_array_equal(pp.bin_spots(other).X.toarray(), expected)


def test_spatialdata_rasterises_what_to_grid_wrote(cloud):
    spatialdata = pytest.importorskip("spatialdata")
    from spatialdata.models import PointsModel, TableModel

    pp.to_grid(cloud, bin_size=20)
    bins = pp.bin_spots(cloud)
    bins.X = bins.X.tocsc()
    bins.obs["region"] = pd.Categorical(["bins"] * bins.n_obs)
    bins.obs["instance"] = np.arange(bins.n_obs)
    table = TableModel.parse(bins, region="bins", region_key="region", instance_key="instance")
    points = PointsModel.parse(bins.obsm["spatial"])
    sdata = spatialdata.SpatialData(points={"bins": points}, tables={"table": table})
    image = spatialdata.rasterize_bins(
        sdata, "bins", "table", col_key="array_col", row_key="array_row", value_key="g3"
    ).to_numpy()[0]
    expected = np.zeros(image.shape)
    expected[bins.obs["array_row"], bins.obs["array_col"]] = bins[:, "g3"].X.toarray()[:, 0]
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({}, ValueError, "bin_size=... .micrometres. or n_bins="),
        ({"bin_size": 5, "n_bins": 3}, ValueError, "found both"),
        ({"bin_size": 0}, ValueError, "positive"),
        ({"bin_size": "20"}, ValueError, "positive"),
        ({"n_bins": 2.5}, ValueError, "whole number"),
        ({"bin_size": 1, "microns_per_unit": -1}, ValueError, "microns_per_unit"),
        ({"spatial_key": "umap"}, ValueError, "umap"),
        ({"bin_size": 1e-6}, MemoryError, "larger bins"),
    ],
)
def test_bad_settings_change_nothing(cloud, kwargs, error, message):
    before = cloud.copy()
    with pytest.raises(error, match=message):
        pp.to_grid(cloud, **kwargs)
    assert list(cloud.obs) == list(before.obs)
    assert "stcsm" not in cloud.uns


def test_bad_coordinates_are_refused(cloud):
    cloud.obsm["spatial"][5] = np.nan
    for kwargs in ({}, {"bin_size": 20}, {"n_bins": 4}):
        with pytest.raises(ValueError, match="finite"):
            pp.to_grid(cloud, **kwargs)
    cloud.obsm["spatial"] = np.zeros((900, 3))
    with pytest.raises(ValueError, match="flat"):
        pp.to_grid(cloud, bin_size=20)


def test_bins_without_positions_or_maps_are_refused(cloud):
    with pytest.raises(ValueError, match="to_grid"):
        pp.bin_spots(cloud)
    pp.to_grid(cloud, bin_size=20)
    bins = pp.bin_spots(cloud)
    with pytest.raises(ValueError, match="concept_map"):
        pp.from_bins(cloud, bins)
    with pytest.raises(ValueError, match="side2"):
        pp.bin_spots(cloud, labels="side2")
