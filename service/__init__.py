"""The portfolio service: an HTTP API in every task, and background work in the task that leads."""
