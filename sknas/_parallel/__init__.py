"""Worker processes, without networks."""
