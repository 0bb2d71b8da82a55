"""Gene names and gene sets against the genes of the data."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from stcsm._text import as_text, is_missing
from stcsm.concepts._gene_sets import GeneSet, gene_set
from stcsm.concepts._latent import FloatArray

_VERSIONED = re.compile(r"^(ENS[A-Z]*[EFGPTR]\d{11})\.\d+$")
MAX_NAMED = 5


@dataclass(frozen=True)
class GeneMatch:
    """What was found of the names asked for.

    Attributes
    ----------
    index
        (n,) row of every name found, in the order asked for; a name given twice occurs once.
    found
        The n names found.
    missing
        Names not found, in order.
    duplicates
        Names that were given more than once.
    ambiguous
        Names that stand for several rows (:meth:`GeneIndex.rows`); ``index`` has the one with the most counts, or the
        first where counts are not known.
    """

    index: NDArray[np.intp]
    found: tuple[str, ...]
    missing: tuple[str, ...] = ()
    duplicates: tuple[str, ...] = ()
    ambiguous: tuple[str, ...] = ()
    suggestions: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Missing name -> (closest known name, why it is not the same); the first few missing names only."""

    @property
    def fraction(self) -> float:
        """Share of the distinct names asked for that was found; NaN where none was asked for."""
        n = len(self.found) + len(self.missing)
        return len(self.found) / n if n else float("nan")


