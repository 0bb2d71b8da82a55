"""Grid, neighbour and filter arithmetic on plain arrays."""
