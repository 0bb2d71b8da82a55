"""Speed and memory of the face half.

    python benchmarks/images.py [--images 512] [--threads N] [--json OUT]

Images per second for crop + load + encode with 1 and 2 workers; saliency maps per second of every method on the
64-pixel network; and one training step and one saliency batch of the full published network (128 x 128, batch 20):
seconds and peak memory, each in a process of its own. Weights are random, since times do not depend on them.
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
import pandas as pd
import torch

from stcsm.attribution import METHODS, attribute, method_class
from stcsm.datasets import simulated_faces
from stcsm.images import CelebA, ImageArray, ImageVAE, encode, saliency

BATCH = 20  # published


def throughput(folder: Path, n: int) -> dict[str, float]:
    """Images per second from JPEG files to cropped arrays, and to latents, by number of workers."""
    data, model = CelebA(folder, size=128), ImageVAE.preset(64).eval()
    small, rates = CelebA(folder, size=64), dict[str, float]()
    for workers in (1, 2):
        encode(model, small.take(np.arange(64)), workers=workers, progress=False)  # warm
        started = time.perf_counter()
        encode(model, small, workers=workers, batch_size=64, progress=False)
        rates[f"encode_64px_{workers}_workers"] = n / (time.perf_counter() - started)
        started = time.perf_counter()
        data.load(workers=workers, progress=False)
        rates[f"crop_and_load_128px_{workers}_workers"] = n / (time.perf_counter() - started)
    return rates


def maps_per_second(folder: Path) -> dict[str, float]:
    """Maps per second of one concept, by method, at 64 x 64."""
    model, data = ImageVAE.preset(64).eval(), CelebA(folder, size=64)
    vectors = pd.DataFrame(np.random.default_rng(0).normal(size=(1, model.architecture.latent)), index=["concept"])
    latents, rates = np.zeros((len(data), model.architecture.latent), np.float32), {}
    for method in METHODS:
        accepted = method_class(method).parameters()
        n = 8 if {"samples", "steps", "window"} & set(accepted) else 64  # these run the encoder many times per image
        params = {"window": (3, 8, 8), "step": (3, 4, 4)} if "window" in accepted else {}
        saliency(model, data, vectors, rows=[0], latents=latents, method=method, progress=False, **params)
        started = time.perf_counter()
        saliency(model, data, vectors, rows=np.arange(n), latents=latents, method=method, progress=False, **params)
        rates[method] = n / (time.perf_counter() - started)
    return rates


def published(task: str) -> dict[str, float]:
    """Seconds per training step or saliency batch of the published network, and peak memory of this process."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2 * BATCH, 128, 128, 3), dtype=np.uint8)
    data = ImageArray(pixels, pd.DataFrame({"a": np.arange(2 * BATCH) % 2}))
    model = ImageVAE()
    x = data.stack(np.arange(BATCH)).float() / 255
    if task == "step":
        optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)

        def work() -> None:
            optimiser.zero_grad()
            model.loss(x, torch.zeros(BATCH, model.architecture.latent)).total.backward()
            optimiser.step()
    else:
        model.eval()
        concept = rng.normal(size=model.architecture.latent).astype(np.float32)

        def work() -> None:
            attribute(model.encoder, x, concept, task, batch_size=BATCH)

    work()
    started = time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"seconds": seconds, "peak_gb": peak, "parameters": model.n_parameters()}


def main() -> None:
    """Run all benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--published", choices=["step", "saliency", "rectgrad"], help=argparse.SUPPRESS)
    parser.add_argument("--json")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.published:
        print(json.dumps(published(args.published)))
        return
    report: dict[str, object] = {"threads": torch.get_num_threads()}
    with tempfile.TemporaryDirectory() as folder:
        faces = simulated_faces(Path(folder) / "faces", args.images, masks=False, progress=False)
        report["images_per_second"] = throughput(faces, args.images)
        report["maps_per_second"] = maps_per_second(faces)
    report["published_network"] = {
        task: json.loads(
            subprocess.run(
                [sys.executable, __file__, "--published", task, "--threads", str(torch.get_num_threads())],
                check=True, capture_output=True, text=True,
            ).stdout.splitlines()[-1]
        )
        for task in ("step", "saliency", "rectgrad")
    }  # fmt: skip
    text = json.dumps(report, indent=1)
    print(text)
    if args.json:
        Path(args.json).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
