"""Time and memory of thousands of gene sets: scores, maps and nulls of a whole GMT file, through the command line.

    python benchmarks/gmt.py --counts COUNTS --sets 2000 --null 1000 --json OUT

Writes a GMT file of co-expression modules of the data (k-means on standardised, smoothed profiles of genes, at several
sizes) and of as many random sets of the same sizes. Runs ``stcsm run --gmt --null`` on it in a separate process. Prints
wall time, peak memory and the shares of significant modules and random sets. Modules have real structure and random
sets have none, so the two shares show whether the null discriminates.
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
from sklearn.cluster import MiniBatchKMeans

import stcsm
from stcsm.space import log_normalise, spatial_filter

MODULE_SIZES = (10, 20, 40, 80, 160)
MIN_COUNTS = 20


def modules(adata, n_sets: int, seed: int) -> dict[str, list[str]]:
    """Co-expression modules: clusters of genes at several mean sizes; clusters of different sizes overlap."""
    rng = np.random.default_rng(seed)
    seen = np.flatnonzero(np.asarray(adata.X.sum(axis=0)).ravel() >= MIN_COUNTS)
    profiles = log_normalise(adata.X)[:, seen].toarray().T
    profiles = (spatial_filter(np.asarray(adata.obsm["spatial"], dtype=float)[:, :2], 1.0) @ profiles.T).T
    profiles -= profiles.mean(axis=1, keepdims=True)
    profiles /= np.maximum(profiles.std(axis=1, keepdims=True), 1e-9)
    names = np.asarray(adata.var_names)[seen]
    out: dict[str, list[str]] = {}
    turn = 0
    while len(out) < n_sets:
        size = MODULE_SIZES[turn % len(MODULE_SIZES)]
        k = max(2, len(seen) // size)
        label = MiniBatchKMeans(k, n_init=1, random_state=seed + turn).fit_predict(profiles)
        for c in rng.permutation(k):
            genes = names[label == c]
            if 5 <= len(genes) <= 500 and len(out) < n_sets:
                out[f"module_{turn}_{c}"] = [str(g) for g in genes]
        turn += 1
    return out


def write_gmt(path: Path, sets: dict[str, list[str]]) -> None:
    """Write one line per gene set."""
    path.write_text("".join(f"{n}\tsynthetic\t" + "\t".join(g) + "\n" for n, g in sets.items()), encoding="utf-8")


def main() -> None:
    """Write the gene sets, run the command and print the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=Path, required=True)
    parser.add_argument("--sets", type=int, default=2000, help="gene sets in all; half of them random")
    parser.add_argument("--null", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--gmt", type=Path, help="write the gene sets here and stop")
    args = parser.parse_args()

    adata = stcsm.io.read(args.counts)
    sets = modules(adata, args.sets - args.sets // 2, args.seed)
    rng = np.random.default_rng(args.seed + 1)
    pool = np.asarray(adata.var_names)[np.asarray(adata.X.sum(axis=0)).ravel() > 0]
    sizes = [len(genes) for genes in sets.values()]
    for i in range(args.sets // 2):
        sets[f"random_{i}"] = [str(g) for g in rng.choice(pool, sizes[i % len(sizes)], replace=False)]
    print(f"seed {args.seed}: {len(sets)} sets of {min(sizes)} to {max(sizes)} genes, median {np.median(sizes):.0f}")
    if args.gmt:
        write_gmt(args.gmt, sets)
        return
    with tempfile.TemporaryDirectory() as scratch:
        gmt, out = Path(scratch) / "sets.gmt", Path(scratch) / "out"
        write_gmt(gmt, sets)
        command = [sys.executable, "-m", "stcsm", "run", str(args.counts), "--gmt", str(gmt), "--null", str(args.null)]
        started = time.perf_counter()
        subprocess.run([*command, "--out", str(out), "--quiet", "--seed", str(args.seed)], check=True)
        wall = time.perf_counter() - started
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        table = pd.read_csv(out / "concept_significance.csv", index_col="concept")
        files = {p.name: round(p.stat().st_size / 2**20, 1) for p in out.iterdir() if p.is_file()}
    kind = table.index.str.startswith("module")
    report = {
        "sets": len(sets),
        "null": args.null,
        "wall_s": round(wall, 1),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_gb": round(usage.ru_maxrss / 2**20, 2),
        "files_mb": files,
        "modules_q_below_0.05": float((table["q"][kind] < 0.05).mean()),
        "random_q_below_0.05": float((table["q"][~kind] < 0.05).mean()),
        "random_p_below_0.05": float((table["p"][~kind] < 0.05).mean()),
    }
    print(json.dumps(report, indent=1))
    if args.json:
        args.json.write_text(json.dumps(report, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
