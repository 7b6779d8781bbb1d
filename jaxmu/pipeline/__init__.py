"""Stages from splits to report, with content-addressed storage."""
