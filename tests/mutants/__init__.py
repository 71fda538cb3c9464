"""Seeded bugs: the product broken on purpose, one bug at a time. Each has to be found, or the run fails."""
