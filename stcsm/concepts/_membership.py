"""Gene sets against the genes there are: one sparse row of weights a set, and what was found of each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from ._gene_names import GeneIndex
from ._gene_sets import GeneSet, gene_set
from ._latent import FloatArray


@dataclass(frozen=True)
class Membership:
    """Weights of K gene sets over G genes.

    Attributes
    ----------
    names
        Names of the K sets kept.
    weights
        (K, G) sparse; columns are genes.
    n_given, n_found, n_usable
        (K,) distinct genes of each set; those that are there; those that also have an embedding.
    missing
        For each set kept, its genes that are not there.
    skipped
        Name -> reason, of sets that cannot be a concept (``unusable="skip"``).
    """

    names: tuple[str, ...]
    weights: sparse.csr_array
    n_given: NDArray[np.intp]
    n_found: NDArray[np.intp]
    n_usable: NDArray[np.intp]
    missing: tuple[tuple[str, ...], ...]
    skipped: dict[str, str]

    @property
    def fraction(self) -> FloatArray:
        """(K,) share of each set that is there."""
        return self.n_found / self.n_given


def membership(
    sets: Sequence[GeneSet],
    var_names: Iterable[object] | GeneIndex,
    *,
    usable: ArrayLike | None = None,
    missing: str = "report",
    unusable: str = "error",
    ignore_case: bool = False,
) -> Membership:
    """Match gene sets to genes.

    Parameters
    ----------
    sets
        K0 sets, see `gene_sets` and `read_gmt`.
    var_names
        (G,) names, or a ready `GeneIndex`.
    usable
        (G,) True for genes with an embedding; None for all.
    missing
        ``"error"`` refuses a set with a gene that is not there (right for sets typed by hand), ``"report"`` goes on
        with the rest (right for collections made for other data).
    unusable
        What to do with a set none of whose genes is usable, or that covers all usable genes: ``"error"``, or ``"skip"``
        to leave it out and say so in ``skipped``.
    ignore_case
        Match names that differ in case only.

    Raises
    ------
    ValueError
        As said above; or if every set had to be skipped.
    """
    if unusable not in ("error", "skip"):
        raise ValueError(f"Expected unusable='error' or 'skip', found {unusable!r}.")
    index = var_names if isinstance(var_names, GeneIndex) else GeneIndex(var_names)
    can_use = np.ones(len(index), bool) if usable is None else np.asarray(usable, dtype=bool)
    if can_use.shape != (len(index),):
        raise ValueError(f"Expected one entry of usable for each of the {len(index)} genes, found {can_use.shape}.")
    rows: list[NDArray[np.intp]] = []
    data: list[FloatArray] = []
    kept: list[tuple[str, int, int, int, tuple[str, ...]]] = []
    skipped: dict[str, str] = {}
    hint = ""
    for given in sets:
        try:
            s = gene_set(given.name, index.ignoring_case(given.genes), given.weights) if ignore_case else given
            match = index.match(s.genes, missing=missing)
        except ValueError as error:
            raise ValueError(f"Concept {given.name!r}: {error}") from None
        n_usable = int(can_use[match.index].sum())
        reason = _reason(s, match.index.size, n_usable, int(can_use.sum()))
        if reason:
            if match.missing and not hint:
                hint = f" {index.explain(match.missing)}"
            if unusable == "error":
                raise ValueError(f"Concept {s.name!r}: {reason}{hint}")
            skipped[s.name] = reason
            continue
        weight = dict(zip(s.genes, s.weights, strict=True))
        rows.append(match.index)
        data.append(np.fromiter((weight[name] for name in match.found), float, len(match.found)))
        kept.append((s.name, len(weight), match.index.size, n_usable, match.missing))
    if not kept:
        first = "; ".join(f"{name!r}: {reason}" for name, reason in list(skipped.items())[:1])
        raise ValueError(
            f"Expected at least one gene set that can be a concept, found none of {len(sets)}. {first}{hint}"
        )
    indptr = np.concatenate([[0], np.cumsum([r.size for r in rows])])
    weights = sparse.csr_array((np.concatenate(data), np.concatenate(rows), indptr), shape=(len(kept), len(index)))
    weights.sort_indices()
    columns = list(zip(*kept, strict=True))
    counts = [np.array(column, dtype=np.intp) for column in columns[1:4]]
    return Membership(columns[0], weights, counts[0], counts[1], counts[2], columns[4], skipped)


def _reason(s: GeneSet, n_found: int, n_usable: int, n_all: int) -> str:
    """Why a set cannot be a concept; empty where it can."""
    if n_found == 0:
        return f"expected at least one of its {len(s)} genes among the genes there are, found none."
    if n_usable == 0:
        return f"expected at least one gene with counts, found that its {n_found} genes have none."
    if n_usable == n_all and (np.all(s.weights > 0) or np.all(s.weights < 0)):
        return f"expected genes outside the set to compare it with, found that it covers all {n_all} usable genes."
    return ""
