"""Measure: from masks or outlines to labelled vertebrae and what can be measured on them."""
