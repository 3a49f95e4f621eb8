"""`make faults`: each way a host can fail in the middle of a backup, injected for real, and what is left of it."""
