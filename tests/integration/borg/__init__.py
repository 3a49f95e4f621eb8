"""The borg adapter against the real borg: every error provoked, every figure checked."""
