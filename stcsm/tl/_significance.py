"""Saliency maps against those of random concepts, and how coherent they are in space."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse
from scipy.spatial import cKDTree

from stcsm import _keys
from stcsm.models import GeneVAE
from stcsm.tl._random_concepts import against_random, at_rows, recorded_attribution
from stcsm.tl._state import check_concepts, read_maps, write_significance

logger = logging.getLogger(__name__)

NEIGHBOURS = 6
GRAPH = "spatial_connectivities"
LEVEL = 0.05


def significance(
    adata: AnnData,
    model: GeneVAE,
    n_random: int | None = None,
    concepts: Sequence[str] | str | None = None,
    *,
    key: str = _keys.CONCEPT_SALIENCY,
    alternative: str = "two-sided",
    statistic: str = "energy",
    seed: int = 0,
    progress: bool = False,
) -> None:
    """Test saliency maps against those of concepts made from random genes.

    Every map shows a spatial pattern. For each concept, random sets of genes are drawn that match it gene by gene in
    abundance and dispersion (and so in size, weights and signs), made into concepts and mapped in the same way.
    p is the share of maps, the concept's own among them, that are at least as extreme: at a spot, as far from the
    random maps' mean; of a whole map, by ``statistic``. It is exact where the concept's genes were themselves picked at
    random (Phipson & Smyth 2010).

    Parameters
    ----------
    adata
        With saliency maps (:func:`stcsm.tl.saliency`). The maps that are tested are recomputed from the model, by the
        same method, genes and parameters; Moran's I is that of the stored maps.
    model
        The model that the concepts were made with.
    n_random
        Random concepts for each concept: the smallest p is ``1 / (1 + n_random)``. By default 1000 for methods that are
        linear in the concept, where they cost well under a second; other methods map each random concept by itself, and
        the number has to be given (without it, the error says what it would cost).
    concepts
        Names; None is all that have a map. Encoded label profiles have no genes that others could stand in for; they
        get NaN.
    key
        Table of ``.obsm`` that holds the maps (``key_added`` of :func:`stcsm.tl.saliency`).
    alternative
        At a spot, ``"two-sided"``: far from the random maps' mean in either direction; ``"greater"``: above it.
    statistic
        Of a whole map: ``"energy"``, mean squared deviation; ``"max"``, the largest.
    seed
        Of the random genes. The same seed gives a concept the same p values, whatever is tested beside it.
    progress
        Show a progress bar.

    Writes
    ------
    ``adata.obsm["concept_saliency_pval"]``, ``adata.obsm["concept_saliency_qval"]``
        DataFrames (S, K): p of every spot, and its Benjamini-Hochberg q over the spots of that concept; NaN at spots
        without a count.
    ``adata.uns["stcsm"]["significance"]``
        ``"table"``, a DataFrame with a row for each concept: ``p`` of the whole map; ``q`` over the concepts tested
        together; ``strength``, the statistic over the median of its random concepts' (1: like any other);
        ``smallest_p`` that was possible; ``n_genes``; ``spots_q05``, the share of spots with q below 0.05;
        ``morans_i``, spatial coherence of the map (squidpy). Beside it the settings.

    For another ``key``: ``adata.obsm["<key>_pval"]``, ``adata.obsm["<key>_qval"]`` and
    ``adata.uns["stcsm"]["significance_<key>"]``.

    With several members of an ensemble, the same random genes make maps in each; each member's maps are divided by
    their typical size and averaged. A combination with several included concepts tests whether they are together
    stronger than random concepts together; its excluded concepts stay as they are.

    Raises
    ------
    ValueError
        If there are no maps, they come from another model or with parameters that cannot be stored, a name is unknown,
        or ``n_random`` has to be given.
    """
    check_concepts(adata, model)
    how = recorded_attribution(adata, model, key)
    chosen, maps = read_maps(adata, key, concepts)
    found, where = against_random(
        adata, model, how, chosen, n_random, seed=seed, alternative=alternative, statistic=statistic, progress=progress
    )
    if found is None:
        raise ValueError(
            "Expected a concept made of genes, found encoded label profiles alone, which no random genes stand in for; "
            "test the marker genes of the labels: estimator='contrast'"
        )
    if (where < 0).any():
        logger.warning(f"{int((where < 0).sum())} encoded label profiles are not tested: they have no genes")
    coords = np.asarray(adata.obsm[model.setup.spatial_key], dtype=np.float64)[model.spots]
    spots_q05 = np.nanmean(np.where(np.isnan(found.q), np.nan, found.q < LEVEL), axis=1)
    table = pd.DataFrame(
        {
            "p": at_rows(found.concept_p, where),
            "q": at_rows(found.concept_q, where),
            "strength": at_rows(found.strength, where),
            "smallest_p": at_rows(found.smallest_p, where),
            "n_genes": [len(c.genes) for c in chosen],
            "spots_q05": at_rows(spots_q05, where),
            "morans_i": _morans_i(coords, maps[:, model.spots].T, [own for _, own in model.parts()]),
        },
        index=pd.Index([c.key for c in chosen]),
    )
    p, q = (model.to_all_spots(at_rows(values, where), counted=True).T for values in (found.p, found.q))
    settings = {
        "n_random": found.n_random,
        "alternative": alternative,
        "statistic": statistic,
        "seed": seed,
        "method": how.method,
        "fingerprint": model.fingerprint(),
    }
    write_significance(adata, key, chosen, p, q, {"table": table, **settings})


def _morans_i(coords: np.ndarray, maps: np.ndarray, parts: Sequence[Any] = (slice(None),)) -> np.ndarray:
    """Moran's I of maps over the graph of each spot's six nearest neighbours.

    Parameters
    ----------
    coords
        (S, 2 or 3).
    maps
        (S, K), finite.
    parts
        Spots of each section; neighbours lie in one section.

    Returns
    -------
    (K,) about 0 for a map without pattern, near 1 for a smooth one; NaN for a constant map.
    """
    import squidpy as sq

    n_spots, n_maps = maps.shape
    if n_spots < 3:
        return np.full(n_maps, np.nan)
    pairs = [_neighbours(coords[part], np.arange(n_spots)[part]) for part in parts]
    spot, other = (np.concatenate(side) for side in zip(*pairs, strict=True))
    graph = sparse.csr_matrix((np.ones(len(spot)), (spot, other)), shape=(n_spots, n_spots))
    names = [f"map{i}" for i in range(n_maps)]
    shell = AnnData(obs=pd.DataFrame(maps, columns=names, index=pd.RangeIndex(n_spots).astype(str)))
    shell.obsp[GRAPH] = graph
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constant maps, which get NaN below
        table = sq.gr.spatial_autocorr(
            shell, connectivity_key=GRAPH, genes=names, mode="moran", attr="obs", n_perms=None, copy=True,
            show_progress_bar=False,
        )  # fmt: skip
    found = table["I"].reindex(names).to_numpy(dtype=np.float64)
    constant = np.ptp(maps, axis=0) <= 1e-12 * np.abs(maps).max(axis=0)
    return np.where(constant, np.nan, found)


def _neighbours(coords: np.ndarray, spots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each spot of a section, and each of its nearest."""
    k = min(NEIGHBOURS, len(spots) - 1)
    if k < 1:
        return spots[:0], spots[:0]
    near = np.asarray(cKDTree(coords).query(coords, k=k + 1)[1])
    # Among spots of equal coordinates, the spot itself need not come first, or be there at all.
    itself = near == np.arange(len(near))[:, None]
    others = np.take_along_axis(near, np.argsort(itself, axis=1, kind="stable")[:, :k], axis=1)
    return np.repeat(spots, k), spots[others.ravel()]
