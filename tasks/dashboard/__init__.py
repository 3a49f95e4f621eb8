"""Pages of the dashboard: what Prefect's artifacts show of the fleet, of a VM and of a repository."""
