"""Sections that lie over one another in one frame: found before a model takes them for one tissue.

One array position has one spot, and spots (or cells) of one section keep their distance. Spots of two sections do not:
they share array positions (also where they lie side by side) or coordinates, or are on slides of their own, or come
nearer to one another than to those of their own section. A label of
one section (a cell type) also splits the spots into sets that overlap, but each set is then patchier by itself than all
spots together; a section is more regular. And cells of one section keep their distance from one another, whatever their
types; cells of two sections do not, so that the closest pairs are of two sections, and some lie upon one another.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.spatial import KDTree
from scipy.stats import poisson

from stcsm import _keys
from stcsm._lazy import column
from stcsm._text import as_text
from stcsm.space import bins_across, shared_lattice_positions, whole_positions

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
"""Share of spots at a shared position, or among those of another set, that one section never has."""
SOME = 0.05
"""Share at a shared position that is enough where a column separates them."""
PART = 0.1
"""Share among those of another set that is enough where the column is called as columns of sections are."""
UPON = 0.25
"""Distance, of that between spots of one set, within which a spot lies upon another."""
CLOSEST, NEAR, FEW_OF_ONE, BY_CHANCE = 0.1, 24, 0.35, 1e-5
"""Closest pairs of neighbours that are looked at (share of all); neighbours that say how the sets are mixed there;
pairs of one set among the closest, of those expected in that mixture, at most; how likely so few are by chance."""
APART = 2.0
"""Distance of the spots at one array position, in pitches, from which on they do not lie in one bin."""
FIELDS = re.compile(r"fov|field|tile", re.IGNORECASE)
"""Columns that name fields of view: each may have an image, and all are one section."""
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
        Column of ``adata.obs``; None: their names or order.
    what
        The same, in words.
    sets
        Set of each spot, as text.
    named
        Whether the column is called as columns of sections are.
    of_sections
        Whether nothing but sections is told apart like this, where two spots are at one place.
    numbers
        Whether the values are numbers, which may count or measure anything.
    line
        Python that writes the sets of a split without a column into one; empty where there is none.
    """

    column: str | None
    what: str
    sets: np.ndarray
    named: bool = False
    of_sections: bool = False
    numbers: bool = False
    line: str = ""


class _Around(NamedTuple):
    """Neighbours of some spots, nearest first: ``spots`` (m,), ``neighbours`` and ``distance`` (m, k); all places."""

    spots: np.ndarray
    neighbours: np.ndarray
    distance: np.ndarray
    places: np.ndarray


