"""Which image of ``.uns["spatial"]`` is that of the spots."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from stcsm import _keys
from stcsm._lazy import column
from stcsm._text import as_text

ON_IMAGE = 0.95
"""Share of the spots that lie on the image of their section, at least; a few may lie beside its edge."""
MET = 0.5
"""Share that is enough for the image that bears the name of the section: it may be cropped."""
ASKED = 0.01
"""Share that is enough for the image that is asked for by name."""
OF_LIBRARIES = re.compile(
    r"(library|section|sample|batch|slide|slice)([._ -]?(id|key|name|no|nr|number|label))?", re.IGNORECASE
)
"""Names of columns of ``.obs`` that name the section of a spot, as squidpy, scanpy, users and ours call it."""
BARCODE = r"[ACGTN]{10,}(?:-1(?!\d))?"
"""10x's name of a spot; a number other than 1 at its end is that of a section (``spaceranger aggr``)."""


def find_image(
    adata: AnnData, spatial_key: str = _keys.SPATIAL, library_id: str | None = None
) -> tuple[str, str] | None:
    """Library and resolution of the image of the section in ``.uns["spatial"]``; None where there is none.

    An image counts where the scale factors say how to put spots on it, as Space Ranger and :func:`stcsm.io.read_st`
    write them. The blank canvas that ``read_st`` stores in place of an image does not count. Of several images, as a
    join of sections leaves them, the one counts whose name the spots bear: in the column of sections, in any column of
    ``.obs`` whose values are names of images, or as a part of the spot names that ``anndata.concat`` adds. Where these
    name a section that has no image, there is none: a join may have kept the image of another section alone. Without a
    name, it is the only one that the spots lie on. Where that cannot be known, there is none; nor where most of the
    spots do not lie on the image of their name, because their coordinates were moved.

    Parameters
    ----------
    adata
        A tissue.
    spatial_key
        Key of the coordinates in ``.obsm``; images fit those of ``"spatial"`` only.
    library_id
        Name of the image in ``.uns["spatial"]``, where there are several.

    Raises
    ------
    ValueError
        If ``.uns["spatial"]`` has no image of the name ``library_id``.
    """
    return image_of(adata, spatial_key, library_id)[0]


def image_of(adata: AnnData, spatial_key: str, library_id: str | None) -> tuple[tuple[str, str] | None, str]:
    """The image of the spots (library, resolution), or why none of those that are there is taken."""
    libraries = dict(adata.uns.get("spatial", {}))
    images = {str(name): res for name, entry in libraries.items() if (res := _resolution(entry))}
    if library_id is not None:
        if library_id not in images:
            raise ValueError(
                f"Expected library_id to be the name of an image in adata.uns['spatial'], found {library_id!r}; there "
                f"are {sorted(images)}"
            )
        return _met(adata, spatial_key, libraries, library_id, images[library_id], ASKED)
    if spatial_key != _keys.SPATIAL or not images:
        return None, ""
    choose = "draw the image of these spots: " + " or ".join(f"library_id={name!r}" for name in sorted(images)[:3])
    named, where = _named_sections(adata, set(map(str, libraries)))
    if len(named) > 1:
        return None, f"the spots are of several sections, {_some(named)} in {where}; draw one of them, or {choose}"
    if named:
        name = next(iter(named))
        if name in images:
            return _met(adata, spatial_key, libraries, name, images[name])
        return None, f"the section of the spots is {name!r} in {where}, and no image is called so; {choose}"
    fitting = [name for name in images if _on_image(adata, spatial_key, libraries[name], images[name]) >= ON_IMAGE]
    if len(fitting) == 1:
        return (fitting[0], images[fitting[0]]), ""
    if fitting:
        return None, f"the spots lie on each of the images {_some(fitting)}, and nothing says which is theirs; {choose}"
    return None, f"the spots lie beside the image of {_some(images)}; if it is theirs, {choose}"


def _some(names: Iterable[str]) -> str:
    """A few names, for a message."""
    return ", ".join(map(repr, sorted(names)[:3]))


