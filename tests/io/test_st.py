from __future__ import annotations

import gzip
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from stcsm.io import read_st

from .conftest import COUNTS, GENES, SPOTS, table_text

LAYOUTS = {
    "plain": {},
    "gzipped": {"name": "counts.tsv.gz"},
    "gzipped under a plain name": {"rename": "counts.tsv"},
    "R's header, without a corner": {"corner": None},
    "a word in the corner": {"corner": "spot"},
    "commas": {"separator": ",", "name": "counts.csv"},
    "semicolons, no corner cell": {"separator": ";", "corner": None, "name": "counts.csv"},
    "R's quotes": {"quote": '"', "corner": None},
    "blanks and quotes, R's default": {"quote": '"', "corner": None, "separator": " "},
    "carriage returns": {"end": "\r\n"},
    "old Macintosh": {"end": "\r"},
    "byte order mark": {"mark": "\ufeff"},
    "blank lines at the end": {"tail": "\n\n"},
    "no last line end": {"cut": 1},
    "blanks around cells": {"separator": " , "},
}


@pytest.mark.parametrize("turned", [False, True], ids=["spots in rows", "genes in rows"])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_same_counts_from_every_layout(write, layout, turned):
    layout = dict(layout)
    name, rename = layout.pop("name", "counts.tsv"), layout.pop("rename", None)
    mark, tail, cut = layout.pop("mark", ""), layout.pop("tail", ""), layout.pop("cut", 0)
    sides = (GENES, SPOTS, COUNTS.T) if turned else (SPOTS, GENES, COUNTS)
    text = table_text(*sides, **layout)
    path = write(mark + text[: len(text) - cut] + tail, name)
    if rename:
        path = write(gzip.compress(path.read_bytes()), rename)

    adata = read_st(path)

    assert list(adata.obs_names) == SPOTS
    assert list(adata.var_names) == GENES
    assert sparse.isspmatrix_csr(adata.X)
    assert adata.X.dtype == np.float32
    assert adata.X.nnz == np.count_nonzero(COUNTS)
    np.testing.assert_array_equal(adata.X.toarray(), COUNTS)
    np.testing.assert_array_equal(adata.obsm["spatial_array"], [[16.92, 9.015], [17, 10], [2.5, -1]])
    np.testing.assert_array_equal(adata.obs["array_col"], [16.92, 17, 2.5])
    np.testing.assert_array_equal(adata.obs["array_row"], [9.015, 10, -1])
    np.testing.assert_array_equal(adata.obsm["spatial"], adata.obsm["spatial_array"])


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.lists(st.integers(0, 2**24), min_size=3, max_size=3), min_size=1, max_size=6),
    turned=st.booleans(),
)
def test_any_counts_come_back(tmp_path_factory, counts, turned):
    values = np.array(counts)
    spots = [f"{i + 1}x{2 * i}" for i in range(len(values))]
    path = tmp_path_factory.mktemp("st") / "counts.tsv"
    path.write_text(table_text(GENES[:3], spots, values.T) if turned else table_text(spots, GENES[:3], values))
    np.testing.assert_array_equal(read_st(path).X.toarray(), values)


def test_counts_too_large_for_float32_keep_their_value(write):
    adata = read_st(write(table_text(["1x2"], ["A", "B"], [[2**24 + 1, 1]])))
    assert adata.X[0, 0] == 2**24 + 1


def test_negative_and_fractional_values_are_left_for_the_model_to_judge(write):
    adata = read_st(write(table_text(["1x2"], ["A", "B"], [[-1, 0.5]])))
    np.testing.assert_array_equal(adata.X.toarray(), [[-1, 0.5]])


def test_array_positions_may_have_exponents_and_signs(write):
    adata = read_st(write(table_text(["1e1x+2.5", ".5x-3."], ["A", "B"], [[1, 2], [3, 4]])))
    np.testing.assert_array_equal(adata.obsm["spatial_array"], [[10, 2.5], [0.5, -3]])


