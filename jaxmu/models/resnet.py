"""ResNet-18 (He et al. 2016, arXiv 1512.03385) as in torchvision.

Images of every size go through the ImageNet stem, as in the benchmark. At 32x32
the maps are 8, 4, 2 and 1 pixels wide, and 62% of the weights (kernel taps of
the last stage) only meet padding; see `jaxmu.models.layers`.
"""

import flax.linen as nn
import jax

from jaxmu.models import interface, layers
from jaxmu.models.conv import choose
from jaxmu.types import Array

_STAGES = 4
_BLOCKS = 2  # per stage


class BasicBlock(nn.Module):
  """Two 3x3 convolutions and a shortcut.

  Attributes:
    features: output channels.
    stride: of the first convolution and of the shortcut.
    conv: formulation of the convolutions.
    dtype: dtype of the computation; None for that of the parameters.
  """

  features: int
  stride: int
  conv: str
  dtype: str | None

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    """Map f[B, H, W, C] to f[B, H / stride, W / stride, K]."""

    def convolution(name, size, stride):
      return layers.Conv(
        self.features,
        size,
        stride,
        size // 2,
        impl=self.conv,
        dtype=self.dtype,
        name=name,
      )

    y = convolution('conv1', 3, self.stride)(x)
    y = jax.nn.relu(layers.BatchNorm(name='bn1')(y, train=train))
    y = convolution('conv2', 3, 1)(y)
    y = layers.BatchNorm(name='bn2')(y, train=train)
    if self.stride > 1 or x.shape[3] != self.features:
      x = convolution('downsample_conv', 1, self.stride)(x)
      x = layers.BatchNorm(name='downsample_bn')(x, train=train)
    return jax.nn.relu(x + y)


class ResNet18(nn.Module):
  """ResNet-18.

  Attributes:
    num_classes: number of logits C.
    width: channels of the first stage; the published network has 64.
    stem: 'imagenet' (7x7 stride 2 and max-pooling) or 'cifar' (3x3, no
      pooling).
    conv: formulation of all convolutions, see `jaxmu.models.conv.choose`.
    dtype: dtype of the convolutions, e.g. 'bfloat16'; None for that of the
      parameters.
  """

  card = interface.Card(
    title='ResNet-18',
    source='He et al. 2016, arXiv 1512.03385',
    images='multiples of 4',
    note='11.2 million parameters',
  )

  num_classes: int
  width: int = 64
  stem: str = 'imagenet'
  conv: str = 'auto'
  dtype: str | None = None

  def __post_init__(self):
    interface.check_positive('num_classes', self.num_classes, least=2)
    interface.check_positive('width', self.width)
    choose.check_impl(self.conv)
    interface.check_dtype(self.dtype)
    if self.stem not in ('imagenet', 'cifar'):
      raise ValueError(
        f"stem cannot be {self.stem!r}; choose 'imagenet' or 'cifar'"
      )
    super().__post_init__()

  @nn.compact
  def __call__(self, images: Array, *, train: bool) -> Array:
    """Map images f[B, H, W, 3] to logits f[B, C]."""
    size, stride = (7, 2) if self.stem == 'imagenet' else (3, 1)
    x = layers.Conv(
      self.width,
      size,
      stride,
      size // 2,
      impl=self.conv,
      input_grad=False,
      dtype=self.dtype,
      name='conv1',
    )(images)
    x = jax.nn.relu(layers.BatchNorm(name='bn1')(x, train=train))
    if self.stem == 'imagenet':
      x = layers.max_pool(x)
    for name, features, stride in self._blocks_in_order():
      block = BasicBlock(features, stride, self.conv, self.dtype, name=name)
      x = block(x, train=train)
    features = x.mean((1, 2))
    return layers.Linear(self.num_classes, name='fc')(features)

  def _blocks_in_order(self) -> list[tuple[str, int, int]]:
    """Name, features and stride of each block."""
    return [
      (
        f'layer{stage + 1}_{block}',
        self.width * 2**stage,
        2 if stage and not block else 1,
      )
      for stage in range(_STAGES)
      for block in range(_BLOCKS)
    ]

  @property
  def num_drop_paths(self) -> int:
    """No paths are dropped."""
    return 0

  @property
  def blocks(self) -> interface.Blocks:
    """Stem, the four stages, and the classifier."""
    names = [name for name, _, _ in self._blocks_in_order()]
    return interface.Blocks(
      stem=('conv1', 'bn1'),
      body=tuple(
        tuple(names[i : i + _BLOCKS]) for i in range(0, len(names), _BLOCKS)
      ),
      neck=(),
      classifier=('fc',),
      stem_conv=('conv1',),
    )

  @property
  def layers(self) -> tuple[interface.Layer, ...]:
    """All layers in torchvision's order."""
    listed = [
      interface.Layer('conv1', 'conv1', 'conv'),
      interface.Layer('bn1', 'bn1', 'batch_norm'),
    ]
    parts = [
      ('conv1', 'conv1', 'conv'),
      ('bn1', 'bn1', 'batch_norm'),
      ('conv2', 'conv2', 'conv'),
      ('bn2', 'bn2', 'batch_norm'),
    ]
    shortcut = [
      ('downsample_conv', 'downsample.0', 'conv'),
      ('downsample_bn', 'downsample.1', 'batch_norm'),
    ]
    for name, _, stride in self._blocks_in_order():
      torch = name.replace('_', '.')
      for part in parts + (shortcut if stride > 1 else []):
        listed.append(
          interface.Layer(f'{name}/{part[0]}', f'{torch}.{part[1]}', part[2])
        )
    return (*listed, interface.Layer('fc', 'fc', 'linear'))
