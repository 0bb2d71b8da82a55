"""Folders of imaging platforms: counts, coordinates and names, from the tables and through spatialdata-io."""

from __future__ import annotations

import gzip
import importlib.util
import json
import logging
import shutil
import zipfile

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from numpy.lib.recfunctions import rename_fields, repack_fields
from scipy import sparse
from typer.testing import CliRunner

from stcsm.cli import app
from stcsm.io import read

from .conftest import table_text
from .spaceranger import Layout, write_h5

needs_spatialdata_io = pytest.mark.skipif(
    importlib.util.find_spec("spatialdata_io") is None, reason='spatialdata-io is absent; pip install "stcsm[io]"'
)
CELLS = ["7", "9", "1108834764611924619"]
COUNTS = np.array([[1, 0, 3], [0, 2, 0], [4, 0, 5]], dtype=np.float32)
XY = np.array([[10.5, 1.0], [20.5, 2.0], [30.5, 7.0]])
GENES = ["Penk", "Doc2g", "Blank-1"]


def check(adata: ad.AnnData, names=CELLS) -> None:
    """Cells x genes as written, in any order, without the control."""
    assert sorted(adata.obs_names) == sorted(names)
    at = [list(names).index(name) for name in adata.obs_names]
    assert list(adata.var_names) == GENES[:2]
    np.testing.assert_array_equal(adata.X.toarray(), COUNTS[at, :2])
    np.testing.assert_array_equal(adata.obsm["spatial"], XY[at])
    assert adata.X.dtype == np.float32


def put(path, frame: pd.DataFrame, *, zipped=False):
    data = frame.to_csv(index=False).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.with_name(path.name + ".gz") if zipped else path).write_bytes(gzip.compress(data) if zipped else data)


def cosmx(folder, *, fov=(1, 1, 2), cell=(1, 2, 1), zipped=False):
    """Two fields of view whose cells bear the same numbers; cell 0 is what lies in no cell."""
    counts = pd.DataFrame(COUNTS.astype(int), columns=["Penk", "Doc2g", "NegPrb1"])
    counts.insert(0, "fov", fov)
    counts.insert(1, "cell_ID", cell)
    outside = pd.DataFrame({"fov": [1], "cell_ID": [0], "Penk": [99], "Doc2g": [9], "NegPrb1": [0]})
    put(folder / "s_exprMat_file.csv", pd.concat([outside, counts]), zipped=zipped)
    table = pd.DataFrame({"fov": fov, "cell_ID": cell, "Area": 5})
    table[["CenterX_local_px", "CenterY_local_px"]] = XY - 1
    table[["CenterX_global_px", "CenterY_global_px"]] = XY
    put(folder / "s_metadata_file.csv", table[::-1], zipped=zipped)
    return folder


def merscope(folder, *, ordered=False):
    counts = pd.DataFrame(COUNTS.astype(int), columns=GENES)
    counts.insert(0, "cell", CELLS)
    put(folder / "cell_by_gene.csv", counts)
    table = pd.DataFrame({"EntityID": CELLS, "fov": 0, "center_x": XY[:, 0], "center_y": XY[:, 1]})
    put(folder / "cell_metadata.csv", table if ordered else table[::-1])
    return folder


