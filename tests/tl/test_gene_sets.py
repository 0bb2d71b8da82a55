"""Gene sets from files, networks, rankings and columns; and everything that can be wrong with them."""

from __future__ import annotations

import gzip
import logging
import re

import numpy as np
import pandas as pd
import pytest
import scanpy as sc

from stcsm import tl
from stcsm.concepts import gene_set
from stcsm.models import GeneVAE

ALL = [f"{c}{i}" for c in "abc" for i in range(30)]


def genes_of(adata, key):
    return set(adata.uns["stcsm"]["concepts"][key]["genes"])


def test_network_with_weights_and_signs(tissue, model):
    net = pd.DataFrame({"source": ["T", "T", "U"], "target": ["a0", "b0", "c1"], "weight": [1.0, -2.0, 1.0]})
    tl.concepts(tissue, model, genes=net)
    record = tissue.uns["stcsm"]["concepts"]["T"]
    assert dict(zip(record["genes"], record["weights"], strict=True)) == {"a0": 1.0, "b0": -2.0}
    assert genes_of(tissue, "U") == {"c1"}


def test_gene_sets_as_objects(tissue, model):
    tl.concepts(tissue, model, genes=[gene_set("x", {"a0": "up", "b0": "down"}), gene_set("y", ["a1", "absent"])])
    assert genes_of(tissue, "y") == {"a1"}
    assert tl.concept_table(tissue).loc["y", "fraction"] == 0.5


def test_ranking_that_is_there_already(tissue, model):
    copy = tissue.copy()
    sc.pp.normalize_total(copy)
    sc.pp.log1p(copy)
    copy.obs["region"] = copy.obs["region"].astype("category")
    sc.tl.rank_genes_groups(copy, "region", key_added="mine")
    tissue.uns["mine"] = copy.uns["mine"]
    tl.concepts(tissue, model, rank_genes="mine", n_markers=10)
    assert {g[0] for g in genes_of(tissue, "A_left")} == {"a"}
    with pytest.raises(ValueError, match="rank_genes_groups"):
        tl.concepts(tissue, model, rank_genes="spatial")


def test_identifiers_of_a_var_column(tissue, model):
    tissue.var["id"] = [f"ENSMUSG{i:011d}" for i in range(tissue.n_vars)]
    tl.concepts(tissue, model, genes={"x": ["ENSMUSG00000000003"]}, match="id")
    assert genes_of(tissue, "x") == {"a3"}
    with pytest.raises(ValueError, match="Ensembl"):
        tl.concepts(tissue, model, genes={"x": ["ENSMUSG00000000003"]})
    with pytest.raises(ValueError, match="to match on"):
        tl.concepts(tissue, model, genes={"x": ["a0"]}, match="nowhere")
    tl.concepts(tissue, model, genes={"y": ["A3"]}, ignore_case=True)
    assert genes_of(tissue, "y") == {"a3"}


def test_file_of_sets_leaves_out_what_cannot_be_and_says_so(tissue, model, tmp_path, caplog):
    lines = ["good\tx\ta0\ta1", "alien\tx\tq1\tq2", "everything\tx\t" + "\t".join(ALL), "half\tx\tb0\tq3\tq4"]
    path = tmp_path / "sets.gmt.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    with caplog.at_level(logging.WARNING):
        tl.concepts(tissue, model, genes=path)
    assert set(tissue.uns["stcsm"]["concepts"]) == {"good", "half"}
    assert "2 of 4 gene sets are left out" in caplog.text
    assert "(1 of 3" in caplog.text
    with pytest.raises(ValueError, match="alien"):
        tl.concepts(tissue, model, genes=path, missing="error")


def test_accuracy_of_a_classifier_is_reported(tissue, model):
    tl.concepts(tissue, model, genes={"left": ["a0", "a1", "a2", "a3", "a4"], "one": ["a5"]}, estimator="cav")
    table = tl.concept_table(tissue)
    assert table.loc["left", "cv_accuracy"] > 0.8
    assert np.isnan(table.loc["one", "cv_accuracy"])  # one gene: nothing is left to test on


