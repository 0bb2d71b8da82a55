"""Gene sets as the user gives them (dicts, lists, networks, GMT files), each checked and brought to one form."""

from __future__ import annotations

import logging
import numbers
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stcsm._files import existing_file, text_lines
from stcsm._text import as_text, is_missing, some_of
from stcsm.concepts._latent import FloatArray

logger = logging.getLogger(__name__)

_SIGNS = {"+": 1.0, "-": -1.0, "up": 1.0, "down": -1.0}


@dataclass(frozen=True, eq=False)
class GeneSet:
    """A named set of genes.

    Attributes
    ----------
    name
        Name of the concept, without blanks around it.
    genes
        Distinct gene names.
    weights
        (n,) finite, non-zero: 1 for plain genes, negative for genes that are down in the concept.
    duplicates
        Names that were given more than once (with the same weight: they count once).
    absent
        Number of missing names (NaN, None) that were given and are left out.
    """

    name: str
    genes: tuple[str, ...]
    weights: FloatArray
    duplicates: tuple[str, ...] = ()
    absent: int = 0

    def __len__(self) -> int:
        return len(self.genes)


def gene_set(name: str, genes: object, weights: Iterable[object] | None = None) -> GeneSet:
    """One gene set, checked.

    Parameters
    ----------
    name
        Name of the concept.
    genes
        A gene name, a sequence of names, or a mapping of names to weights. Whole numbers are names by their text;
        missing names (NaN, None), as filtered rankings and columns of unequal length hold them, are left out.
    weights
        One weight a gene: numbers, or signs (``"+"``, ``"-"``, ``"up"``, ``"down"``). A gene of weight zero is
        left out. All weights may be negative: the concept then points away from these genes.

    Raises
    ------
    ValueError
        If the name is blank, the set is empty, a gene name is no text or whole number, blank or a sign alone, a weight
        is NaN, infinite or not a number, a gene is given twice with different weights, or all weights are zero.
    """
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"Expected a name for the gene set, found {name!r}.")
    name = name.strip()
    if isinstance(genes, Mapping):
        if weights is not None:
            raise ValueError(f"Expected the weights of gene set {name!r} once, found a mapping and a list of weights.")
        names, given = list(genes.keys()), list(genes.values())
    else:
        names = _as_names(name, genes)
        given = [1.0] * len(names) if weights is None else list(weights)
    if len(given) != len(names):
        raise ValueError(f"Expected one weight a gene in gene set {name!r}, found {len(names)} and {len(given)}.")
    merged: dict[str, float] = {}
    duplicates: dict[str, None] = {}
    absent = [not isinstance(gene, str) and is_missing(gene) for gene in names]
    for gene, raw in ((gene, raw) for gene, raw, out in zip(names, given, absent, strict=True) if not out):
        gene, weight = _check_gene(name, gene), _check_weight(name, gene, raw)
        if gene in merged:
            if merged[gene] != weight:
                raise ValueError(
                    f"Expected one weight for gene {gene!r} of gene set {name!r}, found {merged[gene]:g} and "
                    f"{weight:g}; give the gene once."
                )
            duplicates[gene] = None
        merged[gene] = weight
    kept = {gene: weight for gene, weight in merged.items() if weight != 0}
    if not kept:
        nothing = f"{sum(absent)} missing names (NaN)" if any(absent) else "an empty set"
        found = f"weights that are all zero ({len(merged)} genes)" if merged else nothing
        raise ValueError(f"Expected at least one gene in gene set {name!r}, found {found}.")
    return GeneSet(name, tuple(kept), np.fromiter(kept.values(), float, len(kept)), tuple(duplicates), sum(absent))


def gene_sets(source: object) -> list[GeneSet]:
    """Bring whatever holds gene sets to a list of `GeneSet` with distinct names.

    Parameters
    ----------
    source
        A mapping of names to genes (each a name, a sequence, or a mapping of genes to weights); one `GeneSet`; or a
        sequence of `GeneSet`. For files see `read_gmt`; for tables see `gene_sets_from_network`. A warning is logged
        of how many missing names (NaN) are left out.

    Raises
    ------
    ValueError
        If nothing is there, two sets have the same name, or a set is at fault (see `gene_set`).
    TypeError
        If ``source`` is none of these; a bare list of gene names lacks the name of the concept.
    """
    if isinstance(source, GeneSet):
        return [source]
    if isinstance(source, Mapping):
        sets = [genes if isinstance(genes, GeneSet) else gene_set(name, genes) for name, genes in source.items()]
    elif isinstance(source, Sequence) and not isinstance(source, str) and all(isinstance(s, GeneSet) for s in source):
        sets = list(source)
    elif isinstance(source, Sequence) and not isinstance(source, str):
        example = [str(s) for s in source[:2]]
        raise TypeError(
            f"Expected named gene sets, found a bare list; give it a name, as in {{'my concept': {example}}}."
        )
    else:
        raise TypeError(f"Expected gene sets as a mapping of names to genes, found {type(source).__name__}.")
    if not sets:
        raise ValueError("Expected at least one gene set, found none.")
    check_distinct([s.name for s in sets])
    _say_absent(sets)
    return sets