class GeneIndex:
    """Gene names of the data, indexed once to match any number of gene sets against.

    Parameters
    ----------
    names
        (G,) gene names, or the entries of a ``.var`` column to match on (then missing entries may be None or NaN).
        Identifiers of any type are known by their text.
    what
        How messages call them, such as ``"gene names of this AnnData"`` or ``"entries of .var['symbol']"``.
    totals
        (G,) counts of the genes, or a function that returns them, called when they are first needed. With it, a name
        may stand for several rows, of which the one with the most counts is taken (:meth:`rows`).

    Raises
    ------
    ValueError
        If there are no names at all.
    """

    def __init__(
        self,
        names: Iterable[object],
        what: str = "gene names of this AnnData",
        totals: ArrayLike | Callable[[], ArrayLike] | None = None,
    ) -> None:
        self.names = [name if isinstance(name, str) else "" if is_missing(name) else as_text(name) for name in names]
        self.what = what
        self._totals = totals
        self._row: dict[str, int] = {}
        self._repeated: dict[str, list[int]] = {}
        for row, name in enumerate(self.names):
            if name in self._row:
                self._repeated.setdefault(name, [self._row[name]]).append(row)
            elif name:
                self._row[name] = row
        if not self._row:
            raise ValueError(f"Expected {what} to match on, found no text in {len(self.names)} entries.")

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def totals(self) -> FloatArray | None:
        """(G,) counts of the genes; None where they are not known."""
        if self._totals is None:
            return None
        return np.asarray(self._totals() if callable(self._totals) else self._totals, dtype=np.float64)

    def rows(self, name: str) -> list[int]:
        """Rows that ``name`` stands for, the one to take first: that with the most counts, of equal ones the first.

        Several rows may have one name in a symbol column. Where counts are known, the rows that
        ``var_names_make_unique`` has renamed (``Gene``, ``Gene-1``, ``Gene-2``) count as one name, too, and so do, for
        a name that no row has, those that differ from it in case only. One row is taken, not the sum: a model knows
        genes, not sums of genes.
        """
        named = [name] if name in self._row else self.alike(name)
        if self._totals is not None:
            named = [one for first in named for one in (first, *self._made_unique(first))]
        found = sorted({row for one in named for row in self._repeated.get(one, [self._row[one]])})
        if len(found) < 2 or self.totals is None:
            return found
        totals = self.totals
        return sorted(found, key=lambda row: -totals[row])

    def alike(self, name: str) -> list[str]:
        """Known names that differ from ``name`` in case only, or not at all."""
        return self._folded.get(name.strip().casefold(), [])

    def _made_unique(self, name: str) -> list[str]:
        """Names that ``var_names_make_unique`` gives to further rows of a name."""
        found: list[str] = []
        while (further := f"{name}-{len(found) + 1}") in self._row:
            found.append(further)
        return found

    def match(self, names: Iterable[str], *, missing: str = "report") -> GeneMatch:
        """Rows of ``names``.

        Parameters
        ----------
        names
            Gene names asked for.
        missing
            ``"report"`` puts unknown names into the result; ``"error"`` raises.

        Raises
        ------
        ValueError
            If ``missing="error"`` and a name is unknown. The message names close matches, and differences in case
            and Ensembl version as such.
        """
        if missing not in ("report", "error"):
            raise ValueError(f"Expected missing='report' or 'error', found {missing!r}.")
        wanted: dict[str, int] = {}
        for name in names:
            wanted[name] = wanted.get(name, 0) + 1
        found = tuple(name for name in wanted if name in self._row)
        absent = tuple(name for name in wanted if name not in self._row)
        if absent and missing == "error":
            raise ValueError(self.explain(absent))
        rows = [self.rows(name) for name in found]
        # A row that is asked for by its own name stands for no other name.
        index = [
            some[0] if self.names[some[0]] == name or self.names[some[0]] not in wanted else self._row[name]
            for name, some in zip(found, rows, strict=True)
        ]
        return GeneMatch(
            index=np.array(index, dtype=np.intp),
            found=found,
            missing=absent,
            duplicates=tuple(name for name, times in wanted.items() if times > 1),
            ambiguous=tuple(name for name, some in zip(found, rows, strict=True) if len(some) > 1),
        )

    def suggest(self, name: str) -> tuple[str, str] | None:
        """Closest known name, and why it is not the same; None where nothing is close."""
        for form, reason in ((name.strip(), "blanks around it"), (_without_version(name), "Ensembl version differs")):
            if form != name and form in self._row:
                return form, reason
        same = self.alike(name)
        if same:
            return same[0], "case differs" if len(same) == 1 else f"case differs, as in {' and '.join(same[1:3])}"
        bare = self._bare.get(_without_version(name).casefold())
        if bare:
            return bare, "Ensembl version differs"
        close = difflib.get_close_matches(name.casefold(), self._folded, n=1, cutoff=0.75)
        return (self._folded[close[0]][0], "closest name") if close else None

    def explain(self, missing: Sequence[str]) -> str:
        """One sentence about unknown names: how many, which, and what was probably meant."""
        parts = []
        for name in missing[:MAX_NAMED]:
            hint = self.suggest(name)
            if hint is None:
                parts.append(f"{name!r} (nothing is close)")
            else:
                close, reason = hint
                parts.append(
                    f"{name!r}; did you mean {close!r}" + (f" ({reason})?" if reason != "closest name" else "?")
                )
        more = f", and {len(missing) - MAX_NAMED} more" if len(missing) > MAX_NAMED else ""
        example = ", ".join(repr(name) for name in list(self._row)[:3])
        text = f"Expected {self.what} (such as {example}), found {', '.join(parts)}{more}"
        text += "" if text.endswith("?") else "."
        n_case = sum(name.strip().casefold() in self._folded for name in missing)
        if n_case > MAX_NAMED or n_case == len(missing) > 1:
            text += (
                f" {n_case} of the {len(missing)} unknown names differ in case only (human symbols are upper case, "
                f"mouse symbols capitalised): change the case, or match with ignore_case=True."
            )
        elif not n_case and _looks_ensembl(missing) != _looks_ensembl(list(self._row)[:50]):
            text += (
                " One side holds Ensembl identifiers, the other symbols: name the .var column to match on (match=...)."
            )
        return text

    def ignoring_case(self, names: Iterable[str]) -> list[str]:
        """Names with their case changed to that of the entry that differs in case alone; others unchanged.

        Of several such entries the one with the most counts is taken; without known counts, none.
        """
        return [self._with_case(name) for name in names]

    def _with_case(self, name: str) -> str:
        alike = [] if name in self._row else self.alike(name)
        if len(alike) > 1:
            return name if self._totals is None else self.names[self.rows(name)[0]]
        return alike[0] if alike else name

    @cached_property
    def _folded(self) -> dict[str, list[str]]:
        """Case-folded name -> names."""
        out: dict[str, list[str]] = {}
        for name in self._row:
            out.setdefault(name.casefold(), []).append(name)
        return out

    @cached_property
    def _bare(self) -> dict[str, str]:
        return {_without_version(name).casefold(): name for name in self._row if _VERSIONED.match(name)}


