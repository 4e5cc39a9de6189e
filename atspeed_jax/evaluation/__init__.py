"""Measures of a run: list quality, baselines, target calls, equality, speed."""
