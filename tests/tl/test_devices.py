"""Every tensor of a step is made where the model is: on the CPU whatever torch's default device, and on a GPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from anndata import AnnData

from stcsm import _keys, tl
from stcsm.models import GeneVAE
from stcsm.tl import _maps

CONCEPTS = {"left": ["a0", "a1"], "right": ["b3"]}
DEVICES = [
    name for name, found in (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())) if found
]


def numbers(adata: AnnData, model: GeneVAE) -> dict[str, np.ndarray]:
    """What every step that runs the model writes."""
    _maps._kept.clear()
    tl.concepts(adata, model, genes=CONCEPTS)
    tl.saliency(adata, model)
    tl.significance(adata, model, n_random=20)
    tl.decoded(adata, model)
    tl.concept_map(adata, model)
    tl.sanity(adata, model, n_random=5, n_draws=1)
    tl.saliency(adata, model, method="integrated_gradients", key_added="integrated")
    keys = (_keys.CONCEPT_SALIENCY, _keys.CONCEPT_MAP, "concept_decoded", "concept_saliency_pval", "integrated")
    found = {key: adata.obsm[key].to_numpy(dtype=float) for key in keys}
    checked = adata.uns[_keys.UNS]["sanity"]["summary"].select_dtypes("number")
    return {**found, "sanity": checked.to_numpy(), "latents": np.asarray(adata.varm["X_stcsm"])}


def test_no_step_leaves_a_tensor_to_the_default_device(tissue, model, monkeypatch):
    """Where one does, it has no numbers here; the models' own guard against such settings is off."""
    with torch.device("meta"), monkeypatch.context() as patched:
        patched.setattr(torch, "get_default_device", lambda: torch.device("cpu"))
        found = numbers(tissue.copy(), model)
        assert torch.zeros(1).is_meta
    for key, expected in numbers(tissue.copy(), model).items():
        np.testing.assert_array_equal(found[key], expected, err_msg=key)


@pytest.mark.gpu
@pytest.mark.skipif(not DEVICES, reason="no CUDA or MPS device")
@pytest.mark.parametrize("device", DEVICES)
def test_a_device_gives_the_numbers_of_the_cpu(tissue, model, tmp_path, device):
    expected = numbers(tissue.copy(), model)
    model.save(tmp_path / "model")
    there = GeneVAE.load(tmp_path / "model", tissue)
    there.module.to(device)
    for key, values in numbers(tissue.copy(), there).items():
        np.testing.assert_allclose(values, expected[key], atol=2e-3 * np.nanmax(np.abs(expected[key])), err_msg=key)


@pytest.mark.gpu
@pytest.mark.skipif(not DEVICES, reason="no CUDA or MPS device")
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("smoothing", [0, 1])
def test_a_training_on_a_device_learns_as_on_the_cpu(tissue, device, smoothing):
    GeneVAE.setup_anndata(tissue)
    elbo = []
    for accelerator in ("cpu", device):
        model = GeneVAE(tissue, n_latent=6, n_hidden=32, smoothing=smoothing, seed=0)
        model.train(max_epochs=60, progress=False, accelerator="gpu" if accelerator == "cuda" else accelerator)
        elbo.append(float(model.get_elbo()))
    assert elbo[1] == pytest.approx(elbo[0], rel=0.02)