@pytest.mark.parametrize(
    ("genes", "message"),
    [
        ({}, "at least one gene set"),
        ({"x": []}, "empty set"),
        ({"x": ["+", "-"]}, "sign '\\+' alone"),
        ({"x": {"a0": np.nan}}, "finite weight"),
        ({"x": {"a0": "high"}}, "number or a sign"),
        ({"x": {"a0": 0}}, "all zero"),
        ({"x": ["a0"], " x": ["a1"]}, "twice"),
        ({"x": ALL}, "covers all"),
        ({"x": ["A0"]}, "case differs"),
        ({"x": ["nope"]}, "Expected gene names"),
        (pd.DataFrame({"a": ["x"], "b": ["a0"]}), "source, target"),
        (pd.DataFrame({"source": ["x"], "target": ["a0"], "weight": [np.nan]}), "finite weight"),
        (pd.DataFrame({"source": [], "target": []}), "at least one edge"),
        (["a0", "a1"], "bare list"),
    ],
)
def test_bad_sets_are_refused_before_anything_is_written(tissue, model, genes, message):
    with pytest.raises((ValueError, TypeError), match=message):
        tl.concepts(tissue, model, genes=genes)
    assert "concepts" not in tissue.uns["stcsm"]


def test_signs_alone_are_weights_and_a_set_of_downs_points_away(tissue, model):
    tl.concepts(
        tissue, model, genes={"up": ["a0", "a1"], "down": {"a0": "-", "a1": "-"}, "both": {"a0": "+", "b0": "-"}}
    )
    scores = tissue.varm["concept_score"]
    np.testing.assert_allclose(scores["down"], -scores["up"], rtol=1e-4, atol=1e-6)
    assert set(tissue.uns["stcsm"]["concepts"]["both"]["weights"]) == {1.0, -1.0}


def test_genes_and_sets_given_twice_count_once(tissue, model):
    tl.concepts(tissue, model, genes={"once": ["a0", "a1"], "twice": ["a0", "a1", "a0"], "again": ["a1", "a0"]})
    scores = tissue.varm["concept_score"]
    for name in ("twice", "again"):
        np.testing.assert_allclose(scores[name], scores["once"], rtol=1e-5, atol=1e-6)
    assert tissue.uns["stcsm"]["concept_info"].loc["twice", "n_given"] == 2


@pytest.mark.parametrize("one", [["a0"], "a0", {"a0": -2.5}])
def test_a_set_of_one_gene_is_a_concept_and_is_tested(tissue, model, one):
    tl.concepts(tissue, model, genes={"one": one})
    tl.saliency(tissue, model)
    tl.significance(tissue, model, n_random=199)
    table = tl.concept_table(tissue)
    assert table.loc["one", "n_usable"] == 1
    assert table.loc["one", "smallest_p"] >= 1 / len(ALL)  # no rarer than one gene among all


def test_a_file_with_a_set_of_all_genes_leaves_it_out(tissue, model, tmp_path, caplog):
    path = tmp_path / "sets.gmt"
    path.write_text("everything\tx\t" + "\t".join(ALL) + "\nsome\tx\ta0\ta1\n")
    tl.concepts(tissue, model, genes=str(path))
    assert list(tissue.uns["stcsm"]["concepts"]) == ["some"]
    assert "everything" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\tx\ta0\nb\tx\n", "line 2"),
        ("a\tx\ta0\n\tx\ta0\n", "line 2"),
        ("a\tx\ta0\na\tx\tb0\n", "line 1 and line 2"),
        ("a x a0 a1\n", "tabs"),
        ("", "empty file"),
        ("a\tx\ta0,nan\n", "line 1"),
    ],
)
def test_malformed_lines_are_named(tissue, model, tmp_path, text, message):
    path = tmp_path / "bad.gmt"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        tl.concepts(tissue, model, genes=str(path))


