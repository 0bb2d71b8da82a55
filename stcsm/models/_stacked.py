"""Sections that lie over one another in one frame: found before a model takes them for one tissue.

One array position has one spot, and spots (or cells) of one section keep their distance. Spots of two sections do not:
they share array positions or coordinates, or come nearer to one another than to those of their own section. A label of
one section (a cell type) also splits the spots into sets that overlap, but each set is then patchier by itself than all
spots together; a section is more regular.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.spatial import KDTree

from stcsm import _keys
from stcsm._lazy import column
from stcsm.space import whole_positions

LOOKED_AT = 2000
"""Spots whose neighbourhoods are looked at, and (``AROUND``) their neighbours."""
AROUND = 192
OWN = 8
"""Neighbours of a spot's own set that measure how dense the set is there."""
MORE_REGULAR, ARRAY_LIKE = 0.15, 1.7
"""Differences of Clark and Evans' index between a section and all spots together; index of an array by itself."""
FEWEST = 20
"""Spots of a set that can be judged."""
MOST_SETS = 100
"""Values of a column that may be sections."""
SHARED = 0.5
"""Share of spots at a shared position that one section never has."""
SOME = 0.05
"""Share that is enough where a column separates them."""
NAMES = re.compile(
    r"(orig[._]?ident|(sample|batch|library|section|slide|slice|replicate|rep|donor|patient|subject|individual|"
    r"specimen|animal|mouse|embryo|puck|chip|capture[._ ]?area|data[._ ]?set)([._ -]?(id|ids|name|key|no|nr|num|"
    r"number|index|label))?)",
    re.IGNORECASE,
)
"""Names of columns that hold sections, and no labels of tissue."""


class _Split(NamedTuple):
    """One way to tell spots apart.

    Attributes
    ----------
    column
        Column of ``adata.obs``; None: the endings of the spots' names.
    sets
        Set of each spot, as text.
    named
        Whether the column is called as columns of sections are.
    """

    column: str | None
    sets: np.ndarray
    named: bool

    @property
    def of_sections(self) -> bool:
        """Whether nothing but sections is told apart like this, where two spots are at one place."""
        return self.named or self.column is None


class _Around(NamedTuple):
    """Neighbours of some spots, nearest first: ``spots`` (m,), ``neighbours`` and ``distance`` (m, k); all places."""

    spots: np.ndarray
    neighbours: np.ndarray
    distance: np.ndarray
    places: np.ndarray


def check_one_section(adata: AnnData, coordinates: np.ndarray) -> None:
    """Refuse spots of several sections that lie over one another.

    Parameters
    ----------
    adata
        Spots x genes.
    coordinates
        Coordinates of the spots (S, 2 or 3). Sections at heights of their own, in three dimensions, are sound.

    Raises
    ------
    ValueError
        If there are; the message names the column that tells them apart, or says how to make one.
    """
    if len(coordinates) < FEWEST:
        return
    splits = list(_splits(adata))
    positions = _array_positions(adata)
    shared = _shared(coordinates)
    if shared.mean() >= SOME:
        separating = _separating(splits, coordinates)
        if positions is not None and _shared(positions).mean() >= SOME:
            separating = _separating(separating, positions)
        if shared.mean() >= SHARED or any(split.of_sections for split in separating):
            _refuse(adata, f"{shared.sum()} of {len(shared)} spots have the coordinates of another", separating)
    if coordinates.shape[1] == 3 and np.ptp(coordinates[:, 2]) > 0:
        return
    around = _neighbours(coordinates[:, :2])
    shared = np.zeros(len(coordinates), dtype=bool) if positions is None else _shared(positions)
    if positions is not None and shared.mean() >= SOME:
        said = f"{shared.sum()} of {len(shared)} spots have the array position (array_row, array_col) of another"
        separating = [split for split in _separating(splits, positions) if _over_one_another(around, split.sets)]
        if any(split.of_sections for split in separating) or (separating and shared.mean() >= SHARED):
            _refuse(adata, said, separating)
        if shared.mean() >= SHARED and _over_one_another(around, _arrays(positions, coordinates[:, :2])):
            _refuse(adata, said, [])
    regularity = {
        i: _regularity(around, split.sets) for i, split in enumerate(splits) if _over_one_another(around, split.sets)
    }
    telling = [i for i, found in regularity.items() if found > 0 or splits[i].of_sections]
    if telling:
        # A label that happens to halve the spots of each section is less regular than the sections are.
        best = splits[max(telling, key=lambda i: (splits[i].named, regularity[i]))]
        what = f"adata.obs[{best.column!r}]" if best.column is not None else "the ending of their names"
        names = ", ".join(map(repr, np.unique(best.sets)[:3].tolist()))
        _refuse(adata, f"the spots of the sets in {what} ({names}, ...) lie in between one another", [best])


