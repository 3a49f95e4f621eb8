"""The verbs below `vmborg dumps`."""
