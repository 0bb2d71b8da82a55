"""Genes of the simulated bulb: names, kinds, strengths and abundances."""

from __future__ import annotations

import numpy as np
import pandas as pd

from stcsm.datasets._bulb_tissue import LAYERS

# known markers of each layer lend their names to the strongest simulated ones, so that examples read alike on both
LEADING = {
    "Granular Cell Layer": ("Penk", "Pcp4", "Meis2", "Gng4", "Nrgn", "Sez6"),
    "Mitral Cell Layer": ("Doc2g", "Slc17a7", "Cdhr1", "Reln", "Tmem163", "Gabra1"),
    "Outer Plexiform Layer": ("Slc6a11", "Rasl10b", "Kcnj10", "Pla2g7", "Luzp2", "Aldoc"),
    "Glomerular Layer": ("Calb2", "Th", "Nrsn1", "Zic2", "Eomes", "Apold1"),
    "Olfactory Nerve Layer": ("Kctd12", "Fabp7", "Omp", "S100a5", "Apod", "Frzb"),
}
TWO_LAYERS = ((0, 1), (1, 2), (1, 3), (2, 3), (3, 4), (0, 3))
"""Pairs of layers that share genes, by place in `LAYERS`."""
KINDS = ("marker", "two_layers", "programme", "ubiquitous")
STRONGEST, WEAKEST = 8.0, 1.5
"""Fold changes of the strongest and the weakest marker."""
SPREAD = 1.8
"""Standard deviation of log abundance; 2 in replicate 11."""


def make_genes(n_genes: int, n_markers: int, rng: np.random.Generator) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
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
    for name in LAYERS:  # abundance must not follow strength, but the strongest marker of a layer is a fair example
        members = np.flatnonzero(layer == name)
        log_abundance[members] = rng.permutation(np.linspace(-1.5, 1.5, len(members))) * SPREAD
        log_abundance[members[0]] = SPREAD
    abundance = np.exp(log_abundance)

    order = rng.permutation(n_genes)
    var = pd.DataFrame(
        {
            "layer": pd.Categorical(layer, categories=[*LAYERS, "none"]),
            "strength": strength,
            "kind": pd.Categorical(kind, categories=list(KINDS)),
        },
        index=pd.Index(_names(layer, rng), dtype=object),
    )
    return var.iloc[order], fold[order], (abundance / abundance.sum())[order]


def _names(layer: np.ndarray, rng: np.random.Generator) -> list[str]:
    """Names that look like mouse genes', each once."""
    taken = {name for names in LEADING.values() for name in names}
    left = {name: list(names) for name, names in LEADING.items()}
    names = []
    for where in layer:
        if left.get(where):
            names.append(left[where].pop(0))
            continue
        while (name := _name(rng)) in taken:
            pass
        taken.add(name)
        names.append(name)
    return names


def _name(rng: np.random.Generator) -> str:
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
