"""Reading only what changed, against real images, borg and guests."""
