"""Reading only what changed: disks shown to borg as files of a few MiB each, which change only where the disk did."""