def _refuse(adata: AnnData, found: str, splits: list[_Split]) -> None:
    images = list(dict(adata.uns.get(_keys.SPATIAL, {})))
    if len(images) > 1:
        found += f"; adata.uns['spatial'] holds {len(images)} of them ({', '.join(map(repr, images[:3]))})"
    best = _best(splits) if splits else None
    if best is not None and best.column is not None:
        fix = f"name the column that tells them apart: batch_key={best.column!r}"
    elif best is not None:
        fix = (
            "no column of adata.obs tells them apart, but the ending of their names does: make one, "
            "adata.obs['section'] = [...], and pass batch_key='section'"
        )
    else:
        fix = (
            "no column of adata.obs tells them apart: write the section of each spot into one, such as "
            "anndata.concat({'a': a, 'b': b}, label='section', index_unique='-'), and pass batch_key='section'"
        )
    raise ValueError(
        f"Expected the spots of one section, found several sections that lie over one another ({found}); {fix}, or "
        "take one section alone. If they are one section all the same, pass one_section=True"
    )


def _best(splits: list[_Split]) -> _Split:
    """The split that is most likely that of the sections: a column called so, another column, names; of few values."""
    return min(splits, key=lambda s: (not s.named, s.column is None, len(np.unique(s.sets))))


# ---- What may tell sections apart


def _array_positions(adata: AnnData) -> np.ndarray | None:
    """Rows and columns (S, 2); None where there are none, or where they are bins that hold several spots each."""
    if adata.uns.get(_keys.UNS, {}).get("grid", {}).get("kind") == "bins":
        return None
    held = [column(adata.obs, key) if key in adata.obs else None for key in (_keys.ARRAY_ROW, _keys.ARRAY_COL)]
    whole = whole_positions(*held)
    return None if whole is None else np.column_stack(whole)


def _splits(adata: AnnData) -> Iterator[_Split]:
    images = {str(name) for name in dict(adata.uns.get(_keys.SPATIAL, {}))}
    for name in adata.obs.columns:
        values = column(adata.obs, name)
        named = NAMES.fullmatch(str(name)) is not None
        # Numbers are labels only where the column's name says so.
        if values.dtype.kind in "fiu" and not (named and (values.dropna() % 1 == 0).all()):
            continue
        if values.dtype.kind in "mMc":
            continue
        codes, known = pd.factorize(values.astype(object), use_na_sentinel=True)
        if not 2 <= len(known) <= MOST_SETS:
            continue
        text = np.append(np.array([str(value) for value in known], dtype=object), "missing").astype(str)
        named = named or (len(images) > 1 and set(text[:-1]) <= images)
        yield _Split(str(name), text[codes], named)
    ends = _endings(adata.obs_names)
    if ends is not None:
        yield _Split(None, ends, named=False)


def _endings(names: pd.Index) -> np.ndarray | None:
    """What follows the last separator of each name, if it tells apart names that are equal without it; else None."""
    parts = pd.Series(names.astype(str)).str.extract(r"^(.*)[-_.:]([^-_.:]*)$")
    whole = set(names)
    numbered = parts[0].isin(whole)  # obs_names_make_unique: "s1" and "s1-1"
    if numbered.any():
        base = parts[0].where(numbered, pd.Series(names.astype(str)))
        end = parts[1].where(numbered, "")
    else:
        base, end = parts[0], parts[1]
    if base.isna().any() or not 2 <= end.nunique() <= MOST_SETS:
        return None
    twice = base.duplicated(keep=False)
    if twice.mean() < SOME or pd.DataFrame({"base": base, "end": end}).duplicated().any():
        return None
    return np.asarray(end, dtype=str)


def _shared(keys: np.ndarray) -> np.ndarray:
    """Spots (S,) whose key (S, d) another spot has."""
    return pd.DataFrame(keys).duplicated(keep=False).to_numpy()


def _separating(splits: list[_Split], keys: np.ndarray) -> list[_Split]:
    """Splits whose sets have each key once only, where ten spots or more share theirs."""
    shared = _shared(keys)
    if shared.sum() < OWN:
        return []
    table = pd.DataFrame(keys[shared])
    return [s for s in splits if table.assign(of=s.sets[shared]).duplicated(keep=False).mean() < SOME]


def _arrays(positions: np.ndarray, coordinates: np.ndarray, tries: int = 200) -> np.ndarray:
    """Set of each spot (S,): the spots of one section lie where one affine map takes their array positions.

    Maps are found from three neighbouring spots at a time (RANSAC), those of most spots first. Spots of no map, such as
    cells in bins, are left together.
    """
    rng = np.random.default_rng(0)
    design = np.column_stack([positions, np.ones(len(positions))]).astype(np.float64)
    distinct = np.unique(positions, axis=0)
    apart: Any = KDTree(distinct).query(distinct, k=2)[0]
    step = np.median(apart[:, 1])
    n_positions = len(np.unique(positions, axis=0))
    sets, left = np.zeros(len(positions), dtype=np.int64), np.arange(len(positions))
    for number in range(1, 21):
        best = np.zeros(0, dtype=np.int64)
        for _ in range(tries):
            three = rng.choice(left, 3, replace=False) if len(left) >= FEWEST else left[:0]
            if len(three) < 3 or abs(np.linalg.det(design[three])) < 1e-9:
                continue
            fit = np.linalg.solve(design[three], coordinates[three])
            pitch = step * np.sqrt(abs(np.linalg.det(fit[:2])))
            off = np.linalg.norm(design[left] @ fit - coordinates[left], axis=1)
            inside = left[off < 0.2 * pitch]
            if len(inside) > len(best) and not _shared(positions[inside]).mean() > SOME:
                best = inside
        if len(best) < max(FEWEST, 0.4 * n_positions):  # of cells in bins, some lie in the same corner of each
            break
        sets[best] = number
        left = np.setdiff1d(left, best)
    return sets


