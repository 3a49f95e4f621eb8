"""Dumps of databases: the steps of a pull, and the plain functions of list, restore and trust."""
