"""Benchmarks: this project and others, measured in one run and compared as ratios."""
