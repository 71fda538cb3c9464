"""Seeded bugs: the product is broken on purpose, one bug at a time. Each bug must be found, or the run fails."""
