"""What every reader does with the counts of a section: places them, leaves out what is no gene or no tissue, joins."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from stcsm import _keys
from stcsm._features import background_spots, control_features
from stcsm._text import listed, some_of
from stcsm.io._table import duplicated

_GENERIC = re.compile(
    r"outs|spatial|binned_outputs|segmented_outputs|square_\d+um|.*feature_(bc|cell)_matrix", re.IGNORECASE
)
"""Folder names that say nothing of the section."""
_NUMBERED = re.compile(r"([ACGTN]{8,}|s_\d+um_\d+_\d+|cellid_\d+)(-\d+)?")
"""A barcode, a bin or a cell as 10x names them, and the number of the library after it."""


@dataclass
class Counts:
    """Counts as a file holds them, without coordinates.

    Attributes
    ----------
    values
        Spots (or cells) x features, float32.
    spots, features
        Their names; names of features may occur more than once.
    var
        What the file says of the features besides their name.
    about
        What the file says of itself.
    """

    values: sparse.csr_matrix
    spots: list[str]
    features: list[str]
    var: pd.DataFrame = field(default_factory=pd.DataFrame)
    about: dict[str, str] = field(default_factory=dict)


def place(counts: Counts, table: pd.DataFrame, xy: Sequence[str], path: Path, *, what: str = "cells") -> ad.AnnData:
    """Counts of one section joined by name with a table of its spots.

    Control features are left out, and spots of the counts that are not in the table; symbols that occur more than once
    are numbered (`Gene`, `Gene-1`). A warning counts each.

    Parameters
    ----------
    counts
        Counts of spots in any order.
    table
        Of the spots, indexed by their names as text. Its columns become ``.obs``.
    xy
        Its columns of coordinates, x and y; they become ``.obsm["spatial"]``.
    path
        Where both come from, for messages.
    what
        Word for a spot.

    Raises
    ------
    ValueError
        A spot that occurs twice, no spot of the counts in the table, or no gene.
    """
    for names, where in ((counts.spots, "counts"), (list(table.index), "coordinates")):
        if twice := duplicated(names):
            raise ValueError(
                f"Expected every name once, found {len(twice)} {what} that occur more than once in the {where} "
                f"({listed(twice, 5)}) in {path}; is this more than one section? Give each a folder of its own."
            )
    at = table.index.get_indexer(pd.Index(counts.spots, dtype=object))
    if not (at >= 0).any():
        raise ValueError(
            f"Expected coordinates of the same {what}, found none in common: {len(counts.spots)} in the counts (such "
            f"as {some_of(counts.spots)}), {len(table)} with coordinates (such as {some_of(table.index)}) in {path}; "
            "the files come from different runs."
        )
    if unplaced := int((at < 0).sum()):
        warnings.warn(f"{unplaced} of {len(at)} {what} have no coordinates in {path} and are left out.", stacklevel=2)
    control = control_features(counts.features, counts.var.get("feature_types"))
    if control.all():
        raise ValueError(f"Expected genes, found {len(control)} control features only in {path}.")
    if n := int(control.sum()):
        named = [name for name, is_control in zip(counts.features, control, strict=True) if is_control]
        warnings.warn(
            f"{n} of {len(control)} features are no genes (controls, antibodies or guides, such as {some_of(named)}) "
            "and are left out.",
            stacklevel=2,
        )
    genes = [name for name, is_control in zip(counts.features, control, strict=True) if not is_control]
    kept, var = at >= 0, counts.var.loc[~control] if len(counts.var.columns) else pd.DataFrame()
    obs = table.iloc[at[kept]]
    values = counts.values if kept.all() else counts.values[kept]
    adata = ad.AnnData(
        values[:, ~control] if control.any() else values,
        obs=obs.drop(columns=list(xy)).set_axis(obs.index.rename(None)),
        var=var.set_axis(_numbered(genes)) if len(var.columns) else pd.DataFrame(index=_numbered(genes)),
    )
    adata.obsm[_keys.SPATIAL] = obs[list(xy)].to_numpy(dtype=np.float64)
    return adata


def matched_barcodes(names: Sequence[str], spots: Sequence[str]) -> list[str] | None:
    """The names, each barcode as `spots` has it, where only one of both has the number (-1) after it.

    None where that is not so, or nothing agrees. Different numbers are different sections, whose barcodes are the same.
    """
    sides = [[_NUMBERED.fullmatch(name) for name in side] for side in (spots, names)]
    ours, theirs = ([(match[1], match[2]) for match in side if match is not None] for side in sides)
    if len(ours) < len(spots) or len(theirs) < len(names):
        return None
    if all(number for _, number in ours) == all(number for _, number in theirs):
        return None
    named = dict(zip((barcode for barcode, _ in ours), spots, strict=True))
    barcodes = [barcode for barcode, _ in theirs]
    if len(named) < len(spots) or len(set(barcodes)) < len(barcodes) or not named.keys() & set(barcodes):
        return None
    return [named.get(barcode, name) for barcode, name in zip(barcodes, names, strict=True)]


def without_background(adata: ad.AnnData, path: Path) -> ad.AnnData:
    """Only the spots on tissue (``.obs["in_tissue"]``); a warning says how many were not.

    Raises
    ------
    ValueError
        No spot lies on tissue.
    """
    background = background_spots(adata.obs[_keys.IN_TISSUE])
    if background.all():
        raise ValueError(
            f"Expected spots on tissue, found in_tissue 0 for all {adata.n_obs} in {path}; keep them with "
            "keep_background=True."
        )
    if not background.any():
        return adata
    warnings.warn(
        f"{int(background.sum())} of {adata.n_obs} spots lie beside the tissue (in_tissue 0) and are left out; "
        "stcsm.io.read(..., keep_background=True) keeps them.",
        stacklevel=2,
    )
    return adata[~background].copy()


def join_sections(sections: Sequence[tuple[str, ad.AnnData]], *, genes: Literal["inner", "outer"]) -> ad.AnnData:
    """Several sections in one AnnData.

    Parameters
    ----------
    sections
        Name and spots x genes of each.
    genes
        ``"inner"``: genes that all sections have, with a warning that counts the others; ``"outer"``: all genes, with
        zeros where a section has not the gene, as in tables that omit genes without a count.

    Returns
    -------
    AnnData
        ``.obs["section"]``: name of the section, to pass as ``batch_key``. Spots are named ``spot-section``.
        ``.uns["spatial"]``: images and scale factors of each section, under its name, as ``library_key="section"`` of
        squidpy expects them.

    Raises
    ------
    ValueError
        No gene in common, or a section that already has the column ``.obs["section"]``.
    """
    parts = dict(zip(unique_names([name for name, _ in sections]), (part for _, part in sections), strict=True))
    if len(parts) == 1:
        return next(iter(parts.values()))
    if named := [name for name, part in parts.items() if _keys.SECTION in part.obs]:
        raise ValueError(
            f"Expected files of one section each, found the column {_keys.SECTION!r} in adata.obs of {named[0]!r}; "
            "rename the column, or join the files with anndata.concat."
        )
    union = {gene for part in parts.values() for gene in part.var_names}
    adata = ad.concat(parts, label=_keys.SECTION, index_unique="-", join=genes, merge="same", fill_value=0)
    if adata.n_vars == 0:
        raise ValueError(
            f"Expected sections with genes in common, found none among {', '.join(parts)}; are the names of one kind "
            "(symbols, identifiers) and of one species?"
        )
    if adata.n_vars < len(union):
        warnings.warn(
            f"{len(union) - adata.n_vars} genes are not in all of the {len(parts)} sections and are left out.",
            stacklevel=2,
        )
    held = {name: list(part.uns.get(_keys.SPATIAL, {}).values()) for name, part in parts.items()}
    # of several images of one file it is not known which one belongs to its spots
    if known := {name: entries[0] for name, entries in held.items() if len(entries) == 1}:
        adata.uns[_keys.SPATIAL] = known
    return adata


def section_name(path: Path) -> str:
    """Name of the section that a file or folder holds: the first name on the way up that says something."""
    path = path.resolve()
    for name in (path.name if path.is_dir() else _stem(path), *(parent.name for parent in path.parents)):
        if name and not _GENERIC.fullmatch(name):
            return name
    return "section"


def unique_names(names: Iterable[str]) -> list[str]:
    """Names, numbered from the second occurrence on (`Gene`, `Gene-1`) without meeting a name that is there."""
    names = list(names)
    taken, seen, unique = set(names), set(), []
    for name in names:
        new, n = name, 0
        while new in seen or (n and new in taken):
            n += 1
            new = f"{name}-{n}"
        seen.add(new)
        unique.append(new)
    return unique


def _numbered(genes: list[str]) -> pd.Index:
    twice = sum(n - 1 for n in pd.Series(genes, dtype=object).value_counts())
    if twice:
        warnings.warn(
            f"Found {twice} gene symbols that occur more than once; they were numbered (Gene, Gene-1).", stacklevel=3
        )
    return pd.Index(unique_names(genes) if twice else genes, dtype=object)


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").rsplit(".", 1)[0]
