"""Dumps against real servers: sshd, PostgreSQL, MariaDB, SQLite, Redis, each started by the tests on loopback."""
