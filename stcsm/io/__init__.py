"""Files to AnnData: ST text, Space Ranger folders, h5ad."""
