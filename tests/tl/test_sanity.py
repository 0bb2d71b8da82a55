"""Sanity of maps: what is found, said and kept, and what is left alone."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import torch
from torch import nn

import stcsm
from stcsm.models import GeneVAE

CONCEPTS = {"left": ["a0", "a1"], "right/side": ["b3"]}


@pytest.fixture
def named(tissue, model):
    stcsm.tl.concepts(tissue, model, genes=CONCEPTS)
    return tissue


def record(adata):
    return adata.uns["stcsm"]["sanity"]


def deep(n_spots: int, n_latent: int) -> nn.Module:
    """An encoder of five ReLU layers with random weights."""
    draw = torch.Generator().manual_seed(0)
    layers: list[nn.Module] = []
    width = n_spots
    for _ in range(5):
        layers += [nn.Linear(width, 150), nn.ReLU()]
        width = 150
    layers.append(nn.Linear(width, n_latent))
    with torch.no_grad():
        for layer in layers[::2]:
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=draw) * (2 / layer.in_features) ** 0.5)
    return nn.Sequential(*layers)


def test_a_sound_map_is_its_own_was_learned_and_survives_a_file(named, model, tmp_path, recwarn):
    stcsm.tl.sanity(named, model)
    assert not [w for w in recwarn if issubclass(w.category, UserWarning) and "map" in str(w.message)]
    found = record(named)
    summary = found["summary"]
    assert list(summary.index) == ["left", "right_side"]
    assert list(summary["concept"]) == ["left", "right/side"]
    np.testing.assert_allclose(found["opposite"], -1, atol=1e-6)
    assert (summary["random_concepts"].abs() < 0.5).all()
    assert (summary["random_network"].abs() < 0.5).all()
    assert (summary["warning"] == "").all()
    assert summary["words"].str.contains("belongs to this concept").all()
    assert found["correlation"][0, 1] < -0.5  # left and right
    assert list(found["layers"]) == ["mean", "norm", "hidden"]
    assert "seeds" not in found
    assert summary["other_seed"].isna().all()
    named.write_h5ad(tmp_path / "x.h5ad")
    back = record(ad.read_h5ad(tmp_path / "x.h5ad"))
    np.testing.assert_array_equal(back["cascading"], found["cascading"])
    assert list(back["summary"]["words"]) == list(summary["words"])
    assert list(back["summary"]["warning"]) == ["", ""]


def test_guided_backprop_on_a_deep_encoder_is_caught_and_said(named, model, monkeypatch):
    encoder = deep(64, 6)
    monkeypatch.setattr(GeneVAE, "encoders", property(lambda self: [encoder]))
    with pytest.warns(UserWarning, match="nearly the same map whatever the concept"):
        stcsm.tl.sanity(named, model, method="guided_backprop")
    summary = record(named)["summary"]
    assert (summary["random_concepts"] > 0.8).all()
    assert (summary["opposite_concept"] > 0.8).all()
    assert (summary["random_top_layer"] > 0.8).all()
    assert summary["warning"].str.contains("last layer, the one that carries the concept, is random").all()


def test_what_changes_changes_alone(named, model):
    """Over other genes for every concept, guided backprop's failure would hide behind the genes."""
    stcsm.tl.sanity(named, model, genes="nearest", n_genes=5)
    np.testing.assert_allclose(record(named)["opposite"], -1, atol=1e-6)


def test_model_data_and_generators_are_left_alone(named, model):
    before = {k: v.clone() for k, v in model.module.state_dict().items()}
    counts, state = named.X.copy(), torch.get_rng_state()
    keys = {slot: set(getattr(named, slot)) for slot in ("obsm", "varm", "obs", "var", "layers")}
    stcsm.tl.sanity(named, model, method="rectgrad")
    assert all(torch.equal(v, before[k]) for k, v in model.module.state_dict().items())
    assert (named.X - counts).nnz == 0
    assert torch.equal(torch.get_rng_state(), state)
    assert {slot: set(getattr(named, slot)) for slot in keys} == keys


