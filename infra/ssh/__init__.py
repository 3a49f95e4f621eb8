"""SSH to dump hosts: pinned keys, streams with deadlines, typed errors."""
