"""What `vmborg deploy` registers on a Prefect server: what is wanted, what is there, and the difference."""
