"""Space Ranger's output in every layout gives the same counts, coordinates and images."""

from __future__ import annotations

import gzip
import json
import logging
import re
import shutil
import warnings

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from shapely.geometry import box, mapping

from stcsm.io import read

from .spaceranger import BARCODES, COLOURS, COUNTS, GENES, POSITIONS, Layout, write_h5, write_spaceranger


def check(adata: ad.AnnData, *, spots: int = 3, images: tuple[str, ...] = ("hires", "lowres")) -> None:
    """The counts, coordinates and images that `write_spaceranger` writes."""
    at = [BARCODES.index(name) for name in adata.obs_names]
    assert sorted(at) == list(range(spots))
    assert list(adata.var_names) == GENES
    np.testing.assert_array_equal(adata.X.toarray(), COUNTS[at])
    table = POSITIONS.iloc[at]
    np.testing.assert_array_equal(adata.obsm["spatial"], table[["pxl_col_in_fullres", "pxl_row_in_fullres"]])
    for column in ("in_tissue", "array_row", "array_col"):
        np.testing.assert_array_equal(adata.obs[column], table[column])
    (entry,) = adata.uns["spatial"].values()
    assert {name: tuple(image[0, 0]) for name, image in entry["images"].items()} == {k: COLOURS[k] for k in images}


LAYOUTS = {
    "h5": Layout(),
    "space ranger 1": Layout(positions="tissue_positions_list.csv"),
    "parquet": Layout(positions="tissue_positions.parquet"),
    "mtx": Layout(matrix="mtx"),
    "mtx gzipped": Layout(matrix="mtx.gz"),
    "mtx of version 2": Layout(matrix="v2"),
    "low-resolution image alone": Layout(images=("lowres",)),
    "no image": Layout(images=()),
    "high-resolution image alone": Layout(images=("hires",)),
    "spatial files gzipped": Layout(gzipped=True),
    "parquet gzipped": Layout(gzipped=True, positions="tissue_positions.parquet"),
    "sample before the names": Layout(prefix="GSM123_sample_A_"),
    "sample before the names, mtx": Layout(prefix="GSM123_sample_A_", matrix="mtx.gz"),
    "GEO, flat": Layout(
        prefix="GSM123_sample_A_", flat=True, gzipped=True, matrix="flat", positions="tissue_positions_list.csv"
    ),
    "GEO, flat, h5": Layout(prefix="GSM123_A_", flat=True, gzipped=True, positions="tissue_positions_list.csv"),
    "flat": Layout(flat=True),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_every_layout_gives_the_same(tmp_path, layout):
    folder = write_spaceranger(tmp_path / "brain" / "outs", layout)
    for path in (folder, folder.parent, str(folder)):
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            adata = read(path)
        check(adata, images=layout.images)
        assert list(adata.uns["spatial"]) == [layout.prefix.rstrip("_") or "brain"]


def test_files_that_macos_puts_beside_others_are_ignored(tmp_path):
    folder = write_spaceranger(tmp_path / "brain" / "outs", Layout())
    for path in [*folder.iterdir(), *(folder / "spatial").iterdir()]:
        if path.is_file():
            path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7")
    check(read(folder), images=Layout().images)


@pytest.mark.parametrize("sample", ["GSM1_", "GSM1_slide-A.", "GSM1-A-", "filtered_"])
@pytest.mark.parametrize("layout", ["mtx", "mtx.gz", "v2"])
@pytest.mark.parametrize("outside", [False, True])
def test_a_samples_name_before_the_files_within_the_matrix_folder(tmp_path, sample, layout, outside):
    """As GEO keeps them: the folder's own name, and those of the other files, with or without it."""
    folder = write_spaceranger(tmp_path / "brain" / "outs", matrix=layout, prefix=sample if outside else "")
    for path in (folder / f"{sample if outside else ''}filtered_feature_bc_matrix").iterdir():
        path.rename(path.with_name(f"{sample}{path.name}"))
    check(read(folder))


def test_the_spatial_folder_and_positions_indexed_by_barcode(tmp_path):
    folder = write_spaceranger(tmp_path / "outs", positions="tissue_positions.parquet")
    check(read(folder / "spatial"))
    POSITIONS.set_index("barcode").to_parquet(folder / "spatial" / "tissue_positions.parquet")
    check(read(folder))


def test_a_folder_of_sections_says_which_to_give(tmp_path):
    for name in ("A/outs", "B"):
        write_spaceranger(tmp_path / "run" / name)
    with pytest.raises(FileNotFoundError, match=r"give the folders of its sections: .*run/A, .*run/B"):
        read(tmp_path / "run")


def test_matrices_of_several_samples_in_one_matrix_folder(tmp_path):
    folder = write_spaceranger(tmp_path / "outs", matrix="mtx")
    for path in list((folder / "filtered_feature_bc_matrix").iterdir()):
        for sample in ("A_", "B_"):
            shutil.copy(path, path.with_name(f"{sample}{path.name}"))
        path.unlink()
    with pytest.raises(ValueError, match=r"Expected one matrix, found A_matrix.mtx, B_matrix.mtx"):
        read(folder)


def test_archives_are_to_be_unpacked(tmp_path):
    folder = write_spaceranger(tmp_path / "outs", flat=True)
    (folder / "tissue_positions.csv").unlink()
    (folder / "GSM1_spatial.tar.gz").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"unpack GSM1_spatial.tar.gz first"):
        read(folder)


