"""Tests of infra.manifest."""
