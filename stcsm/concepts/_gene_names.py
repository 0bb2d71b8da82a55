"""Gene names asked for against gene names there are: which match, and in words, why the others do not."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

_VERSIONED = re.compile(r"^(ENS[A-Z]*[EFGPTR]\d{11})\.\d+$")
MAX_NAMED = 5


@dataclass(frozen=True)
class GeneMatch:
    """What was found of the names asked for.

    Attributes
    ----------
    index
        (n,) row of every name found, in the order asked for; a name given twice stands once.
    found
        The n names found.
    missing
        Names not found, in order.
    duplicates
        Names that were given more than once.
    ambiguous
        Names that several rows carry (possible with a symbol column); the first such row stands for the name, as in
        ``var_names_make_unique``.
    """

    index: NDArray[np.intp]
    found: tuple[str, ...]
    missing: tuple[str, ...] = ()
    duplicates: tuple[str, ...] = ()
    ambiguous: tuple[str, ...] = ()
    suggestions: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Missing name -> (closest name there is, why it is not the same); the first few missing names only."""

    @property
    def fraction(self) -> float:
        """Share of the distinct names asked for that was found; NaN where none was asked for."""
        n = len(self.found) + len(self.missing)
        return len(self.found) / n if n else float("nan")


class GeneIndex:
    """Names of an AnnData, indexed once, to match any number of gene sets against.

    Parameters
    ----------
    names
        (G,) gene names, or the entries of a ``.var`` column to match on (then missing entries may be None or NaN).
    what
        How messages call them, such as ``"gene names of this AnnData"`` or ``"entries of .var['symbol']"``.

    Raises
    ------
    ValueError
        If there are no names at all.
    """

    def __init__(self, names: Iterable[object], what: str = "gene names of this AnnData") -> None:
        self.names = [name if isinstance(name, str) else "" for name in names]
        self.what = what
        self._row: dict[str, int] = {}
        self._repeated: set[str] = set()
        for row, name in enumerate(self.names):
            if name in self._row:
                self._repeated.add(name)
            elif name:
                self._row[name] = row
        if not self._row:
            raise ValueError(f"Expected {what} to match on, found no text in {len(self.names)} entries.")

    def __len__(self) -> int:
        return len(self.names)

    def match(self, names: Iterable[str], *, missing: str = "report") -> GeneMatch:
        """Rows of ``names``.

        Parameters
        ----------
        names
            Gene names asked for.
        missing
            ``"report"`` puts names that are not there into the result; ``"error"`` raises.

        Raises
        ------
        ValueError
            If ``missing="error"`` and a name is not there. The message names close matches, and differences in case
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
        return GeneMatch(
            index=np.fromiter((self._row[name] for name in found), dtype=np.intp, count=len(found)),
            found=found,
            missing=absent,
            duplicates=tuple(name for name, times in wanted.items() if times > 1),
            ambiguous=tuple(name for name in found if name in self._repeated),
        )

    def suggest(self, name: str) -> tuple[str, str] | None:
        """Closest name there is, and why it is not the same; None where nothing is close."""
        for form, reason in ((name.strip(), "blanks around it"), (_without_version(name), "Ensembl version differs")):
            if form != name and form in self._row:
                return form, reason
        same = self._folded.get(name.strip().casefold())
        if same:
            return same, "case differs"
        bare = self._bare.get(_without_version(name).casefold())
        if bare:
            return bare, "Ensembl version differs"
        close = difflib.get_close_matches(name.casefold(), self._folded, n=1, cutoff=0.75)
        return (self._folded[close[0]], "closest name") if close else None

    def explain(self, missing: Sequence[str]) -> str:
        """One sentence about names that are not there: how many, which, and what was probably meant."""
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
        """Names with their case changed to that of the only entry that differs in case alone; others unchanged."""
        return [name if name in self._row else (self._folded.get(name.casefold()) or name) for name in names]

    @cached_property
    def _folded(self) -> dict[str, str]:
        """Case-folded name -> name; '' where several names differ in case only, so that no wrong one is offered."""
        out: dict[str, str] = {}
        for name in self._row:
            key = name.casefold()
            out[key] = "" if key in out else name
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
    """Rows of the genes called ``names``, with suggestions for those that are not there.

    Parameters
    ----------
    names
        Gene names asked for.
    var_names
        Names there are, or a ready `GeneIndex` (index once, match thousands of sets).
    missing
        ``"report"`` or ``"error"``.
    ignore_case
        Take ``Penk`` for ``PENK`` where exactly one name differs in case alone.
    what
        How messages call ``var_names``.

    Raises
    ------
    ValueError
        If ``missing="error"`` and a name is not there: ``Expected gene names of this AnnData (such as ...), found
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
