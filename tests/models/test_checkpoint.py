"""A training that was interrupted goes on to the weights of an undisturbed one."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file, save_file

from stcsm.models import GeneVAE, _checkpoint, _model

EPOCHS = 4


class StopError(Exception):
    """What interrupts a training."""


class StopAt(Callback):
    """Interrupts a training in the middle of an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_batch_end(self, trainer, *_):
        if trainer.current_epoch == self.epoch and trainer.fit_loop.epoch_loop.batch_idx == 1:
            raise StopError


@pytest.fixture(autouse=True)
def after_every_epoch(monkeypatch):
    monkeypatch.setattr(_checkpoint, "SAVE_SECONDS", 0.0)


def new(counts, **settings) -> GeneVAE:
    GeneVAE.setup_anndata(counts)
    return GeneVAE(counts, n_latent=4, n_hidden=8, n_seeds=2, min_counts=1, **settings)


def on_grid(counts, make):
    """The counts on a grid of 5 x 6 spots, for models whose filters go over an image."""
    counts = counts.copy()
    counts.obs["array_row"], counts.obs["array_col"] = np.divmod(np.arange(counts.n_obs), 6)
    GeneVAE.setup_anndata(counts)
    return make(counts)


def train(model, **kwargs):
    model.train(max_epochs=EPOCHS, batch_size=12, progress=False, **kwargs)
    return model


def interrupt(counts, path, epoch, settings, kwargs):
    with pytest.raises(StopError):
        train(new(counts, **settings), checkpoint=path, callbacks=[StopAt(epoch)], **kwargs)
    assert path.exists()


@pytest.mark.parametrize(
    ("settings", "kwargs"),
    [
        ({"smoothing": 0.5}, {}),
        ({"smoothing": "auto"}, {}),
        ({"smoothing": 0.0, "likelihood": "multinomial"}, {"early_stopping": True}),
    ],
    ids=["filter", "search", "early stopping"],
)
def test_an_interrupted_training_ends_with_the_same_weights_and_history(
    counts, tmp_path, monkeypatch, settings, kwargs
):
    path = tmp_path / "state"
    undisturbed = train(new(counts, **settings), **kwargs)
    for epoch in (0, 2):
        interrupt(counts, path, epoch, settings, kwargs)
    with monkeypatch.context() as patched:
        patched.setattr(_model, "choose_smoothing", None)  # the width comes from the file
        resumed = train(new(counts, **settings), checkpoint=path, **kwargs)
    for name, weights in undisturbed.module.state_dict().items():
        assert torch.equal(weights, resumed.module.state_dict()[name]), name
    assert resumed.fingerprint() == undisturbed.fingerprint()
    assert resumed.settings == undisturbed.settings
    assert set(resumed.history) == set(undisturbed.history)
    for name, table in undisturbed.history.items():
        pd.testing.assert_frame_equal(table, resumed.history[name], check_dtype=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "make",
    [GeneVAE.published, lambda a: GeneVAE(a, encoder="conv", n_latent=4, smoothing=0.0, min_counts=1)],
    ids=["published", "conv"],
)
def test_an_interrupted_training_of_filters_ends_with_the_same_weights(counts, tmp_path, make):
    """Filters lie in memory otherwise than in the file; the optimiser goes through memory."""
    path = tmp_path / "state"
    undisturbed = train(on_grid(counts, make))
    with pytest.raises(StopError):
        train(on_grid(counts, make), checkpoint=path, callbacks=[StopAt(2)])
    assert train(on_grid(counts, make), checkpoint=path).fingerprint() == undisturbed.fingerprint()


def test_a_complete_training_that_is_kept_is_not_trained_again(counts, tmp_path, monkeypatch):
    path = tmp_path / "state"
    first = train(new(counts, smoothing="auto"), checkpoint=path, keep_checkpoint=True)
    monkeypatch.setattr(_model, "fit", None)
    monkeypatch.setattr(_model, "choose_smoothing", None)
    second = train(new(counts, smoothing="auto"), checkpoint=path)
    assert second.fingerprint() == first.fingerprint()
    assert second.settings["smoothing"] == first.settings["smoothing"]
    assert second.is_trained
    assert len(second.history["train_loss"]) == EPOCHS
    assert not path.exists()


def other_counts(counts):
    counts = counts.copy()
    counts.X[0, 0] += 1
    return counts


def exchanged(counts):
    """Other counts with the totals of every gene and spot as they were."""
    counts = counts.copy()
    (i, k), (g, h) = (1, 2), (0, 1)
    counts.X[[i, k], [g, h]] += 1
    counts.X[[i, k], [h, g]] = counts.X[[i, k], [h, g]] - 1
    assert counts.X.min() >= 0
    return counts


