"""Time and memory of a whole ``stcsm run``, by stage, on simulated sections of any size.

    python benchmarks/scale.py --places 1000 10000 --genes 500 2000 [--sets 50] [--args "--encoder mlp"]
    python benchmarks/scale.py --show
    python benchmarks/scale.py --rates

Each combination of the numbers of places and genes is one run with the defaults: a section with five labels is written
block by block into an h5ad file in the folder for temporary files, and ``stcsm run`` maps its labels in a process of
its own. ``--sets`` adds so many gene sets of ten genes, for runs of many concepts. Results are merged into the record
(``--record``, by default benchmarks/scale.json), from which docs/large.md takes its numbers: a size that was measured
on the same machine before is replaced. So a session may measure a few sizes at a time.

``--show`` prints the record: stages, how good the plans were, and the slopes of the time (without the start-up) over
places and genes on log-log axes; 1 is linear. ``--rates`` fits the rates by which ``stcsm run`` plans the stages behind
the training (stcsm/workflow/rates.json) to the record.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from stcsm.workflow import STAGES, TERMS, Size

HERE = Path(__file__).resolve().parent
RECORD, RATES = HERE / "scale.json", HERE.parent / "stcsm" / "workflow" / "rates.json"
BLOCK = 4096
LABELS = ("core", "inner ring", "middle ring", "outer ring", "patch")
COUNTS_PER_GENE, MOST_COUNTS = 0.2, 400.0
"""Mean counts of a place: so many a gene of the panel, as in situ, and at most so many, as in 8 micrometre bins."""
MARKED = 0.3
"""Share of the genes that are higher in one label."""
IDLE = 0.3
"""Load average of an idle machine, at most."""


def simulate(path: Path, n_places: int, n_genes: int, seed: int = 0) -> None:
    """Write a section of rings and patches, with at most ``BLOCK`` places in memory.

    A place has coordinates on a jittered lattice, a label, and counts: those of a label's genes are three times as
    frequent there, and depth varies between places (log-normal) and smoothly over the tissue.
    """
    import anndata as ad
    import h5py
    import pandas as pd
    from scipy import sparse

    rng = np.random.default_rng(seed)
    side = int(np.ceil(np.sqrt(n_places)))
    xy = np.column_stack(np.divmod(np.arange(n_places), side)) + rng.uniform(-0.3, 0.3, (n_places, 2))
    unit = xy / side - 0.5
    radius = np.hypot(*unit.T)
    label = np.digitize(radius, [0.18, 0.32, 0.45])
    label[(np.sin(unit[:, 0] * 14) > 0.6) & (np.sin(unit[:, 1] * 14) > 0.6)] = 4
    abundance = rng.gamma(0.7, 1.0, n_genes)
    own = np.where(rng.uniform(size=n_genes) < MARKED, rng.integers(0, len(LABELS), n_genes), -1)
    rate = np.array([abundance * np.where(own == k, 3.0, 1.0) for k in range(len(LABELS))])
    chance = np.cumsum(rate, axis=1) / rate.sum(axis=1, keepdims=True)
    depth = min(COUNTS_PER_GENE * n_genes, MOST_COUNTS) * np.exp(0.3 * np.sin(unit[:, 0] * 6))
    frame = ad.AnnData(
        sparse.csr_matrix((n_places, n_genes), dtype=np.float32),
        obs=pd.DataFrame({"label": pd.Categorical.from_codes(label, LABELS)}, index=[f"p{i}" for i in range(n_places)]),
        var=pd.DataFrame(index=[f"g{i}" for i in range(n_genes)]),
        obsm={"spatial": xy},
    )
    frame.write_h5ad(path)
    with h5py.File(path, "r+") as file:
        del file["X"]
        for start in range(0, n_places, BLOCK):
            here = label[start : start + BLOCK]
            n = rng.poisson(depth[start : start + BLOCK] * rng.lognormal(-0.08, 0.4, len(here)))
            owner, place = np.repeat(here, n), np.repeat(np.arange(len(here)), n)
            genes = np.empty(len(owner), dtype=np.int64)
            for k in range(len(LABELS)):
                mine = owner == k
                genes[mine] = np.minimum(np.searchsorted(chance[k], rng.uniform(size=mine.sum())), n_genes - 1)
            block = sparse.csr_matrix((np.ones(len(genes), np.float32), (place, genes)), shape=(len(here), n_genes))
            block.sum_duplicates()
            if start == 0:
                ad.io.write_elem(file, "X", block)
                # Blocks are appended, so the arrays must be able to grow.
                for name, kind in (("data", np.float32), ("indices", np.int32), ("indptr", np.int64)):
                    values = file["X"][name][:].astype(kind)
                    del file["X"][name]
                    file["X"].create_dataset(name, data=values, maxshape=(None,), chunks=(2**16,))
            else:
                ad.io.sparse_dataset(file["X"]).append(block)


def measure(n_places: int, n_genes: int, n_sets: int, args: list[str], tmp: Path) -> dict:
    """Simulate a section and run ``stcsm run`` on it, each in a process of its own."""
    counts, out = tmp / "section.h5ad", tmp / "out"
    subprocess.run([sys.executable, __file__, "--simulate", counts, str(n_places), str(n_genes)], check=True)
    command = [sys.executable, "-m", "stcsm", "run", str(counts), "--labels-key", "label", "--out", str(out), *args]
    if n_sets:
        rng, names = np.random.default_rng(1), np.array([f"g{i}" for i in range(n_genes)])
        rows = ("\t".join([f"set {i}", "", *rng.choice(names, 10, replace=False)]) for i in range(n_sets))
        (tmp / "sets.gmt").write_text("\n".join(rows) + "\n", encoding="utf-8")
        command += ["--gmt", str(tmp / "sets.gmt")]
    load = os.getloadavg()[0]
    started = time.perf_counter()
    process = subprocess.Popen([*command, "--quiet"])
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        raise SystemExit(f"Expected a run that ends well, found status {os.waitstatus_to_exitcode(status)}")
    run = json.loads((out / "run.json").read_text(encoding="utf-8"))
    files = sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
    in_stages = sum(stage["seconds"] for stage in run["stages"].values())
    return {
        "places": n_places,
        "genes": n_genes,
        "sets": n_sets,
        "options": args,
        "seconds": round(seconds, 2),
        "start_up_seconds": round(seconds - in_stages, 2),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_bytes": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        "counts_bytes": counts.stat().st_size,
        "results_bytes": files,
        **run,
        "machine": machine(),
        "load": round(load, 2),
        "idle": load < IDLE,
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
    }


def machine() -> str:
    """Processor and cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    info = Path("/proc/cpuinfo")
    names = (
        [x.split(":", 1)[1].strip() for x in info.read_text().splitlines() if x.startswith("model name")]
        if (info.is_file())
        else []
    )
    return f"{cores} cores of {names[0] if names else platform.processor() or platform.machine()}"


