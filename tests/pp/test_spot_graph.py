"""The spot graph joins what looks alike and leaves constants alone."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
from scipy import sparse

import stcsm
from stcsm.space import diffuse


@pytest.fixture(scope="module")
def bulb():
    return stcsm.datasets.simulated_bulb(n_spots=200, n_genes=300, seed=2)


@pytest.fixture(scope="module")
def joined(bulb):
    a = bulb.copy()
    stcsm.pp.spot_graph(a)
    return a


def test_rows_sum_to_one_and_constants_stay(joined):
    graph = joined.obsp["stcsm_spot_graph"]
    np.testing.assert_allclose(np.asarray(graph.sum(axis=1)).ravel(), 1, rtol=1e-5)
    np.testing.assert_allclose(diffuse(graph, np.full(200, 3.0), 4), 3, rtol=1e-5)


def test_joined_spots_share_their_layer_more_than_neighbours_by_chance(joined):
    graph = joined.obsp["stcsm_spot_graph"].tocoo()
    layer = joined.obs["layer"].to_numpy()
    off = graph.row != graph.col
    same = np.average(layer[graph.row[off]] == layer[graph.col[off]], weights=graph.data[off])
    chance = np.mean([(layer == x).mean() ** 2 for x in np.unique(layer)]) * len(np.unique(layer))
    assert same > chance + 0.3


def test_seed_makes_it_reproducible_and_counts_stay(bulb, joined):
    again = bulb.copy()
    stcsm.pp.spot_graph(again)
    assert (again.obsp["stcsm_spot_graph"] != joined.obsp["stcsm_spot_graph"]).nnz == 0
    assert (again.X != bulb.X).nnz == 0
    assert set(again.uns["stcsm"]) == {"spot_graph"}


def test_survives_h5ad(joined, tmp_path):
    joined.write_h5ad(tmp_path / "a.h5ad")
    back = ad.read_h5ad(tmp_path / "a.h5ad")
    assert back.uns["stcsm"]["spot_graph"]["steps"] == joined.uns["stcsm"]["spot_graph"]["steps"]
    assert (back.obsp["stcsm_spot_graph"] != joined.obsp["stcsm_spot_graph"]).nnz == 0


def test_settings_are_taken_as_given(bulb):
    a = bulb.copy()
    stcsm.pp.spot_graph(a, scale="spot", width=0.5, n_pcs=4, n_neighbors=6, steps=2)
    record = a.uns["stcsm"]["spot_graph"]
    assert (record["width"], record["n_pcs"], record["n_neighbors"], record["steps"]) == (0.5, 4, 6, 2)
    assert np.diff(sparse.csr_matrix(a.obsp["stcsm_spot_graph"]).indptr).max() == 7


def test_spot_without_counts_is_its_own_neighbour(bulb):
    a = bulb.copy()
    x = a.X.tolil()
    x[7] = 0
    a.X = x.tocsr()
    stcsm.pp.spot_graph(a, n_pcs=4, n_neighbors=6, steps=1)
    row = a.obsp["stcsm_spot_graph"][[7]].toarray().ravel()
    assert row[7] == 1
    assert np.count_nonzero(row) == 1


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"scale": "cell"}, "scale"),
        ({"width": -1.0}, "width"),
        ({"n_pcs": 0}, "n_pcs"),
        ({"n_neighbors": 1000}, "n_neighbors"),
        ({"steps": 1.5}, "steps"),
        ({"layer": "absent"}, "layer"),
        ({"spatial_key": "absent"}, "coordinates"),
    ],
)
def test_bad_settings_are_refused(bulb, kwargs, message):
    a = bulb.copy()
    with pytest.raises(ValueError, match=message):
        stcsm.pp.spot_graph(a, **kwargs)
    assert not a.obsp
    assert "stcsm" not in a.uns or "spot_graph" not in a.uns["stcsm"]
