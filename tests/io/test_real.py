"""Real tissues, read against pandas, and against what is known of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.ndimage import uniform_filter
from sklearn.metrics import roc_auc_score

from stcsm.io import add_labels, read, read_st


@pytest.mark.parametrize("replicate", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 11, 12))])
def test_bulb_is_what_pandas_reads(data_dir, replicate):
    path = data_dir / "mob" / f"Rep{replicate}_MOB_count_matrix-1.tsv.gz"
    adata, table = read_st(path), pd.read_csv(path, sep="\t", index_col=0)
    assert list(adata.obs_names) == list(table.index)
    assert list(adata.var_names) == list(table.columns)
    np.testing.assert_array_equal(adata.X.toarray(), table.to_numpy())
    assert adata.X.nnz == np.count_nonzero(table.to_numpy())


@pytest.mark.parametrize(("replicate", "labelled", "inner"), [(11, 260, "1: Granular Cell Layer"), (12, 277, "GCL")])
def test_bulb_labels(data_dir, replicate, labelled, inner):
    adata = read(data_dir / "mob" / f"Rep{replicate}_MOB_count_matrix-1.tsv.gz")
    add_labels(adata, data_dir / "mob" / f"Rep{replicate}_layers.csv")
    layer = adata.obs["layer"]
    assert layer.notna().sum() == labelled
    penk = np.asarray(adata[:, "Penk"].X.todense()).ravel() / np.maximum(np.asarray(adata.X.sum(axis=1)).ravel(), 1)
    assert roc_auc_score(layer[layer.notna()] == inner, penk[layer.notna()]) > 0.8


def test_replicate_1_lies_on_its_image(data_dir):
    folder = data_dir / "mob"
    adata = read_st(
        folder / "Rep1_MOB_count_matrix-1.tsv.gz",
        image=folder / "Rep1_HE_600px.jpg",
        transformation=folder / "Rep1_transformation_for_1856x1986.txt",
        image_shape=(1856, 1986),
    )
    (entry,) = adata.uns["spatial"].values()
    image = entry["images"]["hires"].astype(float)
    saturation = uniform_filter((image.max(axis=2) - image.min(axis=2)) / image.max(axis=2), 7)
    darkness = 255 - uniform_filter(image.mean(axis=2), 7)

    def under_spots(image, shift=(0, 0), flip=1):
        pixels = (adata.obsm["spatial"][:, ::flip] + shift) * entry["scalefactors"]["tissue_hires_scalef"]
        column, row = np.rint(pixels).astype(int).T
        return image[row, column]

    def on_tissue(**kwargs):
        return (under_spots(saturation, **kwargs) > 0.123).mean()  # Otsu's threshold of this image

    assert on_tissue() > 0.97
    # three spots off in any direction and far fewer lie on it: the image is not tissue everywhere
    assert max(on_tissue(shift=shift) for shift in [(174, 0), (-174, 0), (0, 174), (0, -174)]) < 0.85
    # granule cells express Penk and their layer is the darkest: holds for the right orientation only
    penk = np.asarray(adata[:, "Penk"].X.todense()).ravel() / np.asarray(adata.X.sum(axis=1)).ravel()
    assert stats.spearmanr(penk, under_spots(darkness)).statistic > 0.5
    assert stats.spearmanr(penk, under_spots(darkness, flip=-1)).statistic < 0.3


def test_cortex_is_read_as_it_is(data_dir):
    adata = read(data_dir / "visium" / "dlpfc151510.h5ad")
    assert adata.shape == (4634, 500)
    assert adata.obs["layer"].isna().sum() == 39
