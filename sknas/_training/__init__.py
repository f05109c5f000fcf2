"""Building blocks of training with torch, independent of search."""
