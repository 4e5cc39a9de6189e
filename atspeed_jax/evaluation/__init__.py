"""Measures: list quality, baselines, speed, and the report."""
