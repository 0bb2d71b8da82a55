"""Several sections on shared places: which section and which place each spot belongs to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData

from stcsm import _keys
from stcsm.models._setup import Setup, check_coordinates, section_labels
from stcsm.space import array_coordinates, whole_places

ARRAY = "array"
COORDINATES = "coordinates"
SHARED = 0.5
"""Share of its places that a section must have in common with the others, or they with it."""


@dataclass(frozen=True)
class Frame:
    """The places that a model knows.

    Attributes
    ----------
    kind
        ``"array"``: places are rows and columns; ``"coordinates"``: they are coordinates.
    keys
        What tells places apart, (P, 2 or 3).
    coordinates
        Where they lie, (P, 2 or 3).
    """

    kind: str
    keys: np.ndarray
    coordinates: np.ndarray


@dataclass(frozen=True)
class Sections:
    """Sections of a model, on P places.

    Attributes
    ----------
    names
        Of the B sections, in order.
    frame
        Their places.
    section, place
        Of each of the model's spots, (S',).
    """

    names: tuple[str, ...]
    frame: Frame
    section: np.ndarray
    place: np.ndarray

    def spots(self, section: int) -> np.ndarray:
        """Which of the model's spots a section has."""
        return np.flatnonzero(self.section == section)


def spot_places(adata: AnnData, spatial_key: str) -> Frame:
    """Where each spot says it is: row and column where all spots have whole ones, else its coordinates."""
    coordinates = check_coordinates(adata, spatial_key)
    places = whole_places(adata.obs.get(_keys.ARRAY_ROW), adata.obs.get(_keys.ARRAY_COL))
    if places is None:
        return Frame(COORDINATES, coordinates, coordinates)
    return Frame(ARRAY, np.column_stack(places).astype(np.float64), coordinates)


def find_sections(adata: AnnData, setup: Setup, spots: np.ndarray | None = None) -> Sections | None:
    """Sections of an AnnData on the places that they share; None where it has but one.

    Neither places nor sections depend on the order of the spots: both are sorted.

    Parameters
    ----------
    adata
        The AnnData.
    setup
        Names the column of the sections, and the coordinates.
    spots
        Indices (S',) of the spots that count; None is all.

    Raises
    ------
    ValueError
        If two spots of a section lie on one place, or a section shares too few places with the others.
    """
    labels = section_labels(adata, setup)
    if labels is None:
        return None
    spots = np.arange(adata.n_obs) if spots is None else spots
    names, section = np.unique(labels[spots], return_inverse=True)
    if len(names) < 2:
        return None
    here = spot_places(adata, setup.spatial_key)
    keys, place = np.unique(here.keys[spots], axis=0, return_inverse=True)
    place = place.ravel()
    words = tuple(str(name) for name in names)
    _check_one_each(words, section, place, here.kind, setup.spatial_key)
    _check_shared(words, section, place, keys, here.kind, setup.spatial_key)
    where = array_coordinates(*keys.astype(np.int64).T) if here.kind == ARRAY else keys
    return Sections(words, Frame(here.kind, keys, where), section, place)


