"""Pure functions of dumps."""
