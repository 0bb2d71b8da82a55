"""Labels of spots (tissue layers, regions, clusters) joined with the spots: by name, barcode, position, section."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from stcsm import _keys
from stcsm._text import as_text, is_missing, listed, some_of
from stcsm.io._label_table import (
    COORDINATES,
    LabelTable,
    beside_coordinates,
    chosen_labels,
    from_one_hot,
    is_one_hot,
    natural_order,
    read_label_table,
    say_names_are,
    spot_columns,
)
from stcsm.io._section import matched_barcodes
from stcsm.io._table import duplicated, parse_array_positions, share_of_array_positions


def add_labels(
    adata: ad.AnnData,
    labels: str | Path | pd.Series | pd.DataFrame | Mapping[str, str | Path | pd.Series | pd.DataFrame],
    key: str = _keys.LAYER,
    *,
    column: str | None = None,
    batch_key: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write the labels of a file to ``adata.obs[key]``, joined by spot name.

    Where no name agrees, names are joined by barcode without the number after it; without a beginning or an ending that
    all names of one side have and no name of the other (``S1_``, ``-v1``); or, where the names of the labels are
    positions (``10.05x12.2``), to the nearest array positions or pixels of the spots: each if that is one to one for
    most of them. Spots without a label get NaN. A warning counts spots of the data and spots of the file that have no
    partner, and says how names were joined.

    Parameters
    ----------
    adata
        Spots x genes.
    labels
        File (see `read_labels`); a Series indexed by spot name; or a DataFrame indexed by spot name, or with a column
        of spot names beside numbered rows, or with two columns of coordinates: one column of labels, or zeros and ones
        with a column for each label. Of several sections: a dictionary from section to one of these, or a file or
        DataFrame with the section of each spot in a column of the name `batch_key`; names are then joined within a
        section, with or without the section's name that ``stcsm.io.read`` and ``anndata.concat`` write after them.
    key
        Column of ``adata.obs`` to write.
    column
        Label column of the file or DataFrame, where there are several.
    batch_key
        Column of ``adata.obs`` with the sections; by default the one that `adata` was set up with, else ``"section"``,
        where `labels` is a dictionary or has such a column.
    overwrite
        Replace an existing ``adata.obs[key]``.

    Raises
    ------
    ValueError
        No spot of the file is in `adata`, no such section, the column exists, or the file is not one of labels; `adata`
        is unchanged.

    Examples
    --------
    >>> stcsm.io.add_labels(adata, {"v1": "v1.csv", "v2": "v2.csv"}, batch_key="section")  # doctest: +SKIP
    """
    if key in adata.obs and not overwrite:
        raise ValueError(
            f"Expected a new column, found {key!r} in adata.obs; choose another key= or say overwrite=True."
        )
    found = []
    for section, rows, part in _by_section(adata, labels, column, batch_key):
        here = adata if section is None else adata[rows]
        found.append((rows, _joined(here, part, column, section, _several(adata, batch_key))))
    if len(found) == 1 and len(found[0][0]) == adata.n_obs:
        adata.obs[key] = found[0][1].cat.remove_unused_categories()
        return
    values = np.full(adata.n_obs, None, dtype=object)
    for rows, joined in found:
        values[rows] = joined.astype(object).where(joined.notna(), None)
    known = {label for label in values if label is not None}
    adata.obs[key] = pd.Categorical(values, categories=sorted(known, key=lambda label: natural_order(str(label))))


