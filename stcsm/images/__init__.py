"""Faces: CelebA-format data, an image VAE, and the same concepts and engine."""