def match_genes(
    names: Iterable[str],
    var_names: Iterable[object] | GeneIndex,
    *,
    missing: str = "report",
    ignore_case: bool = False,
    what: str = "gene names of this AnnData",
) -> GeneMatch:
    """Rows of the genes called ``names``, with suggestions for those that are unknown.

    Parameters
    ----------
    names
        Gene names asked for.
    var_names
        Known names, or a ready `GeneIndex` (index once, match thousands of sets).
    missing
        ``"report"`` or ``"error"``.
    ignore_case
        Take ``Penk`` for ``PENK``; where several names differ in case alone, the one with the most counts if these are
        known (``GeneIndex(totals=)``), and none otherwise.
    what
        How messages call ``var_names``.

    Raises
    ------
    ValueError
        If ``missing="error"`` and a name is unknown: ``Expected gene names of this AnnData (such as ...), found
        'PENK'; did you mean 'Penk' (case differs)?``
    """
    index = var_names if isinstance(var_names, GeneIndex) else GeneIndex(var_names, what)
    match = index.match(index.ignoring_case(names) if ignore_case else names, missing=missing)
    hints = ((name, index.suggest(name)) for name in match.missing[:MAX_NAMED])
    match.suggestions.update({name: hint for name, hint in hints if hint is not None})
    return match


def _without_version(name: str) -> str:
    found = _VERSIONED.match(name.strip())
    return found.group(1) if found else name.strip()


def _looks_ensembl(names: Sequence[str]) -> bool:
    return sum(bool(re.match(r"^ENS[A-Z]*\d{11}", name)) for name in names) * 2 > len(names)


@dataclass(frozen=True)
class GeneSetMatch:
    """What was found of gene sets: weights of K sets over G genes.

    Attributes
    ----------
    names
        Names of the K sets kept.
    weights
        (K, G) sparse; columns are genes.
    n_given, n_found, n_usable
        (K,) distinct genes of each set; those in the data; those that also have an embedding.
    missing
        For each set kept, its genes that are not in the data.
    skipped
        Name -> reason, of sets that cannot be a concept (``unusable="skip"``).
    ambiguous
        Genes, of any of the sets, that stand for several rows (:meth:`GeneIndex.rows`); the first is taken.
    n_ambiguous
        (K,) number of these in each set.
    """

    names: tuple[str, ...]
    weights: sparse.csr_array
    n_given: NDArray[np.intp]
    n_found: NDArray[np.intp]
    n_usable: NDArray[np.intp]
    missing: tuple[tuple[str, ...], ...]
    skipped: dict[str, str]
    ambiguous: tuple[str, ...]
    n_ambiguous: NDArray[np.intp]

    @property
    def fraction(self) -> FloatArray:
        """(K,) share of each set that is in the data."""
        return self.n_found / self.n_given


