"""SpatialData stores: a table with coordinates comes in, results go back into the table."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from stcsm import _keys
from stcsm.io._zarr import Writer

if TYPE_CHECKING:
    from spatialdata import SpatialData

logger = logging.getLogger(__name__)

ZARR_FILES = ("zarr.json", ".zgroup", ".zattrs")
"""One of these is in every zarr group: the first in format 3, the others in format 2."""
ELEMENTS = ("images", "labels", "points", "shapes", "tables")
"""Groups of a SpatialData store."""
METADATA = ("zarr.json", ".zmetadata", "zmetadata")
"""Files of a store's root that hold the metadata of all its arrays; the last is spatialdata's own, before 0.5."""


def is_zarr(path: str | Path) -> bool:
    """Whether `path` is a folder that holds a zarr group."""
    return any((Path(path) / name).is_file() for name in ZARR_FILES)


def is_spatialdata(path: str | Path) -> bool:
    """Whether `path` is a SpatialData store, whatever is in it."""
    if not is_zarr(path):
        return False
    root = _open(Path(path))
    return "spatialdata_attrs" in root.attrs or any(kind in root for kind in ELEMENTS)


def from_spatialdata(sdata: SpatialData, table: str | None = None, *, coordinate_system: str = "global") -> ad.AnnData:
    """Give a table of a SpatialData object coordinates, in place.

    What stcsm writes into the returned AnnData is in `sdata`, so that ``sdata.write`` stores it.

    Parameters
    ----------
    sdata
        Holds the table, and the shapes or labels that it annotates.
    table
        Name of the table; may be left out where there is only one.
    coordinate_system
        Of the centroids, where the table has no coordinates of its own.

    Returns
    -------
    AnnData
        ``sdata.tables[table]`` itself. ``.obsm["spatial"]`` is the one that was there, else the centroids of the shapes
        or labels that the rows annotate (x, y, and z in 3D).

    Raises
    ------
    ValueError
        No table, several to choose from, a table without coordinates that annotates nothing, rows without a shape, or
        no such coordinate system; `sdata` is unchanged.

    Examples
    --------
    >>> adata = stcsm.io.from_spatialdata(sdata)  # doctest: +SKIP
    >>> stcsm.models.GeneVAE.setup_anndata(adata)  # doctest: +SKIP
    """
    name = _choose(list(sdata.tables), table, "this SpatialData object")
    adata = sdata.tables[name]
    _add_coordinates(adata, lambda: sdata, coordinate_system, f"table {name!r}")
    return adata


def read_store(path: Path, table: str | None = None, *, coordinate_system: str = "global") -> ad.AnnData:
    """Read a table of a SpatialData store, or an AnnData kept as zarr, into memory.

    Parameters
    ----------
    path
        The store. Of a SpatialData store, only the table is read, and the shapes and labels where it has no
        coordinates.
    table, coordinate_system
        See `from_spatialdata`.

    Returns
    -------
    AnnData
        Spots x genes, sparse counts as CSR.

    Raises
    ------
    ValueError
        Neither of both, or see `from_spatialdata`.
    """
    if not is_zarr(path):
        raise ValueError(f"Expected a zarr store, found a folder without zarr's {ZARR_FILES[0]} or .zgroup: {path}.")
    if not is_spatialdata(path):
        return _read_anndata(path, table)
    name = _table_of(path, table)
    adata = _read_table(path, name)
    _add_coordinates(adata, lambda: _read_elements(path), coordinate_system, f"table {name!r} of {path}")
    if sparse.issparse(adata.X):
        adata.X = cast(Any, adata.X).tocsr()
    return adata


def write_table(adata: ad.AnnData, store: str | Path, table: str, *, overwrite: bool = False) -> None:
    """Write an AnnData as a table of a SpatialData store on disk, whole or not at all.

    The other elements of the store are not touched. After an error the store is as it was.

    Parameters
    ----------
    adata
        The table.
    store
        SpatialData store.
    table
        Name of the table.
    overwrite
        Replace the table of this name.

    Raises
    ------
    FileExistsError
        There is a table of this name and `overwrite` is false, or another element of this name.
    ValueError
        Not a SpatialData store, or a table that spatialdata refuses.
    """
    sd = _library()
    path = _existing_store(store)
    root = _open(path)
    # spatialdata refuses a store with names that differ in case only.
    alike = [(kind, name) for kind in ELEMENTS if kind in root for name in root[kind] if name.lower() == table.lower()]
    taken, held = alike[0] if alike else (None, table)
    if taken is not None and (taken != "tables" or not overwrite or held != table):
        advice = "choose another name" + (" or say overwrite=True" if taken == "tables" and held == table else "")
        raise FileExistsError(f"Expected a new name, found {held!r} among the {taken} of {path}; {advice}.")
    _check_table(adata, f"the table to be written as {table!r}")
    plain, results = _without_results(adata)
    how = {}
    if root.metadata.zarr_format == 2:  # spatialdata writes format 3 where it is not told
        from spatialdata._io.format import SpatialDataContainerFormatV01  # where its documentation sends the user

        how = {"sdata_formats": [SpatialDataContainerFormatV01()]}
    # Inside the store, so that moving is renaming; spatialdata looks at the folders of its elements alone.
    with tempfile.TemporaryDirectory(prefix=".stcsm-", dir=path, ignore_cleanup_errors=True) as scratch:
        new = Path(scratch) / "new.zarr"
        with _quiet():
            sd.SpatialData(tables={table: plain}).write(new, **how)
            writer = Writer(root.metadata.zarr_format)
            for place, value in results.items():
                writer.write(new / "tables" / table / place, value)
        _put(new / "tables" / table, path, table, Path(scratch) / "old")


def add_to_store(adata: ad.AnnData, store: str | Path, table: str | None = None) -> str:
    """Write the results of an analysis into the table of a SpatialData store that was analysed.

    Everything that stcsm wrote replaces what an earlier analysis left in the table; every other key of `adata` that the
    table lacks is added (labels of spots, coordinates). What the table holds stays: its counts, layers and columns, and
    the rows and genes that the analysis left out, whose results are NaN.

    Parameters
    ----------
    adata
        What ``stcsm.io.read(store)`` gave, with results. Rows and genes are joined by name.
    store, table
        See `read_store`.

    Returns
    -------
    str
        Name of the table.

    Raises
    ------
    ValueError
        Not a SpatialData store, no such table, or names that the table does not have; the store is unchanged.
    """
    path = _existing_store(store)
    name = _table_of(path, table)
    stored = _read_table(path, name)
    spots = _Rows.of(adata.obs_names, stored.obs_names, "spots", path)
    genes = _Rows.of(adata.var_names, stored.var_names, "genes", path)
    for written, kept, join in (
        (adata.obsm, stored.obsm, spots.spread),
        (adata.varm, stored.varm, genes.spread),
        (adata.obsp, stored.obsp, spots.pairs),
    ):
        for key in [key for key in kept if _is_ours(key)]:
            del kept[key]
        for key in [key for key in written if key not in kept]:
            kept[key] = join(written[key])
    for column in adata.obs.columns.difference(stored.obs.columns, sort=False):
        stored.obs[column] = spots.spread(adata.obs[column])
    others = [column for column in adata.obs if not _same(stored.obs[column], spots.spread(adata.obs[column]))]
    if others:
        logger.warning(f"the columns {', '.join(others)} of the table are kept; the analysis was of other values")
    stored.uns.pop(_keys.UNS, None)
    for key in [key for key in adata.uns if key not in stored.uns]:
        stored.uns[key] = adata.uns[key]
    write_table(stored, path, name, overwrite=True)
    return name


def check_store(adata: ad.AnnData, store: str | Path, table: str | None = None) -> None:
    """Refuse, before any work, a store that cannot take the results of an analysis of its table.

    Parameters
    ----------
    adata
        What ``stcsm.io.read(store)`` gave.
    store, table
        See `add_to_store`.

    Raises
    ------
    PermissionError
        The store cannot be written to.
    ValueError
        Not a SpatialData store, no such table, or a table that spatialdata refuses to write.
    """
    path = _existing_store(store)
    name = _table_of(path, table)
    if not all(os.access(folder, os.W_OK) for folder in (path, path / "tables", path / "tables" / name)):
        raise PermissionError(f"Expected a store that can be written to, found one that cannot: {path}.")
    _check_table(adata, f"table {name!r} of {path}")


@dataclass(frozen=True)
class _Rows:
    """Where each row of a stored table is in an AnnData that may have other rows, or fewer."""

    at: np.ndarray
    """Row of the AnnData, -1 where it has none."""
    names: pd.Index
    """Of the stored rows."""
    n: int
    """Rows of the AnnData."""

    @classmethod
    def of(cls, names: pd.Index, stored: pd.Index, what: str, path: Path) -> _Rows:
        # a reader may have numbered names that occur twice; it keeps the order
        if len(names) == len(stored) and (names.equals(stored) or not stored.is_unique):
            return cls(np.arange(len(names)), stored, len(names))
        at = names.get_indexer(stored) if names.is_unique and stored.is_unique else np.array([], dtype=int)
        if (at >= 0).sum() < len(names):
            raise ValueError(
                f"Expected {what} of the stored table, found {len(names)}, of which {(at >= 0).sum()} are among the "
                f"{len(stored)} of {path}; write the results to the store that was read."
            )
        return cls(at, stored, len(names))

    def spread(self, values: Any) -> Any:
        """One row for each stored row, missing where the AnnData has none."""
        if isinstance(values, pd.Series | pd.DataFrame):
            if (self.at < 0).any() and isinstance(values, pd.Series) and values.dtype == bool:
                values = values.astype("boolean")
            return values.set_axis(range(self.n)).reindex(self.at).set_axis(self.names)
        if sparse.issparse(values):
            return self._matrix() @ cast(Any, values)
        out = np.asarray(values)[self.at]
        if (self.at < 0).any():
            out = out.astype(np.result_type(out.dtype, np.float32))
            out[self.at < 0] = np.nan
        return out

    def pairs(self, values: Any) -> sparse.csr_matrix:
        """One row and column for each stored row, empty where the AnnData has none."""
        return (self._matrix() @ sparse.csr_matrix(values) @ self._matrix().T).tocsr()

    def _matrix(self) -> sparse.csr_matrix:
        there = np.flatnonzero(self.at >= 0)
        ones = np.ones(len(there), dtype=np.float32)
        return sparse.csr_matrix((ones, (there, self.at[there])), shape=(len(self.at), self.n))


def _same(stored: pd.Series, used: pd.Series) -> bool:
    """Whether a column holds the same text wherever the analysis has a row."""
    return bool((used.isna() | (stored.astype(str) == used.astype(str))).all())


def _without_results(adata: ad.AnnData) -> tuple[ad.AnnData, dict[str, Any]]:
    """The same table (no copy of its counts) without what has many small arrays, and that by its place in a store."""
    layers = {name: adata.layers[name] for name in _keys.layer_names(adata.layers)}
    plain = ad.AnnData(
        adata.X, obs=adata.obs, var=adata.var, uns=dict(adata.uns), layers=layers,
        obsm=dict(adata.obsm), varm=dict(adata.varm), obsp=dict(adata.obsp), varp=dict(adata.varp),
    )  # fmt: skip
    if adata.raw is not None:
        plain.raw = adata.raw.to_adata()
    results: dict[str, Any] = {}
    for name, part in (("obsm", plain.obsm), ("varm", plain.varm), ("uns", plain.uns)):
        for key in [key for key, value in part.items() if isinstance(value, pd.DataFrame) or key == _keys.UNS]:
            results[f"{name}/{key}"] = part.pop(key)
    return plain, results


def _is_ours(key: str) -> bool:
    return key in (*_keys.CONCEPT_TABLES, _keys.CONCEPT_SCORE, _keys.SPOT_GRAPH) or key.startswith(_keys.EMBEDDING)


def _library() -> ModuleType:
    try:
        import spatialdata
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Expected the package spatialdata, which reads SpatialData stores, found none; install it: "
            "pip install spatialdata"
        ) from error
    return spatialdata


def _open(path: Path) -> Any:
    """The root group of a store."""
    import zarr

    # Elements are looked up on the disk: the consolidated metadata may be older.
    return zarr.open_group(path, mode="r", use_consolidated=False)


def _existing_store(store: str | Path) -> Path:
    path = Path(store).expanduser().resolve()
    if not path.exists():
        raise FileNotFoundError(f"Expected a SpatialData store, found nothing at {path}; check the path.")
    if not is_spatialdata(path):
        raise ValueError(f"Expected a SpatialData store, found something else at {path}; check the path.")
    return path


def _table_of(path: Path, table: str | None) -> str:
    root = _open(path)
    return _choose(sorted(root["tables"]) if "tables" in root else [], table, str(path))


def _choose(tables: list[str], table: str | None, where: str) -> str:
    if not tables:
        raise ValueError(
            f"Expected a table of counts, found none in {where}; aggregate its points or images into one first "
            "(sdata.aggregate)."
        )
    if table is None and len(tables) > 1:
        raise ValueError(
            f"Expected one table, found {', '.join(map(repr, tables))} in {where}; choose one with table=."
        )
    if table is not None and table not in tables:
        raise ValueError(f"Expected a table {table!r}, found {', '.join(map(repr, tables))} in {where}; check table=.")
    return tables[0] if table is None else table


def _read_anndata(path: Path, table: str | None) -> ad.AnnData:
    root = _open(path)
    if root.attrs.get("encoding-type") != "anndata" and not {"obs", "var"} <= set(root):
        raise ValueError(
            f"Expected a SpatialData store or an AnnData kept as zarr, found the groups {sorted(root)} in {path}."
        )
    if table is not None:
        raise ValueError(f"Expected a SpatialData store with table=, found an AnnData in {path}; leave table= out.")
    return ad.read_zarr(path)


def _read_table(path: Path, name: str) -> ad.AnnData:
    """Read one table alone: the others of the store may be large."""
    adata = ad.read_zarr(path / "tables" / name)
    attrs = adata.uns.get(_keys.SPATIALDATA)
    if attrs is not None:  # as spatialdata reads it: lists come back as arrays, None may be left out
        regions = attrs.get("region")
        attrs["region"] = regions.tolist() if isinstance(regions, np.ndarray) else regions
        attrs.setdefault("region_key", None)
        attrs.setdefault("instance_key", None)
    return adata


def _read_elements(path: Path) -> SpatialData:
    with _quiet():
        return _library().read_zarr(path, selection=("shapes", "labels"))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without notices of spatialdata and zarr about what is meant to be so, or nobody can change."""
    with warnings.catch_warnings():
        for message in (
            "The table is annotating",  # elements that are read or written elsewhere
            "SpatialData is not stored in the most current format",
            "The index of the dataframe is not monotonic",
            "zarr v3 autosharding",
            "Consolidated metadata is currently not part in the Zarr format 3",
            "Object at .* is not recognized as a component of a Zarr",  # folders of parquet files
        ):
            warnings.filterwarnings("ignore", message=message)
        yield


