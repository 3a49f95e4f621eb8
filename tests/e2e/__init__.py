"""Tests that use vmborg as a person would."""
