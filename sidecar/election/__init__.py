"""The election: the rules of one lease, and the loop that carries their decisions to Redis."""
