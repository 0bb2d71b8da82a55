"""AnnData to AnnData: grids, spot graphs."""
