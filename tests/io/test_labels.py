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


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_labels_of_any_alphabet_as_excel_saves_them(write, encoding):
    labels = read_labels(write("spot\tlayer\n1x2\tN\xe9ocortex\n3x4\t\u5c64 2\n".encode(encoding), "labels.txt"))
    assert dict(labels) == {"1x2": "N\xe9ocortex", "3x4": "\u5c64 2"}


def test_labels_in_latin_1_are_refused_with_the_fix(write):
    path = write("spot,layer\n1x2,L1\n3x4,N\xe9ocortex\n".encode("latin-1"), "labels.csv")
    with pytest.raises(
        ValueError, match=r"line 3 of .*'\xe9' in Latin-1; save it in UTF-8 .in Excel: CSV UTF-8.*iconv"
    ):
        read_labels(path)


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
        ("spot layer\n1x1 L1\n", "separated by commas, tabs or semicolons, found 'spot layer'"),
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


MISSING_TEXTS = ["nan", "NaN", "NA", "N/A", "<NA>", "None", "none", "null", "", " "]


@pytest.mark.parametrize("text", MISSING_TEXTS)
def test_a_text_that_stands_for_no_label_is_one_in_files_and_in_memory(write, adata, text):
    path = write(f'spot,layer\n1x1,L1\n2x1,"{text}"\n3x1,L2\n4x1,L1\n')
    name_or_not = "None' or 'null'" if text.lower() in ("none", "null") else None
    with pytest.warns(UserWarning, match=name_or_not) if name_or_not else warnings.catch_warnings():
        assert read_labels(path).isna().tolist() == [False, True, False, False]
    for dtype in (object, "category", "string"):
        with pytest.warns(UserWarning, match="1 spots have a text that stands for no label"):
            add_labels(adata, pd.Series(["L1", text, "L2", "L1"], index=SPOTS, dtype=dtype), overwrite=True)
        assert adata.obs["layer"].isna().tolist() == [False, True, False, False]
        assert adata.obs["layer"].cat.categories.tolist() == ["L1", "L2"]


ONE_HOT = {
    "commas": "spot,GCL,MCL,EPL\n1x1,1,0,0\n2x1,0,1,0\n3x1,0,0,0\n4x1,1,0,0\n",
    "a missing corner": '"GCL"\t"MCL"\t"EPL"\n"1x1"\t1\t0\t0\n"2x1"\t0\t1\t0\n"3x1"\t0\t0\t0\n"4x1"\t1\t0\t0\n',
    "R's words": "spot,GCL,MCL\n1x1,TRUE,FALSE\n2x1,FALSE,TRUE\n3x1,FALSE,FALSE\n4x1,TRUE,FALSE\n",
    "floats and gaps": "spot;GCL;MCL\n1x1;1.0;0.0\n2x1;;1.0\n3x1;;NA\n4x1;1.0;\n",
}


@pytest.mark.parametrize("text", ONE_HOT.values(), ids=ONE_HOT.keys())
def test_a_column_of_zeros_and_ones_for_each_label(write, adata, text):
    add_labels(adata, write(text))
    assert adata.obs["layer"].tolist()[:2] == ["GCL", "MCL"]
    assert adata.obs["layer"].isna().tolist() == [False, False, True, False]


def test_zeros_and_ones_in_memory(adata):
    table = pd.DataFrame({"GCL": [1, 0, 0, 1], "MCL": [0, 1, 0, 0]}, index=SPOTS)
    for frame in (table, table.astype(bool), table.astype(float)):
        add_labels(adata, frame, overwrite=True)
        assert adata.obs["layer"].tolist()[::3] == ["GCL", "GCL"]
        assert adata.obs["layer"].isna().tolist() == [False, False, True, False]
    add_labels(adata, table.assign(area=["a", "b", "a", "b"]), "area", column="area")
    assert adata.obs["area"].tolist() == ["a", "b", "a", "b"]
    with pytest.raises(ValueError, match="found the columns GCL, MCL, area"):
        add_labels(adata, table.assign(area="a"), overwrite=True)


def test_a_spot_with_two_ones_is_refused(write):
    with pytest.raises(ValueError, match=r"found GCL and EPL in line 3, and 1 such spots in all"):
        read_labels(write("spot,GCL,MCL,EPL\n1x1,1,0,0\n2x1,1,0,1\n"))
    with pytest.raises(ValueError, match="only zeros in the columns GCL, MCL"):
        read_labels(write("spot,GCL,MCL\n1x1,0,0\n2x1,0,0\n"))
    assert read_labels(write("spot,GCL,MCL\n1x1,1,0\n2x1,1,1\n"), column="MCL").tolist() == ["0", "1"]


