"""Recovery benchmark: does a concept find its tissue? (EVALUATION.md)."""
