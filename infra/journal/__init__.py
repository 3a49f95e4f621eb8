"""What runs have begun and not ended yet, kept outside Prefect: one file and one lock a domain."""
