"""What a gene model is asked for and what it needs of an AnnData, checked before any work is done."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData, ImplicitModificationWarning
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from scvi.data.fields import CategoricalObsField, ObsmField
from scvi.model.base import BaseModelClass

from stcsm import _keys
from stcsm._features import features_taken, spots_taken
from stcsm._layers import RAW, counts_matrix
from stcsm._lazy import check_writable, column
from stcsm._text import section_names
from stcsm.models._module import LIKELIHOODS
from stcsm.models._stacked import check_one_section, twice_named
from stcsm.space import check_counts

logger = logging.getLogger(__name__)

ENCODERS = ("auto", "mlp", "conv")
FULL = "full"
"""The resolution at which every spot (or array position) is a feature."""
MOST_FEATURES, FEWEST_FEATURES = 20_000, 2
"""Most features where ``resolution="auto"``, and the fewest that can be asked for."""


@dataclass(frozen=True)
class Setup:
    """Where an AnnData holds the counts and the coordinates of its spots, and which of them are taken.

    Attributes
    ----------
    layer, spatial_key, batch_key
        Layer of the counts, key of the coordinates, column of the sections.
    one_section
        Take spots for one section, even where they look like several that lie over one another.
    keep_background, keep_controls
        Take spots beside the tissue, and features that are no genes.
    """

    layer: str | None
    spatial_key: str
    batch_key: str | None = None
    one_section: bool = False
    keep_background: bool = False
    keep_controls: bool = False


EARLIER = {"one_section": True, "keep_background": True, "keep_controls": True}
"""What setups that do not say it took, those of earlier versions: every spot and every feature."""


def write_setup(adata: AnnData, setup: Setup) -> None:
    """Write ``setup`` under our own key; names of spots and genes that are no text become text.

    anndata makes them text when it copies, joins and writes, but not in the tables of ``.obsm`` and ``.varm``, so that
    an AnnData with tables of ours could be neither copied nor written.
    """
    entry: dict[str, Any] = {"spatial_key": setup.spatial_key, **{name: getattr(setup, name) for name in EARLIER}}
    if setup.layer is not None:
        entry["layer"] = setup.layer
    if setup.batch_key is not None:
        entry["batch_key"] = setup.batch_key
    with warnings.catch_warnings():
        # anndata warns that a view is copied when something is written into it, which is wanted here.
        warnings.simplefilter("ignore", ImplicitModificationWarning)
        adata.uns[_keys.UNS] = {**adata.uns.get(_keys.UNS, {}), "setup": entry}
        for axis in ("obs_names", "var_names"):
            names = getattr(adata, axis)
            if names.inferred_type != "string" or names.dtype not in (np.dtype(object), pd.Index(["text"]).dtype):
                setattr(adata, axis, names.astype(str))
                logger.warning(f"adata.{axis} are made text, as anndata makes them when it copies or writes")


def read_setup(adata: AnnData) -> Setup:
    """Read what :func:`write_setup` recorded.

    Raises
    ------
    ValueError
        If the AnnData was never set up.
    """
    entry = adata.uns.get(_keys.UNS, {}).get("setup")
    if entry is None:
        raise ValueError(
            "Expected an AnnData that was set up, found none of our keys in it; "
            "call stcsm.models.GeneVAE.setup_anndata(adata) first"
        )
    taken = {name: bool(entry.get(name, earlier)) for name, earlier in EARLIER.items()}
    return Setup(entry.get("layer"), entry["spatial_key"], entry.get("batch_key"), **taken)


def section_labels(adata: AnnData, setup: Setup) -> np.ndarray | None:
    """Name of each spot's section (S,), as text; None where the setup names no column.

    Raises
    ------
    ValueError
        If there is no such column, or a spot has no section.
    """
    if setup.batch_key is None:
        return None
    if setup.batch_key not in adata.obs:
        raise ValueError(
            f"Expected the section of each spot in adata.obs[{setup.batch_key!r}], found the columns "
            f"{sorted(map(str, adata.obs))}; write it there or pass batch_key=None"
        )
    labels = column(adata.obs, setup.batch_key)
    return section_names(labels, f"adata.obs[{setup.batch_key!r}]", adata.obs_names)


def spots_on_tissue(adata: AnnData, setup: Setup) -> np.ndarray:
    """Spots (S,) that are taken: not those beside the tissue (``adata.obs["in_tissue"]`` 0), unless they are kept."""
    return spots_taken(adata, setup.keep_background)


def gene_features(adata: AnnData, setup: Setup) -> np.ndarray:
    """Features (G,) that are taken: genes, not controls or antibodies, unless they are kept."""
    return features_taken(adata, setup.keep_controls)


def say_what_is_left_out(adata: AnnData, setup: Setup) -> None:
    """Warn of spots beside the tissue, features that are no genes, and genes that only ``adata.raw`` has.

    Raises
    ------
    ValueError
        If no spot lies on tissue, or no feature is a gene.
    """
    on_tissue, genes = spots_on_tissue(adata, setup), gene_features(adata, setup)
    if not on_tissue.any():
        raise ValueError(
            f"Expected spots on tissue, found in_tissue 0 in adata.obs for all {adata.n_obs}; correct the column, or "
            "pass keep_background=True"
        )
    if not genes.any():
        raise ValueError(
            f"Expected genes, found {adata.n_vars} features of which none is (antibodies, CRISPR guides, control "
            "probes); pass keep_controls=True to take them all the same"
        )
    said = []
    if not on_tissue.all():
        said.append(
            f"{(~on_tissue).sum()} of {adata.n_obs} spots lie beside the tissue (in_tissue 0): they are left out of "
            "the model, and maps are NaN there (keep_background=True takes them)"
        )
    if not genes.all():
        said.append(
            f"{(~genes).sum()} of {adata.n_vars} features are no genes, such as "
            f"{adata.var_names[(~genes).argmax()]!r}: they are neither trained on nor embedded "
            "(keep_controls=True takes them)"
        )
    if setup.layer == RAW and RAW not in adata.layers:
        n_raw_only = int((~adata.raw.var_names.astype(str).isin(adata.var_names.astype(str))).sum())
        if n_raw_only:
            said.append(
                f"{n_raw_only} genes are in adata.raw only and are left out; adata = adata.raw.to_adata() has them all"
            )
    if said:
        warnings.warn("; ".join(said), UserWarning, stacklevel=3)


_RAW_HINT = "; adata.raw holds counts: take them with layer='raw'"


def _raw_holds_counts(adata: AnnData) -> bool:
    if adata.raw is None or RAW in adata.layers:
        return False
    try:
        check_counts(counts_matrix(adata, RAW), adata.obs_names, adata.var_names)
    except ValueError:
        return False
    return True


def check_anndata(adata: AnnData, setup: Setup) -> None:
    """Refuse an AnnData that a gene model cannot use.

    Raises
    ------
    TypeError
        If ``adata`` is not an AnnData.
    ValueError
        If it is a view of a backed AnnData, is empty, has duplicate names, no counts or no usable coordinates, or holds
        sections that lie over one another and that no column tells apart.
    """
    if not isinstance(adata, AnnData):
        raise TypeError(f"Expected an AnnData (spots x genes), found {type(adata).__name__}")
    check_writable(adata)
    if adata.n_obs == 0 or adata.n_vars == 0:
        raise ValueError(f"Expected at least one spot and one gene, found {adata.n_obs} spots x {adata.n_vars} genes")
    for axis, names in (("spot", adata.obs_names), ("gene", adata.var_names)):
        twice = names[names.duplicated()].unique()
        if len(twice):
            fix = twice_named(adata) if axis == "spot" else "make them unique: adata.var_names_make_unique()"
            raise ValueError(
                f"Expected unique {axis} names, found {len(twice)} used more than once (such as {twice[0]!r}); {fix}"
            )
    coordinates = check_coordinates(adata, setup.spatial_key)
    try:
        matrix = counts_matrix(adata, setup.layer)
        check_counts(matrix, adata.obs_names, adata.var_names)
    except ValueError as error:
        if setup.layer == RAW or not _raw_holds_counts(adata):
            raise
        raise ValueError(f"{error}{_RAW_HINT}") from None
    if not setup.one_section and setup.batch_key is None:
        check_one_section(adata, coordinates, setup.spatial_key)


def check_coordinates(adata: AnnData, spatial_key: str) -> np.ndarray:
    """Return the coordinates of the spots (S, 2 or 3).

    Raises
    ------
    ValueError
        If they are absent, of the wrong shape or not finite.
    """
    if spatial_key not in adata.obsm:
        raise ValueError(
            f"Expected the coordinates of the spots in adata.obsm[{spatial_key!r}], found the keys "
            f"{sorted(map(str, adata.obsm))}; " + _spatial_fix(adata)
        )
    coordinates = np.asarray(adata.obsm[spatial_key])
    if coordinates.ndim != 2 or coordinates.shape[1] not in (2, 3):
        raise ValueError(
            f"Expected adata.obsm[{spatial_key!r}] of shape (n_spots, 2) or (n_spots, 3), found {coordinates.shape}"
        )
    try:
        coordinates = coordinates.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Expected numbers in adata.obsm[{spatial_key!r}], found {coordinates.dtype}") from error
    bad = ~np.isfinite(coordinates).all(axis=1)
    if bad.any():
        raise ValueError(
            f"Expected finite coordinates, found {bad.sum()} of {len(bad)} spots with NaN or infinity in "
            f"adata.obsm[{spatial_key!r}] (first: {adata.obs_names[bad.argmax()]!r}); drop them or fill them in"
        )
    return coordinates


def _spatial_fix(adata: AnnData) -> str:
    if _keys.SPATIALDATA in adata.uns:
        return (
            "this is a table of a SpatialData object, whose shapes or labels have them: "
            "adata = stcsm.io.from_spatialdata(sdata)"
        )
    return "put an array (n_spots, 2) there or pass spatial_key="


@contextmanager
def quiet(name: str, level: int) -> Iterator[None]:
    """Keep notices of a library below a level from being shown; what was quieter already stays so."""
    library = logging.getLogger(name)
    before = library.level
    library.setLevel(max(level, before))
    try:
        yield
    finally:
        library.setLevel(before)


def register(kind: type[BaseModelClass], adata: AnnData, setup: Setup) -> AnnData:
    """Register a setup with scvi-tools, and return the AnnData that the registry stands on.

    scvi-tools writes into the AnnData that it registers, so it gets a shell: names, coordinates and sections.

    Parameters
    ----------
    kind
        Class of the model.
    adata, setup
        The user's AnnData, and where things are in it.
    """
    labels = section_labels(adata, setup)
    coordinates = check_coordinates(adata, setup.spatial_key)
    names = adata.obs_names.astype(str)  # AnnData makes names of spots text
    shell = AnnData(
        obs=pd.DataFrame(
            {} if labels is None else {setup.batch_key: pd.Categorical(labels)},
            index=names,
        ),
        var=pd.DataFrame(index=adata.var_names),
        obsm={
            setup.spatial_key: pd.DataFrame(coordinates, index=names, columns=["x", "y", "z"][: coordinates.shape[1]])
        },
    )
    fields: list[Any] = [ObsmField("spatial", setup.spatial_key)]
    if labels is not None:
        fields.append(CategoricalObsField(REGISTRY_KEYS.BATCH_KEY, setup.batch_key))
    arguments = kind._get_setup_method_args(cls=kind, adata=None, **asdict(setup))
    manager = AnnDataManager(fields=fields, setup_method_args=arguments)
    with quiet("scvi", logging.WARNING):
        manager.register_fields(shell)
    kind.register_manager(manager)
    return shell


def choose_encoder(encoder: str) -> str:
    """Resolve ``encoder="auto"``: fully connected, for any tissue.

    A fully connected encoder takes any coordinates and any spots, needs no grid, and has no cells without tissue.
    Convolutions share weights over the tissue, so they have fewer parameters on large grids, and the published model
    has them. The default changes only if they recover tissue layers better (benchmarks/RECOVERY.md).
    """
    return "mlp" if encoder == "auto" else encoder


def most_features(encoder: str, resolution: int | str) -> int | None:
    """Most features of a model; None where every spot is one. A convolutional model has a grid of its own."""
    if encoder == "conv" or resolution == FULL:
        return None
    return MOST_FEATURES if resolution == "auto" else int(resolution)


def check_settings(s: dict[str, Any]) -> None:
    """Refuse settings out of range; numbers become plain ``int`` and ``float``, since they are written as JSON.

    Raises
    ------
    ValueError
        If a setting is out of range; the message names it.
    """
    if s["encoder"] not in ENCODERS:
        raise ValueError(f"Expected encoder to be one of {ENCODERS}, found {s['encoder']!r}")
    if s["likelihood"] not in LIKELIHOODS:
        raise ValueError(f"Expected likelihood to be one of {LIKELIHOODS}, found {s['likelihood']!r}")
    for name in ("n_latent", "n_seeds", "min_counts", "n_hidden"):
        if not isinstance(s[name], (int, np.integer)) or s[name] < 1:
            raise ValueError(f"Expected {name} to be a whole number of 1 or more, found {s[name]!r}")
        s[name] = int(s[name])
    resolution = s["resolution"]
    if resolution not in ("auto", FULL):
        whole = isinstance(resolution, (int, np.integer)) and not isinstance(resolution, bool)
        if not whole or resolution < FEWEST_FEATURES:
            raise ValueError(
                f"Expected resolution to be 'auto', 'full' or the most features, {FEWEST_FEATURES} or more, found "
                f"{resolution!r}"
            )
        s["resolution"] = int(resolution)
        if s["encoder"] == "conv":
            raise ValueError(
                f"Expected resolution to be 'auto' or 'full' for a convolutional model, whose features are the cells "
                f"of its grid, found {resolution}; leave resolution out, or take encoder='mlp'"
            )
    seed = s["seed"]
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"Expected seed to be a whole number of 0 or more, found {seed!r}")
    smoothing, s["seed"] = s["smoothing"], int(seed)
    if isinstance(smoothing, str) and smoothing == "auto":
        return
    if isinstance(smoothing, bool) or not isinstance(smoothing, (int, float, np.integer, np.floating)):
        raise ValueError(f"Expected smoothing to be 'auto' or a number of 0 or more, found {smoothing!r}")
    if not np.isfinite(smoothing) or smoothing < 0:
        raise ValueError(f"Expected smoothing of 0 or more, found {smoothing!r}")
    s["smoothing"] = float(smoothing)
