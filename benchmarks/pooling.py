"""What pooling places to features costs in recovery, and what it saves in training time.

    python benchmarks/pooling.py [--data FILE --labels KEY] [--places 1000 2000 4000 8000] [--features 1000]
        [--by 2 4] [--seeds 0 1 2] [--json OUT]

Simulated sections are one tissue at several resolutions: the more places, the fewer counts each has, and a model with
at most ``--features`` features is compared with one that sees every place (``full``). FILE (.h5ad) is a labelled
section that is pooled to its number of places divided by ``--by``. As in ``recovery.py`` the counts are split into
halves: markers of each tissue layer come from one half, maps from the other; the score is the AUROC against "place lies
in the tissue layer". Seconds are those of the processor, of the search for the filter's width and of the training.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import sys
import time
import warnings
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from anndata import AnnData

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks._recovery.ours import our_maps
from benchmarks._recovery.protocol import make_task, mean_auroc, score
from stcsm import io
from stcsm.datasets import simulated_bulb
from stcsm.models import GeneVAE

RECORD = Path(__file__).with_suffix(".json")
COUNTS = 400_000
"""Counts of a simulated section at every resolution."""


def measured(name: str, adata: AnnData, labels: np.ndarray, resolutions: list, args: argparse.Namespace) -> list[dict]:
    """AUROC and training time of each resolution, on the same halves and gene sets."""
    rows = []
    for seed in args.seeds:
        task = make_task(adata, labels, tuple(args.ks), args.draws, seed)
        for resolution in resolutions:
            half = task.half.copy()
            GeneVAE.setup_anndata(half)
            model = GeneVAE(half, resolution=resolution, n_seeds=args.n_seeds, seed=seed)
            started = time.process_time()
            model.train(progress=False)
            seconds = time.process_time() - started
            maps = our_maps(task, half, model)
            scores = {of: score(task, m) for of, m in zip(("concept_map", "saliency"), maps.values(), strict=True)}
            rows.append(
                {
                    "section": name,
                    "seed": seed,
                    "places": len(model.spots),
                    "genes": half.n_vars,
                    "asked": resolution,
                    "features": model.samples.n_spots,
                    "smoothing": model.settings["smoothing"],
                    "train_cpu_seconds": round(seconds, 1),
                    **{of: {str(k): round(mean_auroc(task, s, k), 4) for k in args.ks} for of, s in scores.items()},
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    return rows


def table(runs: list[dict], ks: list[int]) -> str:
    """Means over seeds, in Markdown."""
    head = ["section", "places", "features", "train, CPU s"]
    head += [f"{of} k={k}" for of in ("map", "saliency") for k in ks]
    lines = [head, ["---"] + ["---:"] * (len(head) - 1)]
    for key in dict.fromkeys((r["section"], r["places"], r["features"]) for r in runs):
        own = [r for r in runs if (r["section"], r["places"], r["features"]) == key]
        means = [np.mean([r[of][str(k)] for r in own]) for of in ("concept_map", "saliency") for k in ks]
        seconds = np.mean([r["train_cpu_seconds"] for r in own])
        lines.append([key[0], f"{key[1]:,}", f"{key[2]:,}", f"{seconds:.0f}", *(f"{m:.3f}" for m in means)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    """Measure, print the table and write the record, which keeps earlier runs of other sections."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--labels", default="layer")
    parser.add_argument("--by", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--places", type=int, nargs="*", default=[1000, 2000, 4000, 8000])
    parser.add_argument("--features", type=int, default=1000)
    parser.add_argument("--genes", type=int, default=300)
    parser.add_argument("--ks", type=int, nargs="+", default=[1, 3, 5, 10])
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--n-seeds", type=int, default=2, help="members of the ensemble, as in stcsm run")
    parser.add_argument("--json", type=Path, default=RECORD)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)

    sections = []
    if args.data is not None:
        adata = io.read(args.data)
        labels = adata.obs[args.labels].astype(object).fillna("").astype(str).to_numpy()
        most = int((np.asarray(adata.X.sum(axis=1)).ravel() > 0).sum())
        sections.append((args.data.stem, adata, labels, ["full", *(most // by for by in args.by)]))
    for n in args.places:
        adata = simulated_bulb(n, args.genes, counts_per_spot=COUNTS / n, image=False)
        labels = adata.obs["layer"].astype(str).to_numpy()
        sections.append(
            (f"simulated, {n:,} places", adata, labels, ["full", args.features] if n > args.features else ["full"])
        )
    record = json.loads(args.json.read_text(encoding="utf-8")) if args.json.exists() else {"runs": []}
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    for section in sections:
        about = {"machine": machine, "date": datetime.now(UTC).strftime("%Y-%m-%d"), "n_seeds": args.n_seeds}
        runs = [{**run, **about, "draws": args.draws} for run in measured(*section, args)]
        record["runs"] = [r for r in record["runs"] if r["section"] != section[0]] + runs
        args.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(table(record["runs"], args.ks))


if __name__ == "__main__":
    main()
