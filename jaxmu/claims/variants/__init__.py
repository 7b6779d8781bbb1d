"""Variants of methods, and a metric, that only the claims need: plug-ins."""