def xenium(folder, *, cells="parquet", matrix="h5"):
    folder.mkdir(parents=True)
    kinds = ("Gene Expression", "Gene Expression", "Blank Codeword")
    layout = Layout(genes=tuple(GENES), types=kinds)
    counts = sparse.csc_matrix(COUNTS.T.astype(np.int32))
    if matrix == "h5":
        write_h5(folder / "cell_feature_matrix.h5", counts, CELLS, ["a", "b", "c"], layout)
    else:
        from scipy.io import mmwrite

        (folder / "cell_feature_matrix").mkdir()
        mmwrite(folder / "cell_feature_matrix" / "matrix.mtx", counts)
        features = [f"x\t{gene}\t{kind}" for gene, kind in zip(GENES, kinds, strict=True)]
        for name, lines in {"barcodes": CELLS, "features": features}.items():
            (folder / "cell_feature_matrix" / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    table = pd.DataFrame({"cell_id": CELLS, "x_centroid": XY[:, 0], "y_centroid": XY[:, 1], "cell_area": 4.0})
    if cells == "parquet":
        table.to_parquet(folder / "cells.parquet")
    elif cells == "bytes":
        table.assign(cell_id=[name.encode() for name in CELLS]).to_parquet(folder / "cells.parquet")
    else:
        put(folder / "cells.csv", table, zipped=cells == "csv.gz")
    return folder


@pytest.mark.parametrize("zipped", [False, True])
def test_cosmx_cells_are_known_by_field_and_number(tmp_path, zipped, caplog):
    with caplog.at_level(logging.INFO, "stcsm"), pytest.warns(UserWarning, match="1 of 3 features are no genes"):
        adata = read(cosmx(tmp_path / "run", zipped=zipped))
    check(adata, ["1_1", "2_1", "1_2"])
    assert list(adata["1_2"].obs["fov"]) == ["2"]
    assert "CosMx: counts and coordinates are read from the tables of" in caplog.text
    assert "spatialdata_io.cosmx also needs " in caplog.text
    assert "*fov_positions_file.csv, CellComposite, CellLabels" in caplog.text
    assert caplog.text.count("(which is gzipped here)") == 2 * zipped


def test_cosmx_without_coordinates_of_the_whole_section(tmp_path):
    folder = cosmx(tmp_path)
    table = pd.read_csv(folder / "s_metadata_file.csv").drop(columns="CenterX_global_px")
    put(folder / "s_metadata_file.csv", table.assign(x_slide_mm=[3, 2, 1], y_slide_mm=[6, 5, 4]))
    with pytest.warns(UserWarning, match="no genes"):
        np.testing.assert_array_equal(read(folder)["1_2"].obsm["spatial"], [[3, 6]])
    put(folder / "s_metadata_file.csv", table)
    with pytest.raises(ValueError, match=r"whole section .* found the columns fov, .*CenterX_local_px"):
        read(folder)


@pytest.mark.parametrize("ordered", [False, True])
def test_merscope_joins_cells_by_name(tmp_path, ordered):
    with pytest.warns(UserWarning, match="'Blank-1'"):
        check(read(merscope(tmp_path / "region_0", ordered=ordered)))


@pytest.mark.parametrize("matrix", ["h5", "mtx"])
@pytest.mark.parametrize("cells", ["parquet", "bytes", "csv", "csv.gz"])
def test_xenium(tmp_path, cells, matrix):
    xenium(tmp_path / "run" / "outs", cells=cells, matrix=matrix)
    for folder in (tmp_path / "run", tmp_path / "run" / "outs"):
        with pytest.warns(UserWarning, match="'Blank-1'"):
            check(read(folder))


def test_the_matrices_of_two_genomes_are_refused(tmp_path):
    matrix = xenium(tmp_path / "outs", matrix="mtx") / "cell_feature_matrix"
    held = list(matrix.iterdir())
    for genome in ("hg19", "mm10"):
        (matrix / genome).mkdir()
        for path in held:
            shutil.copy(path, matrix / genome)
    for path in held:
        path.unlink()
    with pytest.raises(ValueError, match=r"one matrix, found hg19.matrix.mtx, mm10.matrix.mtx .*\(or genome's\)"):
        read(tmp_path / "outs")
    shutil.rmtree(matrix / "hg19")
    with pytest.warns(UserWarning, match="'Blank-1'"):
        check(read(tmp_path / "outs"))


def test_starmap_plus(tmp_path):
    (tmp_path / "w_spatial.csv").write_text(
        "NAME,X,Y,Region\nTYPE,numeric,numeric,group\n"
        + "".join(f"{c},{x},{y},r{c}\n" for c, (x, y) in zip(CELLS[::-1], XY[::-1], strict=True))
        + "uncounted,1,1,r\n"
    )
    (tmp_path / "wraw_expression_pd.csv").write_text(
        table_text(GENES, CELLS, COUNTS.T.astype(int), corner="GENE", separator=",")
    )
    with pytest.warns(UserWarning, match="'Blank-1'"):
        adata = read(tmp_path)
    check(adata)
    assert list(adata.obs["Region"]) == [f"r{name}" for name in adata.obs_names]


def seqfish(folder):
    """Two regions of interest whose cells bear the same numbers."""
    folder.mkdir(exist_ok=True)
    for roi in ("Roi1", "Roi2"):
        (folder / f"{roi}_CellxGene.csv").write_text(
            table_text(CELLS, GENES, COUNTS.astype(int), corner="", separator=",")
        )
        put(
            folder / f"{roi}_CellCoordinates.csv",
            pd.DataFrame({"label": CELLS, "area": 1.0, "center_x": XY[:, 0], "center_y": XY[:, 1]}),
        )
    return folder


def test_seqfish_rois_are_sections(tmp_path):
    seqfish(tmp_path)
    with pytest.warns(UserWarning, match="'Blank-1'"):
        both = read(tmp_path)
    assert list(both.obs["section"].cat.categories) == ["Roi1", "Roi2"]
    for roi in ("Roi1", "Roi2"):
        check(both[both.obs["section"] == roi], [f"{name}-{roi}" for name in CELLS])


BEADS = ["AACG", "CCAT", "GATT"]


def curio(folder):
    folder.mkdir()
    counts = sparse.csr_matrix(COUNTS[:, :2])
    adata = ad.AnnData(counts, obs=pd.DataFrame(index=BEADS), var=pd.DataFrame(index=GENES[:2]))
    adata.obsm["spatial"] = XY
    adata.obsm["X_spatial"] = XY
    adata.write_h5ad(folder / "s_anndata.h5ad")
    for name in ("Metrics.csv", "variable_features_clusters.txt", "variable_features_spatial_moransi.txt"):
        (folder / f"s_{name}").write_text("Category,x\nBead,1\n")  # beside these, in a whole bundle
    (folder / "s_cluster_assignment.txt").write_text("".join(f"{cell}\t{i}\n" for i, cell in enumerate(BEADS)))
    return folder


def test_curio(tmp_path):
    adata = read(curio(tmp_path / "s"))
    check(adata, BEADS)
    assert list(adata.obs["cluster"]) == ["0", "1", "2"]


def gef_squares(path, *, named):
    """DNBs of three bins of 50; newer versions name genes by identifier and by symbol."""
    genes = np.array(
        [(b"ENS1", b"Penk", 0, 3), (b"ENS2", b"Doc2g", 3, 1)],
        dtype=[("geneID", "S64"), ("geneName", "S64"), ("offset", "u4"), ("count", "u4")],
    )
    if not named:
        genes = rename_fields(repack_fields(genes[["geneName", "offset", "count"]]), {"geneName": "gene"})
    dnbs = [(0, 0, 1), (49, 49, 2), (120, 10, 4), (60, 0, 2)]
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        group = file.create_group("geneExp/bin1")
        group["gene"] = genes
        group["expression"] = np.array(dnbs, dtype=[("x", "i4"), ("y", "i4"), ("count", "u2")])
    return path


def gef_cells(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        cells = [(7, 10, 1, 0, 2, 5), (9, 20, 2, 2, 1, 6), (11, 30, 3, 3, 1, 7)]
        kinds = [("id", "u4"), ("x", "i4"), ("y", "i4"), ("offset", "u4"), ("geneCount", "u2"), ("area", "u2")]
        file["cellBin/cell"] = np.array(cells, dtype=kinds)
        file["cellBin/cellExp"] = np.array([(0, 1), (1, 3), (1, 2), (0, 4)], dtype=[("geneID", "u4"), ("count", "u2")])
        file["cellBin/gene"] = np.array([(b"Penk",), (b"Doc2g",)], dtype=[("geneName", "S64")])
    return path


@pytest.mark.parametrize("named", [False, True])
def test_stereoseq_squares(tmp_path, named):
    path = gef_squares(tmp_path / "s" / "04.tissuecut" / "s.tissue.gef", named=named)
    for source in (path, tmp_path / "s"):
        adata = read(source)
        assert list(adata.obs_names) == ["0_0", "50_0", "100_0"]
        assert list(adata.var_names) == ["Penk", "Doc2g"]
        np.testing.assert_array_equal(adata.X.toarray(), [[3, 0], [0, 2], [4, 0]])
        np.testing.assert_array_equal(adata.obsm["spatial"], [[25, 25], [75, 25], [125, 25]])
        assert read(source, bin_size=200).X.toarray().tolist() == [[7, 2]]
    assert ("gene_ids" in adata.var) == named


def test_stereoseq_cells(tmp_path):
    path = gef_cells(tmp_path / "s" / "041.cellcut" / "s.cellbin.gef")
    for source in (path, tmp_path / "s"):
        adata = read(source)
        assert list(adata.obs_names) == ["7", "9", "11"]
        np.testing.assert_array_equal(adata.X.toarray(), [[1, 3], [0, 2], [4, 0]])
        np.testing.assert_array_equal(adata.obsm["spatial"], [[10, 1], [20, 2], [30, 3]])
    with pytest.raises(ValueError, match="square bins for bin_size=50, found cells"):
        read(path, bin_size=50)
    with pytest.raises(FileNotFoundError, match=r"found s\.cellbin\.gef"):
        read(tmp_path / "s", bin_size=50)


def gem(path, *, cells=True, symbols=True, count="MIDCount", comment="#FileFormat=GEMv0.1\n#OffsetX=0\n", end=""):
    """The counts of `gef_squares`, in another order, a DNB twice; cells 7 and 9, and DNBs in no cell."""
    rows = [
        ("ENS2", "Doc2g", 60, 0, 2, 1, 9),
        ("ENS1", "Penk", 0, 0, 1, 1, 7),
        ("ENS1", "Penk", 49, 49, 1, 0, 7),
        ("ENS1", "Penk", 49, 49, 1, 0, 7),
        ("ENS1", "Penk", 120, 10, 4, 0, 0),
    ]
    table = pd.DataFrame(rows, columns=["geneID", "geneName", "x", "y", count, "ExonCount", "CellID"])
    if not symbols:
        table = table.assign(geneID=table["geneName"]).drop(columns="geneName")
    if not cells:
        table = table.drop(columns=["ExonCount", "CellID"])
    text = (comment + table.to_csv(sep="\t", index=False) + end).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


@pytest.mark.parametrize("lines", [10**7, 2])
@pytest.mark.parametrize("name", ["s.tissue.gem.gz", "s.gem", "E16.5_GEM_bin1.tsv.gz"])
@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"cells": False},
        {"cells": False, "symbols": False},
        {"count": "UMICount", "cells": False, "comment": ""},
        {"count": "MIDCounts"},
    ],
)
def test_stereoseq_text(tmp_path, monkeypatch, lines, name, layout):
    monkeypatch.setattr("stcsm.io._gem.LINES_AT_ONCE", lines)
    path = gem(tmp_path / "s" / name, **layout)
    for source in (path, *([tmp_path / "s"] if ".gem" in name else [])):
        adata = read(source, bin_size=50)
        assert list(adata.obs_names) == ["0_0", "50_0", "100_0"]
        np.testing.assert_array_equal(adata[:, ["Penk", "Doc2g"]].X.toarray(), [[3, 0], [0, 2], [4, 0]])
        np.testing.assert_array_equal(adata.obsm["spatial"], [[25, 25], [75, 25], [125, 25]])
        assert read(source, bin_size=200).X.sum() == 9
        if layout.get("cells", True):
            cells = read(source)
            assert list(cells.obs_names) == ["7", "9"]
            np.testing.assert_array_equal(cells[:, ["Penk", "Doc2g"]].X.toarray(), [[3, 0], [0, 2]])
            np.testing.assert_array_equal(cells.obsm["spatial"], [[24.5, 24.5], [60, 0]])
        else:
            assert read(source).shape == (3, 2)
    if layout.get("symbols", True):
        assert adata.var.loc["Penk", "gene_ids"] == "ENS1"


