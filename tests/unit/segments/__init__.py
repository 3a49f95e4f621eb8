"""Reading only what changed: what needs no program."""
