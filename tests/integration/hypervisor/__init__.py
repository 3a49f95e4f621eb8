"""Reading real domains that have nothing to boot."""
