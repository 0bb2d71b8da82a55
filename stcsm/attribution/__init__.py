"""The attribution engine: concept saliency of any torch module."""
