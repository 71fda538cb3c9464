"""A leader-election sidecar for ECS tasks. It holds leases in Redis and answers requests on the task's loopback."""
