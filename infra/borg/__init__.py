"""borg, driven through its command line: `borg --log-json`, typed messages, typed errors."""
