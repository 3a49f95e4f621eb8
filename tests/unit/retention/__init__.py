"""Tests of infra.retention."""