def test_several_chips_in_a_folder_are_sections(tmp_path):
    for name in ("A1.tissue.gem.gz", "B2.tissue.gem.gz", "B2.raw.gem"):
        gem(tmp_path / name, cells=False)
    both = read(tmp_path)
    assert both.obs["section"].tolist() == ["A1"] * 3 + ["B2"] * 3
    assert list(both.obs_names[2:4]) == ["100_0-A1", "0_0-B2"]
    gef_squares(tmp_path / "B2.tissue.gef", named=True)  # the same in another form
    np.testing.assert_array_equal(read(tmp_path)[:, ["Penk", "Doc2g"]].X.toarray(), [[3, 0], [0, 2], [4, 0]] * 2)
    gef_cells(tmp_path / "A1.cellbin.gef")
    with pytest.raises(ValueError, match=r"of one kind .* all 2 sections, found A1.cellbin.gef, .*bin_size="):
        read(tmp_path)
    assert read(tmp_path, bin_size=50).obs["section"].nunique() == 2
    gef_squares(tmp_path / "copy" / "B2.tissue.gef", named=True)
    with pytest.raises(
        ValueError, match=r"one file of a kind of section 'B2', found B2.tissue.gef, copy.B2.tissue.gef"
    ):
        read(tmp_path, bin_size=50)


