"""Which weights should the parts of a concept map have? Candidates on sections that the recovery benchmark leaves out.

    python benchmarks/map_parts.py --data FOLDER [--sections NAME ...] [--json OUT]

FOLDER contains ``mob/`` and ``visium/``. The protocol is that of ``benchmarks/recovery.py`` (markers from one half of
the counts, maps from the other), with two more concepts per tissue layer: all its 30 markers, and its encoded profile.
The sections are replicate 11 of the olfactory bulb, the same with 35% of its counts, sections without labels, and
simulated ones. Without labels, five k-means clusters of the half that gives the markers serve as tissue layers. The
ensemble has two members, as in ``stcsm run``.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import warnings
from pathlib import Path

import numpy as np
from anndata import AnnData
from scipy.sparse import csr_array, csr_matrix
from sklearn.cluster import KMeans

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import stcsm
from benchmarks._recovery.ours import named, trained
from benchmarks._recovery.protocol import Task, auroc, make_task, mean_auroc, score, thin
from benchmarks.recovery import labels_of
from stcsm.space import log_normalise, spatial_filter, spot_components

KS = (1, 3, 5, 10)
S, D, P, E, N = "saliency", "decoded", "linear", "expression", "nearest"
CANDIDATES = {
    "S + P + E": {S: 1, P: 1, E: 1},
    "S + P + 1.5 (E + N)": {S: 1, P: 1, E: 1.5, N: 1.5},
    "S + D + E + N": {S: 1, D: 1, E: 1, N: 1},
    "S + D + 1.5 (E + N)": {S: 1, D: 1, E: 1.5, N: 1.5},
    "S + D + 3 (E + N)": {S: 1, D: 1, E: 3, N: 3},
    "S + D + P + E + N": {S: 1, D: 1, P: 1, E: 1, N: 1},
    "2 (S + D) + E + N": {S: 2, D: 2, E: 1, N: 1},
    "S": {S: 1},
    "D": {D: 1},
    "E": {E: 1},
    "N": {N: 1},
}
SIMULATED = {
    "simulated": {"seed": 7},
    "simulated, 500 genes": {
        "seed": 7, "n_spots": 2000, "n_genes": 500, "lattice": "hex", "n_markers": 20, "counts_per_spot": 300.0,
    },
    **{f"simulated, seed {i}": {"seed": i} for i in (1, 2)},
    **{
        f"simulated, 12,000 genes, seed {i}": {
            "seed": i, "n_spots": 280, "n_genes": 12_000, "counts_per_spot": 10_000.0,
        }
        for i in (1, 2)
    },
    **{
        f"simulated, 3,000 spots, seed {i}": {
            "seed": i, "n_spots": 3000, "n_genes": 500, "lattice": "hex", "n_markers": 20, "counts_per_spot": 1000.0,
        }
        for i in (1, 2)
    },
}  # fmt: skip
REAL = {
    "replicate 11": "mob/Rep11_MOB_count_matrix-1.tsv.gz",
    "replicate 11, 35% of counts": "mob/Rep11_MOB_count_matrix-1.tsv.gz",
    "replicate 1": "mob/Rep1_MOB_count_matrix-1.tsv.gz",
    "replicate 2": "mob/Rep2_MOB_count_matrix-1.tsv.gz",
    "dentate gyrus": "visium/mouse_brain_dentate_gyrus.h5ad",
}


def section(name: str, folder: Path) -> tuple[AnnData, np.ndarray]:
    """Counts of a section, and the tissue layer of each spot."""
    if name in SIMULATED:
        adata = stcsm.datasets.simulated_bulb(image=False, **SIMULATED[name])
        return adata, labels_of(adata, "layer")
    adata = stcsm.io.read(folder / REAL[name])
    if name.startswith("replicate 11"):
        labels = labels_of(adata, str(folder / "mob" / "Rep11_layers.csv"))
        if "35%" in name:
            adata.X = thin(csr_matrix(adata.X), 0.35, np.random.default_rng(5))[0]
        return adata, labels
    adata = adata[np.asarray(adata.X.sum(axis=1)).ravel() > 200].copy()
    half, _ = thin(adata.X, 0.5, np.random.default_rng(0))  # the same half that gives the markers
    near = spatial_filter(np.asarray(adata.obsm["spatial"], dtype=float), 0.7)
    components = spot_components(log_normalise(csr_array(half)), 8, near, seed=0)
    clusters = KMeans(5, n_init=20, random_state=0).fit_predict(components)
    return adata, np.array([f"cluster {c}" for c in clusters])


def more_concepts(task: Task) -> dict[str, list[str]]:
    """All markers of each tissue layer, collected from its draws (fifty draws of ten genes contain all 30)."""
    return {x: sorted({g for d in task.draws if d.layer == x for g in d.genes}) for x in task.layers}


def run(name: str, folder: Path, seed: int) -> dict[str, list[float]]:
    """AUROC of each candidate: k = 1, 3, 5, 10, all markers, encoded profile."""
    adata, labels = section(name, folder)
    task = make_task(adata, labels, KS, 50, seed)
    half, model = trained(task.half, seed, 2)
    draws, layers = named(task), more_concepts(task)
    half.obs["map_parts_label"] = labels
    stcsm.tl.concepts(half, model, genes=draws | layers)
    out: dict[str, list[float]] = {}
    inside = {x: (labels == x)[labels != ""] for x in task.layers}

    def of_layers(maps: np.ndarray) -> float:
        return float(np.mean([auroc(m[labels != ""], inside[x]) for m, x in zip(maps, task.layers, strict=True)]))

    for candidate, weights in CANDIDATES.items():
        stcsm.tl.concept_map(half, model, parts=weights)
        maps = half.obsm["concept_map"].fillna(0.0)
        found = score(task, maps[list(draws)].to_numpy().T)
        out[candidate] = [mean_auroc(task, found, k) for k in KS] + [of_layers(maps[list(layers)].to_numpy().T)]
    if (labels != "").all():
        stcsm.tl.concepts(half, model, groupby="map_parts_label", estimator="profile", keep=False)
        for candidate, weights in CANDIDATES.items():
            stcsm.tl.concept_map(half, model, parts=weights)
            maps = half.obsm["concept_map"].fillna(0.0)
            keys = [str(x) for x in task.layers]
            out[candidate].append(of_layers(maps.rename(columns=_label(half)).loc[:, keys].to_numpy().T))
    return out


def _label(adata: AnnData) -> dict[str, str]:
    return {key: str(c["label"]) for key, c in adata.uns["stcsm"]["concepts"].items()}


def main() -> None:
    """Run all sections and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sections", nargs="+", choices=[*REAL, *SIMULATED], default=[*REAL, *SIMULATED])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    found: dict[str, dict[str, list[float]]] = {}
    for name in args.sections:
        found[name] = run(name, args.data, args.seed)
        print(f"\n{name}: k = 1, 3, 5, 10, all markers, profile")
        for candidate, values in found[name].items():
            print(f"  {candidate:22s}" + "".join(f"{v:8.4f}" for v in values), flush=True)
        if args.json:
            args.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    summary(found)


def summary(found: dict[str, dict[str, list[float]]]) -> None:
    """Print the mean error over the sections, also over the four k, and the mean log(error / error of S + P + E)."""
    print(
        f"\n{len(found)} sections: mean error, k = 1, 3, 5, 10, all markers, profile; mean of k; mean log ratio of each"
    )
    for candidate in CANDIDATES:
        errors, ratios = [], []
        for i in range(6):
            ours, before = (
                np.array([1 - s[c][i] for s in found.values() if len(s[c]) > i]) for c in (candidate, "S + P + E")
            )
            errors.append(float(ours.mean()) if len(ours) else float("nan"))
            ratios.append(float(np.log(ours.clip(1e-4) / before.clip(1e-4)).mean()) if len(ours) else float("nan"))
        row = "".join(f"{e:8.4f}" for e in (*errors, np.mean(errors[:4]))) + "".join(f"{r:+8.3f}" for r in ratios)
        print(f"  {candidate:22s}{row}")


if __name__ == "__main__":
    main()
