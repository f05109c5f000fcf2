"""Run functions in worker processes."""
