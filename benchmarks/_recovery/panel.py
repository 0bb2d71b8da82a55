"""Labelled sections of several organs and platforms, and two scores over all of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

import stcsm
from benchmarks._recovery.ours import named, trained
from benchmarks._recovery.protocol import Task, cells, score
from benchmarks._recovery.rivals import RIVALS, Section, diffused

TODAY = ("mean_expression", "score_genes", "smoothed_expression", "pca", "smoothed_pca")
"""Rivals without a spot graph; diffused expression at either scale joins them in the panel score."""
SCALES = ("region", "spot", "auto")
BOOTSTRAPS = 200
SCORES = ("panel score", "against diffused expression")


@dataclass(frozen=True)
class Source:
    """A section of the panel: where its counts and labels are."""

    name: str
    study: str
    counts: Path | int
    """A file, or the replicate of the olfactory bulb."""
    labels: str
    """Column of .obs or a CSV."""
    chosen_on: bool = True
    """Whether defaults are chosen on it; the others are only reported."""
    from_clusters: bool = False
    """Whether the labels come from clusters of expression, which favours maps of expression."""

    def read(self) -> AnnData:
        """Counts of the section."""
        if isinstance(self.counts, int):
            return stcsm.datasets.mouse_olfactory_bulb(self.counts, progress=False)
        return stcsm.io.read(self.counts)


def sources(folder: Path) -> list[Source]:
    """Sections of a panel folder.

    ``NAME_*.h5ad`` with labels in ``.obs["region"]``, where NAME is the study, ``bulb_repN_layers.csv`` for replicate N
    of the olfactory bulb, and of the folder beside it ``visium/dlpfc151510.h5ad``.
    """
    found = []
    for file in sorted(folder.glob("*.h5ad")):
        study = file.stem.split("_")[0]
        found.append(Source(file.stem, study, file, "region", from_clusters=study == "embryo"))
    for file in sorted(folder.glob("bulb_rep*_layers.csv")):
        replicate = int(file.stem.split("_")[1].removeprefix("rep"))
        found.append(Source(f"bulb_{replicate}", "bulb", replicate, str(file), chosen_on=replicate != 12))
    cortex = folder.parent / "visium" / "dlpfc151510.h5ad"
    if cortex.exists():
        found.append(Source("cortex", "cortex", cortex, "layer", chosen_on=False))
    if not found:
        raise SystemExit(f"Expected sections (*.h5ad, bulb_rep*_layers.csv) in {folder}, found none")
    return found


def run_section(task: Task, split: int, seed: int, n_members: int) -> dict[str, Any]:
    """AUROC of every contender for each k, and the section's log ratios with their bootstrap."""
    section = Section(task, split)
    maps = {name: RIVALS[name](section) for name in TODAY}
    maps |= {f"diffused_expression {scale}": diffused(section, scale) for scale in SCALES}
    half, model = trained(task.half, seed, n_members)
    stcsm.tl.concepts(half, model, genes=named(task))
    stcsm.tl.saliency(half, model)
    maps["stcsm saliency alone"] = half.obsm["concept_saliency"][list(named(task))].to_numpy().T
    chosen: dict[str, Any] = {}
    for scale in SCALES:
        key = f"concept_map_{scale}"
        stcsm.tl.concept_map(half, model, scale=scale, key_added=key)
        maps[f"stcsm {scale}"] = half.obsm[key][list(named(task))].fillna(0.0).to_numpy().T
        chosen[scale] = half.uns["stcsm"][f"concept_map_{key}"]
    scores = {name: score(task, found) for name, found in maps.items()}
    ks = sorted({d.k for d in task.draws})
    rows = {k: list(cells(task, k).values()) for k in ks}
    rng = np.random.default_rng(seed)
    resampled = [
        log_ratios({n: error_by_k(s, rows, rng_rows) for n, s in scores.items()})
        for rng_rows in (resample(rows, rng) for _ in range(BOOTSTRAPS))
    ]
    return {
        "auroc": {n: dict(zip(map(str, ks), (1 - error_by_k(s, rows, rows)).tolist(), strict=True)) for n, s in scores.items()},
        "log_ratio": dict(zip(SCORES, log_ratios({n: error_by_k(s, rows, rows) for n, s in scores.items()}), strict=True)),
        "bootstrap": {name: [round(v[i], 4) for v in resampled] for i, name in enumerate(SCORES)},
        "chosen": chosen,
    }
