"""Reading definitions, disks and images; deciding from them. No daemon."""
