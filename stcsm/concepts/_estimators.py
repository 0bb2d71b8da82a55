"""From the members of a concept to a direction: one small class an estimator, one line each in `ESTIMATORS`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol

from scipy import sparse

from ._cav import CAV
from ._contrast import Contrast, Mean
from ._latent import FloatArray, LatentSpace


class Estimator(Protocol):
    """Turns weighted gene sets into concept vectors, for any number of sets at once."""

    needs_rest: bool
    """Whether genes outside the set are needed (a set of all genes is then refused)."""

    def vectors(self, space: LatentSpace, up: sparse.csr_array, down: sparse.csr_array) -> FloatArray:
        """Concept vectors (K, L) from n genes, all of them finite, and weights (K, n) of up and of down genes.

        Rows of ``up`` and ``down`` hold non-negative weights that sum to one, or nothing where a set has no such gene.
        The null of `random_concepts` calls this with thousands of rows, so it must not loop over them.
        """
        ...

    def info(self, space: LatentSpace, up: FloatArray, down: FloatArray, seed: int) -> dict[str, Any]:
        """Report on one concept beside its vector: ``up`` and ``down`` are single rows (n,) of weights."""
        ...


ESTIMATORS: Mapping[str, Estimator] = MappingProxyType({"contrast": Contrast(), "mean": Mean(), "cav": CAV()})
"""Name -> estimator. A new one is one class and one line here."""


def get_estimator(name: str) -> Estimator:
    """Return the estimator of that name, or an error that lists them all."""
    if name not in ESTIMATORS:
        raise ValueError(f"Expected an estimator out of {', '.join(ESTIMATORS)}, found {name!r}.")
    return ESTIMATORS[name]
