"""Drills: what is decided without a host."""
