"""The published figure of three concepts, from a model trained here, and its loss next to that of the published code.

    python benchmarks/published_figure.py --data FILE [--labels KEY_OR_CSV] --out IMAGE [--json OUT]

Trains the published model for 10 epochs (or loads a saved one, --model) and makes the published concepts of Penk
(granule cells), Doc2g (mitral cells) and Kctd12 (nerve). For each it draws the saliency map (RectGrad, 95th percentile,
mean over its 50 genes), the mean expression of the 50 genes, each divided by its maximum, and the decoded concept. With
labels it prints the AUROC of each image against the tissue layer of the concept.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import stcsm
from benchmarks._recovery.protocol import auroc
from benchmarks.recovery import labels_of
from stcsm.models import GeneVAE

CONCEPTS = {"Penk": "Granule", "Doc2g": "Mitral", "Kctd12": "Nerve"}
"""Published seed genes, and a word from the name of the tissue layer that each stands for."""
COLUMNS = {
    "concept_saliency": "saliency map",
    "concept_expression": "mean expression",
    "concept_decoded": "decoded",
}
PUBLISHED = (0.2712, 0.0888, 0.0800, 0.0779, 0.0767, 0.0762, 0.0757, 0.0753, 0.0750, 0.0747)
"""Loss of the published code on replicate 11, seed 0."""


def draw(adata) -> plt.Figure:
    """Concepts in rows, the three published views in columns."""
    xy = np.asarray(adata.obsm["spatial"], dtype=float)
    width, height = np.ptp(xy, axis=0)
    side = 2.0
    size = (0.86 * side * 72 / (width / np.sqrt(width * height / len(xy)) + 2)) ** 2
    fig, axes = plt.subplots(3, 3, figsize=(3.0 * side + 1.1, 3 * side * height / width + 0.4), layout="constrained")
    for i, (gene, layer) in enumerate(CONCEPTS.items()):
        for j, (key, title) in enumerate(COLUMNS.items()):
            ax = axes[i, j]
            values = adata.obsm[key][gene].to_numpy()
            if key == "concept_saliency":
                top = float(np.nanpercentile(np.abs(values), 99))
                look = {"cmap": "RdBu_r", "vmin": -top, "vmax": top}
            else:
                low, high = np.nanpercentile(values, [1, 99])
                look = {"cmap": "magma", "vmin": float(low), "vmax": float(high)}
            points = ax.scatter(*xy.T, c=values, s=size, marker="o", linewidths=0, plotnonfinite=False, **look)
            ax.set_aspect("equal")
            ax.invert_yaxis()
            ax.set_xticks([])
            ax.set_yticks([])
            ax.spines[:].set_visible(False)
            if i == 0:
                ax.set_title(title, fontsize=10)
            if j == 0:
                ax.set_ylabel(f"{gene}\n({layer.lower()})", fontsize=10)
            bar = fig.colorbar(points, ax=ax, shrink=0.7, aspect=16, pad=0.01)
            bar.outline.set_visible(False)
            bar.ax.tick_params(labelsize=6, length=2, pad=1)
            bar.locator = plt.MaxNLocator(4)
            bar.formatter.set_powerlimits((-2, 3))
            bar.update_ticks()
            bar.ax.yaxis.get_offset_text().set_fontsize(6)
    return fig


def main() -> None:
    """Train the model, draw the figure, print the scores and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--labels", help="column of .obs, or a CSV")
    parser.add_argument("--model", type=Path, help="folder of a trained model; written if it does not exist")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    adata = stcsm.io.read(args.data)
    GeneVAE.setup_anndata(adata)
    loss: list[float] = []
    if args.model and args.model.exists():
        model = GeneVAE.load(args.model, adata)
    else:
        model = GeneVAE.published(adata, seed=args.seed)
        model.train(max_epochs=args.epochs, progress=False)
        loss = model.history["train_loss"].iloc[:, 0].astype(float).tolist()
        if args.model:
            model.save(args.model)
        print("loss here:     ", *(f"{x:.4f}" for x in loss))
        print("published code:", *(f"{x:.4f}" for x in PUBLISHED), "(replicate 11)")
    stcsm.tl.published_concepts(adata, model, list(CONCEPTS))
    stcsm.tl.saliency(adata, model, method="rectgrad", genes="concept", percentile=95, published=True)
    stcsm.tl.decoded(adata, model, contrast=False)
    stcsm.tl.mean_expression(adata)
    found: dict[str, dict[str, float]] = {}
    if args.labels:
        labels = labels_of(adata, args.labels)
        known = labels != ""
        for gene, layer in CONCEPTS.items():
            (name,) = [x for x in np.unique(labels) if layer[:5].lower() in x.lower()]
            found[gene] = {
                title: auroc(adata.obsm[key][gene].to_numpy()[known], labels[known] == name)
                for key, title in COLUMNS.items()
            }
            print(f"{gene:8s}{name:28s}" + "  ".join(f"{k} {v:.3f}" for k, v in found[gene].items()))
    draw(adata).savefig(args.out, dpi=130, pil_kwargs={"quality": 88} if args.out.suffix == ".jpg" else None)
    if args.json:
        genes = {g: [str(x) for x in adata.uns["stcsm"]["concepts"][g]["genes"]] for g in CONCEPTS}
        report = {"loss": loss, "published": PUBLISHED, "auroc": found, "genes": genes, "seed": args.seed}
        args.json.write_text(json.dumps(report, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