def _by_section(
    adata: ad.AnnData, labels: Any, column: str | None, batch_key: str | None
) -> list[tuple[str | None, np.ndarray, Any]]:
    """Section (None of all spots) and rows of the spots that each collection of labels is for."""
    sections = _sections_column(adata, batch_key)
    if sections not in adata.obs:
        if batch_key is not None or isinstance(labels, Mapping):
            raise ValueError(
                f"Expected a column {sections!r} of adata.obs that names the sections, found the columns "
                f"{listed(list(map(str, adata.obs)))}; pass batch_key=."
            )
        return [(None, np.arange(adata.n_obs), labels)]
    of_spot = adata.obs[sections].astype(str).to_numpy()
    if isinstance(labels, Mapping):
        parts = {as_text(name): part for name, part in labels.items()}
        if strange := [name for name in parts if name not in set(of_spot)]:
            raise ValueError(f"Expected sections of obs[{sections!r}], found {strange[0]!r}; check the dictionary.")
    else:
        names = [as_text(name) for name in adata.obs_names]
        plain = (name.removesuffix(f"-{section}") for name, section in zip(names, of_spot, strict=True))
        spots = frozenset(names).union(plain)
        labels = read_label_table(labels, spots) if isinstance(labels, (str, Path)) else _with_names(labels, spots)
        table = labels.columns if isinstance(labels, LabelTable) else labels
        parts = {}
        if isinstance(table, pd.DataFrame) and sections in table and column != sections:
            of_row = table[sections].map(as_text).to_numpy()
            at = {name: np.flatnonzero(of_row == name) for name in dict.fromkeys(of_row) if name in set(of_spot)}
            rest = labels.without(sections) if isinstance(labels, LabelTable) else labels.drop(columns=sections)
            parts = {name: rest.rows(i) if isinstance(rest, LabelTable) else rest.iloc[i] for name, i in at.items()}
        if not parts:
            return [(None, np.arange(adata.n_obs), labels)]
    if without := [name for name in dict.fromkeys(of_spot) if name not in parts]:
        warnings.warn(f"There are no labels of the sections {listed(without, 5)} of {sections!r}.", stacklevel=3)
    return [(name, np.flatnonzero(of_spot == name), part) for name, part in parts.items()]


def _sections_column(adata: ad.AnnData, batch_key: str | None) -> str:
    """Column of the sections: the one given, the one that the AnnData was set up with, or that of our readers."""
    return _keys.sections_key(adata) or _keys.SECTION if batch_key is None else batch_key


def _several(adata: ad.AnnData, batch_key: str | None) -> str | None:
    """Column of the sections, where there are several."""
    key = _sections_column(adata, batch_key)
    return key if key in adata.obs and adata.obs[key].nunique() > 1 else None


def _joined(adata: ad.AnnData, labels: Any, column: str | None, section: str | None, several: str | None) -> pd.Series:
    """Labels in the order of the spots, NaN of a spot without one, categorical; a warning says what has no partner."""
    spots = pd.Index([as_text(name) for name in adata.obs_names], dtype=object)
    if isinstance(labels, (str, Path)):
        labels = read_label_table(labels, frozenset(spots))
    if isinstance(labels, LabelTable):
        source, series = labels.source, chosen_labels(labels, column)
    else:
        labels = _with_names(labels, frozenset(spots))
        source, series = "the labels given", _in_memory(labels, column)
    if section is not None:
        source += f" for section {section!r}"
    if twice := duplicated([as_text(name) for name in series.index]):
        raise ValueError(
            f"Expected one label a spot, found {len(twice)} spots that occur more than once ({listed(twice, 5)})."
        )
    # Names of any type are joined by their text.
    series = series.set_axis(pd.Index([as_text(name) for name in series.index], dtype=object))
    if section is not None and not series.index.isin(spots).any() and all(n.endswith(f"-{section}") for n in spots):
        spots = pd.Index([name.removesuffix(f"-{section}") for name in spots], dtype=object)
    how = "name"
    # numbers that pandas gave the rows of a table are no names where it has coordinates
    numbered = isinstance(labels, pd.DataFrame) and isinstance(labels.index, pd.RangeIndex)
    by_place = _by_position(adata, spots, _named_by_place(labels, series)) if numbered else None
    if by_place is not None or not series.index.isin(spots).any():
        joined = (
            by_place
            or _by_barcode(spots, series)
            or _by_affix(spots, series)
            or _by_position(adata, spots, _named_by_place(labels, series))
        )
        if joined is None:
            advice = "make the names agree"
            if section is None and several is not None:
                advice = (
                    f"give the labels of each section, {{section: labels}} with batch_key={several!r}, or name the "
                    f"section of each spot in a column {several!r} of the labels"
                )
            raise ValueError(
                f"Expected labels of the same spots, found none in common: {len(series)} spots in {source} (such as "
                f"{some_of(series.index)}), {adata.n_obs} in the data (such as {some_of(spots)}); {advice}."
            )
        series, how = joined
    shared = series.index.isin(spots)
    matched, unknown = int(shared.sum()), int((~shared).sum())
    missing = int((~spots.isin(series.index)).sum())
    values = series.reindex(spots).set_axis(adata.obs_names)
    if not isinstance(values.dtype, pd.CategoricalDtype):
        found = sorted(values.dropna().unique(), key=lambda label: natural_order(str(label)))
        values = values.astype(pd.CategoricalDtype(found))
    if values.isna().all():
        raise ValueError(f"Expected labels, found the spots of the data without one in {source}; check column=.")
    if unknown or missing or how != "name":
        warnings.warn(
            f"Labels joined by {how} for {matched} of {adata.n_obs} spots: {missing} spots of the data are not in "
            f"{source}, {unknown} spots of {source} are not in the data.",
            stacklevel=3,
        )
    return values