def test_corrected_cells_are_preferred(tmp_path):
    gef_cells(tmp_path / "A1.adjusted.cellbin.gef")
    (tmp_path / "A1.cellbin.gef").write_text("not read")
    assert read(tmp_path).shape == (3, 2)


def test_a_folder_of_two_platforms_is_refused(tmp_path):
    cosmx(tmp_path)
    merscope(tmp_path)
    with pytest.raises(ValueError, match="files of one platform, found those of CosMx and MERSCOPE"):
        read(tmp_path)


def test_several_sections_of_cosmx_are_not_left_to_a_reader_that_takes_the_first(tmp_path):
    cosmx(tmp_path)
    for name in ("t_exprMat_file.csv", "t_fov_positions_file.csv"):
        (tmp_path / name).write_text("fov,cell_ID,Penk\n1,1,1\n")
    for name in ("CellComposite", "CellLabels"):
        (tmp_path / name).mkdir()
    with pytest.raises(
        ValueError, match=r"one file \*exprMat_file.csv\*, found s_exprMat_file.csv, t_exprMat_file.csv"
    ):
        read(tmp_path)


@pytest.mark.parametrize("lost", ["CellxGene", "CellCoordinates"])
def test_a_region_of_seqfish_without_one_of_its_files_is_not_dropped(tmp_path, lost):
    (seqfish(tmp_path) / f"Roi2_{lost}.csv").unlink()
    with pytest.raises(ValueError, match=rf"one file Roi2_{lost}.csv\*, found none"):
        read(tmp_path)


