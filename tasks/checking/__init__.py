"""The health of repositories: borg's check, archives that are really read, keys, growth."""
