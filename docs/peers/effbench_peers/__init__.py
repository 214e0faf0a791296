"""Other implementations of what effbench measures, one a file; they come in by entry points only."""
