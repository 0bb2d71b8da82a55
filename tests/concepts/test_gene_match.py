import numpy as np
import pandas as pd
import pytest

from stcsm.concepts import GeneIndex, gene_sets, match_gene_sets, match_genes

MOUSE = ["Penk", "Doc2g", "Kctd12", "Pvalb", "Th", "Gad1", "mt-Co1"]


def test_rows_in_the_order_asked_for():
    match = match_genes(["Th", "Penk", "Nope", "Th"], MOUSE)
    np.testing.assert_array_equal(match.index, [4, 0])
    assert match.found == ("Th", "Penk")
    assert match.missing == ("Nope",)
    assert match.duplicates == ("Th",)
    assert match.fraction == pytest.approx(2 / 3)
    assert np.isnan(match_genes([], MOUSE).fraction)


def test_case_is_named_as_such():
    with pytest.raises(ValueError) as error:
        match_genes(["PENK"], MOUSE, missing="error")
    assert "Expected gene names of this AnnData" in str(error.value)
    assert "found 'PENK'; did you mean 'Penk' (case differs)?" in str(error.value)
    assert match_genes(["PENK"], MOUSE).suggestions == {"PENK": ("Penk", "case differs")}
    np.testing.assert_array_equal(match_genes(["PENK", "MT-CO1"], MOUSE, ignore_case=True).index, [0, 6])


def test_a_whole_human_list_against_mouse_says_so_once():
    with pytest.raises(ValueError, match=r"6 of the 7 unknown names differ in case only .*ignore_case=True"):
        match_genes([name.upper() for name in MOUSE[:6]] + ["XYZ"], MOUSE, missing="error")


def test_ambiguous_case_is_never_guessed():
    names = ["Abc", "ABC", "xyz"]
    match = match_genes(["abc"], names, ignore_case=True)
    assert match.missing == ("abc",)
    assert "abc" not in {s[0] for s in match.suggestions.values()}


def test_typing_errors_blanks_and_ensembl_versions():
    index = GeneIndex([*MOUSE, "ENSMUSG00000045573.4"])
    assert index.suggest("Kctd21") == ("Kctd12", "closest name")
    assert index.suggest(" Penk") == ("Penk", "blanks around it")
    assert index.suggest("ENSMUSG00000045573") == ("ENSMUSG00000045573.4", "Ensembl version differs")
    assert index.suggest("ENSMUSG00000045573.9") == ("ENSMUSG00000045573.4", "Ensembl version differs")
    assert GeneIndex(["ENSG00000181195"]).suggest("ENSG00000181195.3") == (
        "ENSG00000181195",
        "Ensembl version differs",
    )
    assert index.suggest("qqqqqqq") is None


def test_symbols_against_ensembl_names_the_column_to_match_on():
    with pytest.raises(ValueError, match=r"name the \.var column"):
        match_genes(["Penk"], ["ENSMUSG00000045573", "ENSMUSG00000000001"], missing="error")


def test_a_symbol_column_may_have_gaps_and_repeats():
    match = match_genes(["A", "B"], ["A", None, float("nan"), "B", "A"], what="entries of .var['symbol']")
    np.testing.assert_array_equal(match.index, [0, 3])
    assert match.ambiguous == ("A",)
    with pytest.raises(ValueError, match="Expected entries to match on, found no text in 2 entries"):
        GeneIndex([None, None], "entries")


def test_many_unknown_names_are_counted_not_listed():
    with pytest.raises(ValueError, match=r"and 95 more\."):
        match_genes([f"unknown{i}" for i in range(100)], MOUSE, missing="error")


def test_a_match_counts_what_it_found():
    sets = gene_sets({"a": {"g0": 2, "g2": -1, "zz": 1}, "b": ["g1"]})
    m = match_gene_sets(sets, ["g0", "g1", "g2", "g3"], usable=[True, True, False, True])
    np.testing.assert_array_equal(m.weights.toarray(), [[2, 0, -1, 0], [0, 1, 0, 0]])
    np.testing.assert_array_equal(m.n_given, [3, 1])
    np.testing.assert_array_equal(m.n_found, [2, 1])
    np.testing.assert_array_equal(m.n_usable, [1, 1])
    np.testing.assert_allclose(m.fraction, [2 / 3, 1])
    assert m.missing == (("zz",), ())