def _with_names(labels: Any, spots: frozenset[str]) -> Any:
    """A table in memory with the names of its spots as index, where a column holds them and numbers stand before it."""
    if not isinstance(labels, pd.DataFrame) or not (
        isinstance(labels.index, pd.RangeIndex) or spots.isdisjoint(map(as_text, labels.index))
    ):
        return labels
    header = ["", *map(str, labels.columns)]
    columns = [
        list(map(as_text, labels.index)),
        *([as_text(cell) for cell in labels.iloc[:, i]] for i in range(labels.shape[1])),
    ]
    at = spot_columns(header, columns, spots)
    if len(at) > 1 or at == [0]:
        return labels
    say_names_are(repr(header[at[0]]), "the labels given")
    name = labels.columns[at[0] - 1]
    return labels.set_index(name)


def _in_memory(labels: pd.Series | pd.DataFrame, column: str | None) -> pd.Series:
    """Labels of a Series, or of one column or the columns of zeros and ones of a DataFrame; missing texts are NaN."""
    if isinstance(labels, pd.DataFrame):
        if column is None and is_one_hot(labels):
            return from_one_hot(labels, [f"spot {name}" for name in labels.index], "the labels given")
        if column is None:
            left = beside_coordinates(list(map(str, labels)))
            column = str(labels.columns[left[0]]) if len(left) == 1 else None
        if column not in labels:
            raise ValueError(
                f"Expected one column of labels, or one of zeros and ones for each label, found the columns "
                f"{', '.join(map(str, labels))}; choose one with column=."
            )
        labels = labels[column]
    text = labels.notna().to_numpy() & labels.map(is_missing).astype(bool).to_numpy()
    if text.any():
        warnings.warn(
            f"{text.sum()} spots have a text that stands for no label, such as {str(labels[text].iloc[0])!r}, and get "
            "none; if it is the name of a label, rename it.",
            stacklevel=3,
        )
    return labels.where(~text)


def _by_barcode(spots: pd.Index, series: pd.Series) -> tuple[pd.Series, str] | None:
    """Labels under the names of the spots of the same barcode, where only one side has the number (-1) after it."""
    names = matched_barcodes(list(series.index), list(spots))
    if names is None:
        return None
    return series.set_axis(pd.Index(names, dtype=object)), "barcode, without the number after it,"


def _by_affix(spots: pd.Index, series: pd.Series) -> tuple[pd.Series, str] | None:
    """Labels under the names of the spots, where all names of one side begin or end with what those of the other lack.

    None where that is so for no more than half of the names of the shorter side.
    """
    names = list(series.index)
    if (added := _affix(names, spots)) is not None:
        begin, end = added
        names, whose = [name[len(begin) : len(name) - len(end)] for name in names], "the labels"
    elif (added := _affix(spots, names)) is not None:
        begin, end = added
        names, whose = [f"{begin}{name}{end}" for name in names], "the data"
    else:
        return None
    if 2 * len({*names} & {*spots}) <= min(len(names), len(spots)):
        return None
    what = f"{begin!r} before" if begin else f"{end!r} after"
    return series.set_axis(pd.Index(names, dtype=object)), f"name, without {what} the names of {whose},"


