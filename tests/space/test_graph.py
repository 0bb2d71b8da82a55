"""The spot graph by hand, what it leaves alone, and which graph held-out counts choose."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from stcsm.space import _graph, choose_graph, diffuse, nearest_spots, similarity_graph, some_spots


def test_three_spots_on_a_line_by_hand():
    graph = similarity_graph(nearest_spots(np.array([[0.0], [1.0], [3.0]]), 2), 2).toarray()
    # The Gaussian's standard deviation is the distance to the second neighbour: 3, 2 and 3.
    weights = np.exp(-0.5 * np.array([[0, 1 / 9, 1], [1 / 4, 0, 1], [1, 4 / 9, 0]]))
    np.testing.assert_allclose(graph, weights / weights.sum(axis=1, keepdims=True), rtol=1e-6)


def test_spots_that_are_exactly_alike_share_equally():
    features = np.repeat([[0.0], [5.0]], 3, axis=0)
    graph = similarity_graph(nearest_spots(features, 2), 2).toarray()
    np.testing.assert_allclose(graph[:3, :3], 1 / 3, rtol=1e-6)
    assert not graph[:3, 3:].any()


def test_blocks_of_rows_do_not_change_the_graph(monkeypatch):
    nearest = nearest_spots(np.random.default_rng(0).normal(size=(50, 4)), 6)
    whole = similarity_graph(nearest, 5)
    monkeypatch.setattr(_graph, "_ROWS", 7)
    parts = similarity_graph(nearest, 5)
    for name in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name))


def test_diffusion_is_a_power_of_the_graph_and_keeps_constants_and_ranges():
    rng = np.random.default_rng(0)
    graph = similarity_graph(nearest_spots(rng.normal(size=(30, 3)), 6), 4)
    maps = rng.normal(size=(30, 2))
    np.testing.assert_allclose(diffuse(graph, maps, 3), np.linalg.matrix_power(graph.toarray(), 3) @ maps, rtol=1e-4)
    np.testing.assert_array_equal(diffuse(graph, maps, 0), maps)
    np.testing.assert_allclose(diffuse(graph, np.full(30, 2.5), 5), 2.5, rtol=1e-5)
    found = diffuse(graph, maps, 2)
    assert (found.min(axis=0) >= maps.min(axis=0)).all()
    assert (found.max(axis=0) <= maps.max(axis=0)).all()


@pytest.mark.parametrize(
    ("maps", "steps", "message"),
    [(np.zeros(4), 1, r"shape \(5,\)"), (np.zeros(5), -1, "steps"), (np.zeros(5), 1.5, "steps")],
)
def test_maps_and_steps_that_do_not_fit_are_refused(maps, steps, message):
    with pytest.raises(ValueError, match=message):
        diffuse(sparse.eye_array(5, format="csr"), maps, steps)


@pytest.mark.parametrize("k", [0, 5])
def test_neighbours_are_other_spots(k):
    with pytest.raises(ValueError, match="1 to 4 neighbours of 5 spots"):
        nearest_spots(np.arange(5.0)[:, None], k)


def test_some_spots_of_a_large_section_are_whole_patches():
    xy = np.column_stack([v.ravel() for v in np.meshgrid(range(40), range(40))]).astype(float)
    assert some_spots(xy, 1600, seed=0).tolist() == list(range(1600))
    some = some_spots(xy, 400, seed=0)
    assert 300 <= len(some) <= 400
    assert (np.diff(some) > 0).all()
    distance = np.abs(xy[some][:, None] - xy[some]).sum(axis=2)
    assert ((distance == 1).sum(axis=1) >= 2).mean() > 0.95  # neighbours stay neighbours
    np.testing.assert_array_equal(some, some_spots(xy, 400, seed=0))


def chosen(shuffled: bool, **candidates):
    """Graphs of a tissue of two kinds of spots, each in a half of its own or scattered."""
    rng = np.random.default_rng(0)
    rows, cols = (v.ravel() for v in np.meshgrid(range(14), range(14), indexing="ij"))
    kind = rng.permutation(cols < 7) if shuffled else cols < 7
    rate = np.where(kind[:, None] == (np.arange(80) < 40), 0.6, 0.3)
    counts = sparse.csr_array(rng.poisson(rate).astype(np.float32))
    settings = {"widths": (0.0, 2.0), "n_pcs": (2,), "n_neighbors": (10, 40), "steps": (1, 2), **candidates}
    return choose_graph(counts, np.column_stack([cols, rows]).astype(float), unit=1.0, **settings)


def test_spots_are_smoothed_where_neighbours_are_alike_and_only_there():
    together, scattered = chosen(shuffled=False), chosen(shuffled=True)
    assert together[0].width == 2.0
    assert scattered[0].width == 0.0
    for tried in (together, scattered):
        gains = [setting.gain for setting in tried]
        assert gains == sorted(gains, reverse=True)
        assert len(set(tried)) == len(tried)
        assert gains[0] > 0
    assert chosen(shuffled=False) == together


def test_one_candidate_of_each_kind_is_taken_as_it_is():
    tried = chosen(shuffled=False, widths=(1.0,), n_neighbors=(7,), steps=(3,))
    assert [(s.width, s.n_pcs, s.n_neighbors, s.steps) for s in tried] == [(1.0, 2, 7, 3)]


@pytest.mark.slow
def test_a_descent_finds_nearly_all_of_the_nearest_the_same_every_time(monkeypatch):
    rng = np.random.default_rng(0)
    points = rng.normal(size=(6000, 20)) + 3 * rng.normal(size=(5, 20))[rng.integers(0, 5, 6000)]
    _, exact = nearest_spots(points, 50)
    monkeypatch.setattr("stcsm.space._graph.EXACT_VALUES", 5000 * 20)
    distances, found = nearest_spots(points, 50, seed=1)
    assert np.mean([len(set(a) & set(b)) for a, b in zip(exact, found, strict=True)]) > 0.99 * 51
    np.testing.assert_array_equal(found[:, 0], np.arange(6000))
    np.testing.assert_allclose(distances, np.linalg.norm(points[found] - points[:, None], axis=2), atol=1e-4)
    np.testing.assert_array_equal(nearest_spots(points, 50, seed=1)[1], found)


def test_what_a_descent_finds_does_not_depend_on_the_number_of_threads(monkeypatch):
    asked = {}

    class Descent:
        def __init__(self, points, **settings):
            asked.update(settings)
            self.neighbor_graph = np.tile(np.arange(4), (len(points), 1)), np.zeros((len(points), 4))

    monkeypatch.setattr("pynndescent.NNDescent", Descent)
    monkeypatch.setattr("stcsm.space._graph.EXACT_VALUES", 0)
    nearest_spots(np.ones((9, 6)), 3, seed=2)
    assert asked == {"n_neighbors": 4, "random_state": 2, "n_jobs": 1}
