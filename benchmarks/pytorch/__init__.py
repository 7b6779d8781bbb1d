"""What jaxmu is compared with: plain PyTorch, written to be fast.

The networks take jaxmu's weights by name (`jaxmu.models.pytorch_names`); the
loops train one model after another on data that lie normalised in memory.
"""
