"""Retention: which archives go, who may delete them, what is held, and what becomes of VMs that are gone."""
