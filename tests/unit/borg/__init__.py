"""Tests of infra.borg that start no borg."""
