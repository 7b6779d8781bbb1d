"""Example configurations; `jaxmu.study.recipes` defines the others by name."""
