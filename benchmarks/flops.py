"""Counts the products of a network, with and without those of padding."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxmu import models
from jaxmu.models import layers


class Counts(NamedTuple):
  """Floating-point operations of a training step, per example.

  Attributes:
    naive: of all kernel taps, the usual count.
    live: of taps that meet a pixel, the necessary work.
  """

  naive: float
  live: float


def training_step(model: models.Model, side: int = 32) -> Counts:
  """Count the convolutions and linear layers of a step, attention left out.

  Forward pass, gradient of the weights and gradient of the input, which the
  first layer does not need; a product and its sum count two.
  """
  naive = live = 0.0

  def watch(call, args, kwargs, context):
    nonlocal naive, live
    module, out = context.module, call(*args, **kwargs)
    if context.method_name != '__call__':
      return out
    if isinstance(module, layers.Conv):
      x = args[0]
      channels = 1 if module.depthwise else x.shape[3]
      each = 2 * channels * module.features * (2 + module.input_grad)
      outputs = out.shape[1] * out.shape[2]
      naive += each * outputs * module.size**2
      rows, columns = (_met(size, module) for size in x.shape[1:3])
      live += each * rows * columns
    elif isinstance(module, layers.Linear):
      each = 6 * args[0].shape[-1] * out.size
      naive, live = naive + each, live + each
    return out

  images = jnp.zeros((1, side, side, 3))
  with nn.intercept_methods(watch):
    jax.eval_shape(
      lambda key: model.init({'params': key}, images, train=False),
      jax.random.key(0),
    )
  return Counts(naive, live)


def _met(size: int, module: layers.Conv) -> int:
  """Count the pairs of output and tap of one axis that meet a pixel."""
  outputs = (size + 2 * module.padding - module.size) // module.stride + 1
  start = module.stride * np.arange(outputs) - module.padding
  pixel = start[:, None] + np.arange(module.size)
  return int(((pixel >= 0) & (pixel < size)).sum())
