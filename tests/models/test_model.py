"""GeneVAE: what it reads, what it writes, and that it does the same thing twice."""

from __future__ import annotations

import json

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from scipy import sparse

from stcsm.models import GeneVAE
from stcsm.models._counts import GeneReader
from stcsm.models._training import make_schedule

SMALL = {"smoothing": 0.0, "n_latent": 4, "n_hidden": 8}


def fitted(adata, epochs=2, train=None, **kwargs):
    GeneVAE.setup_anndata(adata)
    model = GeneVAE(adata, **{**SMALL, **kwargs})
    model.train(max_epochs=epochs, progress=False, **(train or {}))
    return model


def test_input_is_the_formula(counts):
    GeneVAE.setup_anndata(counts)
    model = GeneVAE(counts, **SMALL)
    x = counts.X.toarray().astype(float)
    depth = np.delete(x.sum(axis=1) / x.sum(), 4)
    expected = np.log1p(np.delete(x[:, 3], 4) / (x[:, 3].sum() * depth + 0.5))
    np.testing.assert_allclose(model.inputs(["g3"]).numpy()[0], expected, rtol=1e-5)
    np.testing.assert_allclose(
        model.module.transform(
            torch.tensor(np.delete(x[:, [3]].T, 4, axis=1)), torch.tensor([[x[:, 3].sum()]])
        ).numpy(),
        expected[None],
        rtol=1e-5,
    )


def test_loss_is_the_negative_elbo(counts):
    GeneVAE.setup_anndata(counts)
    model = GeneVAE(counts, **SMALL)
    model.module.eval()
    profile = torch.tensor(model.reader.profiles(np.array([3, 5])))
    totals = profile.sum(dim=1, keepdim=True)
    _, _, out = model.module({"counts": profile, "totals": totals})
    member = model.module.member(0)
    mean, log_var = member.encoder.posterior(model.module.transform(profile, totals))
    posterior = torch.distributions.Normal(mean, (log_var / 2).exp())
    kl = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).sum(dim=1)
    rate = totals * torch.softmax(member.decoder(mean) + model.module.log_depth, dim=1)
    theta = member.log_theta.exp()
    nb = torch.distributions.NegativeBinomial(theta, probs=rate / (rate + theta))
    torch.testing.assert_close(out.loss, (kl - nb.log_prob(profile).sum(dim=1)).mean(), rtol=1e-4, atol=1e-4)


def test_genes_by_number_of_counts(counts):
    model = fitted(counts)
    assert model.describe()["n_genes_trained"] == 38
    assert model.describe()["n_genes_embedded_only"] == 1
    assert model.describe()["n_genes_without_counts"] == 1
    assert model.describe()["n_spots_without_counts"] == 1
    z, var = model.get_latent_representation(give_var=True)
    assert np.isnan(z[7]).all()
    assert np.isfinite(np.delete(z, 7, axis=0)).all()
    assert (np.delete(var, 7, axis=0) > 0).all()
    f = model.decode(z[:2])
    assert f.shape == (2, 30)
    assert np.isnan(f[:, 4]).all()


def test_nothing_but_our_key_is_written(counts):
    before = counts.copy()
    fitted(counts)
    assert set(counts.uns) == {"stcsm"}
    assert set(counts.uns["stcsm"]) == {"setup"}
    assert not counts.varm
    assert not counts.layers
    np.testing.assert_array_equal(counts.X.toarray(), before.X.toarray())
    pd.testing.assert_frame_equal(counts.obs, before.obs)


def test_layer_holds_the_counts(counts):
    other = counts.copy()
    other.layers["counts"] = counts.X.copy()
    other.X = counts.X * 0.5
    GeneVAE.setup_anndata(other, layer="counts")
    model = GeneVAE(other, **SMALL)
    model.train(max_epochs=2, progress=False)
    np.testing.assert_array_equal(model.get_latent_representation(), fitted(counts).get_latent_representation())


@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
def test_backed_file_gives_the_same_numbers(counts, tmp_path, kind):
    expected = fitted(counts.copy()).get_latent_representation()
    counts.X = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix, "dense": lambda x: x.toarray()}[kind](counts.X)
    counts.write_h5ad(tmp_path / "a.h5ad")
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    try:
        np.testing.assert_array_equal(fitted(backed).get_latent_representation(), expected)
    finally:
        backed.file.close()


