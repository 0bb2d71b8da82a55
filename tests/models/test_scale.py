"""Large sections: refused where they cannot fit, encoded in bounded steps."""

from __future__ import annotations

import numpy as np
import pytest

from stcsm.models import GeneVAE, _latents
from stcsm.space import _memory


def test_training_larger_than_memory_is_refused_with_the_arithmetic(counts, monkeypatch):
    GeneVAE.setup_anndata(counts)
    model = GeneVAE(counts, n_latent=4, n_hidden=8)
    n = sum(p.numel() for p in model.module.parameters())
    before = model.fingerprint()
    monkeypatch.setattr(_memory, "available_memory", lambda: 1000)
    with pytest.raises(MemoryError, match=rf"4 x {n} parameters and 5 x 64 genes x 29 spots.*lower batch_size"):
        model.train(max_epochs=1, progress=False)
    assert model.fingerprint() == before


def test_embedding_does_not_depend_on_how_many_genes_go_together(counts, monkeypatch):
    GeneVAE.setup_anndata(counts)
    model = GeneVAE(counts, n_latent=4, n_hidden=8)
    expected = model.get_latent_representation()
    for values in (1, 29 * 7):
        monkeypatch.setattr(_latents, "ENCODE_VALUES", values)
        np.testing.assert_allclose(model.get_latent_representation(), expected, rtol=1e-5, atol=1e-6)
