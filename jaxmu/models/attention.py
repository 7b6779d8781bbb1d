"""Window attention as in TinyViT (Wu et al. 2022, arXiv 2207.10666).

The map is cut into windows; at its lower and right border windows are filled
up with zero tokens, which are not masked: after LayerNorm they are keys and
values like any other. On small images they are nearly all the tokens there
are. The exact pad-free form computes real tokens only: all pads of a window
share one key `k0` and value `v0`, so for a real query `q` they act as a single
key with logit `q k0 + logsumexp of their biases`.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxmu.core.types import Array
from jaxmu.models import layers

HEAD = 32  # channels of a head
FORMS = ('padfree', 'padded')


class Attention(nn.Module):
  """LayerNorm, multi-head attention in windows, projection.

  Parameters besides those of `norm`, `qkv` and `proj`: `attention_biases`
  f[heads, window^2], one for each distance (rows, columns) of two tokens.

  Attributes:
    heads: number of heads of 32 channels each.
    window: height and width of a window.
    form: 'padfree' or 'padded'; the same function.
    dtype: dtype of the computation; None for that of the parameters.
  """

  heads: int
  window: int
  form: str = 'padfree'
  dtype: str | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:  # f[B, H, W, C] -> f[B, H, W, C]
    """Attend within each window."""
    channels = x.shape[3]
    table = self.param(
      'attention_biases',
      nn.initializers.zeros,
      (self.heads, self.window**2),
      layers.parameter_dtype(),
    )
    norm = layers.LayerNorm(name='norm')
    weights = layers.normal(0.02)
    qkv = layers.Linear(3 * channels, weights, self.dtype, name='qkv')
    proj = layers.Linear(channels, weights, self.dtype, name='proj')
    height, width = x.shape[1:3]
    if self.form == 'padded':
      bottom, right = -height % self.window, -width % self.window
      x = jnp.pad(x, ((0, 0), (0, bottom), (0, right), (0, 0)))
    pad = qkv(norm(jnp.zeros((channels,), x.dtype)))
    y = _windows(qkv(norm(x)), pad, table, self.window)
    return proj(y)[:, :height, :width]


def _windows(qkv, pad, table, window):
  """Attend in all windows of a map f[B, H, W, 3 C].

  Windows of one size are handled together; a map has up to four sizes, those
  of its inside, right border, lower border and corner.
  """
  height, width = qkv.shape[1:3]
  rows = []
  for top, bottom in _parts(height, window):
    row = [
      _attend(qkv[:, top:bottom, left:right], pad, table, window)
      for left, right in _parts(width, window)
    ]
    rows.append(row[0] if len(row) == 1 else jnp.concatenate(row, axis=2))
  return rows[0] if len(rows) == 1 else jnp.concatenate(rows, axis=1)


def _parts(size: int, window: int) -> list[tuple[int, int]]:
  """Cut an axis into its whole windows and the rest."""
  whole = size - size % window
  return [(a, b) for a, b in ((0, whole), (whole, size)) if a < b]


def _attend(qkv, pad, table, window):
  """Attend in windows f[B, m h, n w, 3 C] of h x w real tokens each."""
  batch, height, width, channels = qkv.shape
  h, w = min(height, window), min(width, window)
  m, n, heads = height // h, width // w, table.shape[0]
  qkv = qkv.reshape(batch, m, h, n, w, heads, 3 * HEAD)
  qkv = qkv.transpose(0, 1, 3, 5, 2, 4, 6)  # f[B, m, n, heads, h, w, 3 * 32]
  qkv = qkv.reshape(batch * m * n, heads, h * w, 3 * HEAD)
  q, k, v = jnp.split(qkv, 3, axis=-1)
  bias = _bias(table, h, w, window)
  if bias.shape[2] > h * w:
    _, k0, v0 = jnp.split(pad.reshape(1, heads, 1, 3 * HEAD), 3, axis=-1)
    like = (*k.shape[:2], 1, HEAD)
    k = jnp.concatenate((k, jnp.broadcast_to(k0, like)), axis=2)
    v = jnp.concatenate((v, jnp.broadcast_to(v0, like)), axis=2)
  logits = jnp.einsum('ahic,ahjc->ahij', q * HEAD**-0.5, k)
  weights = jax.nn.softmax(logits.astype(table.dtype) + bias[None], axis=-1)
  y = jnp.einsum('ahij,ahjc->ahic', weights.astype(v.dtype), v)
  y = y.reshape(batch, m, n, heads, h, w, HEAD)
  y = y.transpose(0, 1, 4, 2, 5, 3, 6)
  return y.reshape(batch, height, width, heads * HEAD)


def _bias(table, h, w, window):
  """Return the biases f[heads, h w, h w], and one more key for the pads."""
  places = np.indices((window, window)).reshape(2, -1).T
  real = (places[:, 0] < h) & (places[:, 1] < w)
  gap = np.abs(places[real][:, None] - places[None])
  index = gap[..., 0] * window + gap[..., 1]  # i[h w, window^2]
  bias = table[:, index[:, real]]
  if real.all():
    return bias
  pads = jax.nn.logsumexp(table[:, index[:, ~real]], axis=-1, keepdims=True)
  return jnp.concatenate((bias, pads), axis=-1)
