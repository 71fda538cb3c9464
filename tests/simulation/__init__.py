"""A simulation of the lease protocol: the production state machine runs under faults, and oracles check promises."""