def test_duplicate_entries_of_a_sparse_matrix_are_summed(counts):
    expected = fitted(counts.copy()).get_latent_representation()
    coo = counts.X.tocoo()
    ones = np.repeat(np.arange(coo.nnz), coo.data.astype(int))
    order = np.argsort(coo.col[ones], kind="stable")
    indptr = np.concatenate([[0], np.cumsum(np.bincount(coo.col[ones], minlength=40))])
    split = sparse.csc_matrix((np.ones(len(ones), np.float32), coo.row[ones][order], indptr), shape=coo.shape)
    counts.X = split
    stored = counts.X.nnz
    np.testing.assert_array_equal(fitted(counts).get_latent_representation(), expected)
    assert counts.X.nnz == stored


def test_same_seed_same_numbers_and_global_generator_untouched(counts):
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    first = fitted(counts, seed=3).get_latent_representation()
    assert torch.equal(state, torch.random.get_rng_state())
    np.testing.assert_array_equal(first, fitted(counts, seed=3).get_latent_representation())
    assert not np.array_equal(first, fitted(counts, seed=4).get_latent_representation(), equal_nan=True)


def test_scvi_seed_is_the_default(counts):
    old = scvi.settings.seed
    try:
        scvi.settings.seed = 11
        GeneVAE.setup_anndata(counts)
        assert GeneVAE(counts, **SMALL).settings["seed"] == 11
    finally:
        scvi.settings.seed = old


def test_first_member_does_not_feel_the_others(counts):
    alone = fitted(counts, seed=2).get_latent_representation()
    together = fitted(counts, seed=2, n_seeds=3)
    np.testing.assert_allclose(together.get_latent_representation(member=0), alone, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="0 to 2"):
        together.get_latent_representation(member=3)


@pytest.mark.parametrize("likelihood", ["nb", "multinomial"])
def test_training_lowers_the_loss_and_is_recorded(counts, likelihood):
    model = fitted(counts, epochs=30, likelihood=likelihood)
    loss = model.history["reconstruction_loss_train"].iloc[:, 0]
    assert len(loss) == 30
    assert loss.iloc[-1] < loss.iloc[0]


def test_early_stopping_on_held_out_counts_loses_no_gene(counts):
    model = fitted(counts, epochs=200, train={"early_stopping": True, "early_stopping_patience": 3, "lr": 0.1})
    assert len(model.history["elbo_validation"]) < 200
    assert model.describe()["n_genes_trained"] == 38


def test_thinning_splits_counts_and_depends_on_the_gene_alone(counts):
    reader = GeneReader.open(counts.X)
    genes = np.array([2, 3, 5])
    left, taken = reader.thinned(genes, 0.3, seed=1)
    whole = reader.profiles(genes)
    np.testing.assert_array_equal(left.profiles(genes) + taken.profiles(genes), whole)
    np.testing.assert_array_equal(reader.thinned(genes[1:2], 0.3, seed=1)[1].profiles([3]), taken.profiles([3]))
    assert 0.2 < taken.profiles(genes).sum() / whole.sum() < 0.4
    assert taken.profiles(np.array([4])).sum() == 0


def test_smoothing_filters_input_and_output(counts):
    model = fitted(counts, smoothing=1.5)
    assert model.encoder.spatial_filter is not None
    assert np.isfinite(np.delete(model.get_latent_representation(), 7, axis=0)).all()
    weights = model.encoder.spatial_filter
    torch.testing.assert_close(weights(torch.ones(2, 29)), torch.ones(2, 29))


