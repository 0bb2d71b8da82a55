"""Contenders of ``paper_speed.py``: each trains the published model in a process of its own."""
