"""Architectures and the layers they are built from."""
