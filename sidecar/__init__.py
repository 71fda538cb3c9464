"""A leader-election sidecar for ECS tasks: Redis leases, answered for on the task's loopback."""
