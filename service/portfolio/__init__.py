"""Portfolios as plain data: records, positions, values. No I/O."""
