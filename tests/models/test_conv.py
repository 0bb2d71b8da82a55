"""Convolutional gene models: the grid, the way back to spots, and that every likelihood trains."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import torch
from scipy import sparse

from stcsm import tl
from stcsm.attribution import attribute
from stcsm.models import GeneVAE

SMALL = {"smoothing": 0.0, "n_latent": 4, "n_hidden": 8, "encoder": "conv"}


@pytest.fixture
def array() -> ad.AnnData:
    """An array of 9 x 11 spots with a hole and one spot without counts; 60 genes, half of them in the left part."""
    rng = np.random.default_rng(0)
    rows, cols = (x.ravel() for x in np.meshgrid(range(9), range(11), indexing="ij"))
    whole = ~((rows == 4) & (cols > 3) & (cols < 6))
    rows, cols = rows[whole], cols[whole]
    rate = np.where((cols < 5)[:, None] == (np.arange(60) < 30), 3.0, 0.5)
    x = rng.poisson(rate).astype(np.float32)
    x[7] = 0
    a = ad.AnnData(sparse.csr_matrix(x))
    a.obs_names = [f"s{i}" for i in range(len(rows))]
    a.var_names = [f"g{i}" for i in range(60)]
    a.obsm["spatial"] = np.column_stack([cols * 100.0, rows * 100.0]) + 17
    a.obs["left"] = np.where(cols < 5, "left", "right")
    return a


def fitted(adata, epochs=2, **kwargs):
    GeneVAE.setup_anndata(adata)
    model = GeneVAE(adata, **{**SMALL, **kwargs})
    model.train(max_epochs=epochs, progress=False)
    return model


def test_inputs_are_images_of_the_spots(array):
    GeneVAE.setup_anndata(array)
    model = GeneVAE(array, **SMALL)
    flat = GeneVAE(array, **{**SMALL, "encoder": "mlp"})
    images = model.inputs(["g3", "g40"]).numpy()
    assert images.shape == (2, 1, 10, 12)
    np.testing.assert_allclose(model.maps_to_spots(images), flat.inputs(["g3", "g40"]).numpy(), rtol=1e-6)
    xy = (array.obsm["spatial"] - 17) / 100
    expected = np.zeros((10, 12))
    known = np.delete(np.arange(array.n_obs), 7)
    expected[xy[known, 1].astype(int), xy[known, 0].astype(int)] = flat.inputs(["g3"]).numpy()[0]
    np.testing.assert_allclose(images[0, 0], expected, rtol=1e-6)


@pytest.mark.parametrize("likelihood", ["nb", "multinomial", "bernoulli"])
@pytest.mark.parametrize("encoder", ["conv", "mlp"])
def test_every_likelihood_trains_with_either_encoder(array, likelihood, encoder, tmp_path):
    model = fitted(array, epochs=8, likelihood=likelihood, encoder=encoder)
    loss = model.history["elbo_train"].iloc[:, 0].astype(float).to_numpy()
    assert np.isfinite(loss).all()
    assert loss[-1] < loss[0]
    model.save(tmp_path / "model")
    again = GeneVAE.load(tmp_path / "model", array)
    np.testing.assert_array_equal(again.get_latent_representation(), model.get_latent_representation())
    assert again.fingerprint() == model.fingerprint()


def test_cells_without_tissue_have_no_part_in_the_loss(array):
    GeneVAE.setup_anndata(array)
    model = GeneVAE(array, **SMALL)
    _, _, out = model.module({"counts": torch.ones(2, array.n_obs - 1), "totals": torch.full((2, 1), 97.0)})
    model.module.zero_grad()
    out.loss.backward()
    f = model.module.member(0).decoder(torch.zeros(1, 4))
    assert f.shape == (1, array.n_obs - 1)
    likelihood = model.module.log_likelihood(0, f, torch.ones(1, array.n_obs - 1), torch.tensor([[97.0]]))
    shares = torch.softmax(f + model.module.log_depth, dim=1)
    theta = model.module.member(0).log_theta.exp()
    nb = torch.distributions.NegativeBinomial(theta, probs=97 * shares / (97 * shares + theta))
    torch.testing.assert_close(likelihood, nb.log_prob(torch.ones(1, 1)).sum(dim=1), rtol=1e-4, atol=1e-3)


def test_spots_of_one_cell_are_seen_together(array):
    array.obs["array_row"] = ((array.obsm["spatial"][:, 1] - 17) // 300).astype(int)
    array.obs["array_col"] = ((array.obsm["spatial"][:, 0] - 17) // 300).astype(int)
    model = fitted(array)
    x = array.X.toarray()
    first = ((array.obs["array_row"] == 0) & (array.obs["array_col"] == 0)).to_numpy()
    n, depth = x[first, 3].sum(), x[first].sum() / x.sum()
    expected = np.log1p(n / (x[:, 3].sum() * depth + 0.5))
    assert model.inputs(["g3"])[0, 0, 0, 0] == pytest.approx(expected, rel=1e-5)
    assert model.decode(np.zeros((1, 4))).shape == (1, array.n_obs)
    spots = model.maps_to_spots(np.arange(12.0 if model.input_shape[1] * model.input_shape[2] == 12 else 16.0).reshape(
        model.input_shape
    ))  # fmt: skip
    assert len(np.unique(spots[np.delete(first, 7)])) == 1


def test_smoothing_filters_cells_and_spots(array):
    plain, smooth = fitted(array), fitted(array, smoothing=1.0)
    encoder = smooth.module.member(0).encoder
    same = plain.module.member(0).encoder
    same.load_state_dict(encoder.state_dict())
    u = smooth.inputs(["g1"])
    filtered = encoder.cell_filter(u.flatten(1)).reshape(u.shape)
    torch.testing.assert_close(encoder(u), same(filtered))
    # A constant over the tissue stays constant, and nothing leaks beyond it.
    tissue = encoder.tissue
    torch.testing.assert_close(encoder.cell_filter(tissue.flatten(1)), tissue.flatten(1))


def test_maps_of_a_conv_model_come_back_as_spots(array):
    model = fitted(array, epochs=25)
    tl.concepts(array, model, groupby="left", n_markers=5)
    before = array.obsm["spatial"].copy()
    tl.saliency(array, model, method="integrated_gradients", steps=8)
    tl.decoded(array, model)
    tl.concept_map(array, model)
    np.testing.assert_array_equal(array.obsm["spatial"], before)
    left = (array.obs["left"] == "left").to_numpy()
    for key in ("concept_saliency", "concept_decoded", "concept_map"):
        table = array.obsm[key]
        assert table.shape == (array.n_obs, 2)
        assert table.iloc[7].isna().all()
        known = table.notna().all(axis=1).to_numpy()
        assert known.sum() == array.n_obs - 1
    decoded = array.obsm["concept_decoded"]["left"].to_numpy()
    assert np.nanmean(decoded[left]) > np.nanmean(decoded[~left])
    genes = tl.gene_saliency(array, model, "left", ["g1", "g31"], method="integrated_gradients", steps=64)
    baseline = (
        model.encoder(torch.zeros(1, *model.input_shape)).detach().numpy()
        @ array.uns["stcsm"]["concepts"]["left"]["vectors"][0]
    )
    gap = np.nansum(genes.X, axis=1) - (genes.obs["concept_score"].to_numpy() - baseline)
    assert np.abs(gap).max() < 1e-2 * np.abs(genes.obs["concept_score"]).max() + 1e-3


def test_hexagonal_array_has_no_gaps(array):
    rows, cols = ((array.obsm["spatial"][:, d] - 17).astype(int) // 100 for d in (1, 0))
    array.obs["array_row"], array.obs["array_col"] = rows, 2 * cols + rows % 2
    GeneVAE.setup_anndata(array)
    model = GeneVAE(array, **SMALL)
    assert model.input_shape == (1, 10, 12)
    tissue = model.module.grid.tissue()[0, 0]
    assert int(tissue.sum()) == array.n_obs - 1
    plain = array.copy()
    plain.obs["array_col"] = cols
    torch.testing.assert_close(model.inputs(["g5"]), GeneVAE(plain, **SMALL).inputs(["g5"]))


def test_results_do_not_depend_on_what_is_beside_a_gene(array):
    model = fitted(array)
    z = model.get_latent_representation()
    with torch.no_grad():
        np.testing.assert_allclose(model.encoder(model.inputs(["g9"]))[0].numpy(), z[9], atol=1e-5)


def test_points_that_are_no_array_are_refused(array):
    array.obsm["spatial"] = np.random.default_rng(0).uniform(size=(array.n_obs, 2))
    GeneVAE.setup_anndata(array)
    with pytest.raises(ValueError, match="to_grid"):
        GeneVAE(array, **SMALL)


def test_grid_larger_than_memory_is_refused_with_the_arithmetic(array):
    array.obs["array_row"] = np.arange(array.n_obs) * 10_000_000
    array.obs["array_col"] = np.arange(array.n_obs) * 10_000_000
    GeneVAE.setup_anndata(array)
    with pytest.raises(MemoryError, match="cells x 64 genes"):
        GeneVAE(array, **SMALL)


def test_maps_of_another_shape_are_refused(array):
    GeneVAE.setup_anndata(array)
    with pytest.raises(ValueError, match=r"1, 10, 12"):
        GeneVAE(array, **SMALL).maps_to_spots(np.zeros((3, 1, 12, 10)))


@pytest.mark.parametrize("method", ["rectgrad", "guided_backprop", "saliency", "deeplift", "epsilon_lrp", "occlusion"])
def test_engine_explains_the_conv_encoder(array, method):
    model = fitted(array)
    inputs = model.inputs(["g1", "g2"])
    maps = attribute(model.encoder, inputs, np.ones(4, np.float32), method)
    assert maps.shape == inputs.shape
    assert torch.isfinite(maps).all()