def commit() -> str:
    """The commit, with a plus where files differ from it."""
    git = ["git", "-C", str(HERE)]
    name = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True).stdout.strip()
    return name + ("+" if changed else "")


def merge(record: dict, run: dict) -> dict:
    """The record with a run; one of the same size and options on the same machine is replaced."""
    same = ("places", "genes", "sets", "options", "machine")
    kept = [r for r in record.get("runs", []) if any(r[key] != run[key] for key in same)]
    return {"runs": sorted([*kept, run], key=lambda r: (r["machine"], r["sets"], r["genes"], r["places"]))}


def slopes(runs: list[dict]) -> dict[str, dict[str, float]]:
    """Slope of log seconds, without the start-up, over log size, by what is varied and what is fixed; whole and stages.

    Over places from 10,000 on, over genes from 500 on: what a smaller section takes is overhead.
    """
    found: dict[str, dict[str, float]] = {}
    usual = [r for r in runs if not r["sets"] and not r["options"]]
    for vary, fixed, least in (("places", "genes", 10_000), ("genes", "places", 500)):
        for value in sorted({r[fixed] for r in usual}):
            some = [r for r in usual if r[fixed] == value and r[vary] >= least]
            if len(some) < 2:
                continue
            size = np.log([r[vary] for r in some])

            def slope(seconds: list[float], size: np.ndarray = size) -> float:
                return round(float(np.polyfit(size, np.log(np.maximum(seconds, 1e-3)), 1)[0]), 3)

            found[f"{vary} at {value:,} {fixed}"] = {
                "run": slope([r["seconds"] - r["start_up_seconds"] for r in some]),
                **{s: slope([r["stages"][s]["seconds"] for r in some]) for s in STAGES if s in some[0]["stages"]},
            }
    return found


