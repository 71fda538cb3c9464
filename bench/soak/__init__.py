"""The soak: whole tasks under a compressed hour of production; nothing may grow, get lost or become loud.

`make soak` runs it. Two tasks live for the whole run and are judged. A third one restarts now and then. Renewals follow
each other after 50 ms and a lease moves each second, so an hour has the renewals of eight days and the hand-overs of
years.
"""
