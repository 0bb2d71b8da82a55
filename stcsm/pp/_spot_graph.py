"""The spot graph: spots that look alike should get similar values."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from anndata import AnnData
from scipy.sparse import csr_array, csr_matrix, issparse
from tqdm.auto import tqdm

from stcsm import _keys
from stcsm._features import features_taken, spots_taken
from stcsm._layers import counts_matrix
from stcsm._lazy import check_writable, column
from stcsm.pp._sections import section_names
from stcsm.space import (
    COMPONENTS,
    NEIGHBOURS,
    SPOT_WIDTHS,
    STEPS,
    RegionWidth,
    ScratchMatrix,
    check_coords,
    check_counts,
    choose_graph,
    count_totals,
    depth_factors,
    gather,
    irregularity,
    is_searched_exactly,
    join_blocks,
    log_normalise,
    nearest_neighbour_distance,
    nearest_spots,
    region_width,
    selected_blocks,
    similarity_graph,
    some_spots,
    spatial_filter,
    spot_components,
)

SCALES = ("auto", "region", "spot")
ENOUGH_SPOTS = 5000
"""Settings are chosen on at most so many spots, in whole patches; the graph is then built on all."""


def spot_graph(
    adata: AnnData,
    scale: str = "auto",
    width: float | str = "auto",
    n_pcs: int | str = "auto",
    n_neighbors: int | str = "auto",
    steps: int | str = "auto",
    *,
    layer: str | None = None,
    spatial_key: str = _keys.SPATIAL,
    batch_key: str | None = None,
    seed: int = 0,
    progress: bool = False,
) -> None:
    """Join each spot to the spots that look like it.

    Log-normalised counts are smoothed over space, spots are placed by their leading principal components, and each is
    joined to its nearest ``n_neighbors`` with Gaussian weights; rows sum to one. A map is carried over the graph
    ``steps`` times (:func:`stcsm.space.diffuse`).

    Counts that lie in a file, or are lazy, are read in blocks. Where those of a section take more than 256 MiB, they
    go through a scratch file (in the folder for temporary files: TMPDIR), and memory grows with spots, not with counts.

    Parameters
    ----------
    adata
        Spots x genes with raw counts, in memory, backed or lazy.
    scale
        ``"region"``: which region does a spot belong to? ``"spot"``: which spots (cells) are meant? ``"auto"``:
        spots for single cells whose kinds lie together (their surroundings explain 70% of what is real in them), as in
        an embryo, where kinds of cells are the regions; otherwise regions, as in a cortex, whose layers mix kinds of
        cells, and on arrays whose spots hold many cells.
    width
        Width of the smoothing in nearest-neighbour distances, whatever the scale. ``"auto"``: for regions, the width at
        which neighbours predict a spot's leading components best (half of it where a spot holds many cells); for spots,
        by held-out counts.
    n_pcs, n_neighbors, steps
        Components, neighbours and steps; ``"auto"`` takes those that predict held-out counts best: counts are thinned
        70/30, the graph is built on the 70% and carries them, and predicts the 30%. No label is looked at.
    layer
        Layer of the counts; None is ``.X``.
    spatial_key
        Key of the coordinates in ``.obsm``.
    batch_key
        Column of ``.obs`` that names each spot's section, where there are several. Smoothing and joining stay within a
        section: neighbours in coordinates are none on the tissue, and what sets sections apart as wholes (staining,
        depth, day) would decide which spots look alike. Settings are chosen on the section with most counts and hold
        for all.
    seed
        Seed of the thinning.
    progress
        Show a progress bar.

    Writes
    ------
    ``adata.obsp["stcsm_spot_graph"]``
        (S, S) sparse; the row of a spot without a count is the spot itself.
    ``adata.uns["stcsm"]["spot_graph"]``
        The settings, why ``"auto"`` took the scale, how the width was found, the gain over the mean profile, in nats a
        held-out count, and how the nearest were searched: ``"exact"`` or, of large sections, ``"descent"``.

    Raises
    ------
    ValueError
        If a setting is out of range, there are no coordinates, fewer than three spots have counts, or ``adata`` is a
        view of a backed AnnData.
    """
    check_writable(adata)
    graph, record = make_spot_graph(
        adata, scale, width, n_pcs, n_neighbors, steps, layer=layer, spatial_key=spatial_key,
        batch_key=batch_key, seed=seed, progress=progress,
    )  # fmt: skip
    adata.obsp[_keys.SPOT_GRAPH] = graph
    adata.uns[_keys.UNS] = {**adata.uns.get(_keys.UNS, {}), "spot_graph": record}


def make_spot_graph(
    adata: AnnData,
    scale: str = "auto",
    width: float | str = "auto",
    n_pcs: int | str = "auto",
    n_neighbors: int | str = "auto",
    steps: int | str = "auto",
    *,
    layer: str | None = None,
    spatial_key: str = _keys.SPATIAL,
    batch_key: str | None = None,
    seed: int = 0,
    progress: bool = False,
) -> tuple[csr_matrix, dict[str, Any]]:
    """Graph (S, S) and record of :func:`spot_graph`, without writing them."""
    if scale not in SCALES:
        raise ValueError(f"Expected scale to be one of {SCALES}, found {scale!r}")
    if spatial_key not in adata.obsm:
        raise ValueError(f"Expected coordinates in adata.obsm[{spatial_key!r}], found {sorted(map(str, adata.obsm))}")
    matrix = counts_matrix(adata, layer)
    check_counts(matrix, adata.obs_names, adata.var_names)
    genes = features_taken(adata)
    if not genes.all():
        matrix = matrix[:, np.flatnonzero(genes)]
    depth, _ = count_totals(matrix)
    used = np.flatnonzero((depth > 0) & spots_taken(adata))
    sections = _sections(adata, batch_key, used)
    for name, own in sections.items():
        if len(own) < 3:
            of = "" if batch_key is None else f" in section {name!r}"
            raise ValueError(f"Expected at least three spots with counts{of}, found {len(own)}")
    check_coords(np.asarray(adata.obsm[spatial_key])[used])
    coords = np.asarray(adata.obsm[spatial_key], dtype=np.float64)
    asked = {"n_pcs": n_pcs, "n_neighbors": n_neighbors, "steps": steps}
    richest = max(sections.values(), key=lambda own: depth[own].sum())
    record = _choose(matrix, richest, coords[richest], scale, width, asked, seed, progress)
    exact = all(is_searched_exactly(len(own), record["n_pcs"]) for own in sections.values())
    record["search"] = "exact" if exact else "descent"
    graphs = [_join(_values(matrix, own, depth[own]), coords[own], record, seed) for own in sections.values()]
    graph = _to_all_spots(graphs, list(sections.values()), adata.n_obs)
    origin = _origin(adata, layer, spatial_key, batch_key)
    return graph, {"scale": scale, "seed": seed, **origin, **record}  # record: the scale that "auto" took


def _sections(adata: AnnData, batch_key: str | None, used: np.ndarray) -> dict[str, np.ndarray]:
    """Spots with counts of each section; of the whole where none are named."""
    labels = section_names(adata, batch_key)
    if labels is None:
        return {"": used}
    return {str(name): used[labels[used] == name] for name in np.unique(labels)}


def _values(matrix: Any, spots: np.ndarray, depth: np.ndarray) -> csr_array | ScratchMatrix:
    """Log-normalised counts (n, G) of some spots; of a large file in a scratch file."""
    factor = depth_factors(depth)
    blocks = (
        (row, column, log_normalise(block, factor[row : row + block.shape[0]]))
        for row, column, block in selected_blocks(matrix, spots)
    )
    shape = (len(spots), matrix.shape[1])
    return join_blocks(blocks, shape) if isinstance(matrix, np.ndarray) or issparse(matrix) else gather(blocks, shape)


def _choose(
    matrix: Any,
    spots: np.ndarray,
    coords: np.ndarray,
    scale: str,
    width: float | str,
    asked: dict[str, int | str],
    seed: int,
    progress: bool,
) -> dict[str, Any]:
    """Width, components, neighbours and steps for a section, and how they were found."""
    most = {"n_pcs": min(len(spots), matrix.shape[1]) - 1, "n_neighbors": len(coords) - 1, "steps": 1000}
    default = {"n_pcs": COMPONENTS, "n_neighbors": NEIGHBOURS, "steps": STEPS}
    candidates: Any = {name: _candidates(name, asked[name], default[name], most[name]) for name in asked}
    unit = nearest_neighbour_distance(coords)
    some = some_spots(coords, ENOUGH_SPOTS, seed)
    part = join_blocks(selected_blocks(matrix, spots[some]), (len(some), matrix.shape[1]))
    part_coords = coords[some]
    record: dict[str, Any] = {}
    widths: tuple[float, ...] = SPOT_WIDTHS
    if width == "auto" and scale != "spot":
        found = region_width(part, part_coords, unit=unit, irregular=irregularity(coords), seed=seed)
        if scale == "auto":
            record |= {"asked": scale, "scale": found.scale, "reason": _reason(found)}
        if "spot" not in (scale, record.get("scale")):
            widths = (float(found.width),)
            record |= {"cells": found.cells, "best_width": float(found.best)}
    elif width != "auto":
        if scale == "auto":
            record["scale"] = "region"
        if isinstance(width, (str, bool)) or not np.isfinite(width) or width < 0:
            raise ValueError(f"Expected width of 0 or more, or 'auto', found {width!r}")
        widths = (float(width),)
    if len(widths) == 1 and all(len(c) == 1 for c in candidates.values()):
        return record | {"width": widths[0], **{name: int(c[0]) for name, c in candidates.items()}}
    with tqdm(desc="spot graph", disable=not progress, leave=False) as bar:
        tried = choose_graph(part, part_coords, unit=unit, widths=widths, seed=seed, tick=bar.update, **candidates)
    record["gain"] = float(tried[0].gain)
    record |= {"width": float(tried[0].width), **{name: int(getattr(tried[0], name)) for name in candidates}}
    return record


def _reason(found: RegionWidth) -> str:
    """Why ``"auto"`` took the scale."""
    if found.cells == "many":
        return "spots hold many cells each"
    kinds = "lie together" if found.scale == "spot" else "are mixed"
    return f"kinds of cells {kinds}: surroundings explain {found.shared:.0%} of what is real in a cell"


def _join(values: csr_array | ScratchMatrix, coords: np.ndarray, settings: dict[str, Any], seed: int) -> csr_array:
    """The graph of one section; a small one has as many components and neighbours as it can."""
    width = settings["width"]
    unit = nearest_neighbour_distance(coords)
    smoother = spatial_filter(coords, width, unit=unit, dtype=np.float32) if width else None
    n_pcs = min(settings["n_pcs"], max(min(values.shape) - 1, 1))
    n_neighbors = min(settings["n_neighbors"], len(coords) - 1)
    scores = spot_components(values, n_pcs, smoother, seed=seed)
    return similarity_graph(nearest_spots(scores, n_neighbors, seed=seed), n_neighbors)


def _origin(adata: AnnData, layer: str | None, spatial_key: str, batch_key: str | None) -> dict[str, str]:
    """What a graph is made from: spots in their order, name of the layer, coordinates, sections."""
    digest = hashlib.sha256("\n".join(map(str, adata.obs_names)).encode(errors="replace"))
    coords = np.ascontiguousarray(np.asarray(adata.obsm[spatial_key], dtype=np.float64))
    digest.update(coords.tobytes())
    if batch_key is not None and batch_key in adata.obs:
        digest.update("\n".join(column(adata.obs, batch_key).astype(str)).encode(errors="replace"))
    origin = {"layer": layer or "", "spatial_key": spatial_key, "spots": digest.hexdigest()[:16]}
    return origin if batch_key is None else {**origin, "batch_key": batch_key}


def same_spots(
    adata: AnnData, record: dict[str, Any], layer: str | None, spatial_key: str, batch_key: str | None = None
) -> bool:
    """Whether a graph was made for these spots, layer, coordinates and sections; counts are not compared."""
    origin = _origin(adata, layer, spatial_key, batch_key)
    return all(record.get(name, "") == origin.get(name, "") for name in ("batch_key", *origin))


def _candidates(name: str, value: int | str, default: tuple[int, ...], most: int) -> tuple[int, ...]:
    if value == "auto":
        return tuple(sorted({min(v, most) for v in default}))
    if isinstance(value, (str, bool)) or int(value) != value or not 1 <= value <= most:
        raise ValueError(f"Expected {name} to be 'auto' or a whole number from 1 to {most}, found {value!r}")
    return (int(value),)


def _to_all_spots(graphs: list[csr_array], sections: list[np.ndarray], n: int) -> csr_matrix:
    """Graphs of the sections as one (n, n); a spot that is in none is joined to itself."""
    each = np.ones(n, dtype=np.int64)
    for own, graph in zip(sections, graphs, strict=True):
        each[own] = np.diff(graph.indptr)
    pointers = np.concatenate([[0], np.cumsum(each)])
    kind = np.int32 if pointers[-1] <= np.iinfo(np.int32).max else np.int64
    # What no section's rows fill are the rows of spots that are in none.
    columns, weights = np.empty(pointers[-1], dtype=kind), np.ones(pointers[-1], dtype=graphs[0].dtype)
    rest = np.setdiff1d(np.arange(n), np.concatenate(sections))
    columns[pointers[rest]] = rest
    for own, graph in zip(sections, graphs, strict=True):
        where = np.repeat(pointers[own] - graph.indptr[:-1], each[own]) + np.arange(graph.nnz)
        columns[where], weights[where] = own[graph.indices], graph.data
    return csr_matrix((weights, columns, pointers.astype(kind)), shape=(n, n))
