"""The soak: whole tasks under days of production load, compressed into an hour.

`make soak` runs it. No measure of a process (such as its memory) may grow, no term may end without a cause, and the
logs must stay quiet. Two tasks run for the whole time and are judged. A third task restarts once a minute. A lease is
renewed every 50 ms, and one of the two leases moves each second, so an hour has as many renewals as eight days of
production, and as many hand-overs as years of production.
"""
