"""Training with torch, without search."""
