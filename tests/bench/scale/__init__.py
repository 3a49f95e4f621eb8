"""What one Prefect server bears: many hypervisors whose backups are simulated, everything else real."""