def test_the_side_of_a_bin_as_text(tmp_path):
    path = gem(tmp_path / "s.gem")
    for given in ("200", 200.0, " 200 "):
        assert read(path, bin_size=given).shape == (1, 2)
    for wrong in ("16um", 0, -8, 2.5, "nan"):
        with pytest.raises(ValueError, match=f"bin_size as a whole number, such as 16, found {wrong!r}"):
            read(path, bin_size=wrong)


def test_a_long_list_of_folders_is_cut_visibly(tmp_path):
    for i in range(6):
        gem(tmp_path / f"s{i}" / "s.gem")
    with pytest.raises(FileNotFoundError, match=r"its sections: .*s0, .*s3, \.\.\.\."):
        read(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("geneID\tx\ty\n", "the columns geneID, x, y, MIDCount, found geneID, x, y in"),
        ("geneID\tx\ty\tMIDCount\nPenk\t1\t2\tmany\n", "Expected numbers in x, y, MIDCount, found .*'many'"),
        ("geneID\tx\ty\tMIDCount\nPenk\t1\t2\t3\nPenk\t1\t2\n", "found an empty cell in"),
        ("geneID\tx\ty\tMIDCount\n", "found none in"),
        ("geneID\tx\ty\tMIDCount\tCellID\nPenk\t1\t2\t3\t0\n", "Expected counts in cells, found none"),
    ],
)
def test_gem_of_other_content(tmp_path, content, message):
    (tmp_path / "s.gem").write_text(content)
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "s.gem")


