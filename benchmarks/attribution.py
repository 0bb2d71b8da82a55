"""Speed of the attribution engine.

    python benchmarks/attribution.py [--genes 2000] [--json OUT]

Prints maps a second for every method on the encoder of the published ST model (random weights); many concepts against
captum's own loop over targets, integrated gradients of 32 genes (of more than 50 targets the first 50 are timed and
scaled up); and RectGrad against plain backward passes. All in one run, so that the ratios hold on any machine.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import torch
from captum.attr import IntegratedGradients
from torch import nn

from stcsm.attribution import METHODS, ConceptScore, attribute
from stcsm.nets import Conv2dSame

SLOW = {"occlusion": 64, "smoothgrad": 256, "integrated_gradients": 256}
"""Genes for the methods that run the encoder many times a gene; their speed is per map all the same."""


def published_encoder(seed: int = 0) -> nn.Module:
    """Encoder of the published ST model: 32 x 32 grid, 20 latents."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for a, b in ((1, 16), (16, 32), (32, 64)):
        layers += [Conv2dSame(a, b, 4, stride=2), nn.ReLU(), nn.BatchNorm2d(b, eps=1e-3)]
    layers.append(nn.Flatten())
    for a, b in ((1024, 256), (256, 256)):
        layers += [nn.Linear(a, b), nn.ReLU(), nn.BatchNorm1d(b, eps=1e-3)]
    return nn.Sequential(*layers, nn.Linear(256, 20)).eval()


def timed(run: Callable[[], object], repeats: int = 3) -> float:
    """Fastest of some runs, in seconds, after one to warm up."""
    run()
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - started)
    return best


def methods(encoder: nn.Module, x: torch.Tensor, concept: torch.Tensor) -> dict[str, float]:
    """Maps a second of every method, one concept."""
    rates = {}
    for method in METHODS:
        some = x[: SLOW.get(method, len(x))]
        rates[method] = len(some) / timed(lambda m=method, s=some: attribute(encoder, s, concept, m))
        print(f"{method:22s}{rates[method]:12.0f} maps/s")
    return rates


def concepts(encoder: nn.Module, x: torch.Tensor, counts: list[int]) -> dict[int, dict[str, float]]:
    """Integrated gradients of K concepts for 32 genes: ours at once, captum's loop over targets."""
    x, out = x[:32], {}
    for k in counts:
        vectors = torch.randn(k, 20, generator=torch.Generator().manual_seed(1))
        explainer = IntegratedGradients(ConceptScore(encoder, vectors))
        # captum's loop is linear in K: of a thousand concepts the first fifty are timed, and scaled.
        loop = min(k, 50)

        def captums(explainer=explainer, loop=loop) -> None:
            for target in range(loop):
                explainer.attribute(x, target=target, n_steps=50, internal_batch_size=256)

        def ours(vectors=vectors) -> None:
            attribute(encoder, x, vectors, "integrated_gradients", steps=50)

        theirs, mine = timed(captums, 1) * k / loop, timed(ours, 1)
        out[k] = {"captum_s": theirs, "stcsm_s": mine, "ratio": theirs / mine}
        print(f"{k:5d} concepts: captum's loop {theirs:8.2f} s, stcsm {mine:7.2f} s, {theirs / mine:6.1f} times faster")
    return out


def rectgrad_against_gradient(encoder: nn.Module, x: torch.Tensor) -> float:
    """Time of RectGrad over that of a plain gradient loop with as many forward and backward passes."""
    vectors = torch.randn(10, 20, generator=torch.Generator().manual_seed(2))

    def plain() -> None:
        for start in range(0, len(x), 256):
            leaf = x[start : start + 256].clone().requires_grad_()
            z = encoder(leaf)
            for v in vectors:
                torch.autograd.grad(z, leaf, v.expand_as(z), retain_graph=True)

    times: dict[str, list[float]] = {"plain": [], "rectgrad": []}
    for _ in range(3):  # in turn, so that a busy moment of the machine hits both
        times["plain"].append(timed(plain, 1))
        times["rectgrad"].append(timed(lambda: attribute(encoder, x, vectors, "rectgrad"), 1))
    ratio = min(times["rectgrad"]) / min(times["plain"])
    print(f"RectGrad, 10 concepts: {ratio:.2f} times a plain gradient with as many backward passes")
    return ratio


def main() -> None:
    """Run all three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--genes", type=int, default=2000)
    parser.add_argument("--concepts", type=int, nargs="+", default=[1, 10, 100, 1000])
    parser.add_argument("--json")
    args = parser.parse_args()
    encoder = published_encoder()
    x = torch.rand(args.genes, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    x = x * (torch.rand(x.shape, generator=torch.Generator().manual_seed(3)) > 0.65)
    report = {
        "threads": torch.get_num_threads(),
        "maps_per_second": methods(encoder, x, torch.randn(20, generator=torch.Generator().manual_seed(4))),
        "concepts": concepts(encoder, x, args.concepts),
        "rectgrad_over_gradient": rectgrad_against_gradient(encoder, x),
    }
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(report, file, indent=1)


if __name__ == "__main__":
    main()