def _resolution(library: Any) -> str | None:
    """The best image of a library that spots can be put on; None where there is none."""
    if not isinstance(library, Mapping) or library.get("metadata", {}).get("image") == "blank":
        return None
    images, factors = library.get("images") or {}, library.get("scalefactors") or {}
    fit = (r for r in ("hires", "lowres") if {"spot_diameter_fullres", f"tissue_{r}_scalef"} <= set(factors))
    return next((r for r in fit if r in images), None)


def _named_sections(adata: AnnData, libraries: set[str]) -> tuple[set[str], str]:
    """Names of the sections of the spots, and where they stand; no name where nothing says it.

    A column counts if a value of it is the name of a library; a column of sections, and what is added to the names of
    all spots, whatever it is: a section may have no image.
    """
    key = _keys.sections_key(adata)
    sections = [c for c in adata.obs.columns if c == key or OF_LIBRARIES.fullmatch(str(c))]
    sections.sort(key=lambda c: (c != key, str(c) not in ("library_id", _keys.SECTION)))
    held = {c: column(adata.obs, c) for c in (*sections, *(c for c in adata.obs.columns if c not in sections))}
    values = {  # a spot without a name may be of any section
        f"adata.obs[{name!r}]": (name in sections, set(labels[~labels.isna()].map(as_text)) | _missing(labels))
        for name, labels in held.items()
        if name in sections or _is_text(labels)
    }
    values["the names of the spots"] = (True, _added_to_names(adata.obs_names.astype(str), libraries))
    for fits in (
        lambda _, found: found <= libraries,
        lambda _, found: found & libraries,
        lambda of_sections, found: of_sections and found - {MISSING_NAME},
    ):
        for where, (of_sections, found) in values.items():
            if found and fits(of_sections, found):
                return found, where
    return set(), ""


MISSING_NAME = "no name"
"""Stands for the section of spots that have none."""


def _missing(labels: pd.Series) -> set[str]:
    return {MISSING_NAME} if labels.isna().any() else set()


def _added_to_names(names: pd.Index, libraries: set[str]) -> set[str]:
    """What a join added to the names of the spots: the name of a library, or all that there is beside barcodes."""
    added = {
        name: names.str.endswith((f"-{name}", f"_{name}")) | names.str.startswith((f"{name}-", f"{name}_"))
        for name in libraries
        if not name.isdigit()  # the number at the end of a 10x barcode is no section
    }
    of_none = ~np.logical_or.reduce([np.zeros(len(names), dtype=bool), *added.values()])
    found = {name for name, there in added.items() if there.any()}
    if not of_none.any():
        return found
    text = pd.Series(names[of_none])
    beside = text.str.extract(rf"^(?P<first>.*?)[-_]?{BARCODE}[-_]?(?P<last>.*)$")
    if beside.isna().any(axis=None):
        ends = text.str.extract(r"[-_]([^-_]+)$")[0]  # one ending of all, if any; Xenium and Visium HD end in 1
        return found | set(ends) - {"1"} if ends.notna().all() and ends.nunique() == 1 else set()
    return found | set(beside["first"] + beside["last"]) - {""}


def _is_text(labels: pd.Series) -> bool:
    return isinstance(labels.dtype, pd.CategoricalDtype) or not pd.api.types.is_numeric_dtype(labels)


def _met(
    adata: AnnData, spatial_key: str, libraries: Mapping[str, Any], name: str, resolution: str, least: float = MET
) -> tuple[tuple[str, str] | None, str]:
    """An image known by its name; none where the spots were moved off it, as those of sections set side by side are."""
    share = _on_image(adata, spatial_key, libraries[name], resolution)
    if share >= least:
        return (name, resolution), ""
    return None, (
        f"{share:.0%} of the spots lie on the image of {name!r} by adata.obsm[{spatial_key!r}]; put the coordinates "
        "that it was stored with back there"
    )


def _on_image(adata: AnnData, spatial_key: str, library: Any, resolution: str) -> float:
    """Share of the spots that lie on the image."""
    factors = library["scalefactors"]
    scale, margin = float(factors[f"tissue_{resolution}_scalef"]), float(factors["spot_diameter_fullres"])
    height, width = np.shape(library["images"][resolution])[:2]
    xy = np.asarray(adata.obsm[spatial_key], dtype=float)[:, :2]
    on = (xy >= -margin) & (xy <= np.array([width, height]) / scale + margin)
    return float(on.all(axis=1).mean())