def test_gef_of_other_content(tmp_path):
    (tmp_path / "a.gef").write_text("no")
    with pytest.raises(ValueError, match="whole GEF"):
        read(tmp_path / "a.gef")
    with h5py.File(tmp_path / "b.gef", "w") as file:
        file["wholeExp"] = 1
    with pytest.raises(ValueError, match="found the groups wholeExp"):
        read(tmp_path / "b.gef")


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        ("cell_by_gene.csv", lambda s: s.replace("7,1", "7,x"), "table of counts, found .*'x'"),
        ("cell_by_gene.csv", lambda s: s.replace("7,1", "7,"), "an empty cell under 'Penk' for '7'"),
        ("cell_by_gene.csv", lambda s: s.split("\n")[0] + "\n", "found none"),
        ("cell_by_gene.csv", lambda s: "<html>", "cells separated by commas, tabs or semicolons, found '<html>'"),
        ("cell_by_gene.csv", lambda s: s + s.split("\n", 1)[1], "3 cells that occur more than once in the counts"),
        ("cell_metadata.csv", lambda s: s.replace("center_x", "x"), "found no center_x among EntityID, fov, x"),
        (
            "cell_metadata.csv",
            lambda s: s.replace("\n", "\n1"),
            r"none in common: 3 in the counts \(such as '7', '9'\)",
        ),
    ],
)
def test_tables_that_are_wrong_are_named(tmp_path, name, edit, message):
    folder = merscope(tmp_path)
    (folder / name).write_text(edit((folder / name).read_text()))
    with pytest.raises(ValueError, match=message) as error:
        read(folder)
    assert str(folder) in str(error.value)


def test_tables_in_other_encodings(tmp_path):
    folder = merscope(tmp_path / "run")
    for path in folder.iterdir():
        path.write_bytes(path.read_text().encode("utf-16"))
    check(read(folder))
    table = folder / "cell_metadata.csv"
    text = table.read_text("utf-16")
    table.write_bytes(text.replace("fov", "fov,note").replace(",0,", ",0,r\xe9gion,").encode("latin-1"))
    with pytest.raises(ValueError, match=r"Latin-1; save it in UTF-8"):
        read(folder)


def test_cells_without_coordinates_are_counted(tmp_path):
    folder = merscope(tmp_path)
    lines = (folder / "cell_metadata.csv").read_text().split("\n")
    (folder / "cell_metadata.csv").write_text("\n".join([lines[0], *lines[2:]]))
    with pytest.warns(UserWarning, match="1 of 3 cells have no coordinates"):
        assert read(folder).n_obs == 2


@pytest.mark.parametrize(
    ("make", "gone", "message"),
    [
        (merscope, "cell_metadata.csv", r"MERSCOPE, found no \*cell_metadata\*.csv\*"),
        (cosmx, "s_exprMat_file.csv", r"CosMx, found no \*exprMat_file.csv\*"),
        (xenium, "cells.parquet", "Xenium, found no cells.parquet or cells.csv.gz or cells.csv"),
    ],
)
def test_the_missing_table_is_named(tmp_path, make, gone, message):
    folder = make(tmp_path / "run")
    (folder / gone).unlink()
    with pytest.raises(FileNotFoundError, match=message):
        read(folder)