def match_gene_sets(
    sets: Sequence[GeneSet],
    var_names: Iterable[object] | GeneIndex,
    *,
    usable: ArrayLike | None = None,
    missing: str = "report",
    unusable: str = "error",
    ignore_case: bool = False,
) -> GeneSetMatch:
    """Match gene sets to genes: one sparse row of weights a set, and what was found of each.

    Parameters
    ----------
    sets
        K0 sets, see `gene_sets` and `read_gmt`.
    var_names
        (G,) names, or a ready `GeneIndex`.
    usable
        (G,) True for genes with an embedding; None for all.
    missing
        ``"error"`` refuses a set with an unknown gene (for sets typed by hand), ``"report"`` goes on with the rest
        (for collections made for other data).
    unusable
        What to do with a set none of whose genes is usable, or that covers all usable genes: ``"error"``, or ``"skip"``
        to leave it out and list it in ``skipped``.
    ignore_case
        Match names that differ in case only.

    Raises
    ------
    ValueError
        If a set is refused as said above, or every set is skipped.
    """
    if unusable not in ("error", "skip"):
        raise ValueError(f"Expected unusable='error' or 'skip', found {unusable!r}.")
    index = var_names if isinstance(var_names, GeneIndex) else GeneIndex(var_names)
    can_use = np.ones(len(index), bool) if usable is None else np.asarray(usable, dtype=bool)
    if can_use.shape != (len(index),):
        raise ValueError(f"Expected one entry of usable for each of the {len(index)} genes, found {can_use.shape}.")
    rows: list[NDArray[np.intp]] = []
    data: list[FloatArray] = []
    kept: list[tuple[str, int, int, int, int, tuple[str, ...]]] = []
    skipped: dict[str, str] = {}
    ambiguous: dict[str, None] = {}
    hint = ""
    for given in sets:
        try:
            s = gene_set(given.name, index.ignoring_case(given.genes), given.weights) if ignore_case else given
            match = index.match(s.genes, missing=missing)
        except ValueError as error:
            others = ' To go on with its other genes: missing="report".' if len(given.genes) > 1 else ""
            raise ValueError(f"Concept {given.name!r}: {error}{others}") from None
        n_usable = int(can_use[match.index].sum())
        reason = _reason(s, match.index.size, n_usable, int(can_use.sum()))
        if reason:
            if match.missing and not hint:
                hint = f" {index.explain(match.missing)}"
            if unusable == "error":
                raise ValueError(f"Concept {s.name!r}: {reason}{hint}")
            skipped[s.name] = reason
            continue
        several = [g for g in given.genes if ignore_case and s is not given and len(index.rows(g)) > 1]
        of_several = dict.fromkeys([*several, *match.ambiguous])
        ambiguous |= of_several
        weight = dict(zip(s.genes, s.weights, strict=True))
        rows.append(match.index)
        data.append(np.fromiter((weight[name] for name in match.found), float, len(match.found)))
        kept.append((s.name, len(weight), match.index.size, n_usable, len(of_several), match.missing))
    if not kept:
        first = "; ".join(f"{name!r}: {reason}" for name, reason in list(skipped.items())[:1])
        raise ValueError(
            f"Expected at least one gene set that can be a concept, found none of {len(sets)}. {first}{hint}"
        )
    indptr = np.concatenate([[0], np.cumsum([r.size for r in rows])])
    weights = sparse.csr_array((np.concatenate(data), np.concatenate(rows), indptr), shape=(len(kept), len(index)))
    weights.sort_indices()
    columns = list(zip(*kept, strict=True))
    n_given, n_found, n_can_use, n_several = (np.array(column, dtype=np.intp) for column in columns[1:5])
    return GeneSetMatch(
        columns[0], weights, n_given, n_found, n_can_use, columns[5], skipped, tuple(ambiguous), n_several
    )


def _reason(s: GeneSet, n_found: int, n_usable: int, n_all: int) -> str:
    """Why a set cannot be a concept; empty where it can."""
    if n_found == 0:
        return f"expected at least one of its {len(s)} genes among the genes of the data, found none."
    if n_usable == 0:
        return f"expected at least one gene with counts, found that its {n_found} genes have none."
    if n_usable == n_all and (np.all(s.weights > 0) or np.all(s.weights < 0)):
        return f"expected genes outside the set to compare it with, found that it covers all {n_all} usable genes."
    return ""
