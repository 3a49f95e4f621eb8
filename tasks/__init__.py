"""Prefect tasks: the observable, retried steps of the flows."""