def test_labels_that_hold_commas_in_a_file_of_semicolons(write):
    text = "spot;layer\n1x1;Outer, plexiform\n2x1;Inner, plexiform\n"
    assert read_labels(write(text)).tolist() == ["Outer, plexiform", "Inner, plexiform"]


@pytest.fixture
def array():
    """A 6 x 5 array whose spots lie up to 0.4 beside the places that their names say."""
    rng = np.random.default_rng(0)
    at = np.stack(np.meshgrid(np.arange(10, 16), np.arange(20, 25)), -1).reshape(-1, 2)
    a = ad.AnnData(np.ones((30, 2), np.float32), obs=pd.DataFrame(index=[f"{x}x{y}" for x, y in at]))
    exact = at + rng.uniform(-0.4, 0.4, at.shape)
    a.obsm["spatial"] = exact * 286.3 + 100
    return a, exact, [f"L{x % 3}" for x, _ in at]


def test_labels_are_joined_by_array_position_where_no_name_agrees(array):
    a, exact, truth = array
    labels = pd.Series(truth, index=[f"{x:.2f}x{y:.2f}" for x, y in exact])
    with pytest.warns(
        UserWarning, match=r"joined by array position \(as '\d+\.\d+x\d+\.\d+' to '10x20'\) for 30 of 30"
    ):
        add_labels(a, labels)
    assert a.obs["layer"].tolist() == truth


def test_labels_are_joined_by_array_position_of_obs(array):
    a, exact, truth = array
    a.obs["array_col"], a.obs["array_row"] = zip(*[map(int, name.split("x")) for name in a.obs_names], strict=True)
    a.obs_names = [f"ACGTACGT{i}" for i in range(30)]
    labels = pd.Series(truth[:20], index=[f"{x:.2f}x{y:.2f}" for x, y in exact[:20]])  # a part of the section
    with pytest.warns(UserWarning, match="array position .* for 20 of 30 spots: 10 spots of the data are not in"):
        add_labels(a, labels)
    assert a.obs["layer"].tolist()[:20] == truth[:20]
    assert a.obs["layer"].isna().tolist() == [False] * 20 + [True] * 10


@pytest.mark.parametrize("header", ["x,y,layer", "pixel_x,pixel_y,layer"])
def test_labels_are_joined_by_pixel(array, write, header):
    a, _, truth = array
    a.obs_names = [f"ACGTACGT{i}" for i in range(30)]
    rows = [f"{x:.0f},{y:.0f},{label}\n" for (x, y), label in zip(a.obsm["spatial"], truth, strict=True)]
    with pytest.warns(UserWarning, match="joined by pixel .* for 30 of 30"):
        add_labels(a, write(header + "\n" + "".join(rows)))
    assert a.obs["layer"].tolist() == truth


def test_coordinates_beside_names_are_no_labels(array, write):
    a, exact, truth = array
    rows = [f"{n},{x:.2f},{y:.2f},{t}\n" for n, (x, y), t in zip(a.obs_names, exact, truth, strict=True)]
    add_labels(a, write("Row.names,x,y,label\n" + "".join(rows)))
    assert a.obs["layer"].tolist() == truth


def test_positions_are_not_joined_where_it_is_not_one_to_one(array):
    a, exact, truth = array
    far = pd.Series(truth, index=[f"{x + 500:.2f}x{y:.2f}" for x, y in exact])
    with pytest.raises(ValueError, match="none in common"):
        add_labels(a, far)
    crowd = pd.Series("L", index=[f"{10 + i / 1000:.3f}x20.1" for i in range(30)])  # all on one spot
    with pytest.raises(ValueError, match="none in common"):
        add_labels(a, crowd)
    two = ad.concat({"a": a, "b": a}, index_unique="-")  # every position belongs to two sections
    with pytest.raises(ValueError, match="none in common"):
        add_labels(two, pd.Series(truth, index=[f"{x:.1f}x{y:.1f}" for x, y in a.obsm["spatial"]]))


@pytest.mark.parametrize("dtype", ["int64", "category", "string"])
def test_spots_of_any_type_are_joined_by_their_text(dtype):
    obs = pd.DataFrame(index=pd.Index([7, 12, 30]).astype(dtype))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata makes them text
        adata = ad.AnnData(np.ones((3, 2), np.float32), obs=obs)
    add_labels(adata, pd.Series(["b", "a", "c"], index=[12.0, 7.0, 30.0]))
    assert adata.obs["layer"].tolist() == ["a", "b", "c"]


BARCODES = ["AAACAAGTATCTCCCA", "CAACACCAATAACTGC", "GAACAGAGCGACTCCT"]


