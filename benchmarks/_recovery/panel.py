"""Labelled sections of several organs and platforms, and two scores over all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

import stcsm
from benchmarks._recovery.ours import named
from benchmarks._recovery.protocol import Task, cells, score
from benchmarks._recovery.rivals import RIVALS, Section, diffused
from stcsm.models import GeneVAE
from stcsm.pp import make_spot_graph

TODAY = ("mean_expression", "score_genes", "smoothed_expression", "pca", "smoothed_pca")
"""Rivals without a spot graph; diffused expression at either scale joins them in the panel score."""
SCALES = ("region", "spot", "auto")
BOOTSTRAPS = 500
LEAST = 1e-4
"""Errors below this count as this."""
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


def run_section(task: Task, split: int, seed: int, half: AnnData, model: GeneVAE) -> dict[str, Any]:
    """AUROC of every contender for each k, and the section's log ratios with their bootstrap over draws."""
    section = Section(task, split)
    maps = {name: RIVALS[name](section) for name in TODAY}
    names = named(task)
    stcsm.tl.concepts(half, model, genes=names)
    stcsm.tl.saliency(half, model)
    maps["stcsm saliency alone"] = half.obsm["concept_saliency"][list(names)].to_numpy().T
    chosen: dict[str, Any] = {}
    for scale in SCALES:
        graph, found = make_spot_graph(task.half, scale, seed=split)
        maps[f"diffused_expression {scale}"] = diffused(section, graph, found)
        stcsm.tl.concept_map(half, model, scale=scale, key_added=scale)
        maps[f"stcsm {scale}"] = half.obsm[scale][list(names)].to_numpy().T
        record = half.uns["stcsm"][f"concept_map_{scale}"]
        chosen[scale] = {
            "scale": str(record["scale"]), "reason": str(record["reason"][0]),
            "smoothing": float(np.mean(record["smoothing"])), "graph": found,
        }  # fmt: skip
    scores = {name: score(task, np.nan_to_num(found)) for name, found in maps.items()}
    ks = sorted({d.k for d in task.draws})
    rows = [list(cells(task, k).values()) for k in ks]
    rng = np.random.default_rng(seed)

    def errors(resampled: bool) -> dict[str, NDArray[np.float64]]:
        own = [[rng.choice(r, len(r)) for r in of] for of in rows] if resampled else rows
        return {n: np.array([1 - np.mean([s[r].mean() for r in of]) for of in own]) for n, s in scores.items()}

    whole = errors(resampled=False)
    again = [log_ratios(errors(resampled=True)) for _ in range(BOOTSTRAPS)]
    return {
        "auroc": {n: {str(k): 1 - float(e) for k, e in zip(ks, error, strict=True)} for n, error in whole.items()},
        "log_ratio": log_ratios(whole),
        "bootstrap": {name: [round(b[name], 4) for b in again] for name in SCORES},
        "chosen": chosen,
        "n": [task.half.n_obs, task.half.n_vars],
    }


def log_ratios(errors: dict[str, NDArray[np.float64]]) -> dict[str, float]:
    """Both scores of a section, means over k; for our saliency alone the mean AUROC."""
    ours = errors["stcsm auto"]
    rivals = [errors[name] for name in (*TODAY, *(f"diffused_expression {scale}" for scale in ("region", "spot")))]
    against = (np.min(rivals, axis=0), errors["diffused_expression auto"])
    ratios = [float(np.mean(np.log(np.maximum(ours, LEAST) / np.maximum(rival, LEAST)))) for rival in against]
    return dict(zip(SCORES, ratios, strict=True))


def show_panel(runs: dict[str, dict[str, Any]], sections: list[Source]) -> dict[str, Any]:
    """Print the table and the scores with their intervals, and return them.

    ``runs`` are those of :func:`run_section` by "name split seed"; a section has the mean over its runs.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for key, run in runs.items():
        found.setdefault(key.split()[0], []).append(run)
    known = [s for s in sections if s.name in found]
    for source in known:
        own = found[source.name]
        note = "".join([", reported only" * (not source.chosen_on), ", labels from clusters" * source.from_clusters])
        score_line = ", ".join(f"{n} {np.mean([r['log_ratio'][n] for r in own]):+.3f}" for n in SCORES)
        print(f"\n{source.name} ({source.study}{note}): {score_line}; {own[0]['chosen']['auto']}")
        for name in own[0]["auroc"]:
            ks = own[0]["auroc"][name]
            print(f"  {name:28s}" + "".join(f"{np.mean([r['auroc'][name][k] for r in own]):8.4f}" for k in ks))
    out: dict[str, Any] = {}
    for group, some in (("sections that defaults are chosen on", [s for s in known if s.chosen_on]), ("all", known)):
        if some:
            out[group] = {name: interval(name, some, found) for name in SCORES}
            for name, (mean, low, high) in out[group].items():
                print(f"{group}: {name} {mean:+.3f} [{low:+.3f}, {high:+.3f}]")
    return out


def interval(name: str, sections: list[Source], found: dict[str, list[dict[str, Any]]]) -> tuple[float, float, float]:
    """Mean over studies, then sections, and its 95% interval: studies are resampled, and draws within sections."""
    studies: dict[str, list[str]] = {}
    for s in sections:
        studies.setdefault(s.study, []).append(s.name)

    def mean(of: list[str], value: Callable[[dict[str, Any]], float]) -> float:
        return float(
            np.mean([np.mean([np.mean([value(r) for r in found[n]]) for n in studies[study]]) for study in of])
        )

    rng = np.random.default_rng(0)
    names = list(studies)
    means = [
        mean(list(rng.choice(names, len(names))), lambda r, b=b: r["bootstrap"][name][b]) for b in range(BOOTSTRAPS)
    ]
    low, high = np.quantile(means, [0.025, 0.975])
    return mean(names, lambda r: r["log_ratio"][name]), float(low), float(high)
