"""A folder of tables in the ST text format: one section each, with what lies beside it."""

from __future__ import annotations

import gzip
import warnings

import numpy as np
import pytest
from PIL import Image

from stcsm.io import read, read_st

from .conftest import COUNTS, GENES, SPOTS, table_text

MATRIX = "100 0 0 0 100 0 50 200 1"  # x 100 and shifted; every spot lies on an image of 2000 x 2000


@pytest.fixture
def folder(write, tmp_path):
    """Three replicates, the second gzipped and with a gene of its own, the third with genes in rows."""
    write(table_text(SPOTS, GENES, COUNTS), "Rep1_MOB_count_matrix-1.tsv")
    write(table_text(SPOTS[:2], [*GENES[:3], "Own"], 2 * COUNTS[:2]), "Rep2_MOB_count_matrix-1.tsv.gz")
    write(table_text(GENES, SPOTS, 3 * COUNTS.T), "Rep11_MOB_count_matrix-1.tsv")
    write("spot,layer\n16.92x9.015,inner\n17x10,outer\n", "Rep1_layers.csv")
    write("spot,inner,outer\n", "empty.csv")
    write("notes about the experiment\nof many words\n", "README.txt")
    return tmp_path


def test_every_replicate_is_a_section(folder):
    adata = read(folder)
    assert list(dict.fromkeys(adata.obs["section"])) == ["Rep1", "Rep2", "Rep11"]
    assert list(adata.obs["section"].value_counts()[["Rep1", "Rep2", "Rep11"]]) == [3, 2, 3]
    assert adata.obs_names[0] == "16.92x9.015-Rep1"
    assert set(adata.var_names) == {*GENES, "Own"}  # a table omits genes without a count
    counts = adata.to_df()
    np.testing.assert_array_equal(counts[GENES].to_numpy()[:3], COUNTS)
    np.testing.assert_array_equal(counts[GENES].to_numpy()[5:], 3 * COUNTS)
    assert list(counts["Own"]) == [0, 0, 0, 0, 14, 0, 0, 0]
    np.testing.assert_array_equal(adata.obsm["spatial"], adata.obsm["spatial_array"])


def test_one_table_is_read_as_by_itself(folder):
    for path in folder.glob("Rep[12]*_MOB*"):
        if "Rep1_" not in path.name:
            path.unlink()
    adata, alone = read(folder), read_st(folder / "Rep1_MOB_count_matrix-1.tsv")
    assert "section" not in adata.obs
    np.testing.assert_array_equal(adata.X.toarray(), alone.X.toarray())


def test_transformations_and_images_of_the_same_name_are_used(folder):
    for k, name in enumerate(
        ["Rep1_MOB_transformation.txt", "Rep2_MOB_transformaton.txt", "Rep11_transformation_for_4000x4000.txt"]
    ):
        (folder / name).write_text(MATRIX.replace("50 200", f"{50 + k} 200"))
    Image.new("RGB", (2000, 2000), "red").save(folder / "HE_Rep1.jpg")
    Image.new("RGB", (400, 400), "blue").save(folder / "HE_Rep11_MOB.png")  # reduced; the name says from what
    adata = read(folder)
    array = adata.obsm["spatial_array"]
    shift = adata.obs["section"].map({"Rep1": 50, "Rep2": 51, "Rep11": 52}).to_numpy(dtype=float)
    np.testing.assert_allclose(
        adata.obsm["spatial"], 100 * array + np.column_stack([shift, np.full(len(array), 200.0)])
    )
    images = {name: entry["images"]["hires"] for name, entry in adata.uns["spatial"].items()}
    assert set(images) == {"Rep1", "Rep2", "Rep11"}
    assert images["Rep1"][5, 5].argmax() == 0
    assert images["Rep11"][5, 5].argmax() == 2
    assert adata.uns["spatial"]["Rep11"]["scalefactors"]["tissue_hires_scalef"] == pytest.approx(0.1)


def test_coordinates_of_all_sections_are_in_one_frame(folder):
    (folder / "Rep1_MOB_transformation.txt").write_text(MATRIX)
    with pytest.warns(UserWarning, match=r"1 of 3 sections have a transformation .* not Rep2.*, Rep11.*; none is used"):
        adata = read(folder)
    np.testing.assert_array_equal(adata.obsm["spatial"], adata.obsm["spatial_array"])


def test_an_image_that_does_not_fit_is_left_out_and_named(folder):
    for rep in (1, 2, 11):
        (folder / f"Rep{rep}_MOB_transformation.txt").write_text(MATRIX)
    Image.new("RGB", (20, 20)).save(folder / "HE_Rep1.jpg")
    with pytest.warns(UserWarning, match=r"image .*HE_Rep1.jpg is not used: .*on the image of 20 x 20"):
        adata = read(folder)
    assert adata.obsm["spatial"][0] == pytest.approx([100 * 16.92 + 50, 100 * 9.015 + 200])


def test_a_table_of_pixels_or_labels_is_no_section(folder, write):
    """One column a label, one row a spot: numbers under the names of spots, but no counts."""
    wide = [f"Gene{i}" for i in range(60)]
    for name in ("Rep1_MOB_count_matrix-1.tsv", "Rep11_MOB_count_matrix-1.tsv"):
        write(table_text(SPOTS, wide, np.ones((3, 60), int)), name)
    write(table_text(SPOTS, ["inner", "middle", "outer"], np.eye(3, dtype=int)), "Rep1_onehot.tsv")
    (folder / "Rep2_MOB_count_matrix-1.tsv.gz").unlink()
    with pytest.warns(UserWarning, match=r"Rep1_onehot.tsv in .* far fewer columns"):
        adata = read(folder)
    assert list(adata.obs["section"].unique()) == ["Rep1", "Rep11"]


def test_the_plain_one_of_two_copies_is_read(folder):
    plain = folder / "Rep1_MOB_count_matrix-1.tsv"
    (folder / "Rep1_MOB_count_matrix-1.tsv.gz").write_bytes(gzip.compress(plain.read_bytes()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(folder).n_obs == 8


@pytest.mark.parametrize("cut", [12, 60])
def test_a_damaged_replicate_is_not_passed_over(folder, cut):
    path = folder / "Rep2_MOB_count_matrix-1.tsv.gz"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match=r"cut short or damaged .*Rep2_MOB"):
        read(folder)


def test_bins_are_refused_before_the_tables_are_read(folder):
    with pytest.raises(ValueError, match="bin_size=8, found neither"):
        read(folder, bin_size=8)


def test_real_replicates(data_dir):
    with pytest.warns(UserWarning, match="1 of 4 sections have a transformation"):
        adata = read(data_dir / "mob")
    assert adata.obs["section"].value_counts().to_dict() == {"Rep1": 267, "Rep2": 280, "Rep11": 262, "Rep12": 282}
    alone = read(data_dir / "mob" / "Rep12_MOB_count_matrix-1.tsv.gz")
    part = adata[adata.obs["section"] == "Rep12", alone.var_names]
    assert (part.X != alone.X).nnz == 0
    assert adata.X.sum() == pytest.approx(part.X.sum() + adata[adata.obs["section"] != "Rep12"].X.sum())
