"""Does a concept find its tissue? stcsm against the methods in use today, on a labelled section.

    python benchmarks/recovery.py --data FILE --labels KEY_OR_CSV [--json OUT]

FILE is an .h5ad, an ST text file or a Space Ranger folder with raw counts; labels are a column of .obs or a CSV. The
counts are split into halves: markers of each tissue layer come from one half, maps from the other. Every contender
gets the same k genes and returns one value per spot. The score is the AUROC against "spot lies in the tissue layer",
averaged over draws and then over tissue layers.

    python benchmarks/recovery.py --panel FOLDER [--splits N] [--seeds N] [--json OUT]

runs labelled sections of several organs and platforms in FOLDER (NAME_*.h5ad with labels in .obs["region"]; a second
annotation of the bulb in bulb_repN_layers.csv) at both scales of the spot graph and at the scale that "auto" takes, and
prints two scores: the mean log ratio of our error to that of diffused expression, and to the least error of six rivals
in hindsight. Runs that OUT holds already are not repeated.

Settings that depend on the data are chosen without labels, by held-out
counts of the half that is mapped; rows named "hindsight" show the best setting that the labels would have chosen.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import logging
import sys
import time
import warnings
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks._recovery.ceiling import ceiling
from benchmarks._recovery.ours import our_maps, trained
from benchmarks._recovery.panel import run_section, show_panel, sources
from benchmarks._recovery.protocol import by_layer, make_task, mean_auroc, paired_interval, score
from benchmarks._recovery.published import published
from benchmarks._recovery.rivals import RIVALS, Section, hindsight
from stcsm import io

TODAY = ("mean_expression", "score_genes", "ulm", "smoothed_expression", "pca", "smoothed_pca", "published")
"""Methods in use today: all contenders but diffused expression."""


def labels_of(adata, given: str) -> np.ndarray:
    """Label of each spot; "" for spots without one."""
    if given not in adata.obs and not Path(given).is_file():
        raise SystemExit(f"Expected a column of .obs or a CSV, found {given!r}; columns: {sorted(adata.obs)}")
    # A column, too: texts such as "nan" are no labels.
    io.add_labels(adata, adata.obs.get(given, given), "recovery_label", overwrite=True)
    column = adata.obs["recovery_label"].astype(object)
    return column.where(column.notna(), "").astype(str).to_numpy()


def main() -> None:
    """Run the benchmark, print the tables and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--data")
    what.add_argument("--panel", type=Path, help="folder of labelled sections")
    parser.add_argument("--sections", nargs="+", help="only these sections of the panel")
    parser.add_argument("--splits", type=int, default=1, help="splits of the counts of each section of the panel")
    parser.add_argument("--seeds", type=int, default=1, help="seeds of the training for each split")
    parser.add_argument("--labels", help="column of .obs, or a CSV")
    parser.add_argument("--layer", help="layer of .layers with the counts")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--ks", type=int, nargs="+", default=[1, 3, 5, 10])
    parser.add_argument("--draws", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--n-seeds", type=int, default=2, help="members of the ensemble, as in stcsm run")
    parser.add_argument(
        "--encoders",
        nargs="*",
        default=[],
        choices=["mlp", "conv"],
        help="also run stcsm with these encoders instead of the default",
    )
    parser.add_argument("--skip", nargs="*", default=[], help="contenders to leave out")
    parser.add_argument("--no-hindsight", action="store_true")
    args = parser.parse_args()
    if "ulm" not in args.skip and importlib.util.find_spec("decoupler") is None:
        raise SystemExit(
            'Expected decoupler for the contender ulm, found none: pip install "decoupler>=2", or --skip ulm'
        )
    if unknown := set(args.skip) - {*RIVALS, "published", "stcsm"}:
        parser.error(f"Expected --skip of {', '.join((*RIVALS, 'published', 'stcsm'))}; found {sorted(unknown)}")
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    if args.panel:
        run_panel(args)
        return
    if not args.labels:
        parser.error("Expected --labels with --data, found none")

    adata = io.read(args.data, layer=args.layer)
    if args.layer:
        adata.X = adata.layers[args.layer]
    task = make_task(adata, labels_of(adata, args.labels), tuple(args.ks), args.draws, args.seed)
    print(
        f"{args.data}: {task.half.n_obs} spots x {task.half.n_vars} genes; {len(task.layers)} tissue layers, "
        f"{args.draws} draws each, seed {args.seed}"
    )
    section = Section(task, args.seed)
    scores: dict[str, np.ndarray] = {}
    seconds: dict[str, float] = {}
    for name, rival in (RIVALS | {"published": published}).items():
        if name in args.skip:
            continue
        started = time.perf_counter()
        scores[name] = score(task, rival(section))
        seconds[name] = time.perf_counter() - started
        show(task, scores, name, args.ks, seconds[name])
    ours = {} if "stcsm" in args.skip else {"stcsm": "auto"}
    settings = {}
    for contender, encoder in (ours | {f"stcsm {e}": e for e in args.encoders}).items():
        started = time.perf_counter()
        half, model = trained(task.half, args.seed, args.n_seeds, encoder)
        for name, maps in our_maps(task, half, model, contender).items():
            scores[name] = score(task, maps)
            seconds[name] = time.perf_counter() - started
            show(task, scores, name, args.ks, seconds[name])
        settings[contender] = {"model": model.describe(), "spot_graph": half.uns["stcsm"]["spot_graph"]}

    auroc = {name: {str(k): mean_auroc(task, s, k) for k in args.ks} for name, s in scores.items()}
    if not args.no_hindsight:
        auroc |= in_hindsight(task, section, args.ks)
    top = ceiling(task, section)
    auroc["ceiling cross-validated classifier on 20 smoothed PCs"] = {str(k): top for k in args.ks}
    print(f"\n{'error = 1 - AUROC':44s}" + "".join(f"{f'k={k}':>9s}" for k in args.ks))
    for name, row in auroc.items():
        print(f"{name:44.44s}" + "".join(f"{1 - row[str(k)]:9.4f}" for k in args.ks))
    report = {
        "auroc": auroc,
        "layers": {name: {str(k): by_layer(task, s, k) for k in args.ks} for name, s in scores.items()},
        "seconds": seconds,
        "chosen": {
            "smoothed_expression width": section.best_width,
            "pca components": section.best_pcs(0.0),
            "smoothed_pca components": section.best_pcs(section.best_width),
        },
        "settings": settings,
        "arguments": {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()},
    }
    if "stcsm" in scores:
        report["against"] = against(task, scores, args.ks, args.seed)
    if args.json:
        args.json.write_text(json.dumps(report, indent=1, default=str), encoding="utf-8")


def run_panel(args: argparse.Namespace) -> None:
    """Run the sections of the panel, print the table and write the report after each run."""
    sections = [s for s in sources(args.panel) if args.sections is None or s.name in args.sections]
    old = json.loads(args.json.read_text(encoding="utf-8"))["runs"] if args.json and args.json.exists() else {}
    runs: dict[str, dict] = dict(old)
    for source, split, seed in itertools.product(sections, range(args.splits), range(args.seeds)):
        key = f"{source.name} {split} {seed}"
        if key in runs:
            continue
        adata = source.read()
        task = make_task(adata, labels_of(adata, source.labels), tuple(args.ks), args.draws, split)
        runs[key] = run_section(task, split, seed, *trained(task.half, seed, args.n_seeds))
        print(f"{key}: {runs[key]['log_ratio']}", flush=True)
        if args.json:
            args.json.write_text(json.dumps({"runs": runs}, default=str), encoding="utf-8")
    scores = show_panel(runs, sections)
    if args.json:
        args.json.write_text(json.dumps({"scores": scores, "runs": runs}, default=str), encoding="utf-8")


def show(task, scores: dict[str, np.ndarray], name: str, ks: list[int], seconds: float) -> None:
    """Print the row of one contender."""
    row = "".join(f"{mean_auroc(task, scores[name], k):9.4f}" for k in ks)
    print(f"{name:44s}{row}   {seconds:6.1f} s", flush=True)


def in_hindsight(task, section: Section, ks: list[int]) -> dict[str, dict[str, float]]:
    """AUROC of each rival with the setting that is best by the labels, for each k."""
    best: dict[str, dict[str, float]] = {}
    for name, run in hindsight(section).items():
        rival = name.split(" ")[0]
        found = score(task, run())
        for k in ks:
            value = mean_auroc(task, found, k)
            row = best.setdefault(f"hindsight {rival}", {})
            row[str(k)] = max(row.get(str(k), 0.0), value)
    return best


def against(task, scores: dict[str, np.ndarray], ks: list[int], seed: int) -> dict[str, dict[str, dict[str, float]]]:
    """AUROC of stcsm minus each rival, with a paired bootstrap interval, and the error reduction against the best."""
    print(f"\n{'stcsm minus ...':28s}" + "".join(f"{f'k={k}':>28s}" for k in ks))
    out: dict[str, dict[str, dict[str, float]]] = {}
    for name in scores:
        if name.startswith("stcsm"):
            continue
        out[name], row = {}, ""
        for k in ks:
            mean, low, high = paired_interval(task, scores["stcsm"], scores[name], k, seed)
            out[name][str(k)] = {"difference": mean, "low": low, "high": high}
            row += f"{mean:+11.4f} [{low:+.4f}, {high:+.4f}]"
        print(f"{name:28s}{row}")
    row = ""
    out["error_reduction"] = {}
    for k in ks:
        rival = max(mean_auroc(task, s, k) for n, s in scores.items() if n in TODAY)
        gone = 1 - (1 - mean_auroc(task, scores["stcsm"], k)) / (1 - rival)
        out["error_reduction"][str(k)] = {"share": gone}
        row += f"{100 * gone:27.1f}%"
    print(f"{'error below the best today':28s}{row}")
    return out


if __name__ == "__main__":
    main()
