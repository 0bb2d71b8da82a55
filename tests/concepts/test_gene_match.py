import numpy as np
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
