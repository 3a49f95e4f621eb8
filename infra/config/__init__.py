"""The configuration file: its models, how it is read and shown, and how secrets are fetched."""
