"""Time and memory of training on a large section that is read from a file.

    python benchmarks/scale.py [--genes 2000] [--side 512] [--epochs 2] [--json OUT]
    python benchmarks/scale.py --curves [--json OUT]

Simulates a section of side x side bins (3% of the values non-zero) block by block into an h5ad file in the folder for
temporary files, as CSR like files of 10x. Opens it with ``backed="r"`` and trains in a separate process. Prints the
seconds for reading and for an epoch (the fastest after the first) and the peak resident memory of the process, imports
included. ``--curves`` varies the number of genes (500 to 20,000 on 128 x 128 bins) and of bins (32 x 32 to 1024 x 1024,
500 genes) and prints the slope of the seconds per epoch on log-log axes: 1 is linear.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SHARE = 0.03
ROWS = 4096
GENES = (500, 1000, 2000, 5000, 10_000, 20_000)
SIDES = (32, 64, 128, 256, 512, 1024)


def simulate(path: Path, n_genes: int, side: int, seed: int = 0) -> None:
    """Write a section of four stripes, each with its own genes, with at most ``ROWS`` bins in memory."""
    import anndata as ad
    import h5py
    import pandas as pd
    from scipy import sparse

    rng = np.random.default_rng(seed)
    n_spots = side * side
    abundance = rng.gamma(0.7, 1.0, n_genes)
    abundance /= abundance.mean()
    gene_layer, spot_layer = rng.integers(0, 4, n_genes), np.arange(n_spots) % side * 4 // side
    positions = np.column_stack(np.divmod(np.arange(n_spots), side)).astype(float)
    obs = pd.DataFrame(index=[f"b{i}" for i in range(n_spots)])
    var = pd.DataFrame(index=[f"g{i}" for i in range(n_genes)])
    frame = ad.AnnData(sparse.csr_matrix((n_spots, n_genes), dtype=np.float32), obs=obs, var=var)
    frame.obsm["spatial"] = positions
    frame.write_h5ad(path)
    with h5py.File(path, "r+") as file:
        del file["X"]
        for start in range(0, n_spots, ROWS):
            layers = spot_layer[start : start + ROWS]
            n = rng.poisson(SHARE * n_genes, len(layers))
            rate = np.array([abundance * np.where(gene_layer == k, 3.0, 1.0) for k in range(4)])
            chance = np.cumsum(rate, axis=1) / rate.sum(axis=1, keepdims=True)
            genes = np.empty(n.sum(), dtype=np.int64)
            owner = np.repeat(layers, n)
            for k in range(4):
                mine = owner == k
                genes[mine] = np.minimum(np.searchsorted(chance[k], rng.uniform(size=mine.sum())), n_genes - 1)
            block = sparse.csr_matrix(
                (np.ones(len(genes), np.float32), (np.repeat(np.arange(len(layers)), n), genes)),
                shape=(len(layers), n_genes),
            )
            if start == 0:
                ad.io.write_elem(file, "X", block)
                # Blocks are appended, so the arrays must be able to grow.
                for name, kind in (("data", np.float32), ("indices", np.int32), ("indptr", np.int64)):
                    values = file["X"][name][:].astype(kind)
                    del file["X"][name]
                    file["X"].create_dataset(name, data=values, maxshape=(None,), chunks=(2**16,))
            else:
                ad.io.sparse_dataset(file["X"]).append(block)


def measure(path: Path, epochs: int) -> dict[str, float]:
    """Train on a file and return times and peak memory; runs in a separate process."""
    import logging

    import anndata as ad
    from lightning.pytorch.callbacks import Callback

    from stcsm.models import GeneVAE

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Clock(Callback):
        def __init__(self) -> None:
            self.at = [0.0]

        def on_train_start(self, *_: object) -> None:
            self.at = [time.perf_counter()]

        def on_train_epoch_end(self, *_: object) -> None:
            self.at.append(time.perf_counter())

    clock = Clock()
    adata = ad.read_h5ad(path, backed="r")
    started = time.perf_counter()
    GeneVAE.setup_anndata(adata)
    model = GeneVAE(adata, smoothing=0.0, encoder="mlp", min_counts=1)
    read = time.perf_counter() - started
    model.train(max_epochs=epochs, batch_size=128, progress=False, accelerator="cpu", callbacks=[clock])
    seconds = np.diff(clock.at)
    return {
        "read_s": round(read, 2),
        "epoch_s": round(float(seconds[1:].min() if len(seconds) > 1 else seconds[0]), 3),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "loss": [round(float(v), 1) for v in model.history["train_loss"].iloc[:, 0]],
    }


def run(n_genes: int, side: int, epochs: int, tmp: Path) -> dict[str, float]:
    """Simulate and measure, each in a new process, so that the peak memory is that of the training."""
    path = tmp / f"{n_genes}x{side}.h5ad"
    size = ["--genes", str(n_genes), "--side", str(side), "--epochs", str(epochs)]
    for job in ("--simulate", "--measure"):
        out = subprocess.run(
            [sys.executable, __file__, job, str(path), *size],
            check=True, stdout=subprocess.PIPE, text=True,
        ).stdout  # fmt: skip
    result = {"genes": n_genes, "bins": side * side, "file_gb": round(path.stat().st_size / 2**30, 2)}
    path.unlink()
    result |= json.loads(out.splitlines()[-1])
    print(result, flush=True)
    return result


def slope(results: list[dict], by: str) -> float:
    """Slope of log seconds per epoch over log size."""
    return float(np.polyfit(np.log([r[by] for r in results]), np.log([r["epoch_s"] for r in results]), 1)[0])


def main() -> None:
    """Run one size, or the curves, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--genes", type=int, default=2000)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--curves", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--simulate", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.simulate:
        simulate(args.simulate, args.genes, args.side)
        return
    if args.measure:
        print(json.dumps(measure(args.measure, args.epochs)))
        return
    with tempfile.TemporaryDirectory() as folder:
        tmp = Path(folder)
        if args.curves:
            over_genes = [run(g, 128, args.epochs, tmp) for g in GENES]
            over_bins = [run(500, s, args.epochs, tmp) for s in SIDES]
            report = {
                "over_genes": over_genes, "slope_genes": slope(over_genes, "genes"),
                "over_bins": over_bins, "slope_bins": slope(over_bins, "bins"),
            }  # fmt: skip
            print(f"slopes: genes {report['slope_genes']:.2f}, bins {report['slope_bins']:.2f}")
        else:
            report = run(args.genes, args.side, args.epochs, tmp)
    if args.json:
        args.json.write_text(json.dumps(report, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