def test_save_and_load(counts, tmp_path):
    model = fitted(counts, n_seeds=2, smoothing=1.0)
    model.save(tmp_path / "m")
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == ["model.json", "model.safetensors"]
    again = GeneVAE.load(tmp_path / "m", counts.copy())
    for member in (0, 1):
        np.testing.assert_array_equal(
            again.get_latent_representation(member=member), model.get_latent_representation(member=member)
        )
    assert again.fingerprint() == model.fingerprint()
    moved = counts.copy()
    moved.obsm["spatial"] = moved.obsm["spatial"][::-1].copy()
    assert GeneVAE.load(tmp_path / "m", moved).fingerprint() == model.fingerprint()  # the filter it was trained with
    with pytest.raises(FileExistsError, match="overwrite"):
        model.save(tmp_path / "m")
    model.save(tmp_path / "m", overwrite=True)
    (tmp_path / "m" / "mine.txt").write_text("x")
    with pytest.raises(FileExistsError, match=r"mine\.txt"):
        model.save(tmp_path / "m", overwrite=True)
    assert (tmp_path / "m" / "mine.txt").exists()


def test_load_refuses_other_spots_and_damage(counts, tmp_path):
    fitted(counts).save(tmp_path / "m")
    with pytest.raises(ValueError, match="30 spots that the model was trained on, found 29"):
        GeneVAE.load(tmp_path / "m", counts[1:].copy())
    with pytest.raises(ValueError, match="another order"):
        GeneVAE.load(tmp_path / "m", counts[::-1].copy())
    with pytest.raises(FileNotFoundError):
        GeneVAE.load(tmp_path / "nowhere", counts)
    renamed = counts.copy()
    renamed.var_names = [f"ENSMUSG{i}" for i in range(40)]
    with pytest.raises(ValueError, match="Ensembl"):
        GeneVAE.load(tmp_path / "m", renamed)
    settings = json.loads((tmp_path / "m" / "model.json").read_text())
    (tmp_path / "m" / "model.json").write_text(json.dumps({**settings, "format": 99}))
    with pytest.raises(ValueError, match="format"):
        GeneVAE.load(tmp_path / "m", counts)
    (tmp_path / "m" / "model.safetensors").write_bytes(b"\x80\x04broken")
    with pytest.raises(ValueError, match="damaged"):
        GeneVAE.load(tmp_path / "m", counts)


def test_scvi_views_of_the_setup(counts, capsys):
    model = fitted(counts)
    model.view_anndata_setup()
    assert "GeneVAE" in capsys.readouterr().out
    model.to_device("cpu")
    assert str(model.device) == "cpu"
    assert model.adata is counts


def set_value(adata, value):
    x = adata.X.toarray()
    x[2, 3] = value
    adata.X = sparse.csr_matrix(x)


@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (-1, r"1 negative \(first: -1 at spot 's2', gene 'g3'\)"),
        (0.5, r"1 fractional \(first: 0.5 at spot 's2', gene 'g3'\)"),
        (np.nan, r"1 NaN or infinite \(first: nan at spot 's2', gene 'g3'\)"),
    ],
)
def test_what_is_no_count_is_named_and_located(counts, value, message, kind):
    set_value(counts, value)
    counts.X = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix, "dense": lambda x: x.toarray()}[kind](counts.X)
    with pytest.raises(ValueError, match=message):
        GeneVAE.setup_anndata(counts)
    assert "stcsm" not in counts.uns


def test_log_normalised_data_is_recognised(counts):
    import scanpy as sc

    counts.X[4, 0] = 1
    sc.pp.normalize_total(counts, target_sum=1e4)
    with pytest.raises(ValueError, match="normalised values"):
        GeneVAE.setup_anndata(counts)
    sc.pp.log1p(counts)
    with pytest.raises(ValueError, match="log-normalised"):
        GeneVAE.setup_anndata(counts)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda a: a.obsm.pop("spatial"), "coordinates"),
        (lambda a: a.obsm.__setitem__("spatial", np.full((30, 2), np.nan)), "30 of 30 spots with NaN"),
        (lambda a: a.obsm.__setitem__("spatial", np.ones((30, 5))), "shape"),
        (lambda a: setattr(a, "var_names", ["x"] * 40), "var_names_make_unique"),
        (lambda a: setattr(a, "obs_names", ["x"] * 30), "obs_names_make_unique"),
        (lambda a: setattr(a, "X", sparse.csr_matrix((30, 40))), "only zeros in 30 spots x 40 genes; read a"),
    ],
)
def test_unusable_anndata_is_refused(counts, spoil, message):
    spoil(counts)
    with pytest.raises(ValueError, match=message):
        GeneVAE.setup_anndata(counts)
    assert "stcsm" not in counts.uns


