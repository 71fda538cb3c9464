"""The election: the rules of one lease, and the loop that makes the calls to Redis.

Only the module `candidate` does I/O or reads a clock.
"""
