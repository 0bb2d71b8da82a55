"""Concepts whose maps differ between two regions, conditions or sections."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData

from stcsm import _keys
from stcsm._lazy import column
from stcsm._text import as_text, by_its_text, did_you_mean, is_missing
from stcsm.concepts import (
    benjamini_hochberg,
    differential_concepts,
    neighbour_block_correlation,
    region_contrast,
    spatial_blocks,
)
from stcsm.models import GeneVAE
from stcsm.tl._gene_sets import label_texts
from stcsm.tl._random_concepts import against_random, at_rows, recorded_attribution
from stcsm.tl._state import check_concepts, entry, read_maps, write_entry

logger = logging.getLogger(__name__)

REST = "rest"
SPOTS_A_BLOCK = 20
BLOCKS_A_REGION = 6
COARSE = 0.01
"""A warning is logged where permutations allow no smaller p than this."""
ALIKE = 0.3
"""Neighbouring blocks that correlate more than this are too small to be permuted."""


def differential(
    adata: AnnData,
    groupby: str,
    group: str,
    reference: str = REST,
    concepts: Sequence[str] | str | None = None,
    *,
    model: GeneVAE | None = None,
    n_random: int | None = None,
    key: str = _keys.CONCEPT_SALIENCY,
    spots_a_block: int | str = "auto",
    batch_key: str | None = None,
    spatial_key: str = _keys.SPATIAL,
    n_permutations: int = 9999,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare concepts between two sets of spots: a region against another, a condition against another.

    Neighbouring spots are correlated, so a test that permutes spots finds differences everywhere. Here compact blocks
    of neighbouring spots, each within one of the two sets, are permuted; the statistic is Welch's t over block means.

    Regions that differ in most genes differ in most concepts. With ``model``, the difference of each concept is also
    compared with those of random gene sets matched in size, abundance and dispersion
    (:func:`stcsm.tl.significance`): is it larger than that of similar genes?

    Parameters
    ----------
    adata
        With maps (:func:`stcsm.tl.saliency`, :func:`stcsm.tl.concept_map`).
    groupby
        Column of ``adata.obs``.
    group, reference
        Two of its values; ``reference="rest"`` is all other labelled spots.
    concepts
        Names; None is all that have a map.
    model
        The model that made the maps; asks for the comparison with random genes.
    n_random
        Random gene sets for each concept: by default 1000 for methods that are linear in the concept, where they cost
        next to nothing; other methods map each by itself, and the number has to be given.
    key
        Table of ``.obsm`` to compare; for the comparison with random genes one of :func:`stcsm.tl.saliency`.
    spots_a_block
        Mean number of spots in a block; ``"auto"``: 20, or fewer where a region is too small for 6 such blocks.
    batch_key
        Column of ``adata.obs`` that tells sections apart, whose coordinates may overlap; a block lies within one. By
        default the one that ``adata`` was set up with (``batch_key``), if it was.
    spatial_key
        Key of the coordinates in ``.obsm``.
    n_permutations
        Random permutations of blocks; all of them where there are no more than that.
    seed
        Of blocks, permutations and random genes.

    Returns
    -------
    DataFrame with a row for each concept, smallest p first: ``mean_group``, ``mean_reference`` over blocks,
    ``difference`` in the units of the map; ``t``; two-sided ``p``, and ``q`` (Benjamini-Hochberg over the concepts);
    ``block_correlation`` between neighbouring blocks of a region: well above 0 (0.3), blocks are too small and p is too
    small. With ``model``: ``z_random``, the difference in standard deviations from the mean of the random sets'
    (positive: more in ``group`` than theirs); two-sided ``p_random``, at least ``1 / (1 + n_random)``; and ``q_random``
    over the concepts. Encoded label profiles have no genes that others could stand in for; they get NaN.

    Writes
    ------
    ``adata.uns["stcsm"]["differential"]``
        The table, the numbers of blocks and permutations, the smallest p that was possible, and the settings.

    Raises
    ------
    ValueError
        If the column, a value or a concept is unknown, the two sets are the same, there are no maps, a region has
        fewer than two blocks, or (with ``model``) the maps are not its saliency maps or ``n_random`` has to be given.

    Examples
    --------
    >>> stcsm.tl.differential(adata, "layer", "granule", "mitral", model=model)
    """
    if model is not None:
        check_concepts(adata, model)
        other = key in _keys.CONCEPT_TABLES and key != _keys.CONCEPT_SALIENCY
        if other or (key in adata.obsm and not entry(adata, _keys.record("saliency", key))):
            raise ValueError(
                f"Expected maps of stcsm.tl.saliency to compare with random genes, found {key!r}, whose maps are not "
                "made of the concept's vector alone; leave model= out"
            )
        if n_random is not None and n_random < 1:
            raise ValueError(f"Expected n_random of 1 or more, found {n_random}")
    elif n_random is not None:
        raise ValueError("Expected model= to map random genes with, found n_random= alone; pass the model")
    in_a, in_b = _regions(adata, groupby, group, reference)
    if spatial_key not in adata.obsm:
        raise ValueError(f"Expected coordinates in adata.obsm[{spatial_key!r}], found {sorted(map(str, adata.obsm))}")
    chosen, maps = read_maps(adata, key, concepts)
    known = np.isfinite(maps).all(axis=0)
    in_a, in_b = in_a & known, in_b & known
    smaller = int(min(in_a.sum(), in_b.sum()))
    if smaller < 2:
        raise ValueError(f"Expected two spots or more with a value in {group!r} and in {reference!r}, found {smaller}")
    size = _block_size(spots_a_block, smaller)
    batch_key = _keys.sections_key(adata) if batch_key is None else batch_key
    sections = _sections(adata, batch_key)
    groups = np.where(in_a, 2 * sections, np.where(in_b, 2 * sections + 1, -1))
    coords = np.asarray(adata.obsm[spatial_key], dtype=np.float64)[:, :2]
    blocks = spatial_blocks(coords, groups, spots_a_block=size, seed=seed)
    random: dict[str, np.ndarray] = {}
    if model is not None:  # before the permutations: it may have something to refuse
        onto = region_contrast(in_a, in_b, blocks)[model.spots][:, None]
        how = recorded_attribution(adata, model, key)
        tests, where = against_random(adata, model, how, chosen, n_random, seed=seed, onto=onto)
        random = dict.fromkeys(("z_random", "p_random", "q_random"), np.full(len(chosen), np.nan))
        if tests is not None:
            z_random, p_random = (at_rows(values[:, 0], where) for values in (tests.z, tests.p))
            random = {"z_random": z_random, "p_random": p_random, "q_random": benjamini_hochberg(p_random)}
            n_random = tests.n_random
    found = differential_concepts(maps, in_a, in_b, blocks, n_permutations=n_permutations, seed=seed)
    used = groups >= 0
    alike = neighbour_block_correlation(maps[:, used], blocks[used], groups[used], coords[used])
    means = [_block_mean(maps, blocks, side) for side in (in_a, in_b)]
    result = pd.DataFrame(
        {
            "mean_group": means[0],
            "mean_reference": means[1],
            "difference": found.difference,
            "t": found.t,
            "p": found.p,
            "q": benjamini_hochberg(found.p),
            "block_correlation": alike,
            **random,
        },
        index=pd.Index([c.key for c in chosen]),
    )
    result = result.sort_values("p", kind="stable")
    if np.nanmedian(np.append(alike, -1.0) if np.isnan(alike).all() else alike) > ALIKE:
        logger.warning(
            f"neighbouring blocks of {size} spots correlate by {np.nanmedian(alike):.2f} (median over concepts), so p "
            f"is too small; take larger blocks: spots_a_block={2 * size}"
        )
    if found.smallest_p > COARSE:
        logger.warning(
            f"{found.n_blocks[0]} against {found.n_blocks[1]} blocks allow no p below {found.smallest_p:.3f}; take "
            "smaller blocks (spots_a_block=) or larger regions"
        )
    write_entry(
        adata,
        "differential",
        {
            "table": result,
            "groupby": groupby,
            "group": str(group),
            "reference": str(reference),
            "key": key,
            "n_blocks": np.array(found.n_blocks),
            "spots_a_block": size,
            "n_permutations": found.n_permutations,
            "smallest_p": found.smallest_p,
            "seed": seed,
            **({} if n_random is None else {"n_random": n_random}),
            **({} if batch_key is None else {"batch_key": batch_key}),
        },
    )
    return result