def _check_table(adata: ad.AnnData, what: str) -> None:
    """Refuse what spatialdata would not write."""
    _library()
    from spatialdata.models import TableModel

    try:
        TableModel().validate(adata)
    except (ValueError, TypeError) as error:
        text = " ".join(str(error).split())
        raise ValueError(f"Expected {what} to be one that spatialdata writes, found: {text}") from error


def _add_coordinates(adata: ad.AnnData, elements: Callable[[], SpatialData], coordinate_system: str, what: str) -> None:
    """Write the centroids of what the rows annotate to ``.obsm["spatial"]`` where that is absent.

    Raises
    ------
    ValueError
        See `from_spatialdata`.
    """
    if _keys.SPATIAL in adata.obsm:
        if coordinate_system != "global":
            raise ValueError(
                f"Expected a table without coordinates with coordinate_system={coordinate_system!r}, found "
                f"obsm['spatial'] in {what}; leave coordinate_system= out, or delete that entry first."
            )
        return
    attrs = adata.uns.get(_keys.SPATIALDATA) or {}
    region_key, instance_key = attrs.get("region_key"), attrs.get("instance_key")
    if region_key not in adata.obs or instance_key not in adata.obs:
        raise ValueError(
            f"Expected coordinates in obsm['spatial'], or shapes or labels that the rows annotate, found neither in "
            f"{what}; add coordinates, or say what it annotates (sdata.set_table_annotates_spatialelement)."
        )
    sdata = elements()
    regions = adata.obs[region_key].astype(str).to_numpy()
    found = []
    for region in dict.fromkeys(regions):
        rows = np.flatnonzero(regions == region)
        points = _centroids(sdata, region, coordinate_system, what)
        ids = adata.obs[instance_key].iloc[rows]
        if pd.api.types.is_integer_dtype(ids) != pd.api.types.is_integer_dtype(points.index):
            ids, points.index = ids.astype(str), points.index.astype(str)
        at = points.index.get_indexer(pd.Index(ids))
        if (at < 0).any():
            raise ValueError(
                f"Expected a shape or label for every row, found none in {region!r} for {(at < 0).sum()} of "
                f"{len(ids)} rows of {what} (such as {instance_key} {ids.iloc[int((at < 0).argmax())]}); keep the "
                "others: spatialdata.match_table_to_element."
            )
        found.append(points.iloc[at].set_axis(rows))
    if len(found) > 1:
        logger.warning(
            f"{what} annotates {len(found)} elements ({', '.join(dict.fromkeys(regions))}); where these are sections "
            f"of their own, say so: batch_key={region_key!r}"
        )
    # Elements in 2D and 3D together: the depth of the flat ones is unknown, so it is left out.
    adata.obsm[_keys.SPATIAL] = pd.concat(found, join="inner").sort_index().to_numpy(dtype=np.float64)


