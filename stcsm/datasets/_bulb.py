"""A simulated olfactory bulb with known truth."""

from __future__ import annotations

from typing import Literal

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from stcsm import _keys
from stcsm.datasets._bulb_genes import make_genes
from stcsm.datasets._bulb_picture import draw_section
from stcsm.datasets._bulb_tissue import LAYERS, make_tissue, smooth_field
from stcsm.io import spatial_entry

PITCH = 100.0
"""Pixels of the full-resolution picture between two spots."""
MARGIN = 2.0
"""Distances between spots from the outermost spot to the picture's edge."""
DEPTH_LAYER = "Granular Cell Layer"
"""Spots of this layer hold more counts, as they do in replicate 11 (AUROC of the counts alone: 0.90)."""


def simulated_bulb(
    n_spots: int = 600,
    n_genes: int = 2000,
    *,
    seed: int = 0,
    lattice: Literal["square", "hex"] = "square",
    n_markers: int = 30,
    counts_per_spot: float = 2500.0,
    picture: bool = True,
) -> ad.AnnData:
    """Simulate a section of an olfactory bulb.

    Layers lie in rings, a spot near a boundary holds cells of both sides, counts are negative binomial, and the
    depth of a spot (its expected share of the counts) varies smoothly over the tissue and is higher in the granular
    layer, so that the counts alone find that layer: what a method adds must be judged against that. A
    programme that varies smoothly and follows no layer is there to distract.

    Parameters
    ----------
    n_spots
        Spots, at least 50.
    n_genes
        Genes, at least 200.
    seed
        Of everything that is drawn.
    lattice
        Spots on a square array with small offsets, as ST arrays have, or on a hexagonal one, as Visium has.
    n_markers
        Markers of each layer, the strongest first by name (Penk, Doc2g, Slc6a11, Calb2, Kctd12).
    counts_per_spot
        Mean counts of a spot.
    picture
        Draw a section, in the colours of haematoxylin and eosin; without it a white canvas stands in. The counts
        do not depend on it.

    Returns
    -------
    AnnData
        Spots x genes, ``.X`` CSR float32 counts. Truth: ``.obs["layer"]`` (the largest share), ``["depth"]`` (mean 1),
        ``["programme"]`` (mean 0, variance 1); ``.obsm["layer_share"]`` (spots x layers); ``.var["layer"]`` (of a
        marker, else "none"), ``["strength"]`` (fold change), ``["kind"]`` (marker, two_layers, programme, ubiquitous);
        ``.varm["layer_fold"]`` (genes x layers). Coordinates and picture as `stcsm.io.read_st` stores them.
        ``.uns["simulated_bulb"]``: the settings.

    Raises
    ------
    ValueError
        A setting out of range.

    Examples
    --------
    >>> adata = stcsm.datasets.simulated_bulb()
    >>> adata.shape
    (600, 2000)
    """
    _check(n_spots, n_genes, lattice, n_markers, counts_per_spot)
    rng = np.random.default_rng(seed)
    tissue, places = make_tissue(n_spots, lattice, rng)
    reach = float(np.hypot(*places.T).max())
    shares = tissue.layer_shares(places)
    programme = _smooth_across_layers(places, shares, 0.4 * reach, rng)
    depth = np.exp(
        0.6 * shares[:, LAYERS.index(DEPTH_LAYER)]
        + 0.3 * _smooth_across_layers(places, shares, 0.4 * reach, rng)
        + 0.15 * rng.normal(size=n_spots)
    )
    depth /= depth.mean()

    var, fold, abundance = make_genes(n_genes, n_markers, rng)
    counts = _draw_counts(var, fold, abundance, shares, depth, programme, counts_per_spot, rng)

    corner = places.min(axis=0) - MARGIN
    extent = places.max(axis=0) + MARGIN - corner
    array, names, pixels = _place(places - corner, lattice, rng)
    adata = ad.AnnData(X=counts, obs=pd.DataFrame(index=pd.Index(names, dtype=object)), var=var)
    adata.obs[_keys.ARRAY_ROW] = array[:, 1]
    adata.obs[_keys.ARRAY_COL] = array[:, 0]
    adata.obs[_keys.LAYER] = pd.Categorical(np.array(LAYERS)[shares.argmax(axis=1)], categories=list(LAYERS))
    adata.obs["depth"] = depth
    adata.obs["programme"] = programme
    adata.obsm[_keys.SPATIAL_ARRAY] = array
    adata.obsm[_keys.SPATIAL] = pixels
    adata.obsm["layer_share"] = pd.DataFrame(shares, index=adata.obs_names, columns=list(LAYERS))
    adata.varm["layer_fold"] = pd.DataFrame(fold, index=adata.var_names, columns=list(LAYERS))
    drawn, scale = draw_section(tissue, corner, extent, np.random.default_rng([seed, 1])) if picture else (None, 1.0)
    full = (int(np.ceil(extent[0] * PITCH)), int(np.ceil(extent[1] * PITCH)))
    entry = spatial_entry(pixels, np.diag([PITCH, PITCH, 1.0]), drawn, scale / PITCH, full, source="simulated")
    adata.uns[_keys.SPATIAL] = {"simulated_bulb": entry}
    adata.uns["simulated_bulb"] = {
        "n_spots": n_spots,
        "n_genes": n_genes,
        "seed": seed,
        "lattice": lattice,
        "n_markers": n_markers,
        "counts_per_spot": counts_per_spot,
        "depth_layer": DEPTH_LAYER,
    }
    return adata


