"""Intervals, paired tests, multiple comparisons and stability of training: numpy and scipy, pure functions."""
