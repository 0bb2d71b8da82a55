import gzip

import numpy as np
import pandas as pd
import pytest

from stcsm.concepts import (
    check_distinct,
    gene_set,
    gene_sets,
    gene_sets_from_network,
    pair_signs,
    read_gmt,
)


def test_dicts_of_names_lists_and_weights():
    sets = gene_sets({"granule": "Penk", " mitral ": ["Doc2g", "Doc2g", "Slc17a7"], "mix": {"A": 2, "B": -1, "C": 0}})
    assert [s.name for s in sets] == ["granule", "mitral", "mix"]
    assert sets[0].genes == ("Penk",)  # one name is one gene, not four letters
    assert sets[1].genes == ("Doc2g", "Slc17a7")
    assert sets[1].duplicates == ("Doc2g",)
    assert sets[2].genes == ("A", "B")
    np.testing.assert_array_equal(sets[2].weights, [2, -1])


def test_signs_are_weights():
    np.testing.assert_array_equal(gene_set("x", {"A": "+", "B": "down", "C": "-"}).weights, [1, -1, -1])
    np.testing.assert_array_equal(gene_set("x", ["A", "B"], [-1, -1]).weights, [-1, -1])


@pytest.mark.parametrize(
    ("genes", "weights", "message"),
    [
        ([], None, "'x', found an empty set"),
        ({"A": 0}, None, "weights that are all zero"),
        ({"A": float("nan")}, None, "finite weight for gene 'A' in gene set 'x', found nan"),
        ({"A": np.inf}, None, "finite weight for gene 'A'"),
        ({"A": None}, None, "number or a sign"),
        ({"A": "much"}, None, "number or a sign as weight of gene 'A'"),
        (["A", "A"], [1, 2], "one weight for gene 'A' .* found 1 and 2"),
        (["A"], [1, 2], "one weight a gene"),
        (["A", ""], None, "gene names as text"),
        ([1.5, 2], None, "gene names as text in gene set 'x', found 1.5"),
        ([True], None, "gene names as text in gene set 'x', found True"),
        ([None, float("nan")], None, r"found 2 missing names \(NaN\)"),
        (["+", "-"], None, "found the sign '\\+' alone"),
        (3, None, "gene names in gene set 'x', found int"),
    ],
)
def test_a_set_at_fault_is_refused(genes, weights, message):
    with pytest.raises(ValueError, match=message):
        gene_set("x", genes, weights)


def test_missing_names_are_left_out_with_their_weights_and_counted(caplog):
    names = ["A", float("nan"), "B", None, pd.NA]
    one = gene_set("x", names, [1, 2, -3, 4, 5])
    assert (one.genes, list(one.weights), one.absent) == (("A", "B"), [1, -3], 3)
    gene_sets({"x": names, "y": ["C"], "z": np.array(["D", np.nan], dtype=object)})
    assert "4 missing names (NaN) in 2 of 3 gene sets are left out, such as in 'x', 'z'" in caplog.text
    caplog.clear()
    assert gene_sets_from_network(["t", "t"], ["A", np.nan], [1, 2])[0].genes == ("A",)
    assert "1 missing names (NaN) in 1 of 1" in caplog.text


def test_collections_at_fault_are_refused():
    with pytest.raises(TypeError, match=r"give it a name, as in \{'my concept': "):
        gene_sets(["Penk", "Doc2g"])
    with pytest.raises(TypeError, match="found int"):
        gene_sets(3)
    with pytest.raises(ValueError, match="at least one gene set"):
        gene_sets({})
    with pytest.raises(ValueError, match="found 'a' twice"):
        gene_sets([gene_set("a", "X"), gene_set("a ", "Y")])
    with pytest.raises(ValueError, match=r"twice \(genes and labels\)"):
        check_distinct(["a", "a"], ["genes", "labels"])
    with pytest.raises(ValueError, match="name for the gene set"):
        gene_sets({" ": ["A"]})


def test_network_tables():
    sets = gene_sets_from_network(["TF1", "TF2", "TF1"], ["A", "A", "B"], [1, -0.5, -2])
    assert [(s.name, s.genes, list(s.weights)) for s in sets] == [("TF1", ("A", "B"), [1, -2]), ("TF2", ("A",), [-0.5])]
    with pytest.raises(ValueError, match="one length, found 2, 1, 2"):
        gene_sets_from_network(["a", "b"], ["A"])
    with pytest.raises(ValueError, match="row 1"):
        gene_sets_from_network(["a", None], ["A", "B"])
    with pytest.raises(ValueError, match="empty table"):
        gene_sets_from_network([], [])


def test_up_and_down_halves_join():
    sets = gene_sets({"X_UP": ["A", "B"], "X_DN": ["C", "B"], "Y_UP": ["D"], "Z": ["E"]})
    joined = {s.name: dict(zip(s.genes, s.weights, strict=True)) for s in pair_signs(sets)}
    assert joined == {"Y_UP": {"D": 1}, "Z": {"E": 1}, "X": {"A": 1, "C": -1}}


