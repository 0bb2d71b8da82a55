"""The panel of the recovery benchmark: markers, sections, scores."""

from __future__ import annotations

import numpy as np
import pytest
from anndata import AnnData

from benchmarks._recovery.panel import TODAY, Source, interval, log_ratios, sources
from benchmarks._recovery.protocol import make_task


def test_markers_are_significant_and_higher_in_their_label():
    """Of 40 genes six are on in a label each; k = 10 is asked of no label with fewer markers."""
    rng = np.random.default_rng(0)
    labels = np.repeat(["a", "b"], 60)
    rate = np.full((120, 40), 4.0)
    rate[:60, :6], rate[60:, 6:18] = 20.0, 12.0  # of equal depth
    adata = AnnData(rng.poisson(rate).astype(np.float32), obsm={"spatial": rng.uniform(size=(120, 2))})
    task = make_task(adata, labels, ks=(1, 3, 10), draws=5, seed=0)
    drawn = {layer: {int(g) for d in task.draws if d.layer == layer for g in d.genes} for layer in "ab"}
    assert drawn["a"] & set(range(6, 18)) == drawn["b"] & set(range(6)) == set()
    assert {(d.layer, d.k) for d in task.draws} >= {("a", 3), ("b", 10)}
    assert ("a", 10) not in {(d.layer, d.k) for d in task.draws}


def test_scores_are_mean_log_ratios_to_the_best_rival_of_each_k():
    errors = {name: np.array([0.4, 0.4]) for name in TODAY}
    errors |= {f"diffused_expression {s}": np.array(e) for s, e in (("region", [0.2, 0.4]), ("spot", [0.4, 0.1]))}
    errors |= {"diffused_expression auto": errors["diffused_expression region"], "stcsm auto": np.array([0.1, 0.1])}
    found = log_ratios(errors)
    assert found["panel score"] == pytest.approx(np.log(0.5) / 2)
    assert found["against diffused expression"] == pytest.approx((np.log(0.5) + np.log(0.25)) / 2)


def test_studies_count_alike_whatever_their_sections():
    sections = [Source("a_1", "a", 1, ""), Source("a_2", "a", 1, ""), Source("b_1", "b", 1, "")]
    values = {"a_1": -0.3, "a_2": -0.1, "b_1": 0.4}
    found = {n: [{"log_ratio": {"x": v}, "bootstrap": {"x": [v] * 500}}] for n, v in values.items()}
    mean, low, high = interval("x", sections, found)
    assert mean == pytest.approx(0.1)
    assert (low, high) == pytest.approx((-0.2, 0.4))


def test_sections_of_a_folder(tmp_path):
    panel = tmp_path / "panel"
    panel.mkdir()
    for name in ("heart_5.h5ad", "embryo_1.h5ad", "bulb_rep12_layers.csv", "bulb_rep1_layers.csv"):
        (panel / name).touch()
    found = {s.name: s for s in sources(panel)}
    assert {n: s.study for n, s in found.items()} == {
        "heart_5": "heart", "embryo_1": "embryo", "bulb_1": "bulb", "bulb_12": "bulb",
    }  # fmt: skip
    assert [n for n, s in found.items() if not s.chosen_on] == ["bulb_12"]
    assert found["embryo_1"].from_clusters
    assert found["bulb_12"].counts == 12
