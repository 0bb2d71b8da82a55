"""Concept saliency maps for spatial transcriptomics.

Importing this package is cheap: submodules, and with them torch, scvi-tools and scanpy, load when first used.
"""

from importlib.metadata import version

import lazy_loader as _lazy

__version__ = version("stcsm")

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=["attribution", "concepts", "datasets", "evaluation", "images", "io", "models", "pl", "pp", "tl"],
)
