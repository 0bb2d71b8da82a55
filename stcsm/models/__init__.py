"""Gene models: each gene is a sample, the spots are its features."""
