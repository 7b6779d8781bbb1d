"""Utility, distance and cost metrics on arrays."""
