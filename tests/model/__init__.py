"""The Spin model of the lease protocol: the correct protocol keeps the promises, and each broken one violates them."""
