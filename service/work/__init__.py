"""The background work: the tracker and the scheduler, the jobs they run, and the term they run in."""
