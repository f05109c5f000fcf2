"""The loop of a search, with its constraints, records, progress and signals."""
