"""A model trained on one section, applied to another on the same grid."""

from __future__ import annotations

import logging

import anndata as ad
import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.metrics import roc_auc_score

from stcsm import tl
from stcsm.datasets import simulated_bulb
from stcsm.models import GeneVAE
from tests.models.test_sections import fitted, halves, tiny


def one(adata, section):
    part = adata[adata.obs["section"] == section].copy()
    part.uns = {}
    return part


@pytest.fixture(scope="module")
def bulb() -> ad.AnnData:
    return halves(simulated_bulb(250, 500, image=False), 0.5, lost=15)


@pytest.fixture(scope="module")
def saved(bulb, tmp_path_factory):
    """A model of the first half, on disk."""
    here = one(bulb, "shallow")
    GeneVAE.setup_anndata(here)
    model = GeneVAE(here, smoothing=0.0)
    model.train(max_epochs=40, progress=False)
    folder = tmp_path_factory.mktemp("model") / "m"
    model.save(folder)
    return folder, model


def test_on_its_own_section_a_model_is_itself(saved, bulb):
    folder, model = saved
    again = GeneVAE.load(folder, one(bulb, "shallow"), match="positions")
    np.testing.assert_allclose(
        again.get_latent_representation(), model.get_latent_representation(), rtol=1e-5, atol=1e-6
    )


def test_a_section_that_lies_elsewhere_is_warned_of(saved, bulb, caplog):
    """As a section that is not registered: each array position is another part of the tissue."""
    folder, _ = saved
    other = one(bulb, "deep")
    with caplog.at_level(logging.WARNING):
        GeneVAE.load(folder, other, match="positions")
        assert "worse than depth" not in caplog.text
        elsewhere = np.random.default_rng(0).permutation(other.n_obs)
        other.obsm["spatial"] = other.obsm["spatial"][elsewhere]
        GeneVAE.load(folder, other, match="positions")
    assert "worse than depth alone (-0.0" in caplog.text


def aurocs(adata, model) -> dict[str, np.ndarray]:
    tl.concepts(adata, model, groupby="layer")
    tl.saliency(adata, model)
    tl.decoded(adata, model)
    tl.concept_map(adata, model)
    labels = adata.obs["layer"].astype(str).to_numpy()
    names = adata.uns["stcsm"]["concepts"]
    return {
        key: np.array([roc_auc_score(labels == names[c]["label"], adata.obsm[key][c]) for c in adata.obsm[key]])
        for key in ("concept_saliency", "concept_decoded", "concept_map")
    }


def test_a_section_that_was_never_seen_is_mapped_as_by_a_model_of_its_own(saved, bulb, tmp_path):
    folder, _ = saved
    other = one(bulb, "deep")
    other = other[np.random.default_rng(0).permutation(other.n_obs)].copy()
    other.var_names = [f"renamed_{g}" for g in other.var_names]
    model = GeneVAE.load(folder, other, match="positions")
    applied = aurocs(other, model)
    own = one(bulb, "deep")
    GeneVAE.setup_anndata(own)
    trained = GeneVAE(own, smoothing=0.0)
    trained.train(max_epochs=40, progress=False)
    for key, values in aurocs(own, trained).items():
        assert applied[key].mean() > values.mean() - 0.02
    assert applied["concept_map"].min() > 0.9
    # Saved again, it is a model of this section.
    model.save(tmp_path / "again")
    np.testing.assert_array_equal(
        GeneVAE.load(tmp_path / "again", other).get_latent_representation(), model.get_latent_representation()
    )


