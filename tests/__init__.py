"""Tests, the demo and the benchmark."""