def segmented(outs, *, matrix="h5", gzipped=False):
    """Cells of Space Ranger 4: squares of side 10 around the positions, named by number in the outlines."""
    folder = write_spaceranger(outs / "segmented_outputs", matrix=matrix)
    cells = [f"cellid_{i + 1:09d}-1" for i in range(3)]
    for path in list(folder.glob("filtered_feature_bc_matrix*")):
        there = path.rename(path.with_name(path.name.replace("_bc_", "_cell_")))
        if path.suffix == ".h5":
            with h5py.File(there, "r+") as file:
                del file["matrix/barcodes"]
                file["matrix/barcodes"] = np.array(cells[::-1], "S")
        else:
            (there / "barcodes.tsv").write_text("\n".join(cells[::-1]))
    (folder / "spatial" / "tissue_positions.csv").unlink()
    x, y = POSITIONS["pxl_col_in_fullres"], POSITIONS["pxl_row_in_fullres"]
    features = [
        {
            "type": "Feature",
            "properties": {"cell_id": i + 1},
            "geometry": mapping(box(x[i] - 5, y[i] - 5, x[i] + 5, y[i] + 5)),
        }
        for i in range(4)
    ]  # one more than has counts
    text = json.dumps({"type": "FeatureCollection", "features": features}).encode()
    name = "cell_segmentations.geojson" + (".gz" if gzipped else "")
    (folder / name).write_bytes(gzip.compress(text) if gzipped else text)
    (folder / "graphclust_annotated_cell_segmentations.geojson").write_bytes(text)
    (folder / "nucleus_segmentations.geojson").write_bytes(text)
    return folder


@pytest.mark.parametrize(("matrix", "gzipped"), [("h5", False), ("mtx", True)])
def test_cells_that_space_ranger_4_segments(hd, tmp_path, caplog, matrix, gzipped):
    folder = segmented(hd, matrix=matrix, gzipped=gzipped)
    shutil.rmtree(hd / "binned_outputs" / "square_002um")
    with caplog.at_level(logging.INFO, "stcsm"):
        assert read(hd).X.sum() == (COUNTS[:3] + 1).sum()  # bins of 8 micrometres
    assert "segmented_outputs holds cells, give it to read these" in caplog.text
    apart = tmp_path / "alone" / "outs"
    apart.mkdir(parents=True)
    shutil.copytree(folder, apart / "segmented_outputs")
    for path in (folder, apart, apart.parent):
        adata = read(path)
        at = [int(name[7:16]) - 1 for name in adata.obs_names]
        assert sorted(at) == [0, 1, 2]
        np.testing.assert_array_equal(adata.X.toarray(), COUNTS[at])
        np.testing.assert_array_equal(
            adata.obsm["spatial"], POSITIONS.iloc[at][["pxl_col_in_fullres", "pxl_row_in_fullres"]]
        )
        assert list(adata.obs["area"]) == [100] * 3
        (entry,) = adata.uns["spatial"].values()
        assert set(entry["images"]) == {"hires", "lowres"}
    assert list(read(folder).uns["spatial"]) == ["hd"]
    with pytest.raises(ValueError, match="bin_size=8, found none"):
        read(apart, bin_size=8)
    (folder / "cell_segmentations.geojson").write_text("{}")
    with pytest.raises(ValueError, match=r"outlines of cells as GeoJSON .*cell_segmentations.geojson"):
        read(folder)


