"""Members on threads of their own learn what they would learn one after the other."""

from __future__ import annotations

import pytest
import torch

from stcsm.datasets import simulated_bulb
from stcsm.models import GeneVAE
from stcsm.models._side_by_side import SideBySide


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
    model = GeneVAE(adata, n_seeds=seeds, smoothing=settings.pop("smoothing", 0.5), n_hidden=16)
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
