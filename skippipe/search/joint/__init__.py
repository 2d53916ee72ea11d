"""Setting `joint`: stages, paths and order searched together."""
