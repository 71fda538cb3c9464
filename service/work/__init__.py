"""The background work: the tracker, the scheduler, their jobs, and the term in which they run."""
