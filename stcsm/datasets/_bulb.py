"""A simulated olfactory bulb with known truth: spots, genes and counts."""

from __future__ import annotations

from typing import Literal

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from stcsm import _keys
from stcsm.datasets._bulb_tissue import LAYERS, draw_section, make_tissue, smooth_field
from stcsm.io import spatial_entry

PITCH = 100.0
"""Pixels of the full-resolution image between two spots."""
MARGIN = 2.0
"""Distances between spots from the outermost spot to the image's edge."""
DEPTH_LAYER = "Granular Cell Layer"
"""Spots of this tissue layer hold more counts, as they do in replicate 11 (AUROC of the counts alone: 0.90)."""
# known markers of each layer lend their names to the strongest simulated ones, so that examples read alike on
# simulated and real data
LEADING = {
    "Granular Cell Layer": ("Penk", "Pcp4", "Meis2", "Gng4", "Nrgn", "Sez6"),
    "Mitral Cell Layer": ("Doc2g", "Slc17a7", "Cdhr1", "Reln", "Tmem163", "Gabra1"),
    "Outer Plexiform Layer": ("Slc6a11", "Rasl10b", "Kcnj10", "Pla2g7", "Luzp2", "Aldoc"),
    "Glomerular Layer": ("Calb2", "Th", "Nrsn1", "Zic2", "Eomes", "Apold1"),
    "Olfactory Nerve Layer": ("Kctd12", "Fabp7", "Omp", "S100a5", "Apod", "Frzb"),
}
TWO_LAYERS = ((0, 1), (1, 2), (1, 3), (2, 3), (3, 4), (0, 3))
"""Pairs of layers that share genes, by index in `LAYERS`."""
KINDS = ("marker", "two_layers", "programme", "ubiquitous")
STRONGEST, WEAKEST = 8.0, 1.5
"""Fold changes of the strongest and the weakest marker."""
SPREAD = 1.8
"""Standard deviation of log abundance; 2 in replicate 11."""


def simulated_bulb(
    n_spots: int = 600,
    n_genes: int = 2000,
    *,
    seed: int = 0,
    lattice: Literal["square", "hex"] = "square",
    n_markers: int = 30,
    counts_per_spot: float = 2500.0,
    image: bool = True,
) -> ad.AnnData:
    """Simulate a section of an olfactory bulb.

    Tissue layers lie in rings, a spot near a boundary holds cells of both sides, counts are negative binomial, and the
    depth of a spot (its expected share of the counts) varies smoothly over the tissue and is higher in the granular
    layer, so that the counts alone find that layer: what a method adds must be judged against that. A
    programme of genes that varies smoothly and follows no tissue layer serves as a distractor.

    Parameters
    ----------
    n_spots
        Spots, at least 50.
    n_genes
        Genes, at least 200.
    seed
        Of everything that is random.
    lattice
        Spots on a square array with small offsets, as ST arrays have, or on a hexagonal one, as Visium has.
    n_markers
        Markers of each tissue layer, the strongest first by name (Penk, Doc2g, Slc6a11, Calb2, Kctd12).
    counts_per_spot
        Mean counts of a spot.
    image
        Draw a section in the colours of haematoxylin and eosin; without it a white canvas is stored. The counts do not
        depend on it.

    Returns
    -------
    AnnData
        Spots x genes, ``.X`` CSR float32 counts. Truth: ``.obs["layer"]`` (the largest share), ``["depth"]`` (mean 1),
        ``["programme"]`` (mean 0, variance 1); ``.obsm["layer_share"]`` (spots x layers); ``.var["layer"]`` (of a
        marker, else "none"), ``["strength"]`` (fold change), ``["kind"]`` (marker, two_layers, programme, ubiquitous);
        ``.varm["layer_fold"]`` (genes x layers). Coordinates and image as `stcsm.io.read_st` stores them.
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
    tissue, xy = make_tissue(n_spots, lattice, rng)
    reach = float(np.hypot(*xy.T).max())
    shares = tissue.layer_shares(xy)
    programme = _smooth_across_layers(xy, shares, 0.4 * reach, rng)
    depth = np.exp(
        0.6 * shares[:, LAYERS.index(DEPTH_LAYER)]
        + 0.3 * _smooth_across_layers(xy, shares, 0.4 * reach, rng)
        + 0.15 * rng.normal(size=n_spots)
    )
    depth /= depth.mean()

    var, fold, abundance = _make_genes(n_genes, n_markers, rng)
    counts = _draw_counts(var, fold, abundance, shares, depth, programme, counts_per_spot, rng)

    corner = xy.min(axis=0) - MARGIN
    extent = xy.max(axis=0) + MARGIN - corner
    array, names, pixels = _on_array(xy - corner, lattice, rng)
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
    drawn, scale = draw_section(tissue, corner, extent, np.random.default_rng([seed, 1])) if image else (None, 1.0)
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


def _smooth_across_layers(
    xy: np.ndarray, shares: np.ndarray, length: float, rng: np.random.Generator, n_draws: int = 16
) -> np.ndarray:
    """Values at the spots of the one of some smooth random fields that the layers explain least; mean 0, variance 1."""
    fields = np.column_stack([smooth_field(rng, length)(xy) for _ in range(n_draws)])
    fields = (fields - fields.mean(axis=0)) / fields.std(axis=0)
    fitted = shares @ np.linalg.lstsq(shares, fields, rcond=None)[0]
    return fields[:, np.argmin((fitted**2).mean(axis=0))]


def _make_genes(n_genes: int, n_markers: int, rng: np.random.Generator) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Genes and what they do.

    Returns
    -------
    var : DataFrame (n_genes)
        ``layer`` (of a marker, else "none"), ``strength`` (fold change in its layer or layers; for genes of the
        programme, per standard deviation of it; 1 for others) and ``kind``.
    fold : (n_genes, number of layers)
        Fold change in each layer.
    abundance : (n_genes,)
        Share of all counts; sums to one.
    """
    n_pairs, n_programme = round(0.02 * n_genes), round(0.03 * n_genes)
    n_rest = n_genes - len(LAYERS) * n_markers - n_pairs - n_programme
    kind = np.repeat(KINDS, [len(LAYERS) * n_markers, n_pairs, n_programme, n_rest])
    layer = np.full(n_genes, "none", dtype=object)
    layer[kind == "marker"] = np.repeat(LAYERS, n_markers)
    strength = np.ones(n_genes)
    strength[kind == "marker"] = np.tile(np.geomspace(STRONGEST, WEAKEST, n_markers), len(LAYERS))
    strength[kind == "two_layers"] = np.geomspace(6.0, WEAKEST, n_pairs)
    strength[kind == "programme"] = np.geomspace(2.5, 1.3, n_programme)

    fold = np.ones((n_genes, len(LAYERS)))
    for i in np.flatnonzero(kind == "marker"):
        fold[i, LAYERS.index(layer[i])] = strength[i]
    for n, i in enumerate(np.flatnonzero(kind == "two_layers")):
        fold[i, list(TWO_LAYERS[n % len(TWO_LAYERS)])] = strength[i]

    log_abundance = rng.normal(0, SPREAD, size=n_genes)
    for name in LAYERS:  # abundance must not follow strength, but the strongest marker of a layer should be common
        markers = np.flatnonzero(layer == name)
        log_abundance[markers] = rng.permutation(np.linspace(-1.5, 1.5, len(markers))) * SPREAD
        log_abundance[markers[0]] = SPREAD
    abundance = np.exp(log_abundance)

    order = rng.permutation(n_genes)
    var = pd.DataFrame(
        {
            "layer": pd.Categorical(layer, categories=[*LAYERS, "none"]),
            "strength": strength,
            "kind": pd.Categorical(kind, categories=list(KINDS)),
        },
        index=pd.Index(_gene_names(layer, rng), dtype=object),
    )
    return var.iloc[order], fold[order], (abundance / abundance.sum())[order]


