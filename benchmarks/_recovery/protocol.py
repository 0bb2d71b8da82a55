"""The task, the same for every contender: halves of the counts, markers, gene sets, AUROC, paired bootstrap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scanpy as sc
import scipy.sparse as sp
from anndata import AnnData
from numpy.typing import NDArray
from scipy.stats import rankdata

N_MARKERS = 30
SIGNIFICANT = 0.01
"""Largest p value of a marker, not adjusted: labels of few spots have no other markers in half of the counts."""


@dataclass(frozen=True)
class Draw:
    """k marker genes of one tissue layer, the gene set of one concept."""

    layer: str
    k: int
    genes: tuple[str, ...]


@dataclass(frozen=True)
class Task:
    """One section: the half that is mapped, the labels of the spots, and the gene sets that every contender gets."""

    half: AnnData  # X: counts of half B, without the genes that have no count in it
    labels: NDArray[np.str_]  # "" where unlabelled
    layers: tuple[str, ...]
    draws: tuple[Draw, ...]

    @property
    def positives(self) -> NDArray[np.bool_]:
        """Whether a spot lies in a tissue layer, (spots, tissue layers)."""
        return self.labels[:, None] == np.array(self.layers)[None, :]


def thin(counts: sp.csr_matrix, p: float, rng: np.random.Generator) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Split counts binomially: each count goes to the first part with probability p."""
    whole = sp.csr_matrix(counts)
    data = np.rint(whole.data).astype(np.int64)
    if whole.nnz and (np.abs(whole.data - data).max() > 1e-3 or data.min() < 0):
        raise ValueError("Expected raw counts (non-negative whole numbers), found other values; pass their layer")
    first = rng.binomial(data, p)
    parts = []
    for values in (first, data - first):
        part = sp.csr_matrix((values.astype(np.float32), whole.indices.copy(), whole.indptr.copy()), shape=whole.shape)
        part.eliminate_zeros()
        parts.append(part)
    return parts[0], parts[1]


def log_normalised(counts: sp.csr_matrix) -> sp.csr_matrix:
    """log1p of counts scaled to the median depth of the spots."""
    depth = np.asarray(counts.sum(axis=1)).ravel()
    target = np.median(depth[depth > 0])
    scaled = sp.diags(target / np.maximum(depth, 1)) @ counts
    return sp.csr_matrix(scaled).log1p()


def make_task(adata: AnnData, labels: NDArray[np.str_], ks: tuple[int, ...], draws: int, seed: int) -> Task:
    """Split the counts, find markers of the tissue layers in half A, draw gene sets of those with counts in B."""
    rng = np.random.default_rng(seed)
    a, b = thin(adata.X, 0.5, rng)
    layers = tuple(sorted({str(x) for x in labels} - {""}))
    labelled = labels != ""
    if len(layers) < 2:
        raise ValueError(f"Expected labels of at least two tissue layers, found {layers}")
    few = [x for x in layers if (labels == x).sum() < 2]
    if few:
        raise ValueError(f"Expected at least two spots per tissue layer, found fewer in {few}")
    first = AnnData(log_normalised(a)[labelled], var=adata.var[[]].copy())
    first.obs["layer"] = labels[labelled]
    first.obs["layer"] = first.obs["layer"].astype("category")
    sc.tl.rank_genes_groups(first, "layer", method="t-test", n_genes=min(N_MARKERS, first.n_vars))
    seen = np.asarray(b.sum(axis=0)).ravel() > 0
    names = adata.var_names.astype(str)
    # Convolutional models use the array positions.
    positions = [c for c in ("array_row", "array_col") if c in adata.obs]
    half = AnnData(
        b[:, seen], obs=adata.obs[positions].copy(), var=adata.var[[]].loc[np.asarray(adata.var_names)[seen]].copy()
    )
    half.obsm["spatial"] = np.asarray(adata.obsm["spatial"], dtype=float)[:, :3]
    if "spatial_array" in adata.obsm:
        half.obsm["spatial_array"] = np.asarray(adata.obsm["spatial_array"], dtype=float)
    visible = set(names[seen])
    ranked = first.uns["rank_genes_groups"]
    asked: list[Draw] = []
    for layer in layers:
        higher = (ranked["pvals"][layer] < SIGNIFICANT) & (ranked["scores"][layer] > 0)
        markers = [str(g) for g in ranked["names"][layer][higher] if str(g) in visible]
        for k in ks:
            if len(markers) >= k:
                asked += [Draw(layer, k, tuple(rng.choice(markers, k, replace=False))) for _ in range(draws)]
    if missing := set(ks) - {d.k for d in asked}:
        raise ValueError(
            f"Expected a label with at least {min(missing)} significant markers that have counts in half B, found none"
        )
    return Task(half, labels, layers, tuple(asked))