@pytest.mark.parametrize("ours", ["", "-1"])
@pytest.mark.parametrize("theirs", ["", "-1"])
def test_barcodes_are_joined_with_and_without_their_number(ours, theirs):
    adata = ad.AnnData(np.ones((3, 1)), obs=pd.DataFrame(index=[f"{name}{ours}" for name in BARCODES]))
    labels = pd.Series(list("bca"), index=[f"{BARCODES[i]}{theirs}" for i in (1, 2, 0)])
    if ours == theirs:
        add_labels(adata, labels)
    else:
        with pytest.warns(UserWarning, match=r"joined by barcode, without the number after it, for 3 of 3 spots"):
            add_labels(adata, labels)
    assert adata.obs["layer"].tolist() == ["a", "b", "c"]


def test_barcodes_of_several_sections_are_not_joined_without_their_number():
    names = [f"{BARCODES[0]}-1", f"{BARCODES[0]}-2"]
    adata = ad.AnnData(np.ones((2, 1)), obs=pd.DataFrame(index=names))
    with pytest.raises(ValueError, match="found none in common"):
        add_labels(adata, pd.Series(["a"], index=[BARCODES[0]]))
    with pytest.raises(ValueError, match="found none in common"):  # another section's
        add_labels(adata[:1].copy(), pd.Series(["a"], index=[f"{BARCODES[0]}-2"]))


@pytest.mark.parametrize("columns", [("x", "y"), ("pixel_x", "pixel_y"), ("Y", "X")])
def test_a_table_in_memory_is_joined_by_its_coordinates(columns):
    adata = ad.AnnData(np.ones((3, 1)), obsm={"spatial": np.array([[10.0, 20], [110, 20], [10, 120]])})
    across, down = [110, 10, 10], [20, 120, 20]
    values = (down, across) if columns[0] == "Y" else (across, down)
    table = pd.DataFrame(dict(zip(columns, values, strict=True)) | {"domain": list("bca")})
    with pytest.warns(UserWarning, match="joined by pixel"):
        add_labels(adata, table)
    assert adata.obs["layer"].tolist() == ["a", "b", "c"]


def test_a_table_in_memory_of_one_column_needs_no_name():
    adata = ad.AnnData(np.ones((2, 1)), obs=pd.DataFrame(index=["s0", "s1"]))
    add_labels(adata, pd.DataFrame({"cluster": ["y", "x"]}, index=["s1", "s0"]))
    assert adata.obs["layer"].tolist() == ["x", "y"]


@pytest.fixture
def sections():
    """Two sections of the same barcodes, as stcsm.io.read joins them."""
    names = [f"{barcode}-1-{section}" for section in ("v1", "v2") for barcode in BARCODES]
    obs = pd.DataFrame({"section": ["v1"] * 3 + ["v2"] * 3}, index=names)
    return ad.AnnData(np.ones((6, 1), np.float32), obs=obs)


PLAIN = [f"{barcode}-1" for barcode in BARCODES]


@pytest.mark.filterwarnings("error")
def test_labels_of_each_section(sections, write):
    first = pd.Series(["b", "a", "c"], index=[PLAIN[i] for i in (1, 0, 2)])
    second = write("Barcode,cl\n" + "".join(f"{name},{x}\n" for name, x in zip(PLAIN, "xyz", strict=True)))
    add_labels(sections, {"v2": second, "v1": first}, batch_key="section")
    assert sections.obs["layer"].tolist() == ["a", "b", "c", "x", "y", "z"]
    assert sections.obs["layer"].cat.categories.tolist() == ["a", "b", "c", "x", "y", "z"]
    own = pd.Series(list("pqr"), index=sections.obs_names[3:])  # with the section's name
    add_labels(sections, {"v1": first, "v2": own}, "own")
    assert sections.obs["own"].tolist() == ["a", "b", "c", "p", "q", "r"]
    with pytest.raises(ValueError, match=r"Expected sections of obs\['section'\], found 'v3'"):
        add_labels(sections, {"v3": first}, "x", batch_key="section")
    with pytest.raises(ValueError, match=r"a column 'batch' of adata.obs that names the sections, found .* section"):
        add_labels(sections, {"v1": first}, "x", batch_key="batch")


def test_sections_without_labels_are_said(sections):
    with pytest.warns(UserWarning, match="no labels of the sections v2 of 'section'"):
        add_labels(sections, {"v1": pd.Series(list("abc"), index=PLAIN)})
    assert sections.obs["layer"].tolist()[:3] == ["a", "b", "c"]
    assert sections.obs["layer"].isna().tolist() == [False] * 3 + [True] * 3


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("key", ["section", "slide"])
def test_a_column_of_sections_joins_with_the_names(sections, write, key):
    sections.obs = sections.obs.rename(columns={"section": key})
    table = pd.DataFrame({"Barcode": PLAIN * 2, key: ["v2"] * 3 + ["v1"] * 3, "cl": list("xyzabc")})
    files = [write(text, f"{i}.csv") for i, text in enumerate((table.to_csv(index=False), table.to_csv()))]
    files.append(write(table[[key, "Barcode", "cl"]].to_csv(index=False), "sections_first.csv"))
    for labels in (table, table.set_index("Barcode"), *files):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The names of the spots are those in the column 'Barcode'")
            add_labels(sections, labels, batch_key=key, overwrite=True)
        assert sections.obs["layer"].tolist() == list("abcxyz")
    sections.obs["cl"] = list("klmnop")
    add_labels(sections, sections.obs, "again", column="cl", batch_key=key)  # names with the section's
    assert sections.obs["again"].tolist() == list("klmnop")
    add_labels(sections, sections.obs, "whole", column=key, batch_key=key)
    assert sections.obs["whole"].tolist() == ["v1"] * 3 + ["v2"] * 3