# ---- How sets of spots lie to one another


def _neighbours(places: np.ndarray) -> _Around:
    n = len(places)
    spots = np.arange(n)
    if n > LOOKED_AT:
        spots = np.sort(np.random.default_rng(0).choice(n, LOOKED_AT, replace=False))
    distance: Any
    index: Any
    distance, index = KDTree(places).query(places[spots], k=min(AROUND + 1, n))
    # A spot is its own nearest neighbour, or, where others lie at the same place, one of the first.
    itself = index == spots[:, None]
    itself[~itself.any(axis=1), 0] = True
    rows, k = len(spots), index.shape[1] - 1
    return _Around(spots, index[~itself].reshape(rows, k), distance[~itself].reshape(rows, k), places)


class _Sets(NamedTuple):
    """Of each spot looked at: its set, the reach of its own set, whether others lie all around it, own and others."""

    codes: np.ndarray
    around: np.ndarray
    reach: np.ndarray
    within: np.ndarray
    own: np.ndarray


def _sets(around: _Around, sets: np.ndarray) -> _Sets:
    codes = pd.factorize(sets)[0]
    of = codes[around.spots]
    own = codes[around.neighbours] == of[:, None]
    count = own.cumsum(axis=1)
    # Distance of the OWN-th neighbour of the same set; spots of sparse sets have none nearby.
    reached = count >= OWN
    last = np.where(reached.any(axis=1), reached.argmax(axis=1), -1)
    reach = np.where(last >= 0, around.distance[np.arange(len(of)), last], np.inf)
    within = (around.distance <= reach[:, None] * (1 + 1e-9)) & np.isfinite(reach)[:, None]
    others = within & ~own
    # As many others as own, about; and not on one side only, as beyond a border.
    n_others = others.sum(axis=1)
    offset = around.places[around.neighbours] - around.places[around.spots][:, None]
    middle = np.linalg.norm((offset * others[..., None]).sum(axis=1), axis=1) / np.maximum(n_others, 1)
    with np.errstate(invalid="ignore"):
        among = (n_others >= OWN // 2) & (middle < 0.5 * reach)
    return _Sets(of, among & np.isfinite(reach), reach, within, own)


def _judged(found: _Sets, sets: np.ndarray, around: _Around) -> list[int]:
    """Sets with enough spots, most of which lie among those of other sets."""
    size = np.bincount(pd.factorize(sets)[0])
    good = []
    for code in np.unique(found.codes):
        mine = found.codes == code
        if size[code] >= FEWEST and mine.sum() >= OWN and found.around[mine].mean() >= SHARED:
            good.append(int(code))
    return good


def _over_one_another(around: _Around, sets: np.ndarray) -> bool:
    """Whether sets lie over one another: most spots of a set are surrounded by those of others, as dense."""
    found = _sets(around, sets)
    return bool(_judged(found, sets, around))


def _regularity(around: _Around, sets: np.ndarray) -> float:
    """How regular the sets are, each by itself, if they are more so than all spots together where they overlap; else 0.

    Of Clark and Evans' index, computed locally: 1 for spots at random, 2 and more for an array.
    """
    found = _sets(around, sets)
    size = np.bincount(pd.factorize(sets)[0])
    overlapped, judged, least = 0, 0, np.inf
    nearest_own = np.where(found.own.any(axis=1), _first(around.distance, found.own), np.inf)
    nearest_other = np.where((~found.own).any(axis=1), _first(around.distance, ~found.own), np.inf)
    together = around.distance[:, min(OWN, around.distance.shape[1]) - 1]
    factor = 2 * np.sqrt(OWN / np.pi)
    for code in np.unique(found.codes):
        mine = (found.codes == code) & found.around
        if size[code] < FEWEST or mine.sum() < OWN:
            continue
        judged += int(size[code])
        alone = np.median(factor * nearest_own[mine] / found.reach[mine])
        pooled = np.median(factor * around.distance[mine, 0] / np.maximum(together[mine], 1e-300))
        nearer = np.median(nearest_other[mine]) < 0.85 * np.median(nearest_own[mine])
        if nearer and (alone - pooled >= MORE_REGULAR or alone >= ARRAY_LIKE):
            overlapped += int(size[code])
            least = min(least, float(alone))
    return least if overlapped and judged >= 0.5 * len(sets) and overlapped >= 0.9 * judged else 0.0


def _first(distance: np.ndarray, which: np.ndarray) -> np.ndarray:
    return distance[np.arange(len(distance)), which.argmax(axis=1)]
