"""Child processes that serve models: start, wait until ready, restart, stop."""
