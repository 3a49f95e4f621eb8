"""`make demo`: a running guest is backed up twice, lost, restored and booted, with the commands a user would type."""
