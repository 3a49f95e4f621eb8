"""`make dashboard`: a Prefect server, a worker and two VMs, backed up by a schedule, to look at and click."""