def check_one_section(adata: AnnData, coordinates: np.ndarray, spatial_key: str = _keys.SPATIAL) -> None:
    """Refuse spots of several sections: over one another, at the same array positions, or on slides of their own.

    Parameters
    ----------
    adata
        Spots x genes.
    coordinates
        Coordinates of the spots (S, 2 or 3). Sections at heights of their own, in three dimensions, are sound.
    spatial_key
        Key of the coordinates. Images, of one slide each, belong to those of ``"spatial"``.

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
            _refuse(
                adata, coordinates, f"{shared.sum()} of {len(shared)} spots have the coordinates of another", separating
            )
    if coordinates.shape[1] == 3 and np.ptp(coordinates[:, 2]) > 0:
        return
    around = _neighbours(coordinates[:, :2])
    shared = np.zeros(len(coordinates), dtype=bool) if positions is None else _shared(positions)
    if positions is not None and shared.mean() >= SOME:
        said = f"{shared.sum()} of {len(shared)} spots have the array position (array_row, array_col) of another"
        separating = [split for split in _separating(splits, positions) if _over_one_another(around, split)]
        if any(split.of_sections for split in separating) or (separating and shared.mean() >= SHARED):
            _refuse(adata, coordinates, said, separating)
        arrays = _Split(None, "", _arrays(positions, coordinates[:, :2]).astype(str))
        if shared.mean() >= SHARED and _over_one_another(around, arrays):
            _refuse(adata, coordinates, said, [])
        if shared.mean() >= SHARED and _far_apart(positions, coordinates[:, :2]):
            _refuse(adata, coordinates, f"{said}, side by side", _separating(splits, positions), "")
    slides = set(map(str, adata.uns.get(_keys.SPATIAL, {}))) if spatial_key == _keys.SPATIAL else set()
    on_slides = [s for s in splits if s.column is not None and not FIELDS.fullmatch(s.column) and set(s.sets) <= slides]
    if on_slides:
        _refuse(adata, coordinates, f"the spots are on several slides by {on_slides[0].what}", on_slides, "")
    telling = [split for split in (*splits, _in_order(around)) if _tells(around, split)]
    if telling:
        # A label that happens to halve the spots of each section leaves more of the closest pairs in one set.
        best = max(telling, key=lambda split: (split.named, -_paired(around, split), _preference(split)))
        names = ", ".join(map(repr, np.unique(best.sets)[:3].tolist()))
        _refuse(
            adata,
            coordinates,
            f"the spots of the sets in {best.what} ({names}, ...) lie in between one another",
            [best],
        )


REJOIN = "adata = anndata.concat([a, b], label='section', index_unique='-')"
"""How sections are joined; whoever joined them otherwise has them still."""
OVER = " that lie over one another"


def _refuse(adata: AnnData, coordinates: np.ndarray, found: str, splits: list[_Split], where: str = OVER) -> None:
    images = list(dict(adata.uns.get(_keys.SPATIAL, {})))
    if len(images) > 1:
        found += f"; adata.uns['spatial'] holds {len(images)} of them ({', '.join(map(repr, images[:3]))})"
    best = max(splits, key=_preference, default=None)
    if best is not None and best.column is not None:
        fix = f"name the column that tells them apart: batch_key={best.column!r}" + _first(
            adata, best, coordinates, best.column
        )
    else:
        but = f", but {best.what} does" if best is not None else ""
        first = "" if best is None else _first(adata, best, coordinates, "section")
        line = best.line if best is not None and best.line else f"join them as {REJOIN}"
        fix = f"no column of adata.obs tells them apart{but}: {line}, and pass batch_key='section'{first}"
    raise ValueError(
        f"Expected the spots of one section, found several sections{where} ({found}); {fix}, or "
        "take one section alone. If they are one section all the same, pass one_section=True"
    )


def twice_named(adata: AnnData) -> str:
    """How spots whose names occur twice are told apart: the end of a message.

    Most names of sections that are joined as they are occur twice; then a column may tell them apart.
    """
    unique = "adata.obs_names_make_unique()"
    names = adata.obs_names.astype(str).to_numpy(dtype=str)[:, None]
    if _shared(names).mean() < SHARED:
        return f"make them unique: {unique}"
    best = max(_separating([s for s in _splits(adata) if s.column], names), key=_preference, default=None)
    if best is None:
        return (
            f"if they are sections that were joined, join them as {REJOIN}, and pass batch_key='section'; otherwise "
            f"make them unique: {unique}"
        )
    return f"make them unique: {unique}, and name the column of the sections: batch_key={best.column!r}"


def _first(adata: AnnData, split: _Split, coordinates: np.ndarray, column: str) -> str:
    """What is to be done before sections that share no array positions can be those of one analysis."""
    codes = pd.factorize(split.sets)[0]
    positions = _array_positions(adata)
    keys = coordinates if positions is None else positions
    _, position = np.unique(keys, axis=0, return_inverse=True)
    n_sections = np.bincount(pd.DataFrame({"at": position.ravel(), "of": codes}).drop_duplicates()["at"])
    if pd.Series((n_sections > 1)[position.ravel()]).groupby(codes).mean().min() >= SHARED:
        return ""
    return f", after {onto_one_grid(coordinates, codes, column)}"


def onto_one_grid(coordinates: np.ndarray, codes: np.ndarray, batch_key: str) -> str:
    """Python that brings sections onto common array positions: one lattice for arrays, bins for cells."""
    if shared_lattice_positions(coordinates[:, :2], codes) is not None:
        return f"stcsm.pp.to_grid(adata, batch_key={batch_key!r})"
    n_bins = bins_across(len(codes), codes.max() + 1)
    return f"stcsm.pp.to_grid(adata, n_bins={n_bins}, batch_key={batch_key!r}), then adata = stcsm.pp.bin_spots(adata)"


def _preference(split: _Split) -> tuple[bool, bool, int, bool]:
    """How likely a split is that of the sections: a column called so, one of text, others; of few values."""
    return (
        split.named,
        not (split.numbers or split.column is None),
        -len(np.unique(split.sets)),
        split.column is not None,
    )


# ---- What may tell sections apart


def _array_positions(adata: AnnData) -> np.ndarray | None:
    """Rows and columns (S, 2); None where there are none, or where they are bins that hold several spots each."""
    if _keys.holds_bins(adata):
        return None
    held = [column(adata.obs, key) if key in adata.obs else None for key in (_keys.ARRAY_ROW, _keys.ARRAY_COL)]
    whole = whole_positions(*held)
    return None if whole is None else np.column_stack(whole)


def _splits(adata: AnnData) -> Iterator[_Split]:
    images = {str(name) for name in dict(adata.uns.get(_keys.SPATIAL, {}))}
    for name in adata.obs.columns:
        values = column(adata.obs, name)
        if values.dtype.kind in "mMc" or name in (_keys.ARRAY_ROW, _keys.ARRAY_COL):
            continue
        named = NAMES.fullmatch(str(name)) is not None
        codes, known = pd.factorize(values.astype(object), use_na_sentinel=True)
        if not 2 <= len(known) <= MOST_SETS:
            continue
        numbers = values.dtype.kind in "fiu"
        # Few spots of a value: it counts or measures something.
        if numbers and not named and np.bincount(codes[codes >= 0]).min() < FEWEST:
            continue
        text = np.append(np.array([as_text(value) for value in known], dtype=object), "missing").astype(str)
        named = named or (len(images) > 1 and set(text[:-1]) <= images)
        yield _Split(str(name), f"adata.obs[{str(name)!r}]", text[codes], named, named, numbers)
    yield from _in_names(adata.obs_names)


def _in_names(names: pd.Index) -> Iterator[_Split]:
    """What follows the last separator of each name, and what comes before the first one.

    Of sections for sure if it tells apart names that are equal without it, as those of joined sections are.
    """
    text = pd.Series(names.astype(str))
    last = text.str.extract(r"^(?P<base>.*)(?P<mark>[-_.:])(?P<part>[^-_.:]*)$")
    numbered = last["base"].isin(set(text))  # obs_names_make_unique: "s1" and "s1-1"
    if numbered.any():
        last = last.where(numbered, pd.DataFrame({"base": text, "mark": "", "part": ""}))
    first = text.str.extract(r"^(?P<part>[^-_.:]*)(?P<mark>[-_.:])(?P<base>.*)$")
    line = "adata.obs['section'] = adata.obs_names.str."
    for what, parts, how in (
        ("the ending of their names", last, "" if numbered.any() else "rsplit({!r}, n=1).str[-1]"),
        ("the beginning of their names", first, "split({!r}, n=1).str[0]"),
    ):
        if parts["base"].isna().any() or not 2 <= parts["part"].nunique() <= MOST_SETS:
            continue
        twice = parts["base"].duplicated(keep=False).mean() >= SOME and not parts.duplicated().any()
        if twice or parts["part"].value_counts().min() >= FEWEST:
            mark = np.unique(parts["mark"].astype(str))
            # Names that were made unique do not say it: a spot that the first section lacks has kept its name.
            said = line + how.format(mark[0]) if how and len(mark) == 1 else ""
            yield _Split(None, what, parts["part"].to_numpy(dtype=str), of_sections=bool(twice), line=said)


def _in_order(around: _Around) -> _Split:
    """First and last spots, as a join leaves them: cut where most of the closest pairs are of both."""
    n = len(around.places)
    nearest = around.distance[:, 0]
    pairs = nearest <= np.quantile(nearest, CLOSEST)
    ends = np.sort(np.column_stack([around.spots[pairs], around.neighbours[pairs, 0]]), axis=1)
    over = np.cumsum(np.bincount(ends[:, 0] + 1, minlength=n + 1) - np.bincount(ends[:, 1] + 1, minlength=n + 1))
    cut = FEWEST // 2 + int(over[FEWEST // 2 : n - FEWEST // 2 + 1].argmax())
    sets = np.where(np.arange(n) < cut, f"the first {cut}", f"the last {n - cut}")
    return _Split(None, "their order", sets)


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


def _far_apart(positions: np.ndarray, coordinates: np.ndarray) -> bool:
    """Whether the spots at one array position lie far apart, as cells in one bin do not."""
    of = pd.DataFrame(coordinates).groupby(list(positions.T))
    reach = (of.max() - of.min()).max(axis=1)[of.size() > 1]
    pitch = np.sqrt(np.ptp(coordinates, axis=0).prod() / of.ngroups)
    return bool(reach.median() > APART * pitch)


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


def _over_one_another(around: _Around, split: _Split) -> bool:
    """Whether sets lie over one another: most spots of a set are surrounded by those of others, as dense."""
    return _overlap(_sets(around, split.sets), split.sets) >= (PART if split.named else SHARED)


def _overlap(found: _Sets, sets: np.ndarray) -> float:
    """Share of the spots that lie among those of other sets, of the set with the largest share; of spots enough."""
    size = np.bincount(pd.factorize(sets)[0])
    of = [found.around[found.codes == code] for code in np.unique(found.codes) if size[code] >= FEWEST]
    return max((float(mine.mean()) for mine in of if mine.sum() >= OWN), default=0.0)


def _tells(around: _Around, split: _Split) -> bool:
    """Whether the sets of a split are sections that lie over one another."""
    found = _sets(around, split.sets)
    share = _overlap(found, split.sets)
    if split.named or share < SHARED:
        return split.named and share >= PART
    return split.of_sections or _more_regular(around, found, split.sets) or _independent(around, found)


def _upon_one_another(around: _Around, found: _Sets, mine: np.ndarray) -> bool:
    """Whether spots lie upon those of other sets, within a quarter of their own distance, as chance has it.

    Cells of one section never do, whatever their types: small cells around large ones lie beside them.
    """
    spacing = np.median(_nearest(around, found.own)[mine])
    reach = found.reach[mine].copy()
    reach[~np.isfinite(reach)] = around.distance[mine, -1][~np.isfinite(reach)]
    others = (found.within & ~found.own)[mine]
    by_chance = (others.sum(axis=1) * np.minimum(UPON * spacing / reach, 1) ** 2).sum()
    return bool((others & (around.distance[mine] <= UPON * spacing)).sum() >= 0.25 * by_chance)


def _nearest(around: _Around, which: np.ndarray) -> np.ndarray:
    """Distance (m,) of the nearest of some neighbours (m, k); infinity where there is none."""
    nearest: np.ndarray = np.where(
        which.any(axis=1), around.distance[np.arange(len(which)), which.argmax(axis=1)], np.inf
    )
    return nearest


def _paired(around: _Around, split: _Split) -> float:
    """Closest pairs of one set, as a share of those expected in the mixture around, to one decimal."""
    close = around.distance[:, 0] <= np.quantile(around.distance[:, 0], CLOSEST)
    same = split.sets[around.neighbours[close, :NEAR]] == split.sets[around.spots[close], None]
    return round(float(same[:, 0].sum() / max(same.mean(axis=1).sum(), 1)), 1)


def _independent(around: _Around, found: _Sets) -> bool:
    """Whether spots of two sets lie as close as chance has it, while those of one set keep their distance.

    Spots of one section keep their distance whatever their labels, and like cells lie side by side: the closest pairs
    are of one set as often as the mixture around has it, or more often. Where cells of one type sit upon those of
    another, they are closer than by chance.
    """
    k = min(NEAR, around.distance.shape[1])
    distance, own = around.distance[:, :k], found.own[:, :k]
    if k <= OWN:
        return False
    scale = np.maximum(distance[:, OWN - 1], np.finfo(float).tiny)
    closest = np.quantile(distance[:, 0] / scale, CLOSEST)
    pairs = (distance[:, 0] <= closest * scale) & found.around
    same, expected = int(own[pairs, 0].sum()), float(own[pairs].mean(axis=1).sum())
    if same > FEW_OF_ONE * expected or poisson.cdf(same, expected) > BY_CHANCE:
        return False
    reach = (closest * scale)[found.around, None]
    others, near = ~own[found.around], distance[found.around]
    by_chance = (others.sum(axis=1) * (reach[:, 0] / np.maximum(near[:, -1], reach[:, 0])) ** 2).sum()
    as_chance_has_it = 0.5 * by_chance <= ((near <= reach) & others).sum() <= 2 * by_chance
    return bool(as_chance_has_it) and _upon_one_another(around, found, found.around)


def _more_regular(around: _Around, found: _Sets, sets: np.ndarray) -> bool:
    """Whether the sets are more regular, each by itself, than all spots together where they overlap.

    By Clark and Evans' index, computed locally: 1 for spots at random, 2 and more for an array.
    """
    size = np.bincount(pd.factorize(sets)[0])
    overlapped, judged = 0, 0
    nearest_own, nearest_other = _nearest(around, found.own), _nearest(around, ~found.own)
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
        if (
            nearer
            and alone - pooled >= MORE_REGULAR
            and (alone >= ARRAY_LIKE or _upon_one_another(around, found, mine))
        ):
            overlapped += int(size[code])
    return judged >= 0.5 * len(sets) and overlapped >= 0.9 * judged > 0
