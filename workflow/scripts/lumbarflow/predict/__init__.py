"""Predict: instances of a trained network in the common table."""
