"""How well does ``stcsm run`` find the tissue layers of an olfactory bulb, and how much time and memory does it take?

    python benchmarks/bulb.py --counts COUNTS --labels CSV --json OUT

Runs ``stcsm run`` twice, each in its own process: with seed genes, and with the labels. Prints the AUROC of the map of
each concept against its tissue layer, the wall time (imports included) and the peak memory.
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

import pandas as pd
from sklearn.metrics import roc_auc_score

SEED_GENES = {"granule": ("Penk", "Granul"), "mitral": ("Doc2g", "Mitral"), "nerve": ("Kctd12", "Nerve")}


def run(counts: Path, out: Path, extra: list[str]) -> dict[str, float]:
    """Run the command and return wall seconds and peak resident memory (GB) of the process."""
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "stcsm", "run", str(counts), "--out", str(out), "--quiet", *extra], check=True
    )
    wall = time.perf_counter() - started
    # ru_maxrss of the children is the largest of any so far, in KiB on Linux.
    return {"wall_s": round(wall, 1), "peak_gb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20}


def aurocs(table: pd.DataFrame, labels: pd.Series, layer_of: dict[str, str]) -> dict[str, float]:
    """AUROC of each column against its tissue layer, over labelled spots."""
    known = labels.reindex(table.index).dropna()
    return {c: float(roc_auc_score(known == layer_of[c], table.loc[known.index, c])) for c in table}


def main() -> None:
    """Run both jobs and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    labels = pd.read_csv(args.labels, index_col=0).iloc[:, 0].dropna().astype(str)
    layers = sorted(labels.unique())
    genes = {name: (gene, [x for x in layers if part in x]) for name, (gene, part) in SEED_GENES.items()}
    genes = {name: (gene, found[0]) for name, (gene, found) in genes.items() if found}
    jobs = {
        "genes": (
            [arg for name, (gene, _) in genes.items() for arg in ("--genes", f"{name}={gene}")],
            {name: layer for name, (_, layer) in genes.items()},
        ),
        "labels": (["--labels", str(args.labels)], {layer: layer for layer in layers}),
    }
    report: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for job, (extra, layer_of) in jobs.items():
            if not layer_of:
                continue
            out = Path(scratch) / job
            cost = run(args.counts, out, [*extra, "--seed", str(args.seed)])
            scores = {
                name: aurocs(pd.read_csv(out / f"{name}.csv", index_col="spot"), labels, layer_of)
                for name in ("concept_saliency", "concept_map")
            }
            report[job] = {**cost, **scores}
            print(f"\n{job}: {cost['wall_s']:.1f} s wall, {cost['peak_gb']:.2f} GB peak")
            print(pd.DataFrame(scores).round(3).to_string())
            if job == "labels":
                print(pd.DataFrame(scores).mean().round(3).rename("mean over labels").to_string())
    if args.json:
        args.json.write_text(json.dumps(report, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
