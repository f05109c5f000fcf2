"""Select, calibrate and build the ensemble that predicts."""
