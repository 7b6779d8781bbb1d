"""Faults on purpose: kills, damaged files, full disks and bad input."""
