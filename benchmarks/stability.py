"""Do three seeds of the default model agree on the map of a concept, and on its genes?

    python benchmarks/stability.py --data FILE --labels KEY_OR_CSV [--genes NAME=GENE ...] [--json OUT]

Trains from three seeds, with one member (the default of `GeneVAE`) and with two that are averaged (the default of
`stcsm run`). For each concept (markers of each label, and the given genes) and each pair of seeds it reports the
Spearman correlation of the saliency maps, without the spot graph, and the Jaccard index of the top 50 genes. The
published pipeline reaches 0.33 to 0.67 and 0.08 to 0.35.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import stcsm
from benchmarks.recovery import labels_of
from stcsm.models import GeneVAE


def one_seed(
    adata, genes: dict[str, list[str]], seed: int, n_members: int
) -> tuple[pd.DataFrame, dict[str, set[str]], dict]:
    """Saliency maps (spots x concepts), top 50 genes of each concept, and the settings of the model."""
    part = adata.copy()
    GeneVAE.setup_anndata(part)
    model = GeneVAE(part, n_seeds=n_members, seed=seed)
    model.train(progress=False)
    stcsm.tl.concepts(part, model, groupby="stability_label", genes=genes or None)
    stcsm.tl.saliency(part, model)
    scores = part.varm["concept_score"]
    top = {c: set(scores[c].nlargest(50).index) for c in scores}
    return part.obsm["concept_saliency"], top, model.describe()


def agreement(runs: list[tuple[pd.DataFrame, dict[str, set[str]], dict]], n_members: int) -> dict:
    """Print and return the agreement of each pair of runs."""
    rows = []
    for (maps_a, top_a, _), (maps_b, top_b, _) in itertools.combinations(runs, 2):
        for concept in maps_a:
            rows.append(
                {
                    "concept": concept,
                    "spearman": maps_a[concept].corr(maps_b[concept], method="spearman"),
                    "jaccard": len(top_a[concept] & top_b[concept]) / len(top_a[concept] | top_b[concept]),
                }
            )
    settings = [described for _, _, described in runs]
    print(f"{n_members} member(s) a seed; filter widths chosen: {[s['smoothing'] for s in settings]}")
    table = pd.DataFrame(rows).groupby("concept").agg(["mean", "min"])
    print(table.round(3).to_string())
    mean = pd.DataFrame(rows)[["spearman", "jaccard"]].mean()
    print(f"mean over concepts and pairs: Spearman {mean['spearman']:.3f}, Jaccard {mean['jaccard']:.3f}", flush=True)
    return {"pairs": rows, "mean": mean.to_dict(), "settings": settings}


def main() -> None:
    """Train, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--labels", required=True)
    parser.add_argument("--genes", nargs="*", default=[], help="NAME=GENE")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 10, 20])
    parser.add_argument(
        "--n-seeds", type=int, nargs="+", default=[1, 2], help="members trained and averaged for each seed"
    )
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    adata = stcsm.io.read(args.data)
    labels = labels_of(adata, args.labels)
    adata.obs["stability_label"] = pd.Categorical(np.where(labels == "", None, labels))
    genes = {item.split("=")[0]: item.split("=")[1].split(",") for item in args.genes}
    found = {n: agreement([one_seed(adata, genes, seed, n) for seed in args.seeds], n) for n in args.n_seeds}
    if args.json:
        args.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
