"""Two processes that share every batch learn what one process learns; bfloat16 learns nearly so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from stcsm.models import GeneVAE
from stcsm.models._batches import DealtBatches

SCRIPT = """
import json, sys
import anndata as ad
from stcsm.models import GeneVAE
adata = ad.read_h5ad(sys.argv[1])
model = GeneVAE(adata, n_latent=4, n_hidden=8, n_seeds=2, likelihood=sys.argv[3])
model.train(max_epochs=3, batch_size=5, progress=False, accelerator="cpu", devices=2, strategy="ddp")
if model.trainer.is_global_zero:
    history = {k: v.iloc[:, 0].tolist() for k, v in model.history.items()}
    json.dump({**history, "z": model.get_latent_representation()[:3].tolist()}, open(sys.argv[2], "w"))
"""


@pytest.mark.parametrize("likelihood", ["nb", pytest.param("multinomial", marks=pytest.mark.slow)])
def test_two_processes_are_one(counts, tmp_path, likelihood):
    # 38 genes in batches of 5, of two processes' 3 and 2 genes, and at last 2 and 1.
    GeneVAE.setup_anndata(counts)
    counts.write_h5ad(tmp_path / "a.h5ad")
    model = GeneVAE(counts, n_latent=4, n_hidden=8, n_seeds=2, likelihood=likelihood)
    model.train(max_epochs=3, batch_size=5, progress=False, accelerator="cpu")
    (tmp_path / "script.py").write_text(SCRIPT)
    root = str(Path(__file__).parents[2])
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root, "MASTER_ADDR": "127.0.0.1"}
    subprocess.run(
        [sys.executable, "script.py", "a.h5ad", "out.json", likelihood],
        cwd=tmp_path, env=env, check=True, timeout=240, capture_output=True,
    )  # fmt: skip
    two = json.loads((tmp_path / "out.json").read_text())
    for name in ("train_loss", "reconstruction_loss_train", "kl_local_train", "elbo_train"):
        np.testing.assert_allclose(two[name], model.history[name].iloc[:, 0].astype(float), rtol=1e-4)
    np.testing.assert_allclose(two["z"], model.get_latent_representation()[:3], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("n", "batch_size", "n_ranks"), [(38, 5, 2), (11, 5, 3), (7, 3, 2), (4, 64, 3)])
def test_processes_share_the_batches_of_one(n, batch_size, n_ranks):
    def deals(rank, n_ranks):
        order = torch.Generator().manual_seed(3)
        batches = DealtBatches(n, batch_size, rank, n_ranks, order)
        first, second = list(batches), list(batches)
        assert len(first) == len(second) == len(batches)
        assert first[0].rows == second[0].rows
        assert n <= batch_size or first != second
        return first

    whole = deals(0, 1)
    for parts in zip(whole, *(deals(r, n_ranks) for r in range(n_ranks)), strict=True):
        batch, parts = parts[0], parts[1:]
        # Every gene in one process, at its row of the batch, and weights that make the mean over the batch.
        total = np.zeros(batch.size)
        for part in parts:
            assert part.size == batch.size
            assert [batch.genes[r] for r in part.rows] == part.genes
            total[part.rows] += part.weight / len(part.rows) / n_ranks
        np.testing.assert_allclose(total, 1 / batch.size, rtol=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 1.0])
def test_bfloat16_learns_nearly_the_same(counts, smoothing):
    GeneVAE.setup_anndata(counts)
    losses = []
    for precision in ("32-true", "bf16-mixed"):
        model = GeneVAE(counts, n_latent=4, n_hidden=8, smoothing=smoothing)
        model.train(max_epochs=3, progress=False, accelerator="cpu", precision=precision)
        losses.append(model.history["train_loss"].iloc[:, 0].to_numpy(dtype=float))
        assert all(p.dtype == torch.float32 for p in model.module.parameters())
    np.testing.assert_allclose(losses[1], losses[0], rtol=5e-3)
    assert not np.array_equal(losses[1], losses[0])
