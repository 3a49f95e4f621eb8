"""Which archives stay: borg's keep rules, what is protected from them, and what becomes of a VM that is gone. Pure."""
