"""Checkpoints on disk, from which searches are resumed."""
