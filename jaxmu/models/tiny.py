"""A network of about a thousand parameters for tests and dry runs.

It has what tests must exercise (convolution, BatchNorm, pooling, a classifier)
and compiles in about a second.
"""

import flax.linen as nn
import jax

from jaxmu.models import interface, layers
from jaxmu.models.conv import choose
from jaxmu.types import Array


class Tiny(nn.Module):
  """Two convolutions with BatchNorm, mean pooling and a linear layer.

  Attributes:
    num_classes: number of logits C.
    width: channels of the first convolution.
    conv: formulation of the convolutions, see `jaxmu.models.conv.choose`.
    dtype: dtype of the convolutions, e.g. 'bfloat16'; None for that of the
      parameters.
  """

  card = interface.Card(
    title='Two convolutions',
    source='this project',
    images='any',
    note='1,200 parameters, for tests and dry runs',
  )

  num_classes: int
  width: int = 6
  conv: str = 'auto'
  dtype: str | None = None

  def __post_init__(self):
    interface.check_positive('num_classes', self.num_classes, least=2)
    interface.check_positive('width', self.width)
    choose.check_impl(self.conv)
    interface.check_dtype(self.dtype)
    super().__post_init__()

  @nn.compact
  def __call__(self, images: Array, *, train: bool) -> Array:
    """Map images f[B, H, W, 3] to logits f[B, C]."""
    options = {'impl': self.conv, 'dtype': self.dtype}
    x = layers.Conv(
      self.width, 3, 2, 1, input_grad=False, name='conv1', **options
    )(images)
    x = jax.nn.relu(layers.BatchNorm(name='bn1')(x, train=train))
    x = layers.Conv(2 * self.width, 3, 2, 1, name='conv2', **options)(x)
    x = jax.nn.relu(layers.BatchNorm(name='bn2')(x, train=train))
    return layers.Linear(self.num_classes, name='fc')(x.mean((1, 2)))

  @property
  def num_drop_paths(self) -> int:
    """No paths are dropped."""
    return 0

  @property
  def blocks(self) -> interface.Blocks:
    """First layer, one block, classifier."""
    return interface.Blocks(
      stem=('conv1', 'bn1'),
      body=(('conv2', 'bn2'),),
      neck=(),
      classifier=('fc',),
      stem_conv=('conv1',),
    )

  @property
  def layers(self) -> tuple[interface.Layer, ...]:
    """All layers from input to output."""
    kinds = {'conv': 'conv', 'bn': 'batch_norm', 'fc': 'linear'}
    return tuple(
      interface.Layer(name, name, kinds[name.rstrip('12')])
      for name in ('conv1', 'bn1', 'conv2', 'bn2', 'fc')
    )
