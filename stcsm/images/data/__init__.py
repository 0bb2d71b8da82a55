"""Images with attributes: CelebA, folders of your own, arrays in memory; the published crop; masks."""

from stcsm.images.data._celeba import CelebA
from stcsm.images.data._crop import CropReport, crop_faces
from stcsm.images.data._dataset import ImageArray, ImageSet, batch_loader, lfw_subset, stream
from stcsm.images.data._folder import ImageFolder, Inventory
from stcsm.images.data._image import ImageError, as_pixels, image_grid, write_png

__all__ = [
    "CelebA",
    "CropReport",
    "ImageArray",
    "ImageError",
    "ImageFolder",
    "ImageSet",
    "Inventory",
    "as_pixels",
    "batch_loader",
    "crop_faces",
    "image_grid",
    "lfw_subset",
    "stream",
    "write_png",
]