@pytest.mark.parametrize("arguments", [{"genes": {"x": ["a0"]}}, {"groupby": None, "genes": {"x": ["a0"]}}])
def test_profiles_are_of_labels(tissue, model, arguments):
    with pytest.raises(ValueError, match="estimator='profile'"):
        tl.concepts(tissue, model, estimator="profile", **arguments)


def test_the_best_counted_row_of_a_symbol_is_taken_and_said(tissue, model, caplog):
    totals = np.asarray(tissue.X.sum(axis=0)).ravel().astype(int)
    tissue.var["symbol"] = list(tissue.var_names)
    tissue.var.loc["c28", "symbol"] = "a3"  # 3 counts, and hundreds
    tissue.var.loc["c29", "symbol"] = "b4"  # no count
    tl.concepts(tissue, model, genes={"x": ["a3", "b4", "a5"], "one": ["b1", "b4"], "none": ["a5"]}, match="symbol")
    assert genes_of(tissue, "x") == {"a3", "b4", "a5"}
    assert tl.concept_table(tissue)["n_ambiguous"].to_dict() == {"x": 2, "one": 1, "none": 0}
    assert "belong to 2 of the genes asked for" in caplog.text
    assert f"for 'a3' it is 'a3' ({totals[3]} counts) and not 'c28' (3), and 'b4'" in caplog.text
    tissue.var["symbol"] = ["s" if g in ("c28", "a7") else g for g in tissue.var_names]
    tl.concepts(tissue, genes={"y": ["s", "b1"]}, match="symbol")  # of the embedding, without the model
    assert genes_of(tissue, "y") == {"a7", "b1"}


def test_rows_that_were_made_unique(tissue, model, caplog):
    tissue.var_names = ["c28-1" if g == "a0" else g for g in tissue.var_names]
    sets = tl.match_gene_sets(tissue, genes={"x": ["c28", "b0"]})
    assert sets.genes == {"x": ["c28-1", "b0"]}
    assert "for 'c28' it is 'c28-1'" in caplog.text
    tissue.var["module"] = ["m" if g in ("c28", "b0") else None for g in tissue.var_names]
    assert tl.match_gene_sets(tissue, genes="module").genes == {"m": ["b0", "c28"]}  # rows stand for themselves


def test_a_file_without_descriptions_keeps_its_first_genes(tissue, model, tmp_path, caplog):
    path = tmp_path / "sets.gmt"
    path.write_text("left\ta0\ta1\ta2\nright\tb0\tb1\n")
    tl.concepts(tissue, model, genes=str(path))
    assert genes_of(tissue, "left") == {"a0", "a1", "a2"}
    assert "no descriptions" in caplog.text
    tissue.var["id"] = range(100, 190)
    path.write_text("left\t100\t101\n")
    tl.concepts(tissue, model, genes=str(path), match="id", keep=False)
    assert genes_of(tissue, "left") == {"a0", "a1"}


@pytest.mark.parametrize("text", ["nan", "NaN", "NA", "N/A", "<NA>", "None", "none", "null", "", " "])
@pytest.mark.parametrize("dtype", ["category", "string", object])
def test_texts_that_stand_for_no_label(tissue, model, caplog, text, dtype):
    labels = tissue.obs["region"].astype(object)
    labels[:10] = text
    tissue.obs["area"] = labels.astype(dtype)
    before = tissue.obs["area"].copy()
    sets = tl.match_gene_sets(tissue, groupby="area", n_markers=5)
    assert sets.names == ["A/left", "B"]
    assert f"10 spots of adata.obs['area'] have a text that stands for no label ({text!r})" in caplog.text
    pd.testing.assert_series_equal(tissue.obs["area"], before)
    tissue.obs["gaps"] = labels.where(labels != text)
    expected = tl.match_gene_sets(tissue, groupby="gaps", n_markers=5)
    assert sets.genes == expected.genes
    with pytest.raises(ValueError, match="stands for no label; rename that label"):
        tl.match_gene_sets(tissue, groupby="area", groups=["None"])


