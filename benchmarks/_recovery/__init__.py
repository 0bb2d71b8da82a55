"""Recovery benchmark: does a concept find its tissue? Protocol, rivals, the published model and stcsm."""
