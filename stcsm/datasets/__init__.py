"""Ready AnnData objects: real ones fetched with pooch, simulated ones built here with known truth."""

from stcsm.datasets._simulated import simulated_bulb

__all__ = ["simulated_bulb"]
