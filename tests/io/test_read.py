from __future__ import annotations

import re
import shutil

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest

from stcsm.io import read, read_st


def test_text_goes_to_the_st_reader(st_file):
    path = st_file(name="counts.tsv.gz")
    np.testing.assert_array_equal(read(path).X.toarray(), read_st(path).X.toarray())


@pytest.mark.parametrize("name", ["a.h5ad", "a.h5", "no_suffix"])
def test_h5ad_is_known_by_its_content(tmp_path, name):
    adata = ad.AnnData(np.eye(3, dtype=np.float32), layers={"counts": np.eye(3, dtype=np.float32)})
    adata.write_h5ad(tmp_path / "x.h5ad")
    (tmp_path / "x.h5ad").rename(tmp_path / name)
    assert read(str(tmp_path / name), layer="counts").shape == (3, 3)
    with pytest.raises(ValueError, match=r"layer 'raw', found 'counts' in .*layer="):
        read(tmp_path / name, layer="raw")


def test_a_table_has_no_layers(st_file):
    with pytest.raises(ValueError, match="layer 'counts', found none"):
        read(st_file(), layer="counts")


def test_refuses_what_it_does_not_know(write, tmp_path):
    with pytest.raises(ValueError, match=r"unknown kind: .*counts.xlsx"):
        read(write("PK", "counts.xlsx"))
    with pytest.raises(ValueError, match="HDF5 file, found other content"):
        read(write("text", "a.h5ad"))
    with pytest.raises(FileNotFoundError, match="found nothing at"):
        read(tmp_path / "absent.h5ad")
    with pytest.raises(ValueError, match="empty file"):
        read(write("", "empty.h5ad"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileNotFoundError, match="without anything Space Ranger writes"):
        read(tmp_path / "folder")


def test_refuses_damaged_and_foreign_hdf5(tmp_path, write):
    ad.AnnData(np.ones((200, 50), np.float32)).write_h5ad(tmp_path / "a.h5ad")
    whole = (tmp_path / "a.h5ad").read_bytes()
    with pytest.raises(ValueError, match="whole HDF5 file, found one that does not open"):
        read(write(whole[: len(whole) // 2], "cut.h5ad"))
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["image"] = np.zeros(3)
    with pytest.raises(ValueError, match=r"obs and var, found the groups \['image'\]"):
        read(tmp_path / "other.h5")
    with h5py.File(tmp_path / "odd.h5ad", "w") as file:
        file["obs"], file["var"] = np.zeros(3), np.zeros(3)
        file.attrs["encoding-type"], file.attrs["encoding-version"] = "anndata", "0.1.0"
    with pytest.raises(ValueError, match="AnnData file"):
        read(tmp_path / "odd.h5ad")


@pytest.fixture
def outs(data_dir, tmp_path):
    """A copy of a real Space Ranger 1 folder that a test may change."""
    folder = tmp_path / "sample" / "outs"
    shutil.copytree(data_dir / "visium" / "outs_spaceranger_1", folder)
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755)
    return folder


def positions(outs) -> pd.DataFrame:
    names = ["barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres"]
    return pd.read_csv(outs / "spatial" / "tissue_positions_list.csv", names=names)


def check_spots(adata, table):
    table = table.set_index("barcode").loc[adata.obs_names]
    np.testing.assert_array_equal(adata.obsm["spatial"], table[["pxl_col_in_fullres", "pxl_row_in_fullres"]])
    np.testing.assert_array_equal(adata.obs["array_row"], table["array_row"])
    assert adata.shape == (100, 100)
    assert adata.var_names.is_unique


def test_spaceranger_1(outs):
    check_spots(read(outs), positions(outs))
    check_spots(read(outs.parent), positions(outs))  # the folder that holds outs


def test_spaceranger_2(outs):
    table = positions(outs)
    table.to_csv(outs / "spatial" / "tissue_positions.csv", index=False)
    (outs / "spatial" / "tissue_positions_list.csv").unlink()
    check_spots(read(outs), table)


def test_spaceranger_survives_h5ad_and_draws(outs, tmp_path):
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    import squidpy as sq

    read(outs).write_h5ad(tmp_path / "a.h5ad")
    again = read(tmp_path / "a.h5ad")
    check_spots(again, positions(outs))
    sq.pl.spatial_scatter(again, color=again.var_names[0])
    plt.close("all")


def test_spaceranger_matrix_without_a_library_name(outs):
    with h5py.File(outs / "filtered_feature_bc_matrix.h5", "r+") as file:
        del file.attrs["library_ids"]
    assert list(read(outs).uns["spatial"]) == ["sample"]


def test_spaceranger_gene_symbols_that_stand_twice(outs):
    with h5py.File(outs / "filtered_feature_bc_matrix.h5", "r+") as file:
        names = file["matrix/features/name"][:]
        names[5] = names[3]
        file["matrix/features/name"][:] = names
    with pytest.warns(UserWarning, match="1 gene symbols that occur more than once"):
        assert read(outs).var_names.is_unique


@pytest.mark.parametrize("gone", ["filtered_feature_bc_matrix.h5", "spatial/scalefactors_json.json"])
def test_spaceranger_folder_with_a_file_missing(outs, gone):
    (outs / gone).unlink()
    with pytest.raises(FileNotFoundError, match=f"found no {re.escape(gone)}"):
        read(outs)


def test_spaceranger_positions_of_another_run(outs):
    table = positions(outs)
    table["barcode"] = table["barcode"].str[::-1]
    table.to_csv(outs / "spatial" / "tissue_positions_list.csv", index=False, header=False)
    with pytest.raises(ValueError, match="none for 100 of 100 spots"):
        read(outs)


def test_a_bare_matrix_has_no_coordinates(data_dir):
    folder = data_dir / "visium" / "outs_spaceranger_2"
    with pytest.raises(ValueError, match="bare 10x matrix, which has none"):
        read(folder / "raw_probe_bc_matrix.h5")
    with pytest.raises(FileNotFoundError, match=r"found no filtered_feature_bc_matrix.h5"):
        read(folder)
