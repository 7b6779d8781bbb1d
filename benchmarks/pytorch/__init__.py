"""Plain PyTorch, written to be fast, for comparison with jaxmu.

The networks take jaxmu's weights by name (`jaxmu.models.pytorch_names`); the
loops train one model after another on normalised data in memory.
"""
