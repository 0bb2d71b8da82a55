"""Methods in use today, and diffused expression: each returns one map per draw, (draws, spots)."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import scanpy as sc
import scipy.sparse as sp
from anndata import AnnData
from numpy.typing import NDArray
from scipy.sparse import csr_array
from sklearn.utils.extmath import randomized_svd

from benchmarks._recovery.protocol import Task, gene_weights, log_normalised
from stcsm.pp import make_spot_graph
from stcsm.space import (
    HeldOutCounts,
    choose_components,
    diffuse,
    log_normalise,
    nearest_spots,
    similarity_graph,
    spatial_filter,
    spot_components,
)

Array = NDArray[np.float64]

WIDTHS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
"""In nearest-neighbour distances."""
PCS = (5, 10, 20)
GRAPHS = ((15, 1), (30, 1), (50, 1), (50, 2), (50, 3), (50, 8))
"""Neighbours and steps of diffused expression that are tried in hindsight."""


class Section:
    """The half that is mapped, in the forms that the rivals need; each is computed once."""

    def __init__(self, task: Task, seed: int) -> None:
        self.task, self.seed = task, seed
        self.half = task.half
        self.counts = sp.csr_matrix(task.half.X)
        self.coords = np.asarray(task.half.obsm["spatial"], dtype=float)
        self.gene_weights = gene_weights(task)

    @cached_property
    def log_expression(self) -> sp.csr_matrix:
        """Spots x genes."""
        return log_normalised(self.counts)

    @cached_property
    def standardised_expression(self) -> Array:
        """Standardised log-expression, mean over the genes of each draw, (draws, spots)."""
        dense = np.asarray(self.log_expression.todense(), dtype=np.float32)
        dense -= dense.mean(axis=0)
        spread = dense.std(axis=0)
        dense /= np.where(spread > 0, spread, 1)
        return np.asarray(self.gene_weights @ dense.T, dtype=np.float64)

    @cached_property
    def held_out(self) -> HeldOutCounts:
        """Counts of this half thinned 70/30, by which the settings of every contender are chosen."""
        return HeldOutCounts(csr_array(self.counts), seed=self.seed)

    def filter(self, width: float) -> csr_array:
        """Gaussian over spatial neighbours."""
        return spatial_filter(self.coords, width, dtype=np.float32)

    @cached_property
    def best_width(self) -> float:
        """Width of plain spatial smoothing that predicts held-out counts best."""
        held = self.held_out
        gain = {w: held.gain(self.filter(w) @ held.training, self.filter(w) @ held.depth)[0] for w in WIDTHS}
        return max(gain, key=lambda w: gain[w])

    def best_pcs(self, width: float) -> int:
        """Number of components of the (smoothed) depth-corrected input that predicts held-out counts best."""
        return choose_components(self.held_out, self.filter(width) if width else None, candidates=PCS, seed=self.seed)

    def pca_maps(self, n: int, width: float = 0.0) -> Array:
        """Maps of a concept in the principal components of the genes: the saliency of a linear encoder."""
        scores, axes = self._pca(width)
        centred = scores[:, :n] - scores[:, :n].mean(axis=0)
        return np.asarray((self.gene_weights @ centred) @ axes[:n], dtype=np.float64)

    def _pca(self, width: float) -> tuple[Array, Array]:
        if width not in self._pca_done:
            totals = np.asarray(self.counts.sum(axis=0)).ravel()
            depth = np.asarray(self.counts.sum(axis=1)).ravel()
            depth = depth / depth.sum()
            dense = np.asarray(self.counts.todense(), dtype=np.float32)
            u = np.log1p(dense / (np.outer(depth, totals).astype(np.float32) + 0.5))
            if width:
                u = self.filter(width) @ u
            u -= u.mean(axis=1, keepdims=True)
            left, size, right = randomized_svd(np.ascontiguousarray(u.T), max(PCS), random_state=self.seed)
            self._pca_done[width] = (left * size, right)
        return self._pca_done[width]

    @cached_property
    def _pca_done(self) -> dict[float, tuple[Array, Array]]:
        return {}


def mean_expression(s: Section) -> Array:
    """Mean log-normalised expression of the genes."""
    return np.asarray((s.gene_weights @ s.log_expression.T).todense(), dtype=np.float64)


def smoothed_expression(s: Section) -> Array:
    """Mean standardised expression smoothed over spatial neighbours."""
    return _smoothed(s, s.best_width)


def _smoothed(s: Section, width: float) -> Array:
    return np.asarray((s.filter(width) @ s.standardised_expression.T).T)


def diffused_expression(s: Section) -> Array:
    """Smoothed standardised expression diffused over the spot graph; held-out counts choose all settings."""
    return diffused(s, *make_spot_graph(s.half, seed=s.seed))


def diffused(s: Section, graph: sp.csr_matrix, settings: dict[str, Any]) -> Array:
    """Smoothed standardised expression diffused over a spot graph with its settings."""
    return np.asarray(diffuse(csr_array(graph), _smoothed(s, settings["width"]).T, settings["steps"]).T)


def score_genes(s: Section) -> Array:
    """Scanpy's score of a gene set."""
    adata = AnnData(s.log_expression, obs=s.half.obs[[]].copy(), var=s.half.var[[]].copy())
    maps = np.empty((len(s.task.draws), adata.n_obs))
    for i, draw in enumerate(s.task.draws):
        sc.tl.score_genes(adata, list(draw.genes), random_state=s.seed)
        maps[i] = adata.obs["score"]
    return maps


