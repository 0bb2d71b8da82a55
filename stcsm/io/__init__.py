"""Files to AnnData: ST text, Space Ranger folders, h5ad."""

from stcsm.io._labels import add_labels, read_labels
from stcsm.io._open import existing_file
from stcsm.io._picture import read_picture, read_transformation, spatial_entry
from stcsm.io._read import read
from stcsm.io._st import read_st

__all__ = [
    "add_labels",
    "existing_file",
    "read",
    "read_labels",
    "read_picture",
    "read_st",
    "read_transformation",
    "spatial_entry",
]
