"""What a search keeps on disk."""
