"""The command line: a thin front to the flows."""
