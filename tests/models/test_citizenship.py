"""What scvi-tools' users expect of a model: scores under its names, history, seeds, devices, the setup's table."""

from __future__ import annotations

import numpy as np
import pytest
import scvi
import torch

from stcsm.models import GeneVAE
from tests.models.test_sections import tiny

SMALL = {"smoothing": 0.0, "n_latent": 4, "n_hidden": 8}


def fitted(adata, epochs=20, batch_key=None, train=None, **kwargs):
    GeneVAE.setup_anndata(adata, batch_key=batch_key)
    model = GeneVAE(adata, **{**SMALL, **kwargs})
    model.train(max_epochs=epochs, progress=False, **(train or {}))
    return model


@pytest.mark.parametrize("batch_key", [None, "section"])
def test_elbo_of_held_out_counts_is_what_early_stopping_looks_at(batch_key):
    adata = tiny()
    adata = adata if batch_key else adata[:29].copy()
    model = fitted(
        adata, batch_key=batch_key, n_seeds=2, train={"early_stopping": True, "early_stopping_patience": 100}
    )
    last = {name: float(model.history[f"{name}_validation"].iloc[-1, 0]) for name in ("elbo", "reconstruction_loss")}
    assert model.get_elbo() == pytest.approx(-last["elbo"], rel=1e-5)
    error = model.get_reconstruction_error()
    assert set(error) == {"reconstruction_loss"}
    assert error["reconstruction_loss"] == pytest.approx(last["reconstruction_loss"], rel=1e-5)
    assert model.get_elbo() == pytest.approx(model.get_elbo(batch_size=7), rel=1e-6)


def test_elbo_is_likelihood_minus_divergence():
    adata = tiny()[:29].copy()
    model = fitted(adata)
    z, var = model.get_latent_representation(give_var=True)
    x = adata.X.toarray()[:, [3, 5]].T
    f = model.decode(z[[3, 5]])
    depth = adata.X.toarray().sum(axis=1) / adata.X.sum()
    share = np.exp(f) * depth
    mean = torch.from_numpy(x.sum(axis=1, keepdims=True) * share / share.sum(axis=1, keepdims=True))
    theta = model.module.member(0).log_theta.detach().exp()
    nb = torch.distributions.NegativeBinomial(theta.double(), probs=mean / (mean + theta))
    reconstruction = -nb.log_prob(torch.from_numpy(x).double()).sum(dim=1).numpy()
    divergence = 0.5 * (z[[3, 5]] ** 2 + var[[3, 5]] - 1 - np.log(var[[3, 5]])).sum(axis=1)
    found = model.get_elbo(["g3", "g5"], held_out=0, return_mean=False)
    np.testing.assert_allclose(found, -(reconstruction + divergence), rtol=1e-4)


def test_a_trained_model_predicts_held_out_counts_better():
    adata = tiny()[:29].copy()
    adata.X = adata.X * 8  # enough counts that there is something to learn
    GeneVAE.setup_anndata(adata)
    untrained = GeneVAE(adata, **SMALL)
    with pytest.warns(UserWarning, match="untrained"):
        before = untrained.get_elbo()
    assert fitted(adata, epochs=150).get_elbo() > before
    with pytest.raises(ValueError, match="held_out"):
        untrained.get_elbo(held_out=1.0)
    with pytest.raises(ValueError, match="found none among those given"):
        untrained.get_elbo(["g7"])


def test_history_has_an_entry_an_epoch_under_scvi_tools_names():
    model = fitted(tiny(), epochs=5, batch_key="section")
    for name in ("train_loss", "elbo_train", "reconstruction_loss_train", "kl_local_train", "kl_weight"):
        assert model.history[name].shape == (5, 1)
    elbo, parts = model.history["elbo_train"], model.history["reconstruction_loss_train"]
    kl = model.history["kl_local_train"].to_numpy().astype(float)
    np.testing.assert_allclose(elbo.to_numpy().astype(float), parts.to_numpy().astype(float) + kl, rtol=1e-5)


def test_scvi_seed_decides_the_numbers():
    old = scvi.settings.seed
    latents = {}
    try:
        for seed in (3, 4):
            scvi.settings.seed = seed
            latents[seed] = fitted(tiny(), epochs=2, batch_key="section").get_latent_representation()
    finally:
        scvi.settings.seed = old
    for seed in (3, 4):
        given = fitted(tiny(), epochs=2, batch_key="section", seed=seed).get_latent_representation()
        np.testing.assert_array_equal(given, latents[seed])
    assert not np.array_equal(latents[3], latents[4], equal_nan=True)


def test_setup_table_names_what_was_given(capsys):
    model = fitted(tiny(), epochs=1, batch_key="section")
    model.view_anndata_setup()
    shown = capsys.readouterr().out
    for word in ("GeneVAE", "section", "spatial", "batch"):
        assert word in shown
    with pytest.raises(ValueError, match="AnnData of this model"):
        model.view_anndata_setup(tiny())


@pytest.mark.parametrize("encoder", ["mlp", "conv"])
def test_device_moves_everything_and_numbers_stay(encoder):
    model = fitted(tiny(), epochs=1, batch_key="section", encoder=encoder, smoothing=1.0)
    z = model.get_latent_representation()
    devices = ["cpu", *(["cuda:0"] if torch.cuda.is_available() else [])]
    for device in devices:
        model.to_device(device)
        assert {t.device.type for t in (*model.module.parameters(), *model.module.buffers())} == {device.split(":")[0]}
        np.testing.assert_allclose(model.get_latent_representation(), z, rtol=1e-4, atol=1e-5)
        assert np.isfinite(model.get_elbo())


def test_learning_rate_may_stand_in_plan_kwargs_as_in_scvi_tools():
    prints = {
        fitted(tiny(), epochs=2, batch_key="section", train=train).fingerprint()
        for train in ({"lr": 0.01}, {"plan_kwargs": {"lr": 0.01}})
    }
    assert len(prints) == 1
    with pytest.raises(ValueError, match=r"once, found lr=0.01 and 0.02 in plan_kwargs"):
        fitted(tiny(), batch_key="section", train={"lr": 0.01, "plan_kwargs": {"lr": 0.02}})


def test_plan_kwargs_win_over_the_defaults_of_the_plan():
    model = fitted(tiny(), epochs=2, batch_key="section", train={"plan_kwargs": {"weight_decay": 0.3, "kl_warmup": 1}})
    assert model.trainer.optimizers[0].defaults["weight_decay"] == 0.3
    assert model.trainer.lightning_module.kl_warmup == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("max_epochs", "'max_epochs': it is an argument of train itself"),
        ("batch_size", "'batch_size': it is an argument of train itself"),
        ("optimizer", "'optimizer': the plan has AdamW"),
        ("n_epochs_kl_warmup", "'n_epochs_kl_warmup': kl_warmup is the share"),
        ("n_steps_kl_warmup", "'n_steps_kl_warmup': kl_warmup is the share"),
        ("reduce_lr_on_plateau", "'reduce_lr_on_plateau': the plan has a schedule"),
        ("learning_rate", "'kl_warmup', 'lr', .*found 'learning_rate'"),
    ],
)
def test_plan_kwargs_that_the_plan_does_not_take_are_refused(name, message):
    adata = tiny()
    GeneVAE.setup_anndata(adata, batch_key="section")
    model = GeneVAE(adata, **SMALL)
    before = model.fingerprint()
    with pytest.raises(ValueError, match=message):
        model.train(plan_kwargs={name: 1})
    assert model.fingerprint() == before
