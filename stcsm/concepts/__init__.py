"""Concept vectors, scores and their statistics: arrays in, arrays out."""