def _gene_names(layer: np.ndarray, rng: np.random.Generator) -> list[str]:
    """Distinct names that look like those of mouse genes."""
    taken = {name for names in LEADING.values() for name in names}
    left = {name: list(names) for name, names in LEADING.items()}
    names = []
    for where in layer:
        if left.get(where):
            names.append(left[where].pop(0))
            continue
        while (name := _gene_name(rng)) in taken:
            pass
        taken.add(name)
        names.append(name)
    return names


def _gene_name(rng: np.random.Generator) -> str:
    def pick(text: str) -> str:
        return text[int(rng.integers(len(text)))]

    number = int(rng.integers(1, 900))
    match int(rng.integers(6)):
        case 0:
            return f"{rng.choice(['Zfp', 'Tmem', 'Ccdc', 'Gm', 'Trim'])}{number}"
        case 1:
            return f"Slc{1 + number % 45}a{1 + number % 17}"
        case 2:
            return f"Fam{number}{pick('abc')}"
        case 3:
            return f"{number * 11117 % 10**7:07d}{pick('ABCDEFGHIJKLMNOP')}{1 + number % 24:02d}Rik"
        case _:
            stem = pick("ABCDEFGHKLMNPRSTV") + pick("aeiou") + pick("bcdfgklmnprst") + pick("bcdgklmnpt")
            return f"{stem}{1 + number % 14}" + (pick("abl") if number % 5 == 0 else "")


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
    moved = (var["kind"] == "programme").to_numpy()
    profile[:, moved] *= np.exp(programme[:, None] * np.log(var["strength"].to_numpy()[moved]))
    profile *= depth[:, None]
    mean = profile * (abundance * counts_per_spot * len(depth) / profile.sum(axis=0))
    shape = 1 / rng.lognormal(np.log(0.2), 0.5, size=len(var))  # a gene's dispersion, as after depth in replicate 11
    counts = rng.poisson(rng.gamma(shape, mean / shape))
    return sparse.csr_matrix(counts, dtype=np.float32)


def _on_array(xy: np.ndarray, lattice: str, rng: np.random.Generator) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Array coordinates, spot names and pixels of the full-resolution image."""
    if lattice == "hex":  # Visium counts columns twice, so that neighbours in a row are two apart
        array = np.rint(xy / [0.5, np.sqrt(3) / 2])
        return array, [f"{x:.0f}x{y:.0f}" for x, y in array], xy * PITCH
    array = np.round(xy + rng.normal(0, 0.04, size=xy.shape).clip(-0.12, 0.12), 3)
    return array, [f"{x:g}x{y:g}" for x, y in array], array * PITCH
