"""The candidates: programs that campaign for one lease with one library each.

Each library runs in its own environment, so a candidate imports only the standard library, its own library and `stage`.
"""