def test_the_same_seed_gives_the_same_numbers_and_concepts_do_not_feel_one_another(named, model):
    stcsm.tl.sanity(named, model)
    first = record(named)
    stcsm.tl.sanity(named, model)
    np.testing.assert_array_equal(record(named)["cascading"], first["cascading"])
    stcsm.tl.sanity(named, model, "right/side")
    for name in ("random", "opposite", "cascading", "independent", "inputs"):
        np.testing.assert_allclose(record(named)[name][0], first[name][1], atol=0.02, err_msg=name)
    stcsm.tl.sanity(named, model, seed=1)
    assert not np.array_equal(record(named)["cascading"], first["cascading"])


def test_members_are_compared(tissue):
    model = GeneVAE(tissue, n_latent=6, n_hidden=32, n_seeds=3)
    model.train(max_epochs=40, progress=False)
    stcsm.tl.concepts(tissue, model, genes=CONCEPTS)
    stcsm.tl.sanity(tissue, model)
    assert record(tissue)["seeds"].shape == (2, 3)
    assert record(tissue)["summary"]["other_seed"].min() == record(tissue)["seeds"].min() > 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "nonsense"}, "method to be one of"),
        ({"n_random": 0}, "n_random of 1"),
        ({"n_draws": 0}, "n_draws of 1"),
        ({"most_genes": 0}, "most_genes of 1"),
        ({"concepts": ["absent"]}, "absent"),
        ({"genes": ["a0", "absent"]}, "absent"),
    ],
)
def test_bad_settings_are_refused_and_leave_nothing(named, model, change, message):
    with pytest.raises(ValueError, match=message):
        stcsm.tl.sanity(named, model, **change)
    assert "sanity" not in named.uns["stcsm"]


def test_a_concept_that_changes_takes_its_check_along(named, model):
    stcsm.tl.sanity(named, model)
    stcsm.tl.concepts(named, model, genes={"new": ["b1"]})
    assert "sanity" in named.uns["stcsm"]
    stcsm.tl.concepts(named, model, genes={"left": ["a5"]})
    assert "sanity" not in named.uns["stcsm"]


def test_many_warnings_become_one(named, model, monkeypatch):
    encoder = deep(64, 6)
    monkeypatch.setattr(GeneVAE, "encoders", property(lambda self: [encoder]))
    stcsm.tl.concepts(named, model, genes={f"c{i}": [f"a{i}"] for i in range(15)})
    with pytest.warns(UserWarning, match="map") as caught:
        stcsm.tl.sanity(named, model, method="guided_backprop", n_draws=1)
    said = [str(w.message) for w in caught]
    assert len(said) == 11
    assert "more warnings" in said[-1]


def test_the_published_models_guided_backprop_and_rectgrad_are_caught_on_the_olfactory_bulb(data_dir, golden_dir):
    """Its trained weights, five ReLU layers: the same map for three concepts, for random genes and for the opposite."""
    adata = stcsm.io.read(data_dir / "mob" / "Rep11_MOB_count_matrix-1.tsv.gz")
    model = GeneVAE.published(adata)
    model.load_published_weights(golden_dir / "st_weights_seed0.npz")
    stcsm.tl.published_concepts(adata, model, ["Penk", "Doc2g", "Kctd12"])
    settings = {"n_draws": 1, "n_random": 20, "most_genes": 60}
    off = np.triu_indices(3, 1)
    for method in ("guided_backprop", "rectgrad"):
        with pytest.warns(UserWarning, match="nearly the same map whatever the concept"):
            stcsm.tl.sanity(adata, model, method=method, **settings)
        found = record(adata)
        assert (found["correlation"][off] > 0.8).all()
        assert (found["opposite"] > 0.8).all()
        assert (found["cascading"][:, 0] > 0.8).all()
    stcsm.tl.sanity(adata, model, **settings)
    assert record(adata)["correlation"][0, 1] < -0.5
    np.testing.assert_allclose(record(adata)["opposite"], -1, atol=1e-5)
    assert (record(adata)["summary"]["warning"] == "").all()