def _say_absent(sets: Sequence[GeneSet]) -> None:
    short = [s for s in sets if s.absent]
    if short:
        logger.warning(
            f"{sum(s.absent for s in short)} missing names (NaN) in {len(short)} of {len(sets)} gene sets are left "
            f"out, such as in {some_of(s.name for s in short)}"
        )


def check_distinct(names: Sequence[str], where: Sequence[str] | None = None) -> None:
    """Refuse two concepts of one name (names that differ only in blanks around them count as one).

    Parameters
    ----------
    names
        Concept names, from one source or from several put together.
    where
        Where each came from (``"line 3"``, ``"genes"``), for the message.
    """
    seen: dict[str, int] = {}
    for i, name in enumerate(names):
        first = seen.setdefault(name.strip(), i)
        if first != i:
            origins = f" ({where[first]} and {where[i]})" if where is not None else ""
            raise ValueError(f"Expected one concept of each name, found {name!r} twice{origins}; rename one of them.")


def gene_sets_from_network(
    source: Sequence[str] | NDArray, target: Sequence[str] | NDArray, weight: Sequence[object] | NDArray | None = None
) -> list[GeneSet]:
    """Gene sets of a decoupler-style network: one set a source, its targets with their weights.

    Parameters
    ----------
    source, target
        Columns of the same length: name of the set (regulator, pathway), name of the gene. Missing genes (NaN) are left
        out, and a warning is logged of how many.
    weight
        Weights, negative for genes that go down; None for 1 everywhere.

    Returns
    -------
    Sets in order of first appearance.

    Raises
    ------
    ValueError
        If the columns differ in length, are empty, or a set is at fault (see `gene_set`).
    """
    columns = [list(source), list(target), [1.0] * len(source) if weight is None else list(weight)]
    lengths = [len(column) for column in columns]
    if len(set(lengths)) != 1:
        raise ValueError(f"Expected source, target and weight of one length, found {', '.join(map(str, lengths))}.")
    if not lengths[0]:
        raise ValueError("Expected a network with at least one edge, found an empty table.")
    columns_of: dict[str, tuple[list, list]] = {}
    for row, (name, gene, w) in enumerate(zip(*columns, strict=True)):
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"Expected the name of a source in row {row} of the network, found {name!r}.")
        genes, weights = columns_of.setdefault(name.strip(), ([], []))
        genes.append(gene)
        weights.append(w)
    sets = [gene_set(name, genes, weights) for name, (genes, weights) in columns_of.items()]
    _say_absent(sets)
    return sets


def pair_signs(sets: Sequence[GeneSet]) -> list[GeneSet]:
    """Join pairs called ``X_UP`` and ``X_DN`` (or ``X_DOWN``), as MSigDB has them, into one signed set ``X``.

    Sets without a partner stay as they are. A gene in both halves is left out.
    """
    by_name = {s.name.upper(): s for s in sets}
    out, used = [], set()
    for s in sets:
        stem, _, half = s.name.rpartition("_")
        partner = next(
            (by_name[f"{stem}_{d}".upper()] for d in ("DN", "DOWN") if f"{stem}_{d}".upper() in by_name), None
        )
        if half.upper() == "UP" and stem and partner is not None:
            both = set(s.genes) & set(partner.genes)
            weights = dict(zip(s.genes, s.weights, strict=True)) | {
                gene: -w for gene, w in zip(partner.genes, partner.weights, strict=True)
            }
            out.append(gene_set(stem, {gene: w for gene, w in weights.items() if gene not in both}))
            used |= {s.name, partner.name}
    return [s for s in sets if s.name not in used] + out


def _as_names(name: str, genes: object) -> list:
    if isinstance(genes, str):
        return [genes]
    if isinstance(genes, Iterable):
        return list(genes)
    raise ValueError(f"Expected gene names in gene set {name!r}, found {type(genes).__name__}.")


def _check_gene(name: str, gene: object) -> str:
    whole = isinstance(gene, numbers.Real) and not isinstance(gene, bool) and float(gene).is_integer()
    gene = as_text(gene) if whole else gene  # Entrez identifiers are numbers
    if not isinstance(gene, str) or not gene.strip():
        raise ValueError(f"Expected gene names as text in gene set {name!r}, found {gene!r}.")
    gene = gene.strip()
    if gene in ("+", "-"):
        raise ValueError(f"Expected a gene with its sign in gene set {name!r}, found the sign {gene!r} alone.")
    return gene


def _check_weight(name: str, gene: object, raw: object) -> float:
    if isinstance(raw, str) and raw.strip().lower() in _SIGNS:
        return _SIGNS[raw.strip().lower()]
    try:
        weight = float(raw)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ValueError(
            f"Expected a number or a sign as weight of gene {gene!r} in gene set {name!r}, found {raw!r}."
        ) from None
    if not np.isfinite(weight):
        raise ValueError(
            f"Expected a finite weight for gene {gene!r} in gene set {name!r}, found {weight}; leave the gene out."
        )
    return weight