def _affix(longer: Iterable[str], shorter: Iterable[str]) -> tuple[str, str] | None:
    """Beginning or ending that all names of one side have beyond those of the other, up to a sign (`S1_`, `-v1`)."""
    longer, held = list(longer), set(shorter)
    for name in longer:
        cuts = range(1, len(name))
        found = [(name[:k], "") for k in cuts if name[k:] in held and not name[k - 1].isalnum()]
        found += [("", name[k:]) for k in cuts if name[:k] in held and not name[k].isalnum()]
        if found:  # what all names have, the first one with a partner has
            fits = (pair for pair in found if all(n.startswith(pair[0]) and n.endswith(pair[1]) for n in longer))
            return next(fits, None)
    return None


def _named_by_place(labels: object, series: pd.Series) -> pd.Series:
    """Labels named by the two columns of coordinates that a table in memory has, else as they are."""
    columns = {str(name).lower(): name for name in labels} if isinstance(labels, pd.DataFrame) else {}
    pair = next(([columns[name] for name in both] for both in COORDINATES if set(both) <= set(columns)), None)
    if pair is None or not isinstance(labels, pd.DataFrame):
        return series
    across, down = (labels[name] for name in pair)
    return series.set_axis(pd.Index([f"{x}x{y}" for x, y in zip(across, down, strict=True)], dtype=object))


def _by_position(adata: ad.AnnData, spots: pd.Index, series: pd.Series) -> tuple[pd.Series, str] | None:
    """Labels under the names of the spots at their positions, and what they were joined by.

    A label belongs to a spot if each is the other's nearest and they are no further apart than half the distance of
    two spots, across and down: as if both were rounded to the array. None where that is so for half of them or fewer.
    """
    if share_of_array_positions(list(series.index)) < 1:
        return None
    theirs = parse_array_positions(list(series.index))
    best: dict[int, int] = {}
    frame = ""
    for name, ours in _frames(adata, list(spots)):
        known = np.flatnonzero(np.isfinite(ours).all(axis=1))
        if len(known) < 2 or len(np.unique(ours[known], axis=0)) < len(known):
            continue  # of sections in one frame, a position belongs to several spots
        tree = cKDTree(ours[known])
        spacing = float(np.median(np.asarray(tree.query(ours[known], k=2, p=np.inf)[0])[:, 1]))
        distance, spot = map(np.asarray, tree.query(theirs, p=np.inf))
        back = np.asarray(cKDTree(theirs).query(ours[known], p=np.inf)[1])
        mutual = np.flatnonzero((distance <= spacing / 2) & (back[spot] == np.arange(len(theirs))))
        if len(mutual) > max(len(best), min(len(theirs), adata.n_obs) / 2):
            best, frame = dict(zip(mutual.tolist(), known[spot[mutual]].tolist(), strict=True)), name
    if not best:
        return None
    names = [spots[best[i]] if i in best else old for i, old in enumerate(series.index)]
    first = next(iter(best))
    return series.set_axis(pd.Index(names, dtype=object)), f"{frame} (as {series.index[first]!r} to {names[first]!r})"


def _frames(adata: ad.AnnData, names: list[str]) -> Iterable[tuple[str, np.ndarray]]:
    """Coordinates of the spots, across and down, and what they are."""
    if share_of_array_positions(names) == 1:
        yield "array position", parse_array_positions(names)
    if {_keys.ARRAY_ROW, _keys.ARRAY_COL} <= set(adata.obs):
        yield "array position", adata.obs[[_keys.ARRAY_COL, _keys.ARRAY_ROW]].to_numpy(dtype=float)
    for key, what in ((_keys.SPATIAL_ARRAY, "array position"), (_keys.SPATIAL, "pixel")):
        if key in adata.obsm:
            yield what, np.asarray(adata.obsm[key], dtype=float)[:, :2]