BROKEN = {
    "a name that is not an array position": ({3: "17y10\t0\t0\t20\t7"}, r"'17y10' in line 3 of .*counts.tsv"),
    "an array position at infinity": ({3: "1e999x10\t0\t0\t20\t7"}, r"'1e999x10' in line 3"),
    "R's X before the name": ({2: "X16.92x9.015\t1\t0\t3\t0"}, r"'X16.92x9.015' in line 2"),
    "text for a number": (
        {4: "2.5x-1\t5\tone\t0\t0"},
        r"number, found 'one' in line 4 \('2.5x-1'\), column 3 \('Doc2g'\)",
    ),
    "an empty cell": ({3: "17x10\t0\t\t20\t7"}, r"number, found '' in line 3 .*column 3"),
    "not a number": ({3: "17x10\t0\tNA\t20\t7"}, r"number, found 'NA' in line 3"),
    "nan": ({3: "17x10\t0\tnan\t20\t7"}, r"number, found 'nan' in line 3"),
    "infinity": ({3: "17x10\t0\tinf\t20\t7"}, r"number, found 'inf' in line 3"),
    "underscore in a number": ({3: "17x10\t0\t1_0\t20\t7"}, r"number, found '1_0' in line 3"),
    "decimal comma": ({3: "17x10\t0\t1,5\t20\t7"}, r"number, found '1,5' in line 3"),
    "a row cut short": ({4: "2.5x-1\t5\t1"}, r"4 values.*found 2 in line 4 \('2.5x-1'\)"),
    "a row too long": ({3: "17x10\t0\t0\t20\t7\t9"}, r"4 values.*found 5 in line 3"),
    "a spot twice": ({4: "17x10\t5\t1\t0\t0"}, r"every spot name once, found 1 .*\(17x10\)"),
    "a gene twice": ({1: "\tPenk\tDoc2g\tPenk\tKctd12"}, r"every gene name once, found 1 .*\(Penk\).*duplicates='sum'"),
    "a gene without a name": ({1: "\tPenk\t\tKctd12\tOmp"}, r"name, found an empty one in line 1, column 3"),
    "a spot without a name": ({3: "\t0\t0\t20\t7"}, r"name, found an empty one at the beginning of line 3"),
}


