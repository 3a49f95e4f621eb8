"""Every system outside vmborg, a folder each. Nothing here knows Prefect."""
