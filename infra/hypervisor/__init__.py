"""libvirt and qemu: one door to the daemon, pure reading of definitions, and the few acts a backup needs."""