def test_numbers_beside_missing_ones_are_labels(tissue, model):
    codes = np.where(tissue.obs["region"] == "B", 2.0, 1.0)
    codes[:5] = np.nan
    for labels in (codes, pd.Categorical(codes), pd.array(codes).astype("Int64"), codes.astype(object)):
        tissue.obs["cluster"] = labels
        assert tl.match_gene_sets(tissue, groupby="cluster", n_markers=3).names == ["1", "2"]


def test_differential_takes_labels_as_concepts_do(tissue, model, caplog):
    tl.concepts(tissue, model, genes={"x": ["a0", "a1"]})
    tl.saliency(tissue, model)
    text = tissue.obs["region"].astype(object)
    text[:16] = np.nan
    tissue.obs["gaps"] = text
    tissue.obs["area"] = text.astype(str).astype("category")
    expected = tl.differential(tissue, "gaps", "A/left", spots_a_block=4, n_permutations=99)
    found = tl.differential(tissue, "area", "A/left", spots_a_block=4, n_permutations=99)
    pd.testing.assert_frame_equal(found, expected)
    assert "16 spots of adata.obs['area']" in caplog.text
    with pytest.raises(ValueError, match="'nan', a text that stands for no label"):
        tl.differential(tissue, "area", "A/left", "nan")


def ranked(tissue):
    copy = tissue.copy()
    sc.pp.normalize_total(copy)
    sc.pp.log1p(copy)
    copy.obs["region"] = copy.obs["region"].astype("category")
    sc.tl.rank_genes_groups(copy, "region")
    return copy.uns["rank_genes_groups"]


@pytest.mark.parametrize("missing", [np.nan, "nan"])  # in memory, and as a file gives it back
def test_a_filtered_ranking_gives_the_next_markers(tissue, model, missing):
    result = ranked(tissue)
    names = result["names"].copy()
    names["A/left"][::2] = missing
    tissue.uns["filtered"] = {**result, "names": names}
    tl.concepts(tissue, model, rank_genes="filtered", n_markers=6)
    assert genes_of(tissue, "A_left") == set(result["names"]["A/left"][1:12:2])
    assert genes_of(tissue, "B") == set(result["names"]["B"][:6])
    assert tl.concept_table(tissue).loc["A_left", "n_given"] == 6


def test_a_group_that_is_filtered_empty_is_left_out(tissue, model, caplog):
    result = ranked(tissue)
    names = result["names"].copy()
    names["B"][:] = np.nan
    tissue.uns["filtered"] = {**result, "names": names}
    assert tl.match_gene_sets(tissue, rank_genes="filtered").names == ["A/left"]
    assert "without a gene of score above 0 are left out: B" in caplog.text
    names["A/left"][:] = np.nan
    with pytest.raises(ValueError, match="found none of score above 0 in A/left, B"):
        tl.match_gene_sets(tissue, rank_genes="filtered")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([1.0, 2.0, np.nan, 1.0], {"1": ["a0", "a3"], "2": ["a1"]}),
        (pd.array([1, 2, None, 1], dtype="Int64"), {"1": ["a0", "a3"], "2": ["a1"]}),
        (["m1", "nan", "", "m1"], {"m1": ["a0", "a3"]}),
        ([True, False, np.nan, True], {"module": ["a0", "a3"]}),
        (pd.array([True, False, None, True], dtype="boolean"), {"module": ["a0", "a3"]}),
        (pd.Categorical(["True", "False", None, "True"]), {"module": ["a0", "a3"]}),
    ],
)
def test_modules_with_gaps(tissue, model, given, expected):
    column = pd.Series(given, index=tissue.var_names[:4]).reindex(tissue.var_names)
    tissue.var["module"] = column
    assert tl.match_gene_sets(tissue, genes="module").genes == expected