@pytest.mark.parametrize("matrix", ["h5", "mtx", "flat"])
def test_raw_matrix_is_read_where_there_is_no_other_and_background_is_left_out(tmp_path, matrix):
    folder = write_spaceranger(tmp_path / "outs", kind="raw", matrix=matrix)
    with pytest.warns(UserWarning, match=r"1 of 4 spots lie beside the tissue .* left out; .*keep_background=True"):
        check(read(folder))
    check(read(folder, keep_background=True), spots=4)


def test_filtered_matrix_is_preferred(tmp_path):
    write_spaceranger(tmp_path / "outs", kind="raw")
    check(read(write_spaceranger(tmp_path / "outs", matrix="mtx")))


def test_a_folder_of_background_alone_is_refused(tmp_path):
    folder = write_spaceranger(tmp_path / "outs", positions="tissue_positions.csv")
    POSITIONS.assign(in_tissue=0).to_csv(folder / "spatial" / "tissue_positions.csv", index=False)
    with pytest.raises(ValueError, match=r"in_tissue 0 for all 3 .*keep_background=True"):
        read(folder)


def test_images_without_a_scale_factor_are_not_attached(tmp_path):
    folder = write_spaceranger(tmp_path / "outs", scales=False)
    with pytest.warns(
        UserWarning, match=r"hires_image.png is not attached: .*scalefactors_json.json is missing"
    ) as said:
        check(read(folder), images=())
    assert len(said) == 2
    (folder / "spatial" / "scalefactors_json.json").write_text(json.dumps({"tissue_lowres_scalef": 0.1}))
    with pytest.warns(UserWarning, match=r"hires_image.png is not attached: there is no scale factor for it in "):
        check(read(folder), images=("lowres",))


def test_antibodies_and_guides_are_left_out(tmp_path):
    kinds = ("Gene Expression", "Antibody Capture", "CRISPR Guide Capture")
    folder = write_spaceranger(tmp_path / "outs", types=kinds, genes=("CD3", "CD3", "guide"))
    with pytest.warns(UserWarning, match=r"2 of 3 features are no genes .*'CD3', 'guide'.* left out") as said:
        adata = read(folder)
    assert len(said) == 1  # no symbol is left that occurs twice
    assert list(adata.var_names) == ["CD3"]
    np.testing.assert_array_equal(adata.X.toarray().ravel(), COUNTS[2::-1, 0])


@pytest.fixture
def hd(tmp_path):
    """Visium HD: each bin size is told apart by its counts."""
    for i, size in enumerate((2, 8, 16)):
        write_spaceranger(
            tmp_path / "hd" / "outs" / "binned_outputs" / f"square_{size:03d}um",
            positions="tissue_positions.parquet",
            counts=COUNTS + i,
        )
    (tmp_path / "hd" / "outs" / "spatial").mkdir()
    return tmp_path / "hd" / "outs"


