"""Search by gradient."""