def test_positions_that_are_absent_are_zero_and_unknown_ones_nan(tmp_path, caplog):
    both = tiny()
    first, other = one(both, "a"), one(both, "b")
    model = fitted(first, batch_key=None, smoothing=1.0)
    model.save(tmp_path / "m")
    with caplog.at_level(logging.WARNING):
        moved = GeneVAE.load(tmp_path / "m", other, match="positions")
    assert "1 of 27 spots have no array position of the model" in caplog.text
    # Weights sliced to the positions in common do the same as zeros where the section has none.
    x = other.X.toarray()[:26]
    u = np.log1p(x[:, 3] / (x[:, 3].sum() * x.sum(axis=1) / x.sum() + 0.5))
    full = np.zeros((1, 29), np.float32)
    full[0, 3:] = u
    np.testing.assert_allclose(moved.inputs(["g3"]).numpy(), full, rtol=1e-5)
    with torch.no_grad():
        expected = model.encoder(torch.from_numpy(full)).numpy()[0]
    np.testing.assert_allclose(moved.get_latent_representation()[3], expected, rtol=1e-4, atol=1e-6)
    z = np.ones((1, 4), np.float32)
    assert np.isnan(moved.decode(z)[0, 26])
    np.testing.assert_array_equal(moved.decode(z)[0, :26], model.decode(z)[0, 3:])
    tl.concepts(other, moved, genes={"x": ["g1", "g3"]})
    tl.concept_map(other, moved)
    assert np.flatnonzero(np.isnan(other.obsm["concept_map"]["x"])).tolist() == [26]


@pytest.mark.parametrize("encoder", ["mlp", "conv"])
def test_a_model_of_several_sections_takes_one_and_several(tmp_path, encoder):
    both = tiny()
    model = fitted(both, encoder=encoder)
    model.save(tmp_path / "m")
    alone = GeneVAE.load(tmp_path / "m", one(both, "b"), match="positions")
    np.testing.assert_allclose(
        alone.get_latent_representation(), model.get_latent_representation(section="b"), rtol=1e-4, atol=1e-6
    )
    again = both.copy()
    again.obs["section"] = again.obs["section"].map({"a": "new", "b": "newer"})
    renamed = GeneVAE.load(tmp_path / "m", again, match="positions")
    assert renamed.section_names == ("new", "newer")
    np.testing.assert_allclose(
        renamed.get_latent_representation(section="new"), model.get_latent_representation(section="a"), rtol=1e-4
    )


def test_what_does_not_fit_is_refused(tmp_path):
    both = tiny()
    first, other = one(both, "a"), one(both, "b")
    fitted(first, batch_key=None).save(tmp_path / "m")
    with pytest.raises(ValueError, match=r"found 27 spots of which 0 .*match=\"positions\""):
        GeneVAE.load(tmp_path / "m", other)
    with pytest.raises(ValueError, match="'spots' or 'positions'"):
        GeneVAE.load(tmp_path / "m", other, match="names")
    far = other.copy()
    far.obs["array_row"] += 3
    with pytest.raises(ValueError, match=r"model's 29 array positions, found that 8 of the 27 spots have one.*to_grid"):
        GeneVAE.load(tmp_path / "m", far, match="positions")
    bare = other.copy()
    del bare.obs["array_row"]
    with pytest.raises(ValueError, match=r"whole rows and columns as array.*found coordinates alone.*to_grid"):
        GeneVAE.load(tmp_path / "m", bare, match="positions")
    other.obs["array_row"] = other.obs["array_row"].replace({0: 1})
    with pytest.raises(ValueError, match="share 3 positions"):
        GeneVAE.load(tmp_path / "m", other, match="positions")
    assert "stcsm" not in other.uns


def test_a_convolutional_model_takes_another_section(tmp_path):
    both = tiny()
    first, other = one(both, "a"), one(both, "b")
    model = fitted(first, batch_key=None, encoder="conv")
    model.save(tmp_path / "m")
    again = GeneVAE.load(tmp_path / "m", first, match="positions")
    np.testing.assert_allclose(again.get_latent_representation(), model.get_latent_representation(), atol=1e-5)
    moved = GeneVAE.load(tmp_path / "m", other, match="positions")
    image = moved.inputs(["g3"]).numpy()[0, 0]
    x = other.X.toarray()[:26]
    expected = np.zeros(30, np.float32)
    expected[3:29] = np.log1p(x[:, 3] / (x[:, 3].sum() * x.sum(axis=1) / x.sum() + 0.5))
    np.testing.assert_allclose(image.ravel(), expected, rtol=1e-5)
    np.testing.assert_allclose(moved.decode(np.ones((1, 4)))[0, :26], model.decode(np.ones((1, 4)))[0, 3:], rtol=1e-5)