def _regions(adata: AnnData, groupby: str, group: str, reference: str) -> tuple[np.ndarray, np.ndarray]:
    text = label_texts(adata, groupby).fillna("")
    values = sorted(set(text) - {""})
    group, reference = by_its_text(as_text(group), values), by_its_text(as_text(reference), values)
    for side in (group, reference):
        if side not in values and not (side is reference and side == REST):
            why = ", a text that stands for no label; rename that label" if is_missing(side) else ""
            raise ValueError(
                f"Expected values of adata.obs[{groupby!r}], found {side!r}{why}; there are {values}"
                f"{did_you_mean(side, values)}"
            )
    if group == reference:
        raise ValueError(f"Expected two different regions, found {group!r} twice")
    in_a = (text == group).to_numpy()
    in_b = ((text != "") & ~in_a).to_numpy() if reference not in values else (text == reference).to_numpy()
    return in_a, in_b


def _block_size(asked: int | str, smaller: int) -> int:
    if asked == "auto":
        return max(1, min(SPOTS_A_BLOCK, smaller // BLOCKS_A_REGION))
    if isinstance(asked, bool) or not isinstance(asked, (int, np.integer)) or asked < 1:
        raise ValueError(f"Expected spots_a_block to be 'auto' or a whole number of 1 or more, found {asked!r}")
    return int(asked)


def _sections(adata: AnnData, batch_key: str | None) -> np.ndarray:
    if batch_key is None:
        return np.zeros(adata.n_obs, dtype=int)
    if batch_key not in adata.obs:
        raise ValueError(f"Expected a column of adata.obs as batch_key, found {batch_key!r}")
    return np.asarray(pd.factorize(column(adata.obs, batch_key).astype(str))[0])


def _block_mean(maps: np.ndarray, blocks: np.ndarray, side: np.ndarray) -> np.ndarray:
    """Mean over blocks of a side, (K,)."""
    own = blocks[side]
    return np.mean([maps[:, side][:, own == block].mean(axis=1) for block in np.unique(own)], axis=0)