def test_visium_hd_at_a_chosen_bin_size(hd, caplog):
    with caplog.at_level(logging.INFO, "stcsm"):
        assert read(hd).X.sum() == (COUNTS[:3] + 1).sum()
    assert "bins of 8 micrometres are read (there: 2, 8, 16)" in caplog.text
    for path in (hd, hd.parent, hd / "binned_outputs"):
        check(read(path, bin_size=2))
        assert read(path, bin_size=16).X.sum() == (COUNTS[:3] + 2).sum()
    check(read(hd / "binned_outputs" / "square_002um"))
    check(read(hd / "binned_outputs" / "square_002um", bin_size=2))
    assert list(read(hd).uns["spatial"]) == ["hd"]
    with pytest.raises(FileNotFoundError, match=r"bins of 5 micrometres, found 2, 8, 16 in .*bin_size="):
        read(hd, bin_size=5)
    with pytest.raises(ValueError, match="found bins of 2 micrometres"):
        read(hd / "binned_outputs" / "square_002um", bin_size=8)
    shutil.rmtree(hd / "binned_outputs" / "square_008um")
    assert read(hd).X.sum() == (COUNTS[:3] + 2).sum()  # the largest


def test_bin_size_where_there_are_no_bins(tmp_path, st_file):
    with pytest.raises(ValueError, match="bin_size=8, found none"):
        read(write_spaceranger(tmp_path / "outs"), bin_size=8)
    with pytest.raises(ValueError, match="bin_size=8, found neither"):
        read(st_file(), bin_size=8)


def test_several_sections_in_one_call(tmp_path):
    a = write_spaceranger(tmp_path / "A" / "outs", library="lib")
    b = write_spaceranger(tmp_path / "B" / "outs", library="lib", images=("lowres",), counts=10 * COUNTS)
    both = read([a, str(b)])
    assert list(both.obs["section"].cat.categories) == ["A", "B"]
    assert both.obs_names.is_unique
    assert set(both.obs_names) == {f"{name}-{section}" for name in BARCODES[:3] for section in "AB"}
    assert {name: list(entry["images"]) for name, entry in both.uns["spatial"].items()} == {
        "A": ["hires", "lowres"],
        "B": ["lowres"],
    }
    one = both[both.obs["section"] == "A"].copy()
    one.obs_names = one.obs_names.str.removesuffix("-A")
    del one.uns["spatial"]["B"]
    check(one)
    assert both[both.obs["section"] == "B"].X.sum() == 10 * COUNTS[:3].sum()
    with pytest.raises(ValueError, match="at least one path"):
        read([])


def test_sections_of_one_name_and_of_other_panels(tmp_path):
    a = write_spaceranger(tmp_path / "x" / "slide" / "outs")
    b = write_spaceranger(tmp_path / "y" / "slide" / "outs", genes=("Penk", "Other", "Kctd12"))
    with pytest.warns(UserWarning, match="2 genes are not in all of the 2 sections"):
        both = read([a, b])
    assert list(both.uns["spatial"]) == ["slide", "slide-1"]
    assert list(both.var_names) == ["Penk", "Kctd12"]
    c = write_spaceranger(tmp_path / "z" / "outs", genes=("a", "b", "c"))
    with pytest.raises(ValueError, match="genes in common, found none among slide, z"):
        read([a, c])


def test_tables_of_several_st_sections_keep_every_gene(st_file, write):
    second = write("\tPenk\tNew\n1x1\t2\t5\n", "second.tsv")
    both = read([st_file(name="first.tsv"), second])
    assert both.shape == (4, 5)
    assert both["1x1-second", "New"].X.toarray() == 5
    assert both[both.obs["section"] == "first", "New"].X.sum() == 0
    assert set(both.uns["spatial"]) == {"first", "second"}


@pytest.mark.parametrize("flat", [True, False])
def test_files_of_several_samples_in_one_folder(tmp_path, flat):
    for sample in ("GSM1_A", "GSM2_B"):
        write_spaceranger(tmp_path / "geo", prefix=f"{sample}_", flat=flat, gzipped=True)
    both = read(tmp_path / "geo")
    assert list(both.uns["spatial"]) == ["GSM1_A", "GSM2_B"]
    assert both.n_obs == 6
    more = read([tmp_path / "geo", write_spaceranger(tmp_path / "other" / "outs")])
    assert list(more.obs["section"].cat.categories) == ["GSM1_A", "GSM2_B", "other"] == list(more.uns["spatial"])
    both.write_h5ad(tmp_path / "both.h5ad")
    with pytest.raises(ValueError, match=r"one section each, found the column 'section' .* of 'both'"):
        read([tmp_path / "both.h5ad", tmp_path / "other" / "outs"])
    positions = next((tmp_path / "geo").rglob("GSM2_B_tissue_positions*"))
    positions.rename(positions.with_name(positions.name.replace("GSM2_B", "other")))
    with pytest.raises(FileNotFoundError, match="none for 'GSM2_B'"):
        read(tmp_path / "geo")


