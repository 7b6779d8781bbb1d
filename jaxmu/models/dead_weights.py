"""Which taps of a convolution kernel ever meet a pixel.

On small maps part of a kernel only ever multiplies padding: a 3x3 kernel on a
1x1 map uses its centre alone. Such taps never influence an output, have exactly
zero gradient, and move by weight decay, noise and renewal only. In ResNet-18 on
32x32 images they are 62% of all weights.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxmu.models import interface, layers
from jaxmu.models.conv import patches


@functools.cache
def live_taps(
  model: interface.Model, image_shape: tuple[int, int, int]
) -> dict[str, np.ndarray]:
  """Return for each kernel which taps are live, bool[h, w] by path.

  Args:
    model: the architecture; only convolutions of `jaxmu.models.layers` are
      looked at.
    image_shape: (H, W, 3).
  """
  found = {}

  def watch(call, args, kwargs, context):
    module = context.module
    if isinstance(module, layers.Conv) and context.method_name == '__call__':
      height, width = args[0].shape[1:3]
      window = module.size, module.stride, module.padding
      rows, columns = _used(height, *window), _used(width, *window)
      path = '/'.join((*module.path, 'kernel'))
      found[path] = rows[:, None] & columns[None, :]
    return call(*args, **kwargs)

  def forward(key):
    return model.init(
      {'params': key}, jnp.zeros((1, *image_shape)), train=False
    )

  with nn.intercept_methods(watch):
    jax.eval_shape(forward, jax.random.key(0))
  return found


def _used(length: int, size: int, stride: int, padding: int) -> np.ndarray:
  """Return along one axis which taps meet a pixel for some output."""
  alive = patches.live_taps(length, size, stride, padding)
  return np.isin(np.arange(size), alive)
