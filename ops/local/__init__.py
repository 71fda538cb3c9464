"""Runs the tasks of `task-definition.json` on one machine, as ECS would run them: `make run`."""
