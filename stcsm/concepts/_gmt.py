"""GMT files (MSigDB, GO, Enrichr): one gene set a line."""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path

from ._gene_sets import GeneSet, check_distinct, gene_set


def read_gmt(path: str | os.PathLike[str]) -> list[GeneSet]:
    """Gene sets of a GMT file: name, description, genes, separated by tabs; plain or gzip.

    Blank lines and tabs at the end of a line are skipped; a gene named twice in a line counts once. Where every gene of
    a line carries a number after a comma (``GENE,0.7``, as Enrichr writes), it is its weight.

    Parameters
    ----------
    path
        The file. Compression is recognised by its first bytes, not by its name.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is no text or cut short, a line lacks a name or genes, or two lines have the same name. The message
        gives the line's number.
    """
    path = Path(path)
    raw = path.read_bytes()
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = gzip.decompress(raw)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(
                f"Expected a whole gzip file, found that {path} is cut short or damaged: {error}."
            ) from error
    sets, lines = [], []
    for number, line in enumerate(raw.removeprefix(b"\xef\xbb\xbf").splitlines(), start=1):
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{path}, line {number}: expected text (UTF-8), found other bytes; is it a GMT?"
            ) from error
        if not text.strip():
            continue
        sets.append(_parse(text, f"{path}, line {number}"))
        lines.append(f"line {number}")
    if not sets:
        raise ValueError(f"{path}: expected at least one gene set, found an empty file.")
    try:
        check_distinct([s.name for s in sets], lines)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return sets


def _parse(text: str, place: str) -> GeneSet:
    fields = [field.strip() for field in text.split("\t")]
    shown = text if len(text) <= 60 else text[:57] + "..."
    if len(fields) < 3:
        fix = (
            "separate the fields by tabs, not blanks" if len(fields) == 1 and len(text.split()) > 2 else "add its genes"
        )
        raise ValueError(
            f"{place}: expected a name, a description and genes separated by tabs, found {len(fields)} "
            f"field{'s' if len(fields) > 1 else ''}: {shown!r}; {fix}."
        )
    genes = [gene for gene in fields[2:] if gene]
    if not fields[0] or not genes:
        raise ValueError(f"{place}: expected {'genes' if fields[0] else 'the name of the set'}, found none: {shown!r}.")
    pairs = [gene.rpartition(",") for gene in genes]
    try:
        weights = [float(number) for _, comma, number in pairs if comma]
        weighted = len(weights) == len(genes) and all(gene for gene, _, _ in pairs)
    except ValueError:
        weighted = False
    try:
        return gene_set(fields[0], [gene for gene, _, _ in pairs], weights) if weighted else gene_set(fields[0], genes)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None
