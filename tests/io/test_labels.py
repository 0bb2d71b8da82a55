from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from stcsm.io import add_labels, read_labels

SPOTS = ["1x1", "2x1", "3x1", "4x1"]


@pytest.fixture
def adata():
    return ad.AnnData(np.ones((4, 2), np.float32), obs=pd.DataFrame(index=SPOTS))


FORMS = {
    "commas": "spot,layer\n1x1,L10\n2x1,L2\n3x1,\n4x1,L2\n",
    "tabs": "spot\tlayer\n1x1\tL10\n2x1\tL2\n3x1\tNA\n4x1\tL2\n",
    "semicolons, blanks, carriage returns": "spot;layer\r\n1x1; L10\r\n2x1;L2 \r\n3x1;\r\n4x1;L2\r\n",
    "quotes": '"spot","layer"\n"1x1","L10"\n"2x1","L2"\n"3x1",NA\n"4x1","L2"\n',
    "an empty corner": ",layer\n1x1,L10\n2x1,L2\n3x1,nan\n4x1,L2\n",
    "a missing corner": "layer\n1x1,L10\n2x1,L2\n3x1,nan\n4x1,L2\n",
    "no header": "1x1,L10\n2x1,L2\n3x1,\n4x1,L2\n",
    "another order": "spot,layer\n4x1,L2\n3x1,\n2x1,L2\n1x1,L10\n",
}


@pytest.mark.parametrize("text", FORMS.values(), ids=FORMS.keys())
@pytest.mark.parametrize("name", ["labels.csv", "labels.csv.gz"])
def test_same_labels_from_every_form(write, adata, text, name):
    add_labels(adata, write(text, name))
    assert adata.obs["layer"].tolist()[:2] == ["L10", "L2"]
    assert adata.obs["layer"].isna().tolist() == [False, False, True, False]
    assert adata.obs["layer"].cat.categories.tolist() == ["L2", "L10"]  # as a reader would order them


def test_labels_keep_their_text(write):
    labels = ["3: Outer, Plexiform", "L2/3", "couche été", "nonet", "0"]
    text = "spot,layer\n" + "".join(f'{i}x1,"{label}"\n' for i, label in enumerate(labels))
    assert read_labels(write(text)).tolist() == labels


def test_a_missing_corner_above_several_columns(write, adata):
    path = write('"depth","layer"\n"1x1","1","L1"\n"2x1","2","L2"\n"3x1","3","L1"\n"4x1","4","L2"\n')
    add_labels(adata, path, column="layer")
    assert adata.obs["layer"].tolist() == ["L1", "L2", "L1", "L2"]


@pytest.mark.parametrize("dtype", ["int64", "Int64", "uint8", "category", "string"])
def test_names_of_any_type_are_joined_by_their_text(dtype):
    adata = ad.AnnData(np.ones((3, 2), np.float32), obs=pd.DataFrame(index=["7", "12", "30"]))
    add_labels(adata, pd.Series(["b", "a", "c"], index=pd.Index([12, 7, 30]).astype(dtype)))
    assert adata.obs["layer"].tolist() == ["a", "b", "c"]


def test_barcodes_without_header(write):
    labels = read_labels(write("ACGCCTGACACGCGCT-1,L1\nTACCGATCCAACACTT-1,WM\n"))
    assert labels.index.tolist() == ["ACGCCTGACACGCGCT-1", "TACCGATCCAACACTT-1"]
    assert labels.name == "layer"


def test_one_column_of_several(write, adata):
    path = write("spot,cluster,layer\n1x1,a,L1\n2x1,b,L1\n3x1,a,L2\n4x1,b,L2\n")
    with pytest.raises(ValueError, match=r"one column of labels, found cluster, layer .*column="):
        read_labels(path)
    with pytest.raises(ValueError, match="one column 'depth', found the columns cluster, layer"):
        read_labels(path, column="depth")
    add_labels(adata, path, "area", column="cluster")
    assert adata.obs["area"].tolist() == ["a", "b", "a", "b"]
    assert "layer" not in adata.obs


