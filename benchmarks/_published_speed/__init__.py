"""Contenders of ``published_speed.py``; each trains the published model in its own process."""