def test_a_training_that_was_cut_short_is_not_complete(counts, tmp_path):
    path = tmp_path / "state"

    class Cut(Callback):
        def on_train_epoch_end(self, trainer, *_):
            trainer.should_stop = trainer.current_epoch == 1

    undisturbed = train(new(counts, smoothing=0.0))
    cut = train(new(counts, smoothing=0.0), checkpoint=path, keep_checkpoint=True, callbacks=[Cut()])
    assert len(cut.history["train_loss"]) == 2
    assert train(new(counts, smoothing=0.0), checkpoint=path).fingerprint() == undisturbed.fingerprint()


def test_a_training_that_stops_early_is_complete(counts, tmp_path, monkeypatch):
    path, kwargs = tmp_path / "state", {"early_stopping": True, "early_stopping_patience": 1}
    kwargs["early_stopping_min_delta"] = 1e9  # nothing is an improvement
    first = train(new(counts, smoothing=0.0), checkpoint=path, keep_checkpoint=True, **kwargs)
    assert len(first.history["train_loss"]) < EPOCHS
    monkeypatch.setattr(_model, "fit", None)
    assert train(new(counts, smoothing=0.0), checkpoint=path, **kwargs).fingerprint() == first.fingerprint()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda a: train(new(other_counts(a)), checkpoint="state"), "counts, weights at its start"),
        (lambda a: train(new(exchanged(a)), checkpoint="state"), "counts;"),
        (lambda a: train(new(a, seed=1), checkpoint="state"), "settings of the model, weights at its start"),
        (lambda a: new(a).train(max_epochs=EPOCHS, batch_size=10, checkpoint="state"), "settings of the training"),
        (lambda a: train(new(a), checkpoint="state", max_time=timedelta(hours=1)), "settings of the training"),
        (lambda a: train(new(a), checkpoint="state", max_time={"hours": 1}), "settings of the training"),
        (lambda a: train(new(a[:, ::-1].copy()), checkpoint="state"), "genes, counts"),
    ],
    ids=["counts", "counts of the same totals", "seed", "batches", "time", "time as a dict", "genes"],
)
def test_the_state_of_another_training_is_refused(counts, tmp_path, monkeypatch, change, named):
    monkeypatch.chdir(tmp_path)
    interrupt(counts, tmp_path / "state", 1, {}, {})
    before = (tmp_path / "state").read_bytes()
    with pytest.raises(ValueError, match=f"Expected the state of this training in state, found .* other {named}"):
        change(counts)
    assert (tmp_path / "state").read_bytes() == before


def test_what_is_no_state_of_a_training_is_refused(counts, tmp_path):
    path = tmp_path / "state"
    interrupt(counts, path, 1, {}, {})
    whole = path.read_bytes()
    save_file(load_file(path), tmp_path / "without header")
    (tmp_path / "cut").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text").write_text("no tensors")
    for name in ("without header", "cut", "text"):
        with pytest.raises(ValueError, match="found a damaged or another file"):
            train(new(counts), checkpoint=tmp_path / name)
    with pytest.raises(FileExistsError, match="Expected a file"):
        train(new(counts), checkpoint=tmp_path)


@pytest.mark.parametrize("devices", [2, "2", -1, "-1", "0,1", [0, 1]])
def test_a_training_in_several_processes_is_refused(devices):
    with pytest.raises(ValueError, match="in one process"):
        _checkpoint.refuse_processes(devices, {})


@pytest.mark.parametrize("devices", [1, "1", "auto", [3], "3,"])
def test_a_training_in_one_process_is_not(devices):
    _checkpoint.refuse_processes(devices, {})


def test_a_disk_that_fills_up_leaves_the_last_state_whole(counts, tmp_path, monkeypatch):
    path = tmp_path / "state"
    undisturbed = train(new(counts, smoothing=0.0))
    written = []

    def full(tensors, file, *args):
        if len(written) == 2:
            file.write_bytes(b"a part")
            raise OSError(28, "No space left on device")
        written.append(file)
        save_file(tensors, file, *args)

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="No space"):
        train(new(counts, smoothing=0.0), checkpoint=path)
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == [path]
    assert train(new(counts, smoothing=0.0), checkpoint=path).fingerprint() == undisturbed.fingerprint()


def test_short_epochs_are_not_written_one_by_one(counts, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(_checkpoint, "SAVE_SECONDS", 1000.0)
    monkeypatch.setattr(_checkpoint, "write_state", lambda path, _, plain: written.append(plain))
    train(new(counts, smoothing=0.0), checkpoint=tmp_path / "state")
    assert len(written) == 2  # before the first epoch, and at the end


def test_a_callback_whose_state_is_code_is_named(counts, tmp_path):
    class Odd(Callback):
        def state_dict(self):
            return {"function": print}

    with pytest.raises(ValueError, match=r"found builtin_function_or_method at .*Odd.*/function"):
        train(new(counts, smoothing=0.0), checkpoint=tmp_path / "state", callbacks=[Odd()])


def test_ctrl_c_is_a_keyboard_interrupt(counts):
    class Interrupted(Callback):
        def on_train_batch_start(self, *_):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(new(counts, smoothing=0.0), callbacks=[Interrupted()])
