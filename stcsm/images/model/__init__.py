"""The image model: its architecture, the autoencoder, its training, and published weights."""

from ._keras import fetch_pretrained, load_keras_weights
from ._network import PRESETS, Architecture
from ._vae import ImageVAE

__all__ = ["PRESETS", "Architecture", "ImageVAE", "fetch_pretrained", "load_keras_weights"]
