"""The image model: its architecture, the autoencoder, its training, and published weights."""

from stcsm.images.model._keras import fetch_pretrained, load_keras_weights
from stcsm.images.model._network import PRESETS, Architecture
from stcsm.images.model._vae import ImageVAE

__all__ = ["PRESETS", "Architecture", "ImageVAE", "fetch_pretrained", "load_keras_weights"]
