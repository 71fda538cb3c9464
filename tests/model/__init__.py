"""The Spin model of the lease protocol: what holds in the right one, and what breaks in each broken one."""