def test_sections_that_share_coordinates_alone_are_saved(tmp_path):
    adata = tiny()
    del adata.obs["array_row"], adata.obs["array_col"]
    model = fitted(adata)
    model.save(tmp_path / "model")
    again = GeneVAE.load(tmp_path / "model", adata)
    np.testing.assert_array_equal(again.get_latent_representation(), model.get_latent_representation())
    a = one(adata, "a")
    other = GeneVAE.load(tmp_path / "model", a[::-1].copy(), match="positions")
    np.testing.assert_allclose(
        other.get_latent_representation(), model.get_latent_representation(section="a"), atol=1e-6
    )


@pytest.mark.parametrize("batch_key", [None, "section"])
def test_positions_are_those_the_model_was_made_on(tmp_path, batch_key):
    adata = tiny() if batch_key else one(tiny(), "a")
    untouched = adata.copy()
    model = fitted(adata, batch_key=batch_key)
    expected = model.get_latent_representation()
    adata.obs["array_row"] += 100
    adata.obsm["spatial"] = adata.obsm["spatial"] * 3.0
    adata.obs_names = [f"other_{name}" for name in adata.obs_names]
    adata.var_names = [f"other_{name}" for name in adata.var_names]
    model.save(tmp_path / "m")
    GeneVAE.setup_anndata(untouched, batch_key=batch_key)
    for match in ("spots", "positions"):
        again = GeneVAE.load(tmp_path / "m", untouched, match=match)
        np.testing.assert_allclose(again.get_latent_representation(), expected, rtol=1e-4, atol=1e-6)


def test_a_loaded_model_keeps_its_positions(tmp_path):
    """Coordinates that the AnnData has got since move neither the filter nor what another section is matched by."""
    adata = one(tiny(), "a")
    model = fitted(adata, batch_key=None, smoothing=1.0)
    model.save(tmp_path / "m")
    moved = adata.copy()
    moved.obs["array_row"] += 100
    moved.obsm["spatial"] = moved.obsm["spatial"][::-1].copy()
    again = GeneVAE.load(tmp_path / "m", moved)
    np.testing.assert_array_equal(again.get_latent_representation(), model.get_latent_representation())
    again.save(tmp_path / "again")
    GeneVAE.load(tmp_path / "again", adata, match="positions")


def faint(adata, n_genes):
    """At most one count a spot, of so many genes."""
    adata = adata.copy()
    adata.uns = {}
    adata.X = sparse.csr_matrix(np.minimum(adata.X.toarray(), np.arange(adata.n_vars) < n_genes))
    return adata


def test_a_section_almost_without_counts_is_said_to_be_one(tmp_path, caplog):
    both = tiny()
    a, b = one(both, "a"), one(both, "b")
    fitted(a, batch_key=None).save(tmp_path / "m")
    with caplog.at_level(logging.WARNING):
        GeneVAE.load(tmp_path / "m", a[:, 9:14].copy(), match="positions")  # a small panel, well counted
        assert "few counts" not in caplog.text
        GeneVAE.load(tmp_path / "m", faint(a, 2), match="positions")
        assert "2 of 40 genes have 20 counts or more in this section" in caplog.text
        joint = ad.concat([faint(a, 2), b], merge="same")
        GeneVAE.setup_anndata(joint, batch_key="section")
        GeneVAE.load(tmp_path / "m", joint, match="positions")
        assert "2 of 40 genes have 20 counts or more in section 'a'" in caplog.text
    with pytest.raises(ValueError, match="0 of 40 genes have 20 counts or more in this section"):
        GeneVAE.load(tmp_path / "m", faint(a, 2)[:19].copy(), match="positions")
