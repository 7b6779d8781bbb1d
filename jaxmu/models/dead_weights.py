"""Weights that never influence an output: kernel taps that only meet padding.

A 3x3 kernel on a 1x1 map uses only its centre; the other eight taps multiply
zeros. Such taps are dead: their gradient is exactly zero, and only weight
decay, noise and re-initialisation change them. In ResNet-18 on 32x32 images
they are 62% of all weights.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxmu.models import interface, layers
from jaxmu.models.conv import parts


@functools.cache
def live_taps(
  model: interface.Model, image_shape: tuple[int, int, int]
) -> dict[str, np.ndarray]:
  """Return for each kernel which taps meet a pixel for some output.

  Args:
    model: the architecture; convolutions other than `jaxmu.models.layers.Conv`
      are left out.
    image_shape: (H, W, 3).

  Returns:
    bool[h, w] by path in `params`; the result is cached, do not change it.
  """
  live = {}

  def watch(call, args, kwargs, context):
    module = context.module
    if isinstance(module, layers.Conv) and context.method_name == '__call__':
      height, width = args[0].shape[1:3]
      window = module.size, module.stride, module.padding
      rows, columns = _live(height, *window), _live(width, *window)
      path = '/'.join((*module.path, 'kernel'))
      live[path] = rows[:, None] & columns[None, :]
    return call(*args, **kwargs)

  def forward(key):
    return model.init(
      {'params': key}, jnp.zeros((1, *image_shape)), train=False
    )

  with nn.intercept_methods(watch):
    jax.eval_shape(forward, jax.random.key(0))
  return live


def _live(length: int, size: int, stride: int, padding: int) -> np.ndarray:
  """Return for each tap of one axis whether it is live, bool[size]."""
  taps = parts.live_taps(length, size, stride, padding)
  return np.isin(np.arange(size), taps)