def _centroids(sdata: SpatialData, region: str, coordinate_system: str, what: str) -> pd.DataFrame:
    """Coordinates of the shapes or labels of one element, by instance."""
    from spatialdata.transformations import get_transformation

    spatialdata = _library()
    if region not in sdata or region in sdata.images or region in sdata.tables:
        there = ", ".join(map(repr, [*sdata.shapes, *sdata.labels])) or "none"
        raise ValueError(f"Expected the shapes or labels {region!r} that {what} annotates, found {there}.")
    element = sdata[region]
    systems: Mapping[str, Any] = get_transformation(element, get_all=True)
    if coordinate_system not in systems:
        raise ValueError(
            f"Expected {region!r} in the coordinate system {coordinate_system!r}, found "
            f"{', '.join(map(repr, systems))}; name one of these with coordinate_system=."
        )
    with _quiet():
        points = spatialdata.get_centroids(element, coordinate_system=coordinate_system).compute()
    return points[[axis for axis in ("x", "y", "z") if axis in points]]


def _put(new: Path, store: Path, table: str, aside: Path) -> None:
    """Move a table's folder into a store and bring the store's metadata up to date, or leave all as it was."""
    import zarr

    target = store / "tables" / table
    before = {name: (store / name).read_bytes() for name in METADATA if (store / name).is_file()}
    tables = target.parent.is_dir()
    try:
        if not tables:
            shutil.copytree(new.parent, target.parent, ignore=lambda *_: [table])
        if target.exists():
            os.replace(target, aside)
        os.replace(new, target)
        root = zarr.open_group(store, mode="r+")
        if root.metadata.consolidated_metadata is not None:
            with _quiet():
                zarr.consolidate_metadata(root.store)
            if "zmetadata" in before:
                shutil.copyfile(store / ".zmetadata", store / "zmetadata")
    except BaseException:
        if not new.exists() and target.exists():
            os.replace(target, new)
        if aside.exists():
            os.replace(aside, target)
        if not tables:
            shutil.rmtree(target.parent, ignore_errors=True)
        for name, content in before.items():
            (store / name).write_bytes(content)
        raise
