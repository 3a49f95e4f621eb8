"""The steps of the flows, as Prefect tasks: observable, timed, retried only where an error says it is transient."""
