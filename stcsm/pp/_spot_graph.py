"""The spot graph: spots that look alike should get alike values."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from anndata import AnnData
from scipy.sparse import csr_array, csr_matrix
from tqdm.auto import tqdm

from stcsm import _keys
from stcsm.space import (
    COMPONENTS,
    NEIGHBOURS,
    SPOT_WIDTHS,
    STEPS,
    check_coords,
    check_counts,
    choose_graph,
    irregularity,
    log_normalise,
    nearest_neighbour_distance,
    nearest_spots,
    region_width,
    similarity_graph,
    some_spots,
    spatial_filter,
    spot_components,
)

SCALES = ("region", "spot")
ENOUGH_SPOTS = 5000
"""Settings are chosen on at most so many spots, in whole patches; the graph is then built on all."""


def spot_graph(
    adata: AnnData,
    scale: str = "region",
    width: float | str = "auto",
    n_pcs: int | str = "auto",
    n_neighbors: int | str = "auto",
    steps: int | str = "auto",
    *,
    layer: str | None = None,
    spatial_key: str = _keys.SPATIAL,
    seed: int = 0,
    progress: bool = False,
) -> None:
    """Join each spot to the spots that look like it.

    Log-normalised counts are smoothed over space, spots are placed by their leading principal components, and each is
    joined to its nearest ``n_neighbors`` with Gaussian weights; rows sum to one. A map is carried over the graph
    ``steps`` times (:func:`stcsm.space.diffuse`).

    Parameters
    ----------
    adata
        Spots x genes with raw counts.
    scale
        ``"region"``: which region does a place belong to? ``"spot"``: which spots (cells) are meant?
    width
        Width of the smoothing in nearest-neighbour distances. ``"auto"``: for regions, the width at which neighbours
        predict a spot's leading components best (half of it where a spot holds many cells); for spots, by held-out
        counts.
    n_pcs, n_neighbors, steps
        Components, neighbours and steps; ``"auto"`` takes those that predict held-out counts best: counts are thinned
        70/30, the graph is built on the 70% and carries them, and predicts the 30%. No label is looked at.
    layer
        Layer of the counts; None is ``.X``.
    spatial_key
        Key of the coordinates in ``.obsm``.
    seed
        Seed of the thinning.
    progress
        Show a progress bar.

    Writes
    ------
    ``adata.obsp["stcsm_spot_graph"]``
        (S, S) sparse; the row of a spot without a count is the spot itself.
    ``adata.uns["stcsm"]["spot_graph"]``
        The settings, how the width was found, and the gain over the mean profile, in nats a held-out count.

    Raises
    ------
    ValueError
        If a setting is out of range, there are no coordinates, or fewer than three spots have counts.
    """
    graph, record = make_spot_graph(
        adata, scale, width, n_pcs, n_neighbors, steps, layer=layer, spatial_key=spatial_key, seed=seed,
        progress=progress,
    )  # fmt: skip
    adata.obsp[_keys.SPOT_GRAPH] = graph
    adata.uns[_keys.UNS] = {**adata.uns.get(_keys.UNS, {}), "spot_graph": record}


def make_spot_graph(
    adata: AnnData,
    scale: str = "region",
    width: float | str = "auto",
    n_pcs: int | str = "auto",
    n_neighbors: int | str = "auto",
    steps: int | str = "auto",
    *,
    layer: str | None = None,
    spatial_key: str = _keys.SPATIAL,
    seed: int = 0,
    progress: bool = False,
) -> tuple[csr_matrix, dict[str, Any]]:
    """Graph (S, S) and record of :func:`spot_graph`, without writing them."""
    if scale not in SCALES:
        raise ValueError(f"Expected scale to be one of {SCALES}, found {scale!r}")
    if layer is not None and layer not in adata.layers:
        raise ValueError(f"Expected a layer named {layer!r}, found {sorted(map(str, adata.layers))}")
    if spatial_key not in adata.obsm:
        raise ValueError(f"Expected coordinates in adata.obsm[{spatial_key!r}], found {sorted(map(str, adata.obsm))}")
    matrix = adata.X if layer is None else adata.layers[layer]
    if matrix is None:
        raise ValueError("Expected counts in adata.X, found None; name the layer that holds them: layer=...")
    check_counts(matrix, adata.obs_names, adata.var_names)
    whole = csr_array(matrix if not hasattr(matrix, "to_memory") else matrix.to_memory())
    used = np.flatnonzero(np.asarray(whole.sum(axis=1)).ravel() > 0)
    if len(used) < 3:
        raise ValueError(f"Expected at least three spots with counts, found {len(used)}")
    counts = csr_array(whole[used])
    coords = check_coords(np.asarray(adata.obsm[spatial_key])[used])
    candidates = {
        "n_pcs": _candidates("n_pcs", n_pcs, COMPONENTS, min(counts.shape) - 1),
        "n_neighbors": _candidates("n_neighbors", n_neighbors, NEIGHBOURS, len(used) - 1),
        "steps": _candidates("steps", steps, STEPS, 1000),
    }
    unit = nearest_neighbour_distance(coords)
    some = some_spots(coords, ENOUGH_SPOTS, seed)
    part, part_coords = csr_array(counts[some]), coords[some]
    record: dict[str, Any] = {"scale": scale, "seed": seed, **_place(adata, layer, spatial_key)}
    if width == "auto" and scale == "region":
        found = region_width(part, part_coords, unit=unit, irregular=irregularity(coords), seed=seed)
        widths: tuple[float, ...] = (float(found.width),)
        record |= {"cells": found.cells, "best_width": float(found.best)}
    elif width == "auto":
        widths = SPOT_WIDTHS
    else:
        if isinstance(width, (str, bool)) or not np.isfinite(width) or width < 0:
            raise ValueError(f"Expected width of 0 or more, or 'auto', found {width!r}")
        widths = (float(width),)
    settled = len(widths) == 1 and all(len(c) == 1 for c in candidates.values())
    if settled:
        best_width, best = widths[0], {name: c[0] for name, c in candidates.items()}
    else:
        with tqdm(desc="spot graph", disable=not progress, leave=False) as bar:
            tried = choose_graph(part, part_coords, unit=unit, widths=widths, seed=seed, tick=bar.update, **candidates)
        top = tried[0]
        best_width, best = top.width, {"n_pcs": top.n_pcs, "n_neighbors": top.n_neighbors, "steps": top.steps}
        record["gain"] = float(top.gain)
    smoother = spatial_filter(coords, best_width, unit=unit, dtype=np.float32) if best_width else None
    scores = spot_components(log_normalise(counts), best["n_pcs"], smoother, seed=seed)
    graph = similarity_graph(nearest_spots(scores, best["n_neighbors"]), best["n_neighbors"])
    settings = {"width": float(best_width), **{name: int(value) for name, value in best.items()}}
    return _to_all_spots(graph, used, adata.n_obs), record | settings


def _place(adata: AnnData, layer: str | None, spatial_key: str) -> dict[str, str]:
    """What a graph was made for: spots in their order, counts, coordinates."""
    digest = hashlib.sha256("\n".join(map(str, adata.obs_names)).encode(errors="replace"))
    coords = np.ascontiguousarray(np.asarray(adata.obsm[spatial_key], dtype=np.float64))
    digest.update(coords.tobytes())
    return {"layer": layer or "", "spatial_key": spatial_key, "spots": digest.hexdigest()[:16]}


def same_spots(adata: AnnData, record: dict[str, Any], layer: str | None, spatial_key: str) -> bool:
    """Whether the graph of a record was made for these spots, counts and coordinates."""
    return all(record.get(name) == value for name, value in _place(adata, layer, spatial_key).items())


def _candidates(name: str, value: int | str, default: tuple[int, ...], most: int) -> tuple[int, ...]:
    if value == "auto":
        return tuple(sorted({min(v, most) for v in default}))
    if isinstance(value, (str, bool)) or int(value) != value or not 1 <= value <= most:
        raise ValueError(f"Expected {name} to be 'auto' or a whole number from 1 to {most}, found {value!r}")
    return (int(value),)


def _to_all_spots(graph: csr_array, used: np.ndarray, n: int) -> csr_matrix:
    coo = graph.tocoo()
    rest = np.setdiff1d(np.arange(n), used)
    rows, cols = np.concatenate([used[coo.row], rest]), np.concatenate([used[coo.col], rest])
    return csr_matrix((np.concatenate([coo.data, np.ones(len(rest), coo.data.dtype)]), (rows, cols)), shape=(n, n))
