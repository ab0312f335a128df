"""Readers of data sets: every row becomes a question or the record of a problem; no row is dropped silently."""