def test_semicolons_and_quotes(tmp_path):
    folder = merscope(tmp_path)
    for name in ("cell_by_gene.csv", "cell_metadata.csv"):
        (folder / name).write_text((folder / name).read_text().replace(",", ";").replace("Penk", '"Penk"'))
    with pytest.warns(UserWarning, match="'Blank-1'"):
        check(read(folder))


def test_damaged_parquet_is_named(tmp_path):
    folder = xenium(tmp_path / "x")
    (folder / "cells.parquet").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"whole parquet file, .*cells\.parquet"):
        read(folder)


def test_tables_of_two_sections_in_one_folder(tmp_path):
    folder = merscope(tmp_path)
    (folder / "cell_by_gene.csv").rename(folder / "a_cell_by_gene.csv")
    (folder / "b_cell_by_gene.csv").write_bytes((folder / "a_cell_by_gene.csv").read_bytes())
    with pytest.raises(ValueError, match=r"one file .*found a_cell_by_gene.csv, b_cell_by_gene.csv .*list of folders"):
        read(folder)


def test_row_names_of_r_without_a_corner_cell(tmp_path):
    folder = merscope(tmp_path)
    text = (folder / "cell_by_gene.csv").read_text()
    (folder / "cell_by_gene.csv").write_text(text.removeprefix("cell,"))
    with pytest.warns(UserWarning, match="'Blank-1'"):
        check(read(folder))


def whole_cosmx(folder):
    import tifffile

    cosmx(folder, fov=(3, 3, 3), cell=(1, 2, 3))  # its reader wants three cells in every field
    put(folder / "s_fov_positions_file.csv", pd.DataFrame({"fov": [3], "x_global_px": 0, "y_global_px": 0}))
    for name, shape in {"CellLabels": (16, 16), "CellComposite": (16, 16, 3)}.items():
        (folder / name).mkdir()
        tifffile.imwrite(folder / name / f"{name}_F003.tif", np.ones(shape, np.uint8))
    return folder, ["1_3", "2_3", "3_3"]


def whole_merscope(folder):
    merscope(folder, ordered=True)
    (folder / "images").mkdir()
    np.savetxt(folder / "images" / "micron_to_mosaic_pixel_transform.csv", np.eye(3))
    return folder, CELLS


def whole_xenium(folder):
    import zarr

    xenium(folder)
    (folder / "experiment.xenium").write_text(json.dumps({"pixel_size": 0.2, "analysis_sw_version": "xenium-1.0.2"}))
    store = folder.parent / "cells.zarr"
    zarr.open_group(store, mode="w").create_array("cell_id", data=np.arange(3))
    with zipfile.ZipFile(folder / "cells.zarr.zip", "w") as file:
        for path in store.rglob("*"):
            file.write(path, path.relative_to(store))
    return folder, CELLS


@needs_spatialdata_io
@pytest.mark.parametrize("whole", [whole_cosmx, whole_merscope, whole_xenium])
@pytest.mark.filterwarnings("ignore")
def test_a_whole_bundle_goes_through_spatialdata_io_and_gives_the_same(tmp_path, whole, caplog):
    folder, names = whole(tmp_path / "run")
    with caplog.at_level(logging.INFO, "stcsm"):
        adata = read(folder)
    assert "read with spatialdata_io." in caplog.text
    check(adata, names)
    adata.write_h5ad(tmp_path / "again.h5ad")


@pytest.mark.filterwarnings("ignore")
def test_without_spatialdata_io_the_extra_is_named(tmp_path, monkeypatch, caplog):
    folder, _ = whole_merscope(tmp_path / "run")
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "spatialdata_io" else found(name))
    with caplog.at_level(logging.INFO, "stcsm"):
        check(read(folder))
    assert 'spatialdata-io is missing (pip install "stcsm[io]")' in caplog.text


@needs_spatialdata_io
@pytest.mark.filterwarnings("ignore")
def test_what_spatialdata_io_cannot_read_is_read_from_the_tables(tmp_path, caplog):
    folder, _ = whole_merscope(tmp_path / "run")
    merscope(folder)  # its reader takes the rows of both tables to be in one order
    with caplog.at_level(logging.INFO, "stcsm"):
        check(read(folder))
    assert "spatialdata_io.merscope failed (ValueError: " in caplog.text