def find_on_frame(frame: Frame, adata: AnnData, setup: Setup, spots: np.ndarray) -> tuple[np.ndarray, Sections]:
    """Bring the spots of another AnnData to the places that a model knows.

    Parameters
    ----------
    frame
        The model's places.
    adata, setup
        The other AnnData.
    spots
        Indices (S') of its spots with counts.

    Returns
    -------
    Indices of the spots that lie on known places, and their sections.

    Raises
    ------
    ValueError
        If it says where its spots are in another way, two spots of a section lie on one place, or fewer than half of
        the places are in common.
    """
    here = spot_places(adata, setup.spatial_key)
    if here.kind != frame.kind:
        found = {ARRAY: "whole rows and columns", COORDINATES: "coordinates alone"}
        raise ValueError(
            f"Expected {found[frame.kind]} as places, as the model was trained with, found {found[here.kind]}; "
            + (
                "give the spots rows and columns of the same grid: stcsm.pp.to_grid(adata)"
                if frame.kind == ARRAY
                else "take obs['array_row'] and obs['array_col'] out, or train with them"
            )
        )
    if here.keys.shape[1] != frame.keys.shape[1]:
        raise ValueError(
            f"Expected places of {frame.keys.shape[1]} coordinates, as the model's are, found {here.keys.shape[1]}"
        )
    known = pd.MultiIndex.from_arrays(list(frame.keys.T))
    if known.has_duplicates:
        raise ValueError(
            f"Expected a model with one spot on each place, found {int(known.duplicated().sum())} that share one; "
            "train it on bins: stcsm.pp.bin_spots(adata)"
        )
    place = known.get_indexer(pd.MultiIndex.from_arrays(list(here.keys[spots].T)))
    labels = section_labels(adata, setup)
    own = np.full(len(spots), "") if labels is None else labels[spots]
    names, section = np.unique(own, return_inverse=True)
    words = tuple(str(name) for name in names)
    on = place >= 0
    for b, name in enumerate(words):
        mine = section == b
        common, least = int((on & mine).sum()), min(int(mine.sum()), len(known))
        if common < SHARED * least:
            raise ValueError(
                f"Expected a section on the model's {len(known)} places, found that {common} of the "
                f"{int(mine.sum())} spots{f' of {name!r}' if name else ''} lie on them; bring it into the model's "
                "frame: the same origin and unit, stcsm.pp.to_grid over both sections together"
            )
    _check_one_each(words, section[on], place[on], here.kind, setup.spatial_key)
    return spots[on], Sections(words, frame, section[on], place[on])


def _where(kind: str, spatial_key: str) -> str:
    return "(array_row, array_col)" if kind == ARRAY else f"obsm[{spatial_key!r}]"


def _check_one_each(names: tuple[str, ...], section: np.ndarray, place: np.ndarray, kind: str, key: str) -> None:
    both = np.column_stack([section, place])
    taken, n = np.unique(both, axis=0, return_counts=True)
    if (n == 1).all():
        return
    worst = int(taken[n > 1][0, 0])
    at_fault = (n > 1) & (taken[:, 0] == worst)
    raise ValueError(
        f"Expected one spot of a section on each place, found that {int(n[at_fault].sum())} spots"
        f"{f' of section {names[worst]!r}' if names[worst] else ''} share {int(at_fault.sum())} places by "
        f"{_where(kind, key)}; give each a place of its own with stcsm.pp.to_grid, or add them up with "
        "stcsm.pp.bin_spots"
    )


def _check_shared(
    names: tuple[str, ...], section: np.ndarray, place: np.ndarray, keys: np.ndarray, kind: str, key: str
) -> None:
    has = np.zeros((len(names), len(keys)), dtype=bool)
    has[section, place] = True
    for b, name in enumerate(names):
        others = np.delete(has, b, axis=0).any(axis=0)
        common, least = int((has[b] & others).sum()), int(min(has[b].sum(), others.sum()))
        if common >= SHARED * least:
            continue
        raise ValueError(
            f"Expected sections on shared places, found that section {name!r} has {common} of its {int(has[b].sum())} "
            f"places by {_where(kind, key)} in common with the others ({_extents(names, has, keys)}); bring them into "
            "one frame, such as stcsm.pp.to_grid over all sections together"
        )


def _extents(names: tuple[str, ...], has: np.ndarray, keys: np.ndarray) -> str:
    said = []
    for b, name in enumerate(names[:4]):
        low, high = keys[has[b]].min(axis=0), keys[has[b]].max(axis=0)
        said.append(f"{name!r}: " + " x ".join(f"{lo:g} to {hi:g}" for lo, hi in zip(low, high, strict=True)))
    return "; ".join(said) + ("; ..." if len(names) > 4 else "")
