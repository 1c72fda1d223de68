"""Measurements, each one command that prints a table and `name: value` lines."""
