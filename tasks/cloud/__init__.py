"""Copies of a repository on a remote of rclone's that are never worse than the one before."""
