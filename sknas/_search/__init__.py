"""The loop of a search and what wraps it."""
