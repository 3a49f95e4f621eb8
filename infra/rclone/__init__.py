"""rclone, driven through its command line: argument lists, its JSON log, typed errors."""
