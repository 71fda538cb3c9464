"""Measurements of this project beside others in one run, reported as ratios."""
