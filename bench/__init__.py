"""Measurements side by side: ours and others' in one run, told as ratios."""
