"""Time of one epoch of the published model in stcsm, a plain PyTorch loop and Keras.

    python benchmarks/published_speed.py [--keras | --keras-python PATH] [--json OUT]

The contenders train the same model on the same gene images, one after the other, each in its own process and with the
same number of threads. CPU seconds are user and system time of the process. The first epoch, which allocates buffers
and builds graphs, is left out. ``--keras`` creates an environment in a temporary folder, installs tensorflow into it
from the package index and removes it afterwards; oneDNN is on.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from stcsm import datasets, io
from stcsm.models import GeneVAE

ROOT = Path(__file__).resolve().parents[1]
WORKERS = ROOT / "benchmarks" / "_published_speed"


def worker(python: str, script: str, arguments: list[str], threads: int) -> dict:
    """Run a contender in its own process and return the JSON line that it prints."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {f"{k}_NUM_THREADS": str(threads) for k in ("OMP", "MKL", "OPENBLAS")}
    if python == sys.executable:
        environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(
        [python, str(WORKERS / script), *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{script} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def keras_environment(folder: Path, package: str) -> str:
    """Create an environment with tensorflow and return its Python."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", package], check=True)
    return str(python)


def main() -> None:
    """Run the contenders, print the table and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("STCSM_DATA_DIR", ".")) / "mob" / "Rep11_MOB_count_matrix-1.tsv.gz"
    parser.add_argument(
        "--data", type=Path, default=default, help="counts (replicate 11 in STCSM_DATA_DIR); simulated if absent"
    )
    parser.add_argument("--genes", type=int, help="use only this many genes, for a shorter run")
    parser.add_argument("--epochs", type=int, default=4, help="epochs; the first is left out")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--keras", action="store_true", help="run Keras too, in a temporary environment")
    parser.add_argument(
        "--keras-package", default="tensorflow", help="package that pip installs (tensorflow-cpu is smaller)"
    )
    parser.add_argument("--keras-python", help="run Keras too, with the Python of an environment that has tensorflow")
    parser.add_argument("--precision", help="also run stcsm with this precision, such as bf16-mixed")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.epochs < 2:
        parser.error(f"Expected --epochs of 2 or more, since the first is left out; found {args.epochs}")
    warnings.simplefilter("ignore")
    adata = io.read(args.data) if args.data.exists() else datasets.simulated_bulb(n_genes=16000)
    adata = adata[:, : args.genes].copy()
    model = GeneVAE.published(adata)
    images = model.inputs(model.trained_genes).numpy()[:, 0]
    print(f"{len(images)} genes, {args.epochs} epochs, {args.threads} threads, on {platform.processor() or 'a CPU'}")
    found: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        adata.write_h5ad(folder / "counts.h5ad")
        np.save(folder / "images.npy", images)
        counts, gene_images, epochs = str(folder / "counts.h5ad"), str(folder / "images.npy"), str(args.epochs)
        runs = {"stcsm": (sys.executable, "ours.py", [counts, epochs])}
        if args.precision:
            runs[f"stcsm {args.precision}"] = (sys.executable, "ours.py", [counts, epochs, args.precision])
        runs["plain PyTorch"] = (sys.executable, "eager.py", [gene_images, epochs])
        if args.keras or args.keras_python:
            python = args.keras_python or keras_environment(folder / "keras", args.keras_package)
            runs["Keras"] = (python, "keras_model.py", [gene_images, epochs])
        print(f"{'':20s}{'CPU s/epoch':>14s}{'wall s/epoch':>14s}{'loss':>9s}")
        for name, (python, script, arguments) in runs.items():
            found[name] = run = worker(python, script, arguments, args.threads)
            run["cpu_s_an_epoch"], run["wall_s_an_epoch"] = (float(np.mean(run[k][1:])) for k in ("cpu_s", "wall_s"))
            print(
                f"{name:20s}{run['cpu_s_an_epoch']:14.2f}{run['wall_s_an_epoch']:14.2f}{run['loss'][-1]:9.4f}"
                f"   {run['version']}",
                flush=True,
            )
    base = "Keras" if "Keras" in found else "plain PyTorch"
    ratio = {name: run["cpu_s_an_epoch"] / found[base]["cpu_s_an_epoch"] for name, run in found.items()}
    print("\nCPU seconds as a share of", base)
    for name, value in ratio.items():
        print(f"{name:20s}{value:14.2f}")
    if args.json:
        report = {
            "contenders": found,
            "ratio_to": base,
            "ratio": ratio,
            "n_genes": len(images),
            "threads": args.threads,
            "machine": platform.platform(),
            "cpus": os.cpu_count(),
        }
        args.json.write_text(json.dumps(report, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
