"""From a history to what predicts."""
