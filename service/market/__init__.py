"""The market's sessions, and the ticks that are due in a session. No I/O."""
