"""What the spatial filter costs a training: time of an epoch by width, beside torch's own sparse product.

    python benchmarks/filter.py [--places 5000 20000 100000] [--genes 500] [--batch 64] [--rounds 3] [--json OUT]

Simulates sections on a square array, in random order as barcodes are, 10% of the values non-zero, and times epochs of
two members without a filter and with each width of the menu: as models train, and with torch's sparse product in its
place (``torch``: COO, for every member before the encoder, as earlier versions had it). All of them take turns, an
epoch each, so that a busy machine slows all; the least of the rounds is printed, in seconds of processor time and of
wall time, and its ratio to the epoch without a filter.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from stcsm.models._batches import GeneDataModule
from stcsm.models._counts import GeneReader
from stcsm.models._module import GeneVAEModule, build_module, side_by_side
from stcsm.models._training import WIDTHS, _adamw
from stcsm.nets import SpotDecoder, SpotEncoder


class TorchProduct(nn.Module):
    """The filter as a sparse product of torch."""

    def __init__(self, matrix: sparse.csr_array) -> None:
        super().__init__()
        coo = matrix.tocoo()
        self.matrix = torch.sparse_coo_tensor(
            np.stack([coo.row, coo.col]),
            torch.from_numpy(coo.data),
            coo.shape,
            is_coalesced=True,
            check_invariants=False,
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.sparse.mm(self.matrix, x.T).T


def with_torch_product(module: GeneVAEModule) -> GeneVAEModule:
    """Replace the filters of a module."""
    product = TorchProduct(module.member(0).encoder.spatial_filter.matrix())
    for member in module.members:
        member.encoder.spatial_filter = product
        member.decoder = Decoder(member.decoder, product)
    return module


class Decoder(nn.Module):
    def __init__(self, decoder: SpotDecoder, product: nn.Module) -> None:
        super().__init__()
        self.decoder, self.product = decoder, product
        decoder.spatial_filter = None

    def forward(self, z: Tensor) -> Tensor:
        return self.product(self.decoder(z))


class Job:
    """A training that is timed epoch by epoch."""

    def __init__(self, module: GeneVAEModule, data: GeneDataModule, small: bool, for_each_member: bool) -> None:
        self.module, self.data, self.small = module.train(), data, small
        self.optimizer = _adamw(module.parameters(), 2e-3, 0.1)
        self.for_each_member = for_each_member
        self.cpu: list[float] = []
        self.wall: list[float] = []

    def epoch(self) -> None:
        own = SpotEncoder.posterior_of_filtered
        filter_in_encoder = (
            patch.multiple(
                SpotEncoder,
                filtered=lambda encoder, u: u,
                posterior_of_filtered=lambda encoder, u: own(encoder, encoder.spatial_filter(u)),
            )
            if self.for_each_member
            else nullcontext()
        )
        with side_by_side(self.module, self.small), filter_in_encoder:
            cpu, wall = time.process_time(), time.perf_counter()
            for batch in self.data.train_dataloader():
                self.optimizer.zero_grad()
                self.module(batch)[2].loss.backward()
                if self.module.workers is not None:
                    self.module.workers.backward()
                self.optimizer.step()
            self.cpu.append(time.process_time() - cpu)
            self.wall.append(time.perf_counter() - wall)


def section(places: int, genes: int, seed: int = 0) -> tuple[GeneReader, np.ndarray]:
    """Counts of four stripes on a square array whose places come in random order."""
    rng = np.random.default_rng(seed)
    side = round(places**0.5)
    xy = rng.permutation(np.column_stack(np.divmod(np.arange(side * side), side)).astype(float))
    stripe = (xy[:, 0] * 4 // side).astype(int)
    mean = 0.1 * np.where(rng.integers(0, 4, genes)[None] == np.arange(4)[:, None], 2.0, 0.7)
    blocks = [sparse.csr_array(rng.poisson(mean[part]).astype(np.float32)) for part in np.array_split(stripe, 50)]
    return GeneReader.open(sparse.csc_array(sparse.vstack(blocks))), xy


def measure(places: int, genes: int, batch: int, rounds: int) -> dict[str, dict[str, float]]:
    reader, xy = section(places, genes)
    xy = xy[reader.spots]
    depth = torch.from_numpy(reader.depth.astype(np.float32))
    data = GeneDataModule(reader, np.arange(genes), batch, 0)
    small = batch * reader.n_spots <= 2**19
    settings = {"likelihood": "nb", "n_latent": 20, "n_hidden": 128, "n_seeds": 2, "seed": 0}
    jobs = {}
    for width in WIDTHS:
        jobs[f"{width:g}"] = Job(build_module({**settings, "smoothing": width}, depth, xy, None), data, small, False)
        if width:
            module = with_torch_product(build_module({**settings, "smoothing": width}, depth, xy, None))
            jobs[f"{width:g} torch"] = Job(module, data, small, True)
    for r in range(rounds):
        for name, job in jobs.items():
            if r < 2 or "torch" not in name:
                job.epoch()
    none = jobs["0"]
    return {
        name: {
            "cpu_s": round(min(job.cpu), 3),
            "wall_s": round(min(job.wall), 3),
            "cpu_ratio": round(min(job.cpu) / min(none.cpu), 2),
            "wall_ratio": round(min(job.wall) / min(none.wall), 2),
        }
        for name, job in jobs.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--places", type=int, nargs="+", default=[5000, 20_000, 100_000])
    parser.add_argument("--genes", type=int, default=500)
    parser.add_argument("--batch", type=int, nargs="+", default=[64])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    found: dict[str, dict[str, dict[str, float]]] = {}
    for places in args.places:
        for batch in args.batch:
            name = f"{places} places, batches of {batch}"
            found[name] = measure(places, args.genes, batch, args.rounds)
            print(f"\n{name}\n{'width':>10} {'cpu s':>8} {'ratio':>6} {'wall s':>8} {'ratio':>6}")
            for width, row in found[name].items():
                cpu, wall = (f"{row[f'{kind}_s']:8.2f} {row[f'{kind}_ratio']:6.2f}" for kind in ("cpu", "wall"))
                print(f"{width:>10} {cpu} {wall}")
            if args.json:
                record = {"genes": args.genes, "threads": torch.get_num_threads(), "torch": torch.__version__}
                args.json.write_text(json.dumps({**record, "epochs": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