@pytest.mark.filterwarnings("ignore:.*left out")
@pytest.mark.parametrize(
    ("folder", "shape", "cell", "xy", "gene", "count"),
    [
        ("Xenium_small", (6, 4), "1", (1898.81491699219, 2540.96314697266), "ADAM9", 3),
        ("CosMx_small", (9, 8), "2_10", (25709.7777777778, 162480.666666667), "ACE2", 2),
        ("MERSCOPE_small", (8, 9), "88869", (12501.3060081969, 10052.7792821054), "PDK4", 0),
        ("STARmapPLUS_small", (9, 8), "well05_4", (693.489539748954, 920.4476987447699), "ADA", 1),
        ("STARmapPLUS_small", (9, 8), "well05_3", (1047.6175548589301, 1048.35423197492), "ADA", 0),
    ],
)
def test_real_tables(data_dir, folder, shape, cell, xy, gene, count):
    adata = read(data_dir / "vendor" / folder)
    assert adata.shape == shape
    np.testing.assert_allclose(adata[cell].obsm["spatial"][0], xy)
    assert adata[cell, gene].X.toarray().item() == count


def big(folder, platform, counts, xy):
    """Tables of a platform; counts with one control more than genes."""
    genes, cells = [f"Gene{i}" for i in range(counts.shape[1] - 1)], np.arange(len(counts))
    folder.mkdir()
    if platform == "xenium":
        kinds = ("Gene Expression",) * len(genes) + ("Blank Codeword",)
        layout = Layout(genes=(*genes, "Blank"), types=kinds)
        names = [f"aaaa{i}-1" for i in cells]
        matrix = sparse.csc_matrix(counts.T.astype(np.int32))
        write_h5(folder / "cell_feature_matrix.h5", matrix, names, layout.genes, layout)
        put(folder / "cells.csv", pd.DataFrame({"cell_id": names, "x_centroid": xy[:, 0], "y_centroid": xy[:, 1]}))
        return
    table = pd.DataFrame(counts, columns=[*genes, "Blank-1" if platform == "merscope" else "NegPrb1"])
    if platform == "merscope":
        names = 1108834764611924619 + cells
        table.insert(0, "cell", names)
        put(folder / "cell_by_gene.csv", table)
        place = {"EntityID": names, "center_x": xy[:, 0], "center_y": xy[:, 1]}
        put(folder / "cell_metadata.csv", pd.DataFrame(place))
        return
    of = pd.DataFrame({"fov": 1 + cells // 100, "cell_ID": 1 + cells % 100})
    put(folder / "s_exprMat_file.csv", pd.concat([of, table], axis=1))
    place = pd.DataFrame(xy, columns=["CenterX_global_px", "CenterY_global_px"])
    put(folder / "s_metadata_file.csv", pd.concat([of, place], axis=1))


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["cosmx", "merscope", "xenium"])
def test_tables_of_a_platform_go_through_the_command_line(tmp_path, platform):
    """300 cells x 60 genes, ten of which mark the right half: their map is higher there."""
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, 2000, (300, 2))
    xy = xy[np.argsort(xy[:, 0])]  # fields of view are tiles
    mean = np.ones((300, 61))
    mean[150:, :10] = 6
    big(tmp_path / "run", platform, rng.poisson(mean), xy)
    arguments = ["run", str(tmp_path / "run"), "--genes", "right=Gene0,Gene1", "--null", "0", "--n-seeds", "1"]
    done = CliRunner().invoke(app, [*arguments, "--quiet", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    result = ad.read_h5ad(tmp_path / "out" / "result.h5ad")
    assert result.shape == (300, 60)
    value = np.asarray(result.obsm["concept_map"]["right"])
    right = result.obsm["spatial"][:, 0] > np.median(xy[:, 0])
    assert value[right].mean() > value[~right].mean() + value.std() / 2
