"""The original model's weights give the original's latents, maps and pictures through the public interface."""

from __future__ import annotations

import numpy as np
import pytest

from stcsm import datasets, tl
from stcsm.models import GeneVAE


@pytest.fixture(scope="module")
def reference(golden_dir):
    with np.load(golden_dir / "st_reference_seed0.npz", allow_pickle=False) as held:
        return dict(held)


@pytest.fixture(scope="module")
def adata(data_dir):
    return datasets.mouse_olfactory_bulb(11, path=data_dir / "mob")


@pytest.fixture(scope="module")
def model(adata, golden_dir):
    model = GeneVAE.published(adata)
    model.load_published_weights(golden_dir / "st_weights_seed0.npz")
    return model


def relative(found, expected):
    return np.abs(np.asarray(found) - expected).max() / np.abs(expected).max()


def test_latents_of_all_genes(adata, model, reference):
    z = model.get_latent_representation()[adata.var_names.get_indexer(reference["genes"])]
    assert z.shape == (16218, 20)
    assert np.abs(z - reference["seed0_latent_mean"]).max() < 1e-4


def test_pictures_of_the_concepts(model, reference):
    assert relative(model.decode_images(reference["seed0_concept_vectors"]), reference["seed0_decoded"]) < 1e-5


@pytest.mark.parametrize("method", ["rectgrad", "guided_backprop"])
def test_mean_maps_of_the_concepts_on_the_spots(adata, model, reference, method):
    """tl.saliency with the original's concepts is the paper's figure."""
    tissue = adata.copy()
    names = [str(gene) for gene in reference["concept_genes"]]
    sets = {name: list(reference["genes"][top]) for name, top in zip(names, reference["seed0_top50_idx"], strict=True)}
    tl.concepts(tissue, model, genes=sets, estimator="mean")
    for name, vector in zip(names, reference["seed0_concept_vectors"], strict=True):
        tissue.uns["stcsm"]["concepts"][name]["vectors"] = vector[None]
    tl.saliency(tissue, model, method=method, genes="concept", published=True)
    key = {"rectgrad": "seed0_mean_rectgrad_mean", "guided_backprop": "seed0_mean_guidedbp_mean"}[method]
    at = tissue.obs_names.get_indexer(reference["spots"])
    expected = reference[key][:, reference["grid_y"], reference["grid_x"]].T
    assert relative(tissue.obsm["concept_saliency"].to_numpy()[at], expected) < 1e-4
    tl.mean_expression(tissue)
    expected = reference["seed0_mean_expr"][:, reference["grid_y"], reference["grid_x"]].T
    assert relative(tissue.obsm["concept_expression"].to_numpy()[at], expected) < 1e-5
    tl.decoded(tissue, model, contrast=False)
    expected = reference["seed0_decoded"][:, reference["grid_y"], reference["grid_x"]].T
    assert relative(tissue.obsm["concept_decoded"].to_numpy()[at], expected) < 1e-5


@pytest.mark.slow
def test_training_on_replicate_11_behaves_like_the_original(adata):
    """Published code, seed 0: .2712 .0888 .0800 ... .0747; the mean image .0857. Ten epochs would take minutes."""
    model = GeneVAE.published(adata)
    model.train(max_epochs=3, progress=False)
    loss = model.history["train_loss"].iloc[:, 0].astype(float).to_numpy()
    assert len(loss) == 3
    assert loss[0] == pytest.approx(0.2712, abs=0.05)
    assert loss[1] == pytest.approx(0.0888, abs=0.003)
    assert loss[2] == pytest.approx(0.0800, abs=0.002)
