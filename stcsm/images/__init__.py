"""Faces: CelebA-format data, an image VAE, and the same concepts and engine."""

import lazy_loader as _lazy

# lazy, so that reading pictures needs no torch model and training alone needs Lightning
__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submod_attrs={
        "_agreement": ["mask_agreement", "mean_difference"],
        "_architecture": ["PRESETS", "Architecture"],
        "_celeba": ["CelebA"],
        "_cli": ["faces"],
        "_concepts": ["both_classes", "concept_scores", "concept_vectors", "performance"],
        "_crop": ["CropReport", "crop_faces"],
        "_data": ["PictureArray", "Pictures"],
        "_encode": ["encode"],
        "_fetch": ["fetch_pretrained"],
        "_figures": ["clip_map", "plot_histograms", "plot_saliency"],
        "_folder": ["PictureFolder"],
        "_grids": ["picture_grid"],
        "_inventory": ["Inventory"],
        "_keras": ["load_keras_weights"],
        "_lfw": ["lfw_subset"],
        "_picture": ["PictureError"],
        "_saliency": ["SaliencyMaps", "pixel_maps", "saliency"],
        "_traversal": ["plot_traversal", "traverse"],
        "_vae": ["ImageVAE", "as_pixels"],
    },
)
