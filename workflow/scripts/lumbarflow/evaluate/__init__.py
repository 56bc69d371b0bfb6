"""Scores predictions against the annotations of the test films: metrics, tables, intervals."""
