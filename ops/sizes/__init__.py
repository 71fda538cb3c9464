"""`make sizes`: the memory and the processor that a task needs, measured in its real containers."""