def test_counts_both_sides_that_do_not_match(write, adata):
    path = write("spot,layer\n1x1,L1\n2x1,L2\n9x9,L1\n8x8,L1\n7x7,L3\n")
    with pytest.warns(UserWarning, match=r"for 2 of 4 spots: 2 spots of the data are not in .*, 3 spots of"):
        add_labels(adata, path)
    assert adata.obs["layer"].cat.categories.tolist() == ["L1", "L2"]


def test_says_nothing_where_all_match(write, adata):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        add_labels(adata, write("spot,layer\n1x1,L1\n2x1,L2\n3x1,\n4x1,L1\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("spot,layer\n9x9,L1\n8x8,L2\n", r"none in common: 2 spots in .* \(such as '9x9', '8x8'\), 4 in the data"),
        ("spot,layer\n1x1,L1\n1x1,L2\n", r"one label a spot, found 1 spots that occur more than once \(1x1\)"),
        ("spot,layer\n1x1,L1,x\n", "2 cells, as in the first line, found 3 in line 2"),
        ("spot,layer\n1x1,\n2x1,NA\n", "Expected labels in column 'layer', found none in 2 lines"),
        ("spot,layer\n1x1,\n9x9,L1\n", "without one"),
        ("spot,layer\n", "found none in 0 lines"),
        ("spot layer\n1x1 L1\n", "separated by commas or tabs, found 'spot layer'"),
        ('"spot,layer"\n"1x1,L1"\n', "found one column, 'spot,layer'"),
        ("\n\n", "blank lines"),
        ("", "empty file"),
    ],
    ids=[
        "no match",
        "twice",
        "cells",
        "all empty",
        "all matched empty",
        "header alone",
        "blanks",
        "all quoted",
        "blank",
        "empty",
    ],
)
def test_refuses_and_changes_nothing(write, adata, text, message):
    before = adata.obs.copy()
    with pytest.raises(ValueError, match=message):
        add_labels(adata, write(text))
    pd.testing.assert_frame_equal(adata.obs, before)


def test_an_existing_column_is_kept_unless_told(write, adata):
    adata.obs["layer"] = "mine"
    path = write("spot,layer\n1x1,L1\n2x1,L2\n3x1,L1\n4x1,L1\n")
    with pytest.raises(ValueError, match="new column, found 'layer'"):
        add_labels(adata, path)
    assert (adata.obs["layer"] == "mine").all()
    add_labels(adata, path, overwrite=True)
    assert adata.obs["layer"].tolist() == ["L1", "L2", "L1", "L1"]


def test_a_series_joins_like_a_file(adata):
    add_labels(adata, pd.Series({"4x1": "b10", "3x1": "b9", "2x1": "b9", "1x1": None}))
    assert adata.obs["layer"].tolist()[1:] == ["b9", "b9", "b10"]
    assert adata.obs["layer"].cat.categories.tolist() == ["b9", "b10"]
    assert pd.isna(adata.obs["layer"].iloc[0])


@pytest.mark.filterwarnings("ignore::anndata.ImplicitModificationWarning")
def test_a_view_gets_labels_and_its_parent_does_not(write, adata):
    view = adata[[3, 0]]
    with pytest.warns(UserWarning, match="2 of 2 spots"):
        add_labels(view, write("spot,layer\n1x1,L1\n2x1,L2\n3x1,\n4x1,L3\n"))
    assert view.obs["layer"].tolist() == ["L3", "L1"]
    assert "layer" not in adata.obs


def test_a_backed_file_gets_labels(write, adata, tmp_path):
    adata.write_h5ad(tmp_path / "a.h5ad")
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    add_labels(backed, write("spot,layer\n1x1,L1\n2x1,L2\n3x1,\n4x1,L1\n"))
    assert backed.isbacked
    assert backed.obs["layer"].tolist()[:2] == ["L1", "L2"]
    backed.file.close()


def test_labels_survive_h5ad(write, adata, tmp_path):
    add_labels(adata, write("spot,layer\n1x1,L2/3\n2x1,L10\n3x1,\n4x1,L2/3\n"))
    adata.write_h5ad(tmp_path / "a.h5ad")
    pd.testing.assert_series_equal(ad.read_h5ad(tmp_path / "a.h5ad").obs["layer"], adata.obs["layer"])
