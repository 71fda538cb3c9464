"""When the market is open, and what is due then. No I/O."""
