"""Maps against random concepts, ranked genes, combinations, similarity, regions: on a tissue whose truth is known."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from stcsm import _keys, pl, tl
from stcsm.attribution import TABLE, method_class
from stcsm.models import GeneVAE

LEFT = ["a0", "a1", "a2", "a3"]
RIGHT = ["b0", "b1", "b2", "b3"]
MIXED = ["a5", "b5", "c5", "c6"]


@pytest.fixture
def mapped(tissue, model):
    tl.concepts(tissue, model, genes={"left": LEFT, "right": RIGHT, "mixed": MIXED})
    tl.saliency(tissue, model)
    return tissue


def test_genes_of_one_region_beat_random_genes_and_a_mixture_does_not(mapped, model):
    tl.significance(mapped, model, n_random=499)
    table = mapped.uns["stcsm"]["significance"]["table"]
    assert (table.loc[["left", "right"], "p"] < 0.05).all()
    assert table.loc["mixed", "p"] > 0.05
    assert (table["q"] >= table["p"]).all()
    assert table.loc["left", "morans_i"] > 0.3  # two halves: neighbours are alike
    p = mapped.obsm[_keys.CONCEPT_SALIENCY_PVAL]
    assert p.shape == (64, 3)
    assert p.min().min() >= 1 / 500
    assert (mapped.obsm[_keys.CONCEPT_SALIENCY_QVAL] >= p).all().all()


def test_same_seed_same_p_whatever_is_tested_beside_it_and_after_h5ad(mapped, model, tmp_path):
    tl.significance(mapped, model, n_random=99)
    mapped.write_h5ad(tmp_path / "a.h5ad")
    back = ad.read_h5ad(tmp_path / "a.h5ad")
    pd.testing.assert_frame_equal(
        back.uns["stcsm"]["significance"]["table"], mapped.uns["stcsm"]["significance"]["table"], check_names=False
    )
    tl.significance(back, model, n_random=99, concepts=["right"])
    np.testing.assert_array_equal(
        back.obsm[_keys.CONCEPT_SALIENCY_PVAL]["right"], mapped.obsm[_keys.CONCEPT_SALIENCY_PVAL]["right"]
    )
    tl.significance(back, model, n_random=99, concepts=["right"], seed=1)
    assert (back.obsm[_keys.CONCEPT_SALIENCY_PVAL]["right"] != mapped.obsm[_keys.CONCEPT_SALIENCY_PVAL]["right"]).any()


def test_one_by_one_gives_the_p_of_all_at_once(mapped, model, monkeypatch):
    """A method that maps every concept by itself has the same answer as the shortcut for linear ones."""
    tl.significance(mapped, model, n_random=49)
    fast = mapped.uns["stcsm"]["significance"]["table"]
    monkeypatch.setitem(TABLE, "saliency", type("OneByOne", (method_class("saliency"),), {"linear": False}))
    tl.significance(mapped, model, n_random=49)
    slow = mapped.uns["stcsm"]["significance"]["table"]
    np.testing.assert_allclose(fast["p"], slow["p"], atol=0.021)  # a tie may fall either way in float32
    np.testing.assert_allclose(fast["strength"], slow["strength"], rtol=1e-3)


def test_members_of_an_ensemble_are_tested_together(trained):
    adata = trained[0].copy()
    both = GeneVAE(adata, n_latent=6, n_hidden=32, n_seeds=2)
    both.train(max_epochs=30, progress=False)
    tl.concepts(adata, both, genes={"left": LEFT, "cav": LEFT}, estimator="cav")
    tl.saliency(adata, both)
    tl.significance(adata, both, n_random=199)
    assert (adata.uns["stcsm"]["significance"]["table"]["p"] < 0.05).all()


def test_random_concepts_are_uniform(tissue, model):
    rng = np.random.default_rng(0)
    names = np.asarray(tissue.var_names)[:-1]
    tl.concepts(tissue, model, genes={f"r{i}": list(rng.choice(names, 4, replace=False)) for i in range(300)})
    tl.saliency(tissue, model)
    tl.significance(tissue, model, n_random=99)
    p = tissue.uns["stcsm"]["significance"]["table"]["p"]
    assert 0.01 < (p <= 0.05).mean() < 0.1
    assert 0.4 < (p <= 0.5).mean() < 0.6


def test_methods_that_cost_ask_for_the_number_and_say_the_price(mapped, model):
    tl.saliency(mapped, model, method="guided_backprop")
    with pytest.raises(ValueError, match=r"Expected n_random for method 'guided_backprop'.* n_random=1000"):
        tl.significance(mapped, model)
    tl.significance(mapped, model, n_random=9, concepts="left")
    assert mapped.uns["stcsm"]["significance"]["table"].loc["left", "smallest_p"] == pytest.approx(0.1, abs=1e-3)


@pytest.mark.parametrize("genes", ["nearest", "concept"])
def test_genes_chosen_by_the_concept_are_chosen_by_its_stand_ins_too(mapped, model, genes):
    tl.saliency(mapped, model, genes=genes, n_genes=5)
    tl.significance(mapped, model, n_random=39, concepts=["left", "mixed"])
    table = mapped.uns["stcsm"]["significance"]["table"]
    assert table.loc["left", "p"] < table.loc["mixed", "p"]


def test_new_maps_take_old_p_values_away(mapped, model):
    tl.significance(mapped, model, n_random=9)
    tl.saliency(mapped, model, method="input_x_gradient")
    assert _keys.CONCEPT_SALIENCY_PVAL not in mapped.obsm
    assert "significance" not in mapped.uns["stcsm"]
    tl.significance(mapped, model, n_random=9)
    tl.concepts(mapped, model, genes={"left": ["a0"]})
    assert list(mapped.uns["stcsm"]["significance"]["table"].index) == ["right", "mixed"]


def test_genes_that_carry_a_concept_are_the_other_genes_of_its_region(mapped, model):
    table = tl.rank_genes_concept(mapped, "left", n_random=999)
    assert not set(LEFT) & set(table.index)
    assert (table.index[:20].str[0] == "a").all()
    assert (table["q"][:10] < 0.05).all()
    assert table[table.index.str[0] == "b"]["p"].median() > 0.9
    whole = tl.rank_genes_concept(mapped, "left", model, n_random=999, include_own=True)
    assert set(whole.index[:4]) == set(LEFT)
    assert whole["q"].iloc[:4].isna().all()
    pd.testing.assert_frame_equal(whole.iloc[4:], table)  # counts of the model and of the AnnData are the same


def test_combination_is_blind_to_what_it_excludes(mapped, model):
    tl.combine(mapped, "left, not right", plus="left", minus="right")
    vectors = {k: r["vectors"] for k, r in mapped.uns["stcsm"]["concepts"].items()}
    assert abs(np.vdot(vectors["left, not right"], vectors["right"])) < 1e-9
    tl.combine(mapped, "both", plus=["left", "right"])
    tl.saliency(mapped, model)
    tl.decoded(mapped, model)
    tl.significance(mapped, model, n_random=99)
    assert mapped.uns["stcsm"]["significance"]["table"]["p"].notna().all()
    tl.concepts(mapped, model, genes={"right": ["b9"]})
    assert set(mapped.uns["stcsm"]["concepts"]) == {"left", "right", "mixed"}  # combinations of the old one are gone


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("x", "left", "left"), "in both"),
        (("left", "left", "right"), "made from"),
        (("mixed", "left", "right"), "another concept"),
        (("x", "nowhere", ()), "found 'nowhere'"),
        (("x", "left", "again"), "nothing is left"),
    ],
)
def test_combinations_that_cannot_be(mapped, model, arguments, message):
    tl.concepts(mapped, model, genes={"again": LEFT})
    with pytest.raises(ValueError, match=message):
        tl.combine(mapped, *arguments)


def test_alike_concepts_are_told_so(mapped, model):
    tl.concepts(mapped, model, genes={"left too": ["a7", "a8"]})
    tl.saliency(mapped, model)
    for kind in ("cosine", "maps"):
        table = tl.concept_similarity(mapped, kind=kind)
        np.testing.assert_allclose(np.diag(table), 1)
        assert table.loc["left", "left too"] > 0.7
        assert table.loc["left", "right"] < 0
        order = [table.index[i] for i in mapped.uns["stcsm"]["similarity"]["order"]]
        assert abs(order.index("left") - order.index("left too")) == 1
        ax = pl.concept_similarity(mapped, show=False)
        assert [t.get_text() for t in ax.get_yticklabels()] == order


def test_regions_differ_in_their_own_concepts_alone(mapped):
    rng = np.random.default_rng(0)
    table = tl.differential(mapped, "region", "A/left", "B", spots_a_block=4)
    assert table.loc["left", "difference"] > 0
    assert table.loc["right", "difference"] < 0
    assert (table.loc[["left", "right"], "q"] < 0.01).all()
    maps = mapped.obsm[_keys.CONCEPT_SALIENCY]
    maps[:] = rng.normal(size=maps.shape)
    assert (tl.differential(mapped, "region", "A/left", spots_a_block=4)["p"] > 0.01).all()
    assert mapped.uns["stcsm"]["differential"]["reference"] == "rest"


def test_differences_between_regions_against_random_genes(mapped, model, monkeypatch):
    """Genes of a region differ more than random genes do, a mixture does not, whichever way the maps are made."""
    table = tl.differential(mapped, "region", "A/left", "B", model=model, n_random=499, spots_a_block=4)
    assert (table.loc[["left", "right"], "p_random"] < 0.05).all()
    assert table.loc["left", "z_random"] > 1.5
    assert table.loc["right", "z_random"] < -1.5
    assert table.loc["mixed", "p_random"] > 0.05
    assert (table["q_random"] >= table["p_random"]).all()
    assert mapped.uns["stcsm"]["differential"]["n_random"] == 499
    alone = tl.differential(mapped, "region", "A/left", "B", ["right"], model=model, n_random=499, spots_a_block=4)
    assert alone.loc["right", "p_random"] == table.loc["right", "p_random"]
    turned = tl.differential(mapped, "region", "B", "A/left", model=model, n_random=499, spots_a_block=4)
    np.testing.assert_allclose(turned["z_random"], -table["z_random"].loc[turned.index], rtol=1e-6)
    few = tl.differential(mapped, "region", "A/left", "B", model=model, n_random=49, spots_a_block=4)
    monkeypatch.setitem(TABLE, "saliency", type("OneByOne", (method_class("saliency"),), {"linear": False}))
    with monkeypatch.context() as before:
        before.setattr("stcsm.tl._differential.differential_concepts", None)  # no permutation before it is refused
        with pytest.raises(ValueError, match="Expected n_random for method"):
            tl.differential(mapped, "region", "A/left", "B", model=model, spots_a_block=4)
    slow = tl.differential(mapped, "region", "A/left", "B", model=model, n_random=49, spots_a_block=4)
    np.testing.assert_allclose(slow["z_random"], few["z_random"], rtol=1e-3)
    np.testing.assert_allclose(slow["p_random"], few["p_random"], atol=0.021)  # a tie may fall either way in float32


def test_differences_of_random_concepts_are_uniform(tissue, model):
    """p against random genes of concepts that are random genes; p of permuted blocks is small for most of them."""
    rng = np.random.default_rng(0)
    genes = np.array([g for g in tissue.var_names if tissue[:, g].X.sum() > 0])
    tl.concepts(tissue, model, genes={f"r{i}": list(rng.choice(genes, 4, replace=False)) for i in range(300)})
    tl.saliency(tissue, model)
    table = tl.differential(tissue, "region", "A/left", model=model, n_random=199, spots_a_block=4, n_permutations=499)
    assert stats.kstest(table["p_random"], "uniform").pvalue > 0.01
    assert 0.02 <= np.mean(table["p_random"] <= 0.05) <= 0.08
    assert np.mean(table["p"] <= 0.05) > 0.5


def test_blocks_too_few_for_a_small_p_are_said_to_be(mapped, caplog):
    with caplog.at_level("WARNING"):
        tl.differential(mapped, "region", "A/left", "B", spots_a_block=4)
        assert "allow no p below" not in caplog.text
        table = tl.differential(mapped, "region", "A/left", "B", spots_a_block=12)
    assert "3 against 3 blocks allow no p below 0.100" in caplog.text
    assert table["p"].min() >= 0.1


def test_blocks_lie_within_the_sections_of_the_setup(mapped):
    sections = np.array(["odd", "even"])[np.arange(mapped.n_obs) % 2]
    mapped.obs["section"] = sections
    by_name = tl.differential(mapped, "region", "A/left", "B", spots_a_block=4, batch_key="section")
    mixed = tl.differential(mapped, "region", "A/left", "B", spots_a_block=4)
    mapped.uns["stcsm"]["setup"]["batch_key"] = "section"
    pd.testing.assert_frame_equal(tl.differential(mapped, "region", "A/left", "B", spots_a_block=4), by_name)
    assert not mixed.equals(by_name)


def test_label_profiles_are_not_compared_with_random_genes(tissue, model):
    tl.concepts(tissue, model, groupby="region", estimator="profile")
    tl.saliency(tissue, model)
    table = tl.differential(tissue, "region", "A/left", model=model, spots_a_block=4)
    assert table[["z_random", "p_random", "q_random"]].isna().all().all()
    assert table["p"].notna().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_random": 99}, "pass the model"),
        ({"n_random": 0, "model": True}, "n_random of 1 or more"),
        ({"key": "concept_map", "model": True}, "to compare with random genes"),
    ],
)
def test_comparison_with_random_genes_is_refused_before_any_work(mapped, model, arguments, message):
    before = dict(mapped.uns["stcsm"])
    if "model" in arguments:
        arguments = {**arguments, "model": model}
    with pytest.raises(ValueError, match=message):
        tl.differential(mapped, "region", "A/left", **arguments)
    assert dict(mapped.uns["stcsm"]).keys() == before.keys()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere", "A/left"), "column of adata.obs"),
        (("region", "C"), "found 'C'"),
        (("region", "B", "B"), "twice"),
    ],
)
def test_regions_that_cannot_be_compared(mapped, arguments, message):
    with pytest.raises(ValueError, match=message):
        tl.differential(mapped, *arguments)


def test_labels_as_ideal_genes(tissue, model):
    tl.concepts(tissue, model, groupby="region", estimator="profile")
    tl.saliency(tissue, model)
    tl.decoded(tissue, model)
    tl.concept_map(tissue, model)
    left = (tissue.obs["region"] == "A/left").to_numpy()
    for key in (_keys.CONCEPT_SALIENCY, _keys.CONCEPT_DECODED, _keys.CONCEPT_MAP):
        values = tissue.obsm[key]["A_left"]
        assert values[left].mean() > values[~left].mean(), key
    with pytest.raises(ValueError, match="profiles alone"):
        tl.significance(tissue, model)


def test_one_verdict_in_the_titles_and_the_table(mapped, model):
    def told(key):
        ax = pl.saliency(mapped, "left", key=key, show=False)
        return [text.get_text().replace("\n", " ") for text in ax.texts]

    tl.significance(mapped, model, n_random=99)
    q = mapped.uns["stcsm"]["significance"]["table"].loc["left", "q"]
    words = "stronger than random genes" if q < 0.05 else "not distinguishable from random genes"
    verdict = tl.concept_table(mapped).loc["left", "verdict"]
    assert verdict == f"{words} (q = {q:.2g})"
    assert told("concept_saliency") == [verdict]
    tl.decoded(mapped, model)
    assert told("concept_decoded") == [f"saliency {verdict}"]
    tl.saliency(mapped, model, "left", method="input_x_gradient", key_added="again")
    assert told("again") == []
    tl.significance(mapped, model, n_random=19, key="again")
    assert told("again") == [tl.concept_table(mapped, key="again").loc["left", "verdict"]]


def test_maps_are_needed(tissue, model):
    tl.concepts(tissue, model, genes={"left": LEFT})
    with pytest.raises(ValueError, match="maps to test"):
        tl.significance(tissue, model)