def read_gmt(path: str | os.PathLike[str], *, known_genes: Iterable[str] | None = None) -> list[GeneSet]:
    """Gene sets of a GMT file: name, description, genes, separated by tabs; plain or gzip.

    Blank lines and tabs at the end of a line are skipped; a gene named twice in a line counts once. Where every gene of
    a line carries a number after a comma (``GENE,0.7``, as Enrichr writes), it is its weight. A file of one gene name a
    line, without tabs, is one set with the name of the file.

    Parameters
    ----------
    path
        The file. Compression is recognised by its first bytes, not by its name.
    known_genes
        Gene names of the data. Some files have no descriptions: where the second field is a known gene in every line
        (or, of a collection wider than the data, about as often as the other genes, and reads like a description in no
        line), it is taken as a gene of the set. Else it is a description in every line. A warning says which, and how
        many second fields are known genes. None: the second field is a description.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is empty, not UTF-8 text or cut short, a line lacks a name or genes, or two lines have the same
        name. The message gives the line's number.
    """
    path = existing_file(path, "a GMT file")
    lines = [(f"line {number}", [field.strip() for field in text.split("\t")]) for number, text in text_lines(path)]
    if not lines:
        raise ValueError(f"{path}: expected at least one gene set, found only blank lines.")
    if all(len(fields) == 1 and len(fields[0].split()) == 1 for _, fields in lines):
        return [gene_set(Path(path).name.removesuffix(".gz").rsplit(".", 1)[0], [fields[0] for _, fields in lines])]
    first = 1 if known_genes is not None and _no_descriptions(path, [f for _, f in lines], known_genes) else 2
    sets = [_parse_line(fields, first, f"{path}, {line}") for line, fields in lines]
    try:
        check_distinct([s.name for s in sets], [line for line, _ in lines])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return sets


def _no_descriptions(path: str | os.PathLike[str], lines: list[list[str]], known_genes: Iterable[str]) -> bool:
    """Whether the second field of the lines is a gene and not a description.

    One answer for the whole file: it is where every one of these fields is a known gene. Of a collection that is wider
    than the data, not all are: then where they are known about as often as the fields after them, and none of them
    reads like a description.
    """
    known = {gene.casefold() for gene in known_genes}

    def is_known(text: str) -> bool:
        return _gene_and_weight(text)[0].casefold() in known

    second = [(fields[0], fields[1]) for fields in lines if len(fields) > 1]
    hits = [text for name, text in second if text != name and is_known(text)]
    if not hits:
        return False
    prose = next((text for name, text in second if text == name or _reads_like_a_description(text)), None)
    rest = [field for fields in lines for field in fields[2:] if field]
    of_rest = sum(map(is_known, rest)) / max(len(rest), 1)
    as_often = len(hits) >= 3 and prose is None and len(hits) / len(second) >= of_rest / 2
    found = len(hits) == len(lines) or as_often
    counted = f"the second field is a gene of the data in {len(hits)} of {len(lines)} lines, such as {hits[0]!r}"
    if found:
        logger.warning(
            f"{path}: no descriptions: {counted}; it is taken as a gene of its set. If these are descriptions, write "
            "'na' there."
        )
    else:
        logger.warning(
            f"{path}: {counted}, but a description in others"
            + ("" if prose is None else f", such as {prose!r}")
            + "; it is taken as a description in every line. If these genes belong to their sets, put 'na' before them."
        )
    return found


def _reads_like_a_description(text: str) -> bool:
    return text.lower() in ("", "na", "n/a", "none", "-") or text.startswith(">") or "://" in text or " " in text


def _gene_and_weight(text: str) -> tuple[str, float | None]:
    """``GENE,0.7`` as Enrichr writes it: the gene, and its weight; None where there is no number."""
    gene, _, number = text.rpartition(",")
    try:
        return (gene, float(number)) if gene else (text, None)
    except ValueError:
        return text, None


def _parse_line(fields: list[str], first: int, where: str) -> GeneSet:
    """A set of the fields of a line; its genes begin at field ``first``."""
    text = "\t".join(fields)
    shown = text if len(text) <= 60 else text[:57] + "..."
    if len(fields) <= first:
        fix = (
            "separate the fields by tabs, not blanks" if len(fields) == 1 and len(text.split()) > 2 else "add its genes"
        )
        raise ValueError(
            f"{where}: expected a name, a description and genes separated by tabs, found {len(fields)} "
            f"field{'s' if len(fields) > 1 else ''}: {shown!r}; {fix}."
        )
    genes = [gene for gene in fields[first:] if gene]
    if not fields[0] or not genes:
        raise ValueError(f"{where}: expected {'genes' if fields[0] else 'the name of the set'}, found none: {shown!r}.")
    pairs = [_gene_and_weight(gene) for gene in genes]
    weights = [weight for _, weight in pairs]
    try:
        if None not in weights:
            return gene_set(fields[0], [gene for gene, _ in pairs], weights)
        return gene_set(fields[0], genes)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
