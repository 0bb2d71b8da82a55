"""Are the p values of random concepts uniform, and are real tissue layers significant?

    python benchmarks/calibration.py --data FILE --labels KEY_OR_CSV --json OUT --plot PNG

Calibration tests concepts of random genes (several sizes). They are disjoint from the draws of the null: they come from
a separate random stream (the first child of the seed, which never seeds a null), and the run stops if one of them is
among the draws of any null. Reported are the share of p at or below 0.05 (4% to 6% is the aim), a Kolmogorov-Smirnov
test against the uniform distribution and a QQ plot, for concepts and for single spots. Power: the counts are split into
halves; markers of each tissue layer come from one half, model and maps from the other.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from _recovery.protocol import make_task
from anndata import AnnData
from scipy import sparse, stats

import stcsm
from stcsm.attribution import mean_attribution
from stcsm.concepts import MatchedSampler, gene_abundance_dispersion, matching_bins, significance
from stcsm.models import GeneVAE

mpl.use("agg")
import matplotlib.pyplot as plt

SIZES = (5, 10, 20, 40, 80)


def train(adata: AnnData, seed: int) -> GeneVAE:
    """Train the default model with two members, as the command line does."""
    GeneVAE.setup_anndata(adata)
    model = GeneVAE(adata, n_seeds=2, seed=seed)
    model.train(progress=False)
    return model


def calibration(model: GeneVAE, counts, n_concepts: int, n_random: int, seed: int) -> dict:
    """p values of random concepts, and of one spot of each.

    Raises
    ------
    RuntimeError
        If a concept is among the draws of a null.
    """
    latents = [model.get_latent_representation(member=m) for m in range(model.n_members)]
    usable = np.isfinite(latents[0]).all(axis=1)
    abundance, dispersion = gene_abundance_dispersion(counts)
    bins = matching_bins(abundance, np.where(usable, dispersion, 0.0), usable=usable)
    trained, fixed = model.trained_genes, np.random.default_rng(model.settings["seed"])
    inputs = model.inputs(np.sort(fixed.choice(trained, min(1500, len(trained)), replace=False))).to(model.device)
    unit = np.eye(model.settings["n_latent"])
    bases = [model.maps_to_spots(mean_attribution(encoder, inputs, unit)) for encoder in model.encoders]
    # The null of a concept is seeded by three words, the seed and two of the concept. A child of the seed has five, so
    # no null is drawn from the stream of the tested concepts, whatever their genes.
    (child,) = np.random.SeedSequence(seed).spawn(1)
    rng = np.random.default_rng(child)
    genes, concept_p, spot_p = np.flatnonzero(usable), [], []
    own = MatchedSampler(bins, seed)
    code = np.random.default_rng(0).integers(0, 2**63, usable.size, dtype=np.uint64)
    tested, drawn = [], []
    for first in range(0, n_concepts, 250):
        n = min(250, n_concepts - first)
        sets = [rng.choice(genes, SIZES[(first + i) % len(SIZES)], replace=False) for i in range(n)]
        ends = np.cumsum([0, *map(len, sets)])
        weights = sparse.csr_array((np.ones(ends[-1]), np.concatenate(sets), ends), shape=(n, usable.size))
        tested += [code[s].sum() for s in sets]
        drawn += [np.unique(code[own.draw(np.sort(s), n_random, np.ones(len(s)))].sum(axis=1)) for s in sets]
        found = significance(latents, weights, bases, bins, n_random=n_random, seed=seed)
        concept_p.append(found.concept_p)
        spot_p.append(found.p[np.arange(n), rng.integers(0, found.p.shape[1], n)])
    # A set is compared by the sum of random codes of its genes; two different sets collide once in 2^64.
    met = int(np.isin(np.array(tested), np.unique(np.concatenate(drawn))).sum())
    print(f"{met} of {n_concepts} random concepts are among the {n_concepts} x {n_random} draws of their nulls")
    if met:
        raise RuntimeError(
            f"Expected concepts disjoint from the null's draws, found {met} among them; use a section with more genes"
        )
    return {"concept": np.concatenate(concept_p), "spot": np.concatenate(spot_p)}


def power(adata: AnnData, labels: np.ndarray, n_random: int, seed: int) -> pd.DataFrame:
    """Test markers of the tissue layers from one half of the counts in the other half."""
    task = make_task(adata, labels, (30,), 1, seed)
    model = train(task.half, seed)
    stcsm.tl.concepts(task.half, model, genes={d.layer: list(d.genes) for d in task.draws})
    stcsm.tl.saliency(task.half, model)
    stcsm.tl.significance(task.half, model, n_random=n_random, seed=seed)
    return stcsm.tl.concept_table(task.half)


def draw(p: dict[str, np.ndarray], path: Path, title: str) -> None:
    """Draw QQ plots, with the band that contains 95% of the points of uniform p values."""
    fig, axes = plt.subplots(1, 2, figsize=(7.4, 3.8), layout="constrained")
    for ax, (name, values) in zip(axes, p.items(), strict=True):
        n = len(values)
        expected = (np.arange(n) + 0.5) / n
        rank = np.arange(1, n + 1)
        low, high = stats.beta.ppf([[0.025], [0.975]], rank, n - rank + 1)
        x = -np.log10(expected)
        ax.fill_between(x, -np.log10(high), -np.log10(low), color="#cccccc", lw=0, label="95% if uniform")
        ax.plot([0, x[0]], [0, x[0]], color="black", lw=0.8)
        ax.plot(x, -np.log10(np.sort(values)), ".", ms=3, color="#b2182b", rasterized=True)
        ax.set_xlabel("expected $-\\log_{10} p$")
        ax.set_ylabel("observed $-\\log_{10} p$")
        ax.set_title(f"{name}: {np.mean(values <= 0.05):.2%} at or below 0.05", fontsize=10)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False, fontsize=8)
    fig.suptitle(title, fontsize=10)
    fig.savefig(path, dpi=150)


def main() -> None:
    """Run both parts and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--labels", required=True, help="column of .obs, or a CSV of spot and label")
    parser.add_argument("--concepts", type=int, default=5000)
    parser.add_argument("--null", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()

    adata = stcsm.io.read(args.data)
    key = args.labels
    given = key if os.path.isfile(key) else adata.obs[key]
    stcsm.io.add_labels(adata, given, key := "calibration_labels")
    labels = adata.obs[key].astype(object).where(adata.obs[key].notna(), "").astype(str).to_numpy()
    model = train(adata, args.seed)
    p = calibration(model, adata.X, args.concepts, args.null, args.seed)
    report: dict = {"data": args.data.name, "concepts": args.concepts, "null": args.null, "seed": args.seed}
    for name, values in p.items():
        ks = stats.kstest(values, "uniform")
        report[name] = {
            **{f"at_or_below_{level}": float(np.mean(values <= level)) for level in (0.01, 0.05, 0.1)},
            "ks_statistic": float(ks.statistic),
            "ks_p": float(ks.pvalue),
        }
    found = power(adata, labels, args.null, args.seed)
    report["power"] = found[["p", "q", "strength", "spots_q05", "morans_i"]].to_dict("index")
    print(json.dumps(report, indent=1))
    if args.json:
        args.json.write_text(json.dumps(report, indent=1), encoding="utf-8")
    if args.plot:
        draw(p, args.plot, f"{args.data.name}: {args.concepts} random concepts, {args.null} random draws each")


if __name__ == "__main__":
    main()
