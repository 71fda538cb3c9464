"""Hand-over times of leases and locks."""