def _gmt(tmp_path, text, name="x.gmt"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_gmt_plain_gzip_weights_and_line_ends(tmp_path):
    text = "\ufeffA\thttp://x\tg1\tg2\tg1\t\t\r\n\r\nB\t\tg3,0.5\tg4,-2\nC\tdescription\tH2-K1,x\tg5,1\n"
    for path in (_gmt(tmp_path, text), _gmt(tmp_path, gzip.compress(text.encode()), "no_gz_in_its_name")):
        a, b, c = read_gmt(path)
        assert (a.name, a.genes, a.duplicates) == ("A", ("g1", "g2"), ("g1",))
        assert (b.genes, list(b.weights)) == (("g3", "g4"), [0.5, -2])
        assert c.genes == ("H2-K1,x", "g5,1")  # a comma in some names is no weight


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A\tx\tg\nB x g1 g2\n", "line 2: expected .* found 1 field: 'B x g1 g2'; separate the fields by tabs"),
        ("A\tx\tg\n\nB\tx\n", "line 3: expected .* found 2 fields.*add its genes"),
        ("A\tx\t\t\n", "line 1: expected genes, found none"),
        ("\tx\tg\n", "line 1: expected the name of the set"),
        ("A\tx\tg\nB\tx\tg\nA\ty\th\n", r"'A' twice \(line 1 and line 3\)"),
        ("A\tx\tg,1\th,nan\n", "line 1: Expected a finite weight for gene 'h'"),
        ("", "empty file"),
        (b"A\tx\t\xff\xfe\n", "UTF-8 text, found other bytes in line 1"),
        (gzip.compress(b"A\tx\tg\n", mtime=0)[:-6], "cut short or damaged"),
    ],
)
def test_gmt_faults_name_the_line(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_gmt(_gmt(tmp_path, text))


def test_gmt_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_gmt(tmp_path / "none.gmt")


GENES = [f"Gene{i}" for i in range(40)]


@pytest.mark.parametrize(
    ("text", "known", "expected"),
    [
        ("a\tGene1\tGene2\nb\tGene3\tGene4\n", GENES, True),
        ("a\tGENE1\tGENE2\nb\tGENE3\n", GENES, True),  # in another case, and a set of one gene
        ("a\tGene1\tGene2\nb\tGene3\tGene4\n", None, False),
        ("a\tGene1\tGene2\nb\thttp://x\tGene4\n", GENES, False),  # a description that is the name of a gene
        ("a\tna\tGene2\nb\t\tGene4\nc\t> b\tGene1\n", GENES, False),
        ("Gene1\tGene1\tGene2\nGene3\tGene3\tGene4\n", GENES, False),  # the name of the set again
        ("a\tGene1,0.5\tGene2,-1\n", GENES, True),
    ],
)
def test_files_without_descriptions(tmp_path, caplog, text, known, expected):
    sets = read_gmt(_gmt(tmp_path, text), known_genes=known)
    lines = [line.split("\t") for line in text.splitlines()]
    fields = [[f.split(",")[0] for f in line[1 if expected else 2 :]] for line in lines]
    assert [list(s.genes) for s in sets] == fields
    assert ("no descriptions" in caplog.text) is expected
    if "," in text:
        np.testing.assert_array_equal(sets[0].weights, [0.5, -1])


def test_a_file_without_descriptions_of_more_genes_than_the_data_has(tmp_path):
    """A panel holds a quarter of the genes: the second field is known as seldom as the others."""
    lines = [f"set{i}\tGene{i}\tGene{i + 1}\tGene{i + 2}\n" for i in range(30)]
    known = [gene for i, gene in enumerate(GENES) if i % 4 == 0]
    assert read_gmt(_gmt(tmp_path, "".join(lines)), known_genes=known)[1].genes == ("Gene1", "Gene2", "Gene3")
    lines = [f"set{i}\twords of set {i}\tGene{i}\tGene{i + 1}\n" for i in range(30)]
    assert read_gmt(_gmt(tmp_path, "".join(lines)), known_genes=known)[1].genes == ("Gene1", "Gene2")


@pytest.mark.parametrize("n_genes", [1, 9])
def test_where_only_some_lines_have_a_description_all_are_taken_for_one_and_it_is_said(tmp_path, caplog, n_genes):
    lines = [f"set{i}\tGene{i}\tGene{i + 1}\tGene{i + 2}\n" for i in range(n_genes)] + ["last\tof mine\tGene1\n"]
    sets = read_gmt(_gmt(tmp_path, "".join(lines)), known_genes=GENES)
    assert [s.genes for s in sets[:-1]] == [(f"Gene{i + 1}", f"Gene{i + 2}") for i in range(n_genes)]
    assert f"a gene of the data in {n_genes} of {n_genes + 1} lines" in caplog.text
    assert "such as 'of mine'; it is taken as a description in every line" in caplog.text


def test_a_plain_list_of_genes_is_a_set_with_the_name_of_the_file(tmp_path):
    (found,) = read_gmt(_gmt(tmp_path, "Penk\nNrgn\n\nPenk\n", "granule.txt"))
    assert (found.name, found.genes) == ("granule", ("Penk", "Nrgn"))


def test_identifiers_that_are_numbers():
    assert gene_set("x", [1234, np.int64(7), 9.0]).genes == ("1234", "7", "9")
