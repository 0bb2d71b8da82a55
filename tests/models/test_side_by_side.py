"""Members on threads of their own learn what they would learn one after the other."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from stcsm.datasets import simulated_bulb
from stcsm.models import GeneVAE
from stcsm.models._module import SideBySide


@pytest.fixture
def threads():
    """Two of torch's threads, whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def trained(seeds: int, **settings) -> GeneVAE:
    adata = simulated_bulb(n_spots=100, n_genes=200, n_markers=10, seed=1)
    GeneVAE.setup_anndata(adata)
    smoothing, encoder = settings.pop("smoothing", 0.5), settings.pop("encoder", "mlp")
    model = GeneVAE(adata, n_seeds=seeds, smoothing=smoothing, encoder=encoder, n_hidden=16)
    model.train(max_epochs=3, progress=False, accelerator="cpu", **settings)
    return model


@pytest.mark.parametrize("settings", [{}, {"accumulate_grad_batches": 2}, {"early_stopping": True}])
def test_same_weights_bit_for_bit(threads, monkeypatch, settings):
    used = []
    each = SideBySide.each
    monkeypatch.setattr(SideBySide, "each", lambda self, work, n: (used.append(n), each(self, work, n))[1])
    apart = trained(3, **settings)
    assert set(used) == {3}
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    n = len(used)
    assert trained(3, **settings).fingerprint() == apart.fingerprint()
    assert len(used) == n  # one after the other where torch has one thread


def test_a_member_does_not_depend_on_the_others(threads):
    alone, together = trained(1), trained(2)
    for a, b in zip(alone.module.member(0).parameters(), together.module.member(0).parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


class Threads(Callback):
    """Remembers how many threads torch had."""

    def on_train_batch_start(self, trainer, *_):
        self.found = torch.get_num_threads()


@pytest.mark.parametrize(
    ("seeds", "encoder", "limit", "expected"),
    [(1, "mlp", None, 1), (2, "mlp", None, 1), (1, "mlp", 0, 4), (2, "mlp", 0, 2), (1, "conv", None, 4)],
)
def test_small_batches_have_one_thread_and_large_ones_or_convolutions_all(
    threads, monkeypatch, seeds, encoder, limit, expected
):
    """Threads that share small arrays wait for one another, on a busy machine many times as long as they work."""
    torch.set_num_threads(4)
    if limit is not None:
        monkeypatch.setattr("stcsm.models._training.SMALL", limit)
    seen = Threads()
    trained(seeds, encoder=encoder, callbacks=[seen])
    assert seen.found == expected
    assert torch.get_num_threads() == 4


def test_the_search_for_a_width_trains_nothing(threads, monkeypatch):
    found, whole = [], Trainer.fit

    def watched(trainer, *args, **kwargs):
        found.append(torch.get_num_threads())
        return whole(trainer, *args, **kwargs)

    monkeypatch.setattr(Trainer, "fit", watched)
    trained(1, smoothing="auto")
    assert found == [1]  # the training itself, on one thread
    assert torch.get_num_threads() == 2


def test_autocast_and_an_error_leave_everything_as_it_was(threads, monkeypatch):
    monkeypatch.setattr(SideBySide, "each", lambda *_: pytest.fail("threads do not know the autocast"))
    model = trained(2, precision="bf16-mixed")
    assert model.module.workers is None
    monkeypatch.undo()

    def broken(self, work, n):
        raise RuntimeError("broken member")

    monkeypatch.setattr(SideBySide, "each", broken)
    with pytest.raises(RuntimeError, match="broken member"):
        trained(2)
    assert torch.get_num_threads() == 2


class Copies(Callback):
    """Copies the module while it trains, as weight averaging does."""

    def on_train_epoch_end(self, trainer, plan):
        assert plan.module.workers is not None
        self.copy = copy.deepcopy(plan.module)
        self.pickled = pickle.loads(pickle.dumps(plan.module.workers))


def test_a_module_that_trains_can_be_copied(threads):
    copies = Copies()
    model = trained(2, callbacks=[copies])
    assert copies.copy.workers is None
    assert copies.pickled is None
    for a, b in zip(model.module.parameters(), copies.copy.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


class Looks(Callback):
    """Asks for latents after every epoch."""

    def on_train_epoch_end(self, trainer, plan):
        self.model.get_latent_representation()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [lambda a: GeneVAE(a, smoothing=0.0, n_hidden=16), GeneVAE.published])
def test_looking_at_latents_does_not_change_the_training(make):
    prints = []
    for looks in (None, Looks()):
        adata = simulated_bulb(n_spots=100, n_genes=200, n_markers=10, seed=1)
        GeneVAE.setup_anndata(adata)
        model = make(adata)
        if looks is not None:
            looks.model = model
        model.train(max_epochs=3, progress=False, accelerator="cpu", callbacks=[] if looks is None else [looks])
        prints.append(model.fingerprint())
    assert prints[0] == prints[1]
