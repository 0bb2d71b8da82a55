"""The fingerprint tells weights apart, and is computed once per state of them."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from scipy import sparse

from stcsm import pp
from stcsm.models import GeneVAE, _io
from stcsm.nets import SpatialFilter, SpotEncoder
from stcsm.space import _counts

SMALL = {"smoothing": 0.0, "n_latent": 4, "n_hidden": 8}


def counting(monkeypatch, module, name: str) -> list:
    """A list that grows at every call of a function."""
    calls, whole = [], getattr(module, name)
    monkeypatch.setattr(module, name, lambda *args: (calls.append(name), whole(*args))[1])
    return calls


def changed_by(model, how: str, folder) -> None:
    weight = model.module.member(0).encoder.mean.weight
    if how == "train":  # a fused optimiser does not count its steps as changes
        model.train(max_epochs=1, progress=False, accelerator="cpu")
    elif how == "in place":
        with torch.no_grad():
            weight[0, 0] += 1
    elif how == "data":
        weight.data.mul_(2)
    elif how == "two exchanged":
        weight.data.view(-1)[:2] = weight.data.view(-1)[:2].flip(0).clone()
    elif how == "another module":
        model.module = GeneVAE(model.adata, **{**SMALL, "seed": 5}).module
    else:
        other = GeneVAE(model.adata, **{**SMALL, "seed": 6})
        model.module.load_state_dict(other.module.state_dict())


@pytest.mark.parametrize("how", ["train", "in place", "data", "two exchanged", "another module", "loaded weights"])
def test_hashed_once_a_state(counts, monkeypatch, tmp_path, how):
    GeneVAE.setup_anndata(counts)
    model = GeneVAE(counts, **SMALL)
    hashes = counting(monkeypatch, _io, "hash_weights")
    first = model.fingerprint()
    model.get_latent_representation()
    model.to_device("cpu")
    assert model.fingerprint() == first
    assert len(hashes) == 1
    changed_by(model, how, tmp_path)
    second = model.fingerprint()
    assert second != first
    assert model.fingerprint() == second
    assert len(hashes) == 2
    model.save(tmp_path / "m")
    assert GeneVAE.load(tmp_path / "m", counts).fingerprint() == second


def test_counts_are_validated_once_by_all_who_read_them(counts, monkeypatch):
    checks = counting(monkeypatch, _counts, "check_every_value")
    GeneVAE.setup_anndata(counts)
    model = GeneVAE(counts, **SMALL)
    model.train(max_epochs=1, progress=False, accelerator="cpu")
    pp.spot_graph(counts, n_pcs=3, n_neighbors=4, steps=1, width=1.0)
    assert len(checks) == 1
    counts.X.data *= 0.5
    with pytest.raises(ValueError, match="fractional"):
        GeneVAE(counts, **SMALL)


def test_the_filter_is_hashed_by_its_entries_row_by_row():
    """As by earlier versions, whose results name their model by this hash, however the filter is held."""
    weights = sparse.random_array((6, 6), density=0.5, rng=0, dtype=np.float32).tocsr()
    encoder = SpotEncoder(6, 8, 3, SpatialFilter(weights, np.array([3, 0, 5, 1, 2, 4])))
    digest = hashlib.sha256()
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    entries = weights.tocoo()
    digest.update(np.stack(entries.coords).astype(np.int64).tobytes() + entries.data.tobytes())
    assert _io.hash_weights(encoder) == digest.hexdigest()[:16]
