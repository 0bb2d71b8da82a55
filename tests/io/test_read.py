from __future__ import annotations

import anndata as ad
import h5py
import numpy as np
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
    with pytest.raises(FileNotFoundError, match=r"folder of no platform that is known: .*there: nothing"):
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
