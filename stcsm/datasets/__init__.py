"""Ready AnnData objects: real ones fetched with pooch, simulated ones built here with known truth."""
