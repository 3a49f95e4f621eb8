"""Tests against real daemons and programs."""