def _smooth_across_layers(
    places: np.ndarray, shares: np.ndarray, length: float, rng: np.random.Generator, n_draws: int = 16
) -> np.ndarray:
    """Of some smooth random fields the one that the layers explain least, mean 0 and variance 1, at the spots."""
    fields = np.column_stack([smooth_field(rng, length)(places) for _ in range(n_draws)])
    fields = (fields - fields.mean(axis=0)) / fields.std(axis=0)
    fitted = shares @ np.linalg.lstsq(shares, fields, rcond=None)[0]
    return fields[:, np.argmin((fitted**2).mean(axis=0))]


def _draw_counts(
    var: pd.DataFrame,
    fold: np.ndarray,
    abundance: np.ndarray,
    shares: np.ndarray,
    depth: np.ndarray,
    programme: np.ndarray,
    counts_per_spot: float,
    rng: np.random.Generator,
) -> sparse.csr_matrix:
    """Draw negative binomial counts (spots x genes); their expectation is `counts_per_spot` a spot on average."""
    profile = shares @ fold.T  # cells of different layers add up
    members = (var["kind"] == "programme").to_numpy()
    profile[:, members] *= np.exp(programme[:, None] * np.log(var["strength"].to_numpy()[members]))
    profile *= depth[:, None]
    mean = profile * (abundance * counts_per_spot * len(depth) / profile.sum(axis=0))
    shape = 1 / rng.lognormal(np.log(0.2), 0.5, size=len(var))  # a gene's dispersion, as after depth in replicate 11
    counts = rng.poisson(rng.gamma(shape, mean / shape))
    return sparse.csr_matrix(counts, dtype=np.float32)


def _place(places: np.ndarray, lattice: str, rng: np.random.Generator) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Array coordinates, names and pixels of the full-resolution picture."""
    if lattice == "hex":  # Visium counts columns twice, so that neighbours in a row are two apart
        array = np.rint(places / [0.5, np.sqrt(3) / 2])
        return array, [f"{x:.0f}x{y:.0f}" for x, y in array], places * PITCH
    array = np.round(places + rng.normal(0, 0.04, size=places.shape).clip(-0.12, 0.12), 3)
    return array, [f"{x:g}x{y:g}" for x, y in array], array * PITCH


def _check(n_spots: int, n_genes: int, lattice: str, n_markers: int, counts_per_spot: float) -> None:
    if n_spots < 50:
        raise ValueError(f"Expected at least 50 spots, so that every layer has some, found n_spots={n_spots}.")
    if n_genes < 200:
        raise ValueError(f"Expected at least 200 genes, found n_genes={n_genes}.")
    if lattice not in ("square", "hex"):
        raise ValueError(f"Expected lattice to be 'square' or 'hex', found {lattice!r}.")
    most = n_genes // (2 * len(LAYERS))
    if not 1 <= n_markers <= most:
        raise ValueError(
            f"Expected 1 to {most} markers a layer (half the genes at most), found n_markers={n_markers}; "
            "raise n_genes."
        )
    if not counts_per_spot > 0:
        raise ValueError(f"Expected counts_per_spot above 0, found {counts_per_spot}.")
