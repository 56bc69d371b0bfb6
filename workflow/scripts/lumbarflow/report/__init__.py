"""Draws the figures of a run and puts them, with its tables, into one HTML page."""
