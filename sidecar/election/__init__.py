"""The election: the rules of one lease, and the loop that makes the calls to Redis."""