@pytest.mark.parametrize(("lines", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_says_where_a_file_is_wrong(st_file, lines, message):
    with pytest.raises(ValueError, match=message):
        read_st(st_file(lines))


def test_a_quote_that_is_not_closed(write):
    names = [f"Gene{i}" for i in range(30_000)]
    text = table_text(["1x1"], names, [[1] * len(names)]).replace("Gene7\t", '"Gene7\t')
    with pytest.raises(ValueError, match="one that is not closed in line 1 of"):
        read_st(write(text))


def test_says_which_column_has_a_wrong_array_position(write):
    with pytest.raises(ValueError, match=r"'17y10' in line 1, column 3"):
        read_st(write(table_text(GENES, [SPOTS[0], "17y10", SPOTS[2]], COUNTS.T)))


def test_counts_all_wrong_array_positions(write):
    spots = ["1x1", "a", "2x2", "b", "3x3"]
    with pytest.raises(ValueError, match=r"'a' in line 3 .*and 1 more such name"):
        read_st(write(table_text(spots, ["A", "B"], np.ones((5, 2), int))))


@pytest.mark.parametrize(
    ("rows", "columns", "found"),
    [
        (["AAAC-1", "AAAG-1"], ["Penk", "Omp"], "on neither: rows begin"),
        (["1x2", "2x2"], ["3x4", "4x4"], "on both sides"),
    ],
)
def test_needs_array_positions_on_one_side(write, rows, columns, found):
    with pytest.raises(ValueError, match=found):
        read_st(write(table_text(rows, columns, [[1, 2], [3, 4]])))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty file"),
        ("\n\n", "found as its first line ''"),
        ("\tPenk\tDoc2g\n", "found none"),
        ("<!DOCTYPE html>\n<html>\n", "web page"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\xff\xfe", "UTF-8"),
        (
            "\tP\xe9nk\tDoc2g\n1x2\t1\t2\n".encode("latin-1"),
            r"line 1 of .*, such as b'\\xe9', which is '\xe9' in Latin-1",
        ),
        ("\tPenk\tDoc2g\n1x2\t1\t2\n".encode("utf-16")[:-1], "UTF-16 text, as the first bytes say"),
    ],
    ids=["empty", "blank lines", "header alone", "a web page", "an image", "Latin-1", "UTF-16 cut short"],
)
def test_refuses_what_is_no_table(write, content, message):
    with pytest.raises(ValueError, match=message):
        read_st(write(content))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be"])
@pytest.mark.parametrize("name", ["counts.tsv", "counts.tsv.gz"])
def test_text_as_excel_saves_it(write, encoding, name):
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    text = mark + table_text(SPOTS, ["Penk", "Doc2g", "\u03b1Syn", "G4"], COUNTS, end="\r\n")
    adata = read_st(write(text.encode(encoding), name))
    assert list(adata.obs_names) == SPOTS
    assert list(adata.var_names) == ["Penk", "Doc2g", "\u03b1Syn", "G4"]
    np.testing.assert_array_equal(adata.X.toarray(), COUNTS)


def test_missing_file_and_folder(tmp_path, st_file):
    st_file(name="Rep1_counts.tsv")
    with pytest.raises(FileNotFoundError, match=r"similar names there: Rep1_counts.tsv"):
        read_st(tmp_path / "Rep1_count.tsv")
    with pytest.raises(IsADirectoryError, match="found a folder"):
        read_st(tmp_path)


@pytest.mark.parametrize("kept", [0.2, 0.6, 0.99])
def test_gzip_cut_short_at_any_point_is_refused(write, kept):
    whole = gzip.compress(table_text([f"{i}x1" for i in range(200)], GENES, np.arange(800).reshape(200, 4)).encode())
    with pytest.raises(ValueError, match="cut short or damaged"):
        read_st(write(whole[: int(len(whole) * kept)], "cut.tsv"))


def test_damaged_gzip_is_refused(write):
    whole = bytearray(gzip.compress(table_text([f"{i}x1" for i in range(200)], GENES, np.ones((200, 4), int)).encode()))
    whole[len(whole) // 2] ^= 0xFF
    with pytest.raises(ValueError, match=r"cut short or damaged|number|UTF-8|values|first line"):
        read_st(write(bytes(whole), "damaged.tsv"))


def test_duplicates_are_added_up_on_request(st_file):
    adata = read_st(st_file({1: "\tPenk\tDoc2g\tPenk\tKctd12", 4: "17x10\t5\t1\t0\t0"}), duplicates="sum")
    assert list(adata.obs_names) == ["16.92x9.015", "17x10"]
    assert list(adata.var_names) == ["Penk", "Doc2g", "Kctd12"]
    np.testing.assert_array_equal(adata.X.toarray(), [[4, 0, 0], [25, 1, 7]])
    assert adata.X.dtype == np.float32
    with pytest.raises(ValueError, match="'error' or 'sum'"):
        read_st(st_file(), duplicates="mean")


def test_survives_h5ad(st_file, tmp_path):
    import anndata as ad

    adata = read_st(st_file())
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    pd.testing.assert_frame_equal(again.obs, adata.obs)
    np.testing.assert_array_equal(again.X.toarray(), adata.X.toarray())
    np.testing.assert_array_equal(again.obsm["spatial_array"], adata.obsm["spatial_array"])
    entry = again.uns["spatial"]["counts"]
    assert entry["scalefactors"]["spot_diameter_fullres"] == 0.5
    np.testing.assert_array_equal(entry["images"]["hires"], adata.uns["spatial"]["counts"]["images"]["hires"])


def test_the_files_name_names_the_section(st_file):
    assert list(read_st(st_file(name="Rep1.v2.tsv.gz")).uns["spatial"]) == ["Rep1.v2"]


def test_says_nothing_about_a_right_file(st_file):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*infer_string.*")  # anndata's own, with pandas 3
        read_st(st_file())