def test_other_refusals(counts):
    with pytest.raises(TypeError, match="AnnData"):
        GeneVAE.setup_anndata(counts.X)
    with pytest.raises(ValueError, match="setup_anndata"):
        GeneVAE(counts)
    with pytest.raises(ValueError, match="layer"):
        GeneVAE.setup_anndata(counts, layer="absent")
    with pytest.raises(ValueError, match="at least one spot"):
        GeneVAE.setup_anndata(counts[:0].copy())
    GeneVAE.setup_anndata(counts)
    for kwargs, message in (
        ({"encoder": "conv3d"}, "encoder"),
        ({"likelihood": "gauss"}, "likelihood"),
        ({"n_latent": 0}, "n_latent"),
        ({"smoothing": -1}, "smoothing"),
        ({"smoothing": "wide"}, "smoothing"),
        ({"seed": -1}, "seed"),
        ({"min_counts": 10_000}, "lower min_counts"),
    ):
        with pytest.raises(ValueError, match=message):
            GeneVAE(counts, **kwargs)
    model = GeneVAE(counts, **SMALL)
    with pytest.raises(ValueError, match="held_out"):
        model.train(held_out=1.5)
    with pytest.raises(ValueError, match=r"\(N, 4\)"):
        model.decode(np.ones((2, 3)))
    for genes, message in ((["nope"], "nope"), ([-1], "0 to 39"), ([40], "0 to 39"), (np.ones(3, bool), "mask")):
        with pytest.raises(ValueError, match=message):
            model.inputs(genes)
    with pytest.raises(ValueError, match="member"):
        model.decode(np.ones((2, 4)), member=1)
    with pytest.raises(ValueError, match="batch_size"):
        model.train(batch_size=0)
    with pytest.raises(TypeError, match="layers"):
        GeneVAE.setup_anndata(counts, layers="counts")


@pytest.mark.parametrize(
    ("genes", "batch_size", "epochs"),
    [
        (40_000, 255, 40),
        (12_177, 254, 40),
        (10_000, 250, 45),
        (3000, 125, 50),
        (500, 64, 50),
        (300, 64, 80),
        (40, 64, 100),
    ],
)
def test_few_genes_are_seen_fifty_times_and_very_few_a_hundred(genes, batch_size, epochs):
    assert make_schedule("mlp", genes, 100, None, None, batch_size).max_epochs == epochs


@pytest.mark.parametrize(
    ("encoder", "n_spots", "asked", "batch_size", "lr"),
    [
        ("mlp", 2**16, None, 256, 0.012),
        ("mlp", 30, 64, 64, 0.003),
        ("mlp", 30, 1024, 1024, 0.012),
        ("mlp", 30, 16, 16, 0.002),
        ("mlp", 2**16 + 1, None, 128, 0.006),
        ("conv", 30, None, 128, 0.002),
    ],
)
def test_many_genes_take_large_batches_and_steps_as_large(encoder, n_spots, asked, batch_size, lr):
    schedule = make_schedule(encoder, 5000, n_spots, None, None, asked)
    assert schedule.batch_size == batch_size
    assert schedule.lr == pytest.approx(lr)
    assert schedule.kl_warmup == (0.45 if encoder == "mlp" else None)


def test_training_follows_its_schedule():
    counts = np.random.default_rng(0).poisson(2.0, (30, 5000)).astype(np.float32)
    adata = ad.AnnData(counts, obsm={"spatial": np.indices((5, 6)).reshape(2, -1).T.astype(float)})
    GeneVAE.setup_anndata(adata)
    model = GeneVAE(adata, n_hidden=4, n_latent=2, smoothing=0.0, min_counts=1)
    model.train(max_epochs=1, progress=False, accelerator="cpu")
    plan = model.trainer.lightning_module
    assert (plan.lr, plan.kl_warmup) == (0.012, 0.45)
    assert model.trainer.datamodule.batch_size == 256
    assert len(model.history["train_loss"]) == 1


def test_a_model_is_a_text_and_a_table(counts):
    model = fitted(counts)
    assert repr(model).startswith("GeneVAE: 1 member(s), mlp encoder")
    assert "Trained" in repr(model)
    assert "<td>n_latent</td><td>4</td>" in model._repr_html_()