def test_a_match_refuses_or_skips():
    names, usable = ["g0", "g1", "g2"], [True, True, False]
    for genes, reason in [
        (["zz"], "found none"),
        (["g2"], "its 1 genes have none"),
        (["g0", "g1", "g2"], "covers all 2 usable genes"),
    ]:
        sets = gene_sets({"bad": genes, "good": ["g0"]})
        with pytest.raises(ValueError, match=f"Concept 'bad': .*{reason}"):
            match_gene_sets(sets, names, usable=usable)
        m = match_gene_sets(sets, names, usable=usable, unusable="skip")
        assert m.names == ("good",)
        assert reason in m.skipped["bad"]
    with pytest.raises(ValueError, match=r"Concept 'a': Expected gene names .* did you mean 'g0'"):
        match_gene_sets(gene_sets({"a": ["g0", "G0"]}), names, missing="error")
    with pytest.raises(ValueError, match=r"none of 1\. 'a': .*did you mean 'g0' \(case differs\)"):
        match_gene_sets(gene_sets({"a": ["G0"]}), names, unusable="skip")


def test_genes_that_fall_together_when_case_is_ignored():
    names = ["Penk", "Th", "Gad1"]
    m = match_gene_sets(gene_sets({"a": ["PENK", "Penk", "TH"]}), names, ignore_case=True)
    np.testing.assert_array_equal(m.n_given, [2])
    with pytest.raises(ValueError, match="Concept 'a': Expected one weight for gene 'Penk'"):
        match_gene_sets(gene_sets({"a": {"PENK": 1, "Penk": -1}}), names, ignore_case=True)


def test_thousands_of_sets_cost_one_index():
    rng = np.random.default_rng(0)
    names = [f"Gene{i}" for i in range(16000)]
    sets = gene_sets(
        {f"set{k}": [names[i] for i in rng.choice(16000, 80, replace=False)] + ["no"] for k in range(5000)}
    )
    m = match_gene_sets(sets, names)
    assert m.weights.shape == (5000, 16000)
    assert m.weights.nnz == 400_000
    assert (m.n_found == 80).all()


def test_of_several_rows_the_best_counted_stands_for_a_symbol():
    names, totals = ["A", "A", "B", None, "A", "B"], [1, 70, 5, 900, 70, 5]
    index = GeneIndex(names, totals=totals)
    match = index.match(["A", "B"])
    np.testing.assert_array_equal(match.index, [1, 2])  # of equal ones the first
    assert match.ambiguous == ("A", "B")
    assert index.rows("A") == [1, 4, 0]
    assert GeneIndex(names, totals=[0] * 6).rows("A") == [0, 1, 4]
    np.testing.assert_array_equal(GeneIndex(names).match(["A", "B"]).index, [0, 2])  # counts are not known


def test_rows_that_were_made_unique_count_as_one_name():
    names, totals = ["Tbce", "Tbce-1", "Tbce-2", "Nkx2-1", "Nkx2-3", "Th"], [3, 40, 7, 8, 9, 1]
    index = GeneIndex(names, totals=totals)
    np.testing.assert_array_equal(index.match(["Tbce", "Nkx2-1", "Th"]).index, [1, 3, 5])
    assert index.match(["Tbce", "Nkx2-1"]).ambiguous == ("Tbce",)
    both = index.match(["Tbce", "Tbce-1"])  # asked for by its own name, a row stands for no other
    np.testing.assert_array_equal(both.index, [0, 1])
    np.testing.assert_array_equal(GeneIndex(names).match(["Tbce"]).index, [0])


def test_several_genes_that_differ_in_case_only():
    names, totals = ["ACTB", "Actb", "Th"], [20, 300, 1]
    index = GeneIndex(names, totals=totals)
    assert index.ignoring_case(["actb", "ACTB", "TH"]) == ["Actb", "ACTB", "Th"]
    found = match_gene_sets(gene_sets({"x": ["actb"], "y": ["ACTB"]}), index, ignore_case=True)
    np.testing.assert_array_equal(found.weights.toarray(), [[0, 1, 0], [1, 0, 0]])
    assert found.ambiguous == ("actb",)
    with pytest.raises(ValueError, match=r"did you mean 'ACTB' \(case differs, as in Actb\)\?"):
        index.match(["actb"], missing="error")


def test_totals_are_asked_for_only_where_a_name_has_several_rows():
    def counted():
        raise RuntimeError

    np.testing.assert_array_equal(GeneIndex(["A", "B"], totals=counted).match(["B"]).index, [1])
    with pytest.raises(RuntimeError):
        GeneIndex(["A", "A"], totals=counted).match(["A"])


@pytest.mark.parametrize(
    "names",
    [
        [11, 12, 13],
        np.array([11, 12, 13], dtype=np.uint16),
        [11.0, float("nan"), 13.0],
        pd.array([11, None, 13], dtype="Int64"),
        pd.array(["11", None, "13"], dtype="string"),
        pd.Categorical([11, 12, 13]),
        [b"11", b"12", b"13"],
    ],
)
def test_identifiers_of_any_type_are_known_by_their_text(names):
    np.testing.assert_array_equal(match_genes(["13", "11"], names, missing="error").index, [2, 0])
