"""What is registered on a Prefect server or installed on a host."""