def ulm(s: Section) -> Array:
    """decoupler's univariate linear model."""
    import decoupler as dc

    net = pd.DataFrame(
        [(f"draw{i:06d}", gene, 1.0) for i, d in enumerate(s.task.draws) for gene in d.genes],
        columns=["source", "target", "weight"],
    )
    dense = pd.DataFrame(
        np.asarray(s.log_expression.todense()), index=s.half.obs_names.astype(str), columns=s.half.var_names.astype(str)
    )
    with contextlib.redirect_stdout(io.StringIO()):
        scores, _ = dc.mt.ulm(dense, net, tmin=1, empty=False)
    return scores[[f"draw{i:06d}" for i in range(len(s.task.draws))]].to_numpy().T


def pca(s: Section) -> Array:
    """PCA concept; components chosen by held-out counts."""
    return s.pca_maps(s.best_pcs(0.0))


def smoothed_pca(s: Section) -> Array:
    """PCA concept on input smoothed over spatial neighbours."""
    return s.pca_maps(s.best_pcs(s.best_width), s.best_width)


def hindsight(s: Section) -> dict[str, Callable[[], Array]]:
    """Every setting of the rivals that have settings; the benchmark prints the best one next to the rival."""
    rows: dict[str, Callable[[], Array]] = {}
    for width in WIDTHS:
        rows[f"smoothed_expression width={width:g}"] = lambda w=width: _smoothed(s, w)
        for n in PCS:
            name = f"smoothed_pca width={width:g} pcs={n}" if width else f"pca pcs={n}"
            rows[name] = lambda n=n, w=width: s.pca_maps(n, w)
    values = log_normalise(s.counts)
    for width in (0.5, 1.0, 2.0):
        for n in (5, 10):
            for k, t in GRAPHS:
                if k >= s.half.n_obs:
                    continue

                def run(width: float = width, n: int = n, k: int = k, t: int = t) -> Array:
                    scores = spot_components(values, n, s.filter(width), seed=s.seed)
                    graph = similarity_graph(nearest_spots(scores, k), k)
                    return np.asarray(diffuse(graph, _smoothed(s, width).T, t).T)

                rows[f"diffused_expression width={width:g} pcs={n} k={k} t={t}"] = run
    return rows


RIVALS: dict[str, Callable[[Section], Array]] = {
    "mean_expression": mean_expression,
    "score_genes": score_genes,
    "ulm": ulm,
    "smoothed_expression": smoothed_expression,
    "pca": pca,
    "smoothed_pca": smoothed_pca,
    "diffused_expression": diffused_expression,
}
