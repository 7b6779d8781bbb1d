"""Configurations: one file per method and architecture."""
