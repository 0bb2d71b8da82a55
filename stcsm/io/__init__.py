"""Files to AnnData: ST text, Space Ranger and other platforms' folders, h5ad."""

from stcsm.io._image import read_image, read_transformation, spatial_entry
from stcsm.io._labels import add_labels, read_labels
from stcsm.io._read import read
from stcsm.io._st import read_st, shape_in_name

__all__ = [
    "add_labels",
    "read",
    "read_image",
    "read_labels",
    "read_st",
    "read_transformation",
    "shape_in_name",
    "spatial_entry",
]