def auroc(values: NDArray[np.floating], positive: NDArray[np.bool_]) -> float:
    """Area under the ROC curve; ties count half."""
    n, m = int(positive.sum()), int((~positive).sum())
    return float((rankdata(values)[positive].sum() - n * (n + 1) / 2) / (n * m))


def score(task: Task, maps: NDArray[np.floating]) -> NDArray[np.float64]:
    """AUROC of each draw's map (draws, spots) over labelled spots."""
    if maps.shape != (len(task.draws), task.half.n_obs):
        raise ValueError(f"Expected maps of shape {(len(task.draws), task.half.n_obs)}, found {maps.shape}")
    bad = ~np.isfinite(maps).all(axis=1)
    if bad.any():
        raise ValueError(f"Expected finite maps, found {int(bad.sum())} of {len(maps)} with NaN or infinite values")
    labelled = task.labels != ""
    inside = {x: (task.labels == x)[labelled] for x in task.layers}
    return np.array([auroc(m[labelled], inside[d.layer]) for m, d in zip(maps, task.draws, strict=True)])


def cells(task: Task, k: int) -> dict[str, NDArray[np.intp]]:
    """Rows of the draws of k genes for each tissue layer that has them."""
    rows: dict[str, list[int]] = {}
    for i, draw in enumerate(task.draws):
        if draw.k == k:
            rows.setdefault(draw.layer, []).append(i)
    return {layer: np.array(own, dtype=np.intp) for layer, own in rows.items()}


def mean_auroc(task: Task, scores: NDArray[np.float64], k: int) -> float:
    """Mean over draws, then over tissue layers."""
    return float(np.mean([scores[rows].mean() for rows in cells(task, k).values()]))


def by_layer(task: Task, scores: NDArray[np.float64], k: int) -> dict[str, float]:
    """Mean over draws for each tissue layer."""
    return {layer: float(scores[rows].mean()) for layer, rows in cells(task, k).items()}


def paired_interval(
    task: Task, ours: NDArray[np.float64], theirs: NDArray[np.float64], k: int, seed: int, n: int = 5000
) -> tuple[float, float, float]:
    """Difference of mean AUROC and its 95% bootstrap interval; draws are resampled within tissue layers, in pairs."""
    rng = np.random.default_rng(seed)
    difference = ours - theirs
    every = list(cells(task, k).values())
    means = np.zeros(n)
    for rows in every:
        values = difference[rows]
        means += values[rng.integers(0, len(rows), size=(n, len(rows)))].mean(axis=1)
    means /= len(every)
    low, high = np.quantile(means, [0.025, 0.975])
    centre = float(np.mean([difference[rows].mean() for rows in every]))
    return centre, float(low), float(high)


def gene_weights(task: Task) -> sp.csr_matrix:
    """Gene sets as a matrix (draws, genes of the half): 1/k for each gene of a set."""
    number = {g: i for i, g in enumerate(task.half.var_names.astype(str))}
    rows = np.repeat(np.arange(len(task.draws)), [len(d.genes) for d in task.draws])
    columns = np.array([number[g] for d in task.draws for g in d.genes])
    values = np.concatenate([np.full(len(d.genes), 1 / len(d.genes)) for d in task.draws])
    return sp.csr_matrix((values, (rows, columns)), shape=(len(task.draws), task.half.n_vars))
