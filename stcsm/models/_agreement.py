"""Whether genes mean the same in all sections of a model."""

from __future__ import annotations

import itertools
import logging

import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger(__name__)

COUNTS = 50
"""Genes with so many counts in both sections are compared."""
GENES = 1000
"""At most so many, those of most counts."""
FEWEST = 20
ALIKE = 0.4
"""Correlation below which two sections do not seem to lie on one another."""


def comparable_genes(first: NDArray[np.floating], second: NDArray[np.floating]) -> NDArray[np.intp]:
    """Genes that two sections have many counts of, given the counts (G,) in each: at most 1,000, in order."""
    fewer = np.minimum(first, second)
    many = np.flatnonzero(fewer >= COUNTS)
    return np.sort(many[np.argsort(-fewer[many], kind="stable")[:GENES]])


def agreement(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Correlation of two sections' latents (n, L) of the same genes, over genes and latents together.

    Each latent is centred; latents that are not in use have no variance and so no say.
    """
    a, b = first - first.mean(axis=0), second - second.mean(axis=0)
    return float((a * b).sum() / max(np.sqrt((a * a).sum() * (b * b).sum()), 1e-30))


def warn_of_strangers(agreements: dict[tuple[str, str], float]) -> None:
    """Say which sections do not lie on one another, given the agreement of each pair."""
    for (one, other), r in agreements.items():
        if r < ALIKE:
            logger.warning(
                f"genes lie elsewhere in latent space in section {one!r} than in {other!r} (correlation {r:.2f}): the "
                "sections do not seem to lie on one another, and their maps cannot be trusted; bring them into one "
                "frame (register them), or train a model for each"
            )


def pairs(names: tuple[str, ...]) -> list[tuple[int, int]]:
    """Every two sections."""
    return list(itertools.combinations(range(len(names)), 2))
