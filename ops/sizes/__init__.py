"""`make sizes`: measures the memory and the processor time that a task needs, in real containers."""
