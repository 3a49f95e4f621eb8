"""Tests of copies in clouds, against real servers on loopback."""