def test_plain_names_of_several_sections_are_refused_with_the_rule(sections, write):
    path = write("Barcode,cl\n" + "".join(f"{name},a\n" for name in PLAIN))
    with pytest.raises(ValueError, match=r"labels of each section, .*batch_key='section', or name .* column 'section'"):
        add_labels(sections, path)
    with pytest.raises(ValueError, match=r"more than once .* section of each in a column 'section'"):
        add_labels(sections, write("Barcode,cl\n" + f"{PLAIN[0]},a\n" * 2))


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [
        ("{}-1", "S1_{}-1", "without 'S1_' before the names of the labels"),
        ("{}-1", "{}-1-v1", "without '-v1' after the names of the labels"),
        ("S1_{}-1", "{}-1", "without 'S1_' before the names of the data"),
        ("{}-1-v1", "{}-1", "without '-v1' after the names of the data"),
    ],
)
def test_what_all_names_of_one_side_have_is_left_out(ours, theirs, said):
    adata = ad.AnnData(np.ones((3, 1)), obs=pd.DataFrame(index=[ours.format(name) for name in BARCODES]))
    labels = pd.Series(list("bxa"), index=[theirs.format(name) for name in (BARCODES[1], "T" * 16, BARCODES[0])])
    with pytest.warns(UserWarning, match=f"joined by name, {said}, for 2 of 3 spots: 1 spots of the data"):
        add_labels(adata, labels)
    assert adata.obs["layer"].tolist()[:2] == ["a", "b"]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (["7", "9", "12"], ["17", "19", "112"]),  # no sign between
        (["a-1", "b-1", "c-1"], ["a-2", "b-2", "c-2"]),  # sections
        (["a", "b", "c"], ["S1_a", "S2_b", "S2_c"]),  # not of all
        (["a", "b", "c"], ["S_a", "S_x", "S_y"]),  # few partners
    ],
)
def test_names_that_differ_otherwise_are_not_joined(ours, theirs):
    adata = ad.AnnData(np.ones((3, 1)), obs=pd.DataFrame(index=ours))
    with pytest.raises(ValueError, match="none in common"):
        add_labels(adata, pd.Series(list("abc"), index=theirs))


NUMBERED = {
    "R": ('"","Barcode","cl"\n', 1, None),
    "pandas": (",Barcode,cl\n", 0, None),
    "R, a missing corner": ('"Barcode","cl"\n', 1, None),
    "a column chosen": (",Barcode,cl\n", 0, "cl"),
    "another name": (",sample,cl\n", 1, "cl"),
}


@pytest.mark.parametrize(("header", "first", "column"), NUMBERED.values(), ids=NUMBERED.keys())
@pytest.mark.parametrize("names", [PLAIN, ["aaaabbbb-1", "ccccdddd-1", "eeeeffff-1"], ["3", "1", "2"]])
def test_rows_that_are_numbered_before_the_names(write, header, first, column, names):
    adata = ad.AnnData(np.ones((3, 1), np.float32), obs=pd.DataFrame(index=names))
    text = header + "".join(
        f"{i + first},{names[k]},{x}\n" for i, (k, x) in enumerate(zip((1, 0, 2), "bac", strict=True))
    )
    with pytest.warns(UserWarning, match="names of the spots are those in the column"):
        add_labels(adata, write(text), column=column)
    assert adata.obs["layer"].tolist() == ["a", "b", "c"]
    frame = pd.DataFrame({"Barcode": [names[k] for k in (1, 0, 2)], "cl": list("bac")})
    with pytest.warns(UserWarning, match="in the column 'Barcode' of the labels given"):
        add_labels(adata, frame, "frame", column=column)
    assert adata.obs["frame"].tolist() == ["a", "b", "c"]


def test_labels_that_are_numbers_like_the_names_are_labels(write):
    adata = ad.AnnData(np.ones((4, 1), np.float32), obs=pd.DataFrame(index=list("1234")))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        add_labels(adata, write(",cluster,x\n1,2,9\n2,1,9\n3,2,9\n4,1,9\n"), column="cluster")
    assert adata.obs["layer"].tolist() == ["2", "1", "2", "1"]