def test_measurements_are_no_modules(tissue, model):
    tissue.var["score"] = np.linspace(0, 1, tissue.n_vars)
    tissue.var["total"] = np.arange(tissue.n_vars).astype(float)
    for name, message in (("score", "fractional numbers"), ("total", "90 different numbers")):
        with pytest.raises(ValueError, match=message):
            tl.match_gene_sets(tissue, genes=name)


@pytest.mark.parametrize("dtype", [str, "string", "category", "int64", "Int64", "float64"])
def test_identifiers_of_any_type_are_matched_by_their_text(tissue, model, dtype):
    tissue.var["id"] = pd.Series(range(100, 190), index=tissue.var_names).astype(dtype)
    for asked in (["101", "102"], [101, 102]):
        assert tl.match_gene_sets(tissue, genes={"x": asked}, match="id").genes == {"x": ["a1", "a2"]}
    net = pd.DataFrame({"source": "T", "target": [101, 102]})
    assert tl.match_gene_sets(tissue, genes=net, match="id").genes == {"T": ["a1", "a2"]}


@pytest.mark.parametrize("kind", ["categories", "string", "integers"])
def test_names_of_any_type_go_through_the_whole_analysis(tissue, kind):
    adata = tissue.copy()
    if kind == "integers":
        adata.var_names, adata.obs_names = pd.Index(range(1000, 1090)), pd.Index(range(64))
        asked, expected = [1000, "1001"], {"1000", "1001"}
    else:
        dtype = {"categories": "category", "string": "string"}[kind]
        adata.var_names, adata.obs_names = adata.var_names.astype(dtype), adata.obs_names.astype(dtype)
        asked, expected = ["a0", "a1"], {"a0", "a1"}
    adata.uns, adata.varm = {}, {}
    GeneVAE.setup_anndata(adata)
    model = GeneVAE(adata, n_latent=4, n_hidden=8, smoothing=0)
    model.train(max_epochs=2, progress=False)
    tl.concepts(adata, model, genes={"x": asked})
    tl.saliency(adata, model, genes="concept")
    assert genes_of(adata, "x") == expected
    assert np.isfinite(adata.obsm["concept_saliency"].to_numpy()).all()
    own = np.asarray(adata.varm["concept_score"]["x"])[:2]
    assert np.isfinite(own).all()


def test_ranked_genes_with_gaps(tissue, model, caplog):
    """What ``filter_rank_genes_groups`` leaves, as scanpy's users take it out: a record array and its table."""
    best = [("a0", "b0"), (np.nan, "b1"), ("a2", np.nan), ("a3", np.nan)]
    names = np.array(best, dtype=[("left", object), ("right", object)])
    expected = {"left": ["a0", "a2", "a3"], "right": ["b0", "b1"]}
    for genes in (names, pd.DataFrame(names), {group: names[group] for group in names.dtype.names}):
        caplog.clear()
        assert tl.match_gene_sets(tissue, model, genes=genes).genes == expected
        assert re.search(r"3 missing names \(NaN\) in 2 (of 2 gene sets|columns of genes) are left out", caplog.text)
    names["right"] = np.nan
    assert tl.match_gene_sets(tissue, model, genes=names).genes == {"left": expected["left"]}
    assert "no name is left are left out: right" in caplog.text
    whole = np.array([("a0", "b0"), ("b0", "a0")], dtype=names.dtype)
    with pytest.raises(ValueError, match=r"found the same 2 in all, in other orders; take the best of each"):
        tl.match_gene_sets(tissue, model, genes=whole)
    long = pd.DataFrame({"group": ["left", "right"], "names": ["a0", "b0"]})
    with pytest.raises(ValueError, match=r"source, target .*found \['group', 'names'\]; rename"):
        tl.match_gene_sets(tissue, model, genes=long)