def fit_rates(runs: list[dict]) -> dict:
    """Rates of the stages, see stcsm/workflow/_plan.py: non-negative, with the least sum of squared relative errors."""
    from scipy.optimize import nnls

    terms = np.array([Size(**r["size"]).terms() for r in runs])
    unit = np.array([r["batch"]["seconds"] / r["batch"]["values"] / r["size"]["members"] for r in runs])
    stages = {}
    for stage in STAGES:
        if stage in ("read", "train"):
            continue
        has = np.array([stage in r["stages"] for r in runs])
        took = np.array([r["stages"].get(stage, {}).get("seconds", 0.0) for r in runs])[has]
        stages[stage] = nnls(terms[has] * (unit[has] / took)[:, None], np.ones(has.sum()))[0].tolist()
    more = np.array([r["peak_bytes"] - r["memory"]["before"] - r["memory"]["training"] for r in runs])
    peak = np.array([r["peak_bytes"] for r in runs])
    memory = nnls(terms / peak[:, None], np.maximum(more, 0) / peak)[0].tolist()
    return {
        "terms": list(TERMS),
        "stages": stages,
        "memory": memory,
        "from": {"runs": len(runs), "machines": sorted({r["machine"] for r in runs})},
    }


def show(record: dict) -> None:
    """Print the record."""
    print(f"{'places':>9} {'genes':>6} {'sets':>5} {'s':>7} {'plan':>6} {'cpu s':>7} {'GB':>6} {'plan':>6}  stages (s)")
    for r in record["runs"]:
        stages = ", ".join(f"{name} {r['stages'][name]['seconds']:.1f}" for name in STAGES if name in r["stages"])
        ours = sum(s["seconds"] for s in r["stages"].values() if s["planned_seconds"] is not None)
        planned = sum(s["planned_seconds"] or 0 for s in r["stages"].values())
        print(
            f"{r['places']:>9,} {r['genes']:>6,} {r['sets']:>5} {r['seconds']:>7.1f} {planned / ours:>6.2f} "
            f"{r['cpu_seconds']:>7.1f} {r['peak_bytes'] / 1e9:>6.2f} {r['memory']['planned'] / r['peak_bytes']:>6.2f}  "
            f"{stages}; {r['machine']}, load {r['load']}, {r['date']}, {r['commit']}"
        )
    for name in sorted({r["machine"] for r in record["runs"]}):
        for what, found in slopes([r for r in record["runs"] if r["machine"] == name]).items():
            print(f"slope over {what}: " + ", ".join(f"{k} {v:.2f}" for k, v in found.items()))


def main() -> None:
    """Measure sizes, or print or use the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--places", type=int, nargs="+", default=[10_000])
    parser.add_argument("--genes", type=int, nargs="+", default=[500])
    parser.add_argument("--sets", type=int, default=0)
    parser.add_argument("--args", type=shlex.split, default=[], help="more options of stcsm run, as one text")
    parser.add_argument("--record", type=Path, default=RECORD)
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--rates", action="store_true")
    parser.add_argument("--simulate", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.simulate:
        path, n_places, n_genes = args.simulate
        simulate(Path(path), int(n_places), int(n_genes))
        return
    record = json.loads(args.record.read_text(encoding="utf-8")) if args.record.exists() else {"runs": []}
    if args.rates:
        RATES.write_text(json.dumps(fit_rates(record["runs"]), indent=1) + "\n", encoding="utf-8")
    elif not args.show:
        for n_genes in args.genes:
            for n_places in args.places:
                with tempfile.TemporaryDirectory() as folder:
                    record = merge(record, measure(n_places, n_genes, args.sets, args.args, Path(folder)))
                args.record.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    show(record)


if __name__ == "__main__":
    main()
