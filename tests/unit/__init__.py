"""Tests that need no daemon."""
