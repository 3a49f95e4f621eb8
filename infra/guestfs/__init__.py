"""libguestfs: a guest's file systems, read in an appliance of their own and not by the host's kernel."""
