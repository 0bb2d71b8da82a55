"""Concepts from attributes: planted directions come back, and scores are judged as told."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from stcsm.images import both_classes, concept_scores, concept_vectors, performance


def planted(n=400, latent=6, seed=0):
    """Latents that two independent attributes move along two given directions, under unequal noise."""
    rng = np.random.default_rng(seed)
    has = rng.random((n, 2)) < [0.3, 0.6]
    directions = np.array([[3.0, 0, 0, 1, 0, 0], [0, 2.0, 0, 0, 0, 0]])
    noise = rng.normal(size=(n, latent)) * [1, 1, 1, 1, 1, 0.1]
    attributes = pd.DataFrame(has, columns=["Wearing_Hat", "Smiling"], index=[f"{i:06d}.jpg" for i in range(n)])
    return (has @ directions + noise).astype(np.float32), attributes, directions


def test_contrast_is_mean_with_minus_mean_without():
    z, attributes, _ = planted()
    vectors = concept_vectors(z, attributes)
    assert list(vectors.index) == ["Wearing_Hat", "Smiling"]
    for name, has in attributes.items():
        wanted = z[has].mean(axis=0, dtype=float) - z[~has].mean(axis=0, dtype=float)
        np.testing.assert_allclose(vectors.loc[name], wanted, atol=1e-6)


def test_n_takes_the_first_of_each_and_nothing_of_the_others():
    z, attributes, _ = planted()
    has = attributes["Smiling"].to_numpy()
    wanted = z[np.flatnonzero(has)[:5]].mean(axis=0) - z[np.flatnonzero(~has)[:5]].mean(axis=0)
    np.testing.assert_allclose(concept_vectors(z, attributes, n=5).loc["Smiling"], wanted, atol=1e-5)
    taken = np.concatenate([np.flatnonzero(side)[:5] for side in (has, ~has)])
    others = np.setdiff1d(np.arange(len(z)), taken)
    z[others] = 1e6
    np.testing.assert_allclose(concept_vectors(z, attributes[["Smiling"]], n=5).loc["Smiling"], wanted, atol=1e-5)


def test_more_than_there_are_takes_all():
    z, attributes, _ = planted()
    pd.testing.assert_frame_equal(concept_vectors(z, attributes, n=10**6), concept_vectors(z, attributes))


@pytest.mark.parametrize("estimator", ["contrast", "cav"])
def test_planted_directions_come_back(estimator):
    z, attributes, directions = planted(n=4000)
    vectors = concept_vectors(z, attributes, estimator=estimator).to_numpy()
    cosine = (vectors * directions).sum(axis=1) / np.linalg.norm(vectors, axis=1) / np.linalg.norm(directions, axis=1)
    assert (cosine > 0.9).all()


def test_cav_discounts_what_varies_anyway():
    rng = np.random.default_rng(1)
    has = rng.random(2000) < 0.5
    z = np.stack([has + rng.normal(size=2000) * 0.3, has * 2.0 + rng.normal(size=2000) * 10], axis=1)
    attributes = pd.DataFrame({"Eyeglasses": has})
    auroc = {}
    for estimator in ("contrast", "cav"):
        scores = concept_scores(z, concept_vectors(z, attributes, estimator=estimator))
        auroc[estimator] = performance(scores, attributes, scores, attributes).loc["Eyeglasses", "auroc"]
    assert auroc["cav"] > 0.97
    assert auroc["contrast"] < 0.8


def test_attributes_that_all_or_none_have_are_refused_by_name():
    z, attributes, _ = planted()
    for value in (True, False):
        lacking = attributes.assign(Bald=value)
        with pytest.raises(ValueError, match=r"with and without 'Bald'"):
            concept_vectors(z, lacking)
        assert both_classes(lacking) == ["Wearing_Hat", "Smiling"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda z, a: (z[:-1], a), "400 images"),
        (lambda z, a: (z[:, 0], a), "shape"),
        (lambda z, a: (z, a.astype(int)), "booleans"),
        (lambda z, a: (np.full_like(z, np.inf), a), "infinite"),
    ],
)
def test_bad_input_is_refused(change, message):
    z, attributes, _ = planted()
    with pytest.raises(ValueError, match=message):
        concept_vectors(*change(z, attributes))


def test_bad_settings_are_refused():
    z, attributes, _ = planted()
    with pytest.raises(ValueError, match="n of at least 1"):
        concept_vectors(z, attributes, n=0)
    with pytest.raises(ValueError, match="'contrast' or 'cav'"):
        concept_vectors(z, attributes, estimator="mean")
    with pytest.raises(ValueError, match="another model"):
        concept_scores(z[:, :3], concept_vectors(z, attributes))


def test_performance_by_hand():
    train = pd.DataFrame({"Smiling": [0.0, 2.0, 4.0, 6.0]})
    had = pd.DataFrame({"Smiling": [False, False, True, True]})
    scores = pd.DataFrame({"Smiling": [0.0, 4.0, 2.5, 9.0, 1.0]})
    has = pd.DataFrame({"Smiling": [False, False, True, True, False]})
    row = performance(scores, has, train, had).loc["Smiling"]
    assert row["threshold"] == 3.0  # midway between the means 1 and 5
    assert row["accuracy"] == pytest.approx(3 / 5)  # right: 0, 9 and 1
    assert row["balanced_accuracy"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert row["majority"] == pytest.approx(3 / 5)
    assert row["auroc"] == pytest.approx(5 / 6)  # of six pairs, 4.0 beats 2.5
    assert (row["n_with"], row["n_without"]) == (2, 3)


def test_performance_of_one_class_is_unknown():
    scores = pd.DataFrame({"Smiling": [0.0, 1.0]})
    row = performance(scores, scores > -1, scores, scores > 0.5).loc["Smiling"]
    assert np.isnan(row["auroc"])
    assert np.isnan(row["balanced_accuracy"])
    with pytest.raises(ValueError, match="none called 'Smiling'"):
        performance(scores, scores.rename(columns={"Smiling": "Bald"}) > 0, scores, scores > 0)
    with pytest.raises(ValueError, match="2 images"):
        performance(scores, scores.iloc[:1] > 0, scores, scores > 0)