def test_spatial_folders_that_bear_the_samples_name(tmp_path):
    for sample in ("GSM1_A", "GSM2_B"):
        write_spaceranger(tmp_path / "one" / sample)
        folder = tmp_path / "geo"
        folder.mkdir(exist_ok=True)
        (tmp_path / "one" / sample / "spatial").rename(folder / f"{sample}_spatial")
        (tmp_path / "one" / sample / "filtered_feature_bc_matrix.h5").rename(
            folder / f"{sample}_filtered_feature_bc_matrix.h5"
        )
    both = read(tmp_path / "geo")
    assert {name: len(entry["images"]) for name, entry in both.uns["spatial"].items()} == {"GSM1_A": 2, "GSM2_B": 2}


def test_what_is_missing_is_named(tmp_path):
    folder = write_spaceranger(tmp_path / "a" / "outs")
    (folder / "spatial" / "tissue_positions.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"found no tissue_positions.csv, .* \(there: .*spatial"):
        read(folder)
    folder = write_spaceranger(tmp_path / "b" / "outs")
    (folder / "filtered_feature_bc_matrix.h5").unlink()
    with pytest.raises(FileNotFoundError, match=r"found no filtered_feature_bc_matrix.h5 .* \(there: spatial\)"):
        read(folder)
    folder = write_spaceranger(tmp_path / "c" / "outs", matrix="mtx")
    (folder / "filtered_feature_bc_matrix" / "barcodes.tsv").unlink()
    with pytest.raises(FileNotFoundError, match=r"Expected barcodes.tsv \(or .gz\) beside .*found features.tsv"):
        read(folder)
    with pytest.raises(FileNotFoundError, match="Expected the positions of the spots"):
        read(write_spaceranger(tmp_path / "d", matrix="mtx", positions="moved.csv") / "filtered_feature_bc_matrix")
    (folder / "filtered_feature_bc_matrix" / "matrix.mtx").unlink()
    with pytest.raises(FileNotFoundError, match=r"Expected matrix.mtx \(or .gz\), found features.tsv"):
        read(folder)


@pytest.mark.parametrize("layout", ["csv", "semicolons", "R"])
def test_positions_edited_by_hand_without_the_number_of_the_barcodes(tmp_path, layout):
    folder = write_spaceranger(tmp_path / "outs")
    table = POSITIONS.assign(barcode=[name.removesuffix("-1") for name in BARCODES])
    text = table.to_csv(index=False, sep=";" if layout == "semicolons" else ",", lineterminator="\n")
    if layout == "R":  # write.csv numbers the rows; older exports lack the cell above the numbers
        head, *rows = text.split("\n")
        text = "\n".join([head, *(f"{i},{row}" for i, row in enumerate(rows) if row)])
    (folder / "spatial" / "tissue_positions.csv").write_text(text)
    with pytest.warns(UserWarning, match=r"agree but for the number \(-1\) after them"):
        adata = read(folder)
    check(adata)


def test_positions_without_numbers_beside_two_sections(tmp_path):
    """AAAC-1 and AAAC-2 are spots of two slides: which of them the position belongs to is not known."""
    folder = write_spaceranger(tmp_path / "outs")
    matrix = sparse.csc_matrix(COUNTS[:2].T.astype(np.int32))
    names = [BARCODES[0], BARCODES[0].replace("-1", "-2")]
    write_h5(folder / "filtered_feature_bc_matrix.h5", matrix, names, ["a", "b", "c"], Layout())
    table = POSITIONS.assign(barcode=[name.removesuffix("-1") for name in BARCODES])
    table.to_csv(folder / "spatial" / "tissue_positions.csv", index=False)
    with pytest.raises(ValueError, match="none for 2 of 2 spots"):
        read(folder)


@pytest.mark.parametrize(
    ("layout", "given"),
    [
        (Layout(), "filtered_feature_bc_matrix.h5"),
        (Layout(prefix="S1_"), "S1_filtered_feature_bc_matrix.h5"),
        (Layout(prefix="S1_", flat=True), "S1_filtered_feature_bc_matrix.h5"),
        (Layout(matrix="mtx.gz"), "filtered_feature_bc_matrix"),
        (Layout(matrix="mtx.gz"), "filtered_feature_bc_matrix/matrix.mtx.gz"),
        (Layout(matrix="flat", flat=True), "matrix.mtx.gz"),
    ],
)
def test_the_matrix_is_given_in_place_of_its_folder(tmp_path, layout, given):
    folder = write_spaceranger(tmp_path / "V1_section", layout)
    check(read(folder / given))


def test_a_matrix_of_another_name_and_of_one_of_several_samples(tmp_path, monkeypatch):
    folder = write_spaceranger(tmp_path / "one")
    (folder / "filtered_feature_bc_matrix.h5").rename(folder / "mouse brain.h5")
    monkeypatch.chdir(folder)
    check(read("mouse brain.h5"))
    both = tmp_path / "both"
    for sample in ("A_", "B_"):
        write_spaceranger(both, prefix=sample, flat=True)
    check(read(both / "B_filtered_feature_bc_matrix.h5"))
    (both / "B_tissue_positions.csv").unlink()
    with pytest.raises(FileNotFoundError, match="found none for 'B'"):  # never the positions of another section
        read(both / "B_filtered_feature_bc_matrix.h5")


def test_positions_of_another_run(tmp_path):
    folder = write_spaceranger(tmp_path / "outs")
    table = POSITIONS.assign(barcode=[name[::-1] for name in BARCODES])
    table.to_csv(folder / "spatial" / "tissue_positions.csv", index=False)
    with pytest.raises(ValueError, match="none for 3 of 3 spots"):
        read(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("spatial/tissue_positions.csv", b"barcode,x\nA,1\n", "found no pxl_col_in_fullres, pxl_row_in_fullres among"),
        ("spatial/tissue_positions.csv", b"A,1,2\n", "Expected 6 cells .*, found 3 in row 1"),
        ("spatial/tissue_positions.csv", b"A,1,2,3,4,x\n", "Expected numbers"),
        ("spatial/tissue_positions.parquet", b"no", "whole parquet file"),
        ("spatial/scalefactors_json.json", b"{", "scale factors as JSON"),
        ("spatial/tissue_hires_image.png", b"no", "Expected an image"),
        ("filtered_feature_bc_matrix.h5", b"no", "whole 10x matrix"),
        ("filtered_feature_bc_matrix.h5", b"\x1f\x8bno", "whole gzip file"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, content, message):
    folder = write_spaceranger(tmp_path / "outs")
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        read(folder)
    assert str(folder / name) in str(error.value)


def test_counts_that_do_not_fit_their_names(tmp_path):
    folder = write_spaceranger(tmp_path / "outs", matrix="mtx")
    (folder / "filtered_feature_bc_matrix" / "barcodes.tsv").write_text(f"{BARCODES[0]}\n")
    with pytest.raises(ValueError, match=r"1 barcodes x 3 features, .* found 3 x 3"):
        read(folder)
    (folder / "filtered_feature_bc_matrix" / "matrix.mtx").write_text("%%MatrixMarket\n")
    with pytest.raises(ValueError, match="whole Matrix Market file"):
        read(folder)


def test_survives_h5ad_and_draws(tmp_path):
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    import squidpy as sq

    read(write_spaceranger(tmp_path / "outs")).write_h5ad(tmp_path / "a.h5ad")
    again = read(tmp_path / "a.h5ad")
    check(again)
    sq.pl.spatial_scatter(again, color="Penk")
    a, b = (write_spaceranger(tmp_path / name) for name in "ab")
    sq.pl.spatial_scatter(read([a, b]), color="Penk", library_key="section")
    plt.close("all")


@pytest.fixture
def outs(data_dir, tmp_path):
    """A copy of a real Space Ranger 1 folder that a test may change."""
    folder = tmp_path / "sample" / "outs"
    shutil.copytree(data_dir / "visium" / "outs_spaceranger_1", folder)
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755)
    return folder


def test_real_spaceranger_1_against_squidpy(outs):
    import squidpy as sq

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = sq.read.visium(outs)
    adata = read(outs)
    assert list(adata.obs_names) == list(expected.obs_names)
    assert list(adata.var_names) == list(expected.var_names)
    np.testing.assert_array_equal(adata.X.toarray(), expected.X.toarray())
    np.testing.assert_array_equal(adata.obsm["spatial"], expected.obsm["spatial"])
    for column in expected.obs:
        np.testing.assert_array_equal(adata.obs[column], expected.obs[column])
    assert list(adata.uns["spatial"]) == list(expected.uns["spatial"]) == ["custom"]
    ours, theirs = adata.uns["spatial"]["custom"], expected.uns["spatial"]["custom"]
    assert ours["scalefactors"] == theirs["scalefactors"]
    for name, image in theirs["images"].items():
        scale = 255 if image.max() <= 1 else 1
        np.testing.assert_allclose(ours["images"][name], np.asarray(image)[..., :3] * scale, atol=0.5)


def test_real_matrix_without_a_library_name(outs):
    with h5py.File(outs / "filtered_feature_bc_matrix.h5", "r+") as file:
        del file.attrs["library_ids"]
    assert list(read(outs).uns["spatial"]) == ["sample"]


def test_gene_symbols_that_occur_twice(tmp_path):
    folder = write_spaceranger(tmp_path / "outs", genes=("Penk", "Penk", "Kctd12"))
    with pytest.warns(UserWarning, match="1 gene symbols that occur more than once"):
        assert list(read(folder).var_names) == ["Penk", "Penk-1", "Kctd12"]


def test_a_bare_matrix_has_no_coordinates(data_dir):
    folder = data_dir / "visium" / "outs_spaceranger_2"
    with pytest.raises(ValueError, match="Expected counts of genes, found those of probes"):
        read(folder / "raw_probe_bc_matrix.h5")
    with pytest.raises(FileNotFoundError, match=r"found no filtered_feature_bc_matrix.h5 .*counts probes, not genes"):
        read(folder)


def test_real_visium_without_a_high_resolution_image(data_dir):
    folder = data_dir / "vendor" / "visium_no_hires"
    with pytest.warns(UserWarning, match="28 of 50 spots lie beside the tissue"):
        adata = read(folder)
    assert adata.shape == (22, 49)
    assert list(adata["AAACAAGTATCTCCCA-1"].obsm["spatial"][0]) == [8230, 7237]
    ((name, entry),) = adata.uns["spatial"].items()
    assert name == "visium_no_hires"
    assert {key: image.shape for key, image in entry["images"].items()} == {"lowres": (600, 576, 3)}
    with h5py.File(folder / "outs" / "raw_feature_bc_matrix.h5") as file:
        assert read(folder, keep_background=True).X.sum() == file["matrix/data"][:].sum()


def test_real_visium_hd(data_dir):
    folder = data_dir / "vendor" / "visium_hd"
    adata = read(folder)
    assert adata.shape == (10, 10)
    bins = pd.read_parquet(folder / "binned_outputs" / "square_002um" / "spatial" / "tissue_positions.parquet")
    bins = bins.set_index("barcode").loc[adata.obs_names]
    np.testing.assert_array_equal(adata.obsm["spatial"], bins[["pxl_col_in_fullres", "pxl_row_in_fullres"]])
    assert list(adata.uns["spatial"]["visium_hd"]["images"]) == ["lowres"]
    assert re.fullmatch(r"s_002um_\d+_\d+-1", adata.obs_names[0])
