"""Pictures of what the analysis steps wrote."""
