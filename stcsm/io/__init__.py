"""Files to AnnData: ST text, folders of Space Ranger and other platforms, SpatialData, h5ad; regions on a tissue."""

from stcsm.io._image import read_image, read_transformation, spatial_entry
from stcsm.io._label_table import read_labels
from stcsm.io._labels import add_labels
from stcsm.io._read import read, stays_in_file
from stcsm.io._regions import add_regions
from stcsm.io._spatialdata import (
    add_to_store,
    check_store,
    from_spatialdata,
    is_spatialdata,
    is_zarr,
    write_table,
)
from stcsm.io._st import read_st, shape_in_name

__all__ = [
    "add_labels",
    "add_regions",
    "add_to_store",
    "check_store",
    "from_spatialdata",
    "is_spatialdata",
    "is_zarr",
    "read",
    "read_image",
    "read_labels",
    "read_st",
    "read_transformation",
    "shape_in_name",
    "spatial_entry",
    "stays_in_file",
    "write_table",
]
