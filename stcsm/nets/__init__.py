"""Torch layers that both halves (tissues and faces) use."""
