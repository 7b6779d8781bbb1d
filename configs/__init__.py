"""Example configurations; `jaxmu.study.recipes` has the others by name."""
