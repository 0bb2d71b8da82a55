"""Face images: CelebA-format data, an image VAE, and the same concepts and attribution engine as for tissues."""

import lazy_loader as _lazy

# lazy, so that `stcsm --help` loads no torch, and only training loads Lightning
__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submod_attrs={
        "_cli": ["faces"],
        "_concepts": ["both_classes", "concept_scores", "concept_vectors", "encode", "performance", "traverse"],
        "_figures": ["clip_map", "plot_histograms", "plot_saliency", "plot_traversal"],
        "_saliency": ["SaliencyMaps", "mask_agreement", "mean_difference", "pixel_maps", "saliency"],
        "data": [
            "CelebA",
            "CropReport",
            "ImageArray",
            "ImageError",
            "ImageFolder",
            "ImageSet",
            "Inventory",
            "as_pixels",
            "crop_faces",
            "image_grid",
            "lfw_subset",
        ],
        "model": ["PRESETS", "Architecture", "ImageVAE", "fetch_pretrained", "load_keras_weights"],
    },
)
