"""The interface of models: init, apply, and a description of the layers.

A model is frozen, hashable and holds no arrays: a linen module that describes
its own layers, or a custom network described by `jaxmu.models.custom`.
Everything here concerns one member. Variables are `{'params', 'batch_stats'}`.
"""

import functools
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxmu.types import Array, Key, Params, Variables


class Card(NamedTuple):
  """A model's entry in the table of models.

  Attributes:
    title: the published name.
    source: the paper that describes it.
    images: sides of the images that it accepts.
    note: anything else a user should know, in a few words.
  """

  title: str
  source: str
  images: str
  note: str = ''


class Blocks(NamedTuple):
  """Parts of a network from stem to head, as prefixes of parameter paths.

  Methods that retrain "the last k blocks" take `body[-k:]` and `classifier`;
  `stem` and `neck` are never among them.

  Attributes:
    stem: everything before the first block.
    body: blocks in order; each is a tuple of prefixes.
    neck: layers between the last block and the classifier.
    classifier: the last linear layer.
    stem_conv: the first convolution if it stands alone at the top level.
  """

  stem: tuple[str, ...]
  body: tuple[tuple[str, ...], ...]
  neck: tuple[str, ...]
  classifier: tuple[str, ...]
  stem_conv: tuple[str, ...]


class Layer(NamedTuple):
  """One layer with parameters.

  Attributes:
    path: its path in `params`, e.g. 'layer2_0/downsample_conv'.
    torch: its PyTorch name, e.g. 'layer2.0.downsample.0'.
    kind: 'conv' | 'depthwise' | 'linear' | 'batch_norm' | 'layer_norm' |
      'attention_bias'; 'other' in custom networks.
  """

  path: str
  torch: str
  kind: str


class Model(Protocol):
  """A classifier f[B, H, W, 3] -> f[B, C]."""

  @property
  def num_classes(self) -> int:
    """Number of logits C."""
    ...

  @property
  def num_drop_paths(self) -> int:
    """Number K of drop-path draws of one train-mode forward pass."""
    ...

  @property
  def blocks(self) -> Blocks:
    """Parts from stem to head."""
    ...

  @property
  def layers(self) -> tuple[Layer, ...]:
    """All layers with parameters, in PyTorch's parameter order."""
    ...

  def init(self, rngs: Any, *args: Any, **options: Any) -> Any:
    """Draw variables as linen does; callers use `interface.init`."""
    ...

  def apply(self, variables: Any, *args: Any, **options: Any) -> Any:
    """Run the network as linen does; callers use `interface.apply`."""
    ...


_LARGEST = 1_000_000  # of a size; more is a typing error


def check_positive(name: str, value: Any, *, least: int = 1) -> None:
  """Raise a ValueError unless a size of a model is a number in range."""
  whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
  if not whole or not least <= value <= _LARGEST:
    raise ValueError(
      f'{name} must be a whole number from {least} to {_LARGEST:,}, got '
      f'{value!r:.60}'
    )


def check_dtype(value: Any) -> None:
  """Raise a ValueError unless networks can compute in a dtype."""
  try:
    known = value is None or jnp.issubdtype(jnp.dtype(value), jnp.floating)
  except TypeError:
    known = False
  if not known:
    raise ValueError(
      f"dtype cannot be {value!r:.60}; choose 'float32' or 'bfloat16'"
    )


def init(model: Model, key: Key, image_shape: tuple[int, ...]) -> Variables:
  """Draw fresh variables.

  Args:
    model: the architecture.
    key: typed key.
    image_shape: (H, W, 3).

  Returns:
    `{'params', 'batch_stats'}`; float32, or float64 when x64 is enabled.
  """
  return _init(model, key, tuple(image_shape))


@functools.partial(jax.jit, static_argnums=(0, 2))
def _init(model: Model, key: Key, image_shape: tuple[int, ...]) -> Variables:
  # Compiled, so that the forward pass by which linen infers shapes never runs.
  images = jnp.zeros((1, *image_shape))
  variables = model.init({'params': key}, images, train=False)
  return {name: variables[name] for name in ('params', 'batch_stats')}


def apply(
  model: Model,
  variables: Variables,
  images: Array,  # f[B, H, W, 3]
  *,
  train: bool,
  drop_path: Array | None = None,  # f[K, B]
) -> tuple[Array, Params]:  # f[B, C], batch statistics
  """Run a model on normalised images.

  Args:
    model: the architecture.
    variables: `{'params', 'batch_stats'}`; their dtype is that of the result.
    images: normalised images f[B, H, W, 3].
    train: True normalises by batch statistics, updates the running ones and
      drops paths; False does neither.
    drop_path: uniform draws in [0, 1) f[K, B], K = `model.num_drop_paths`, in
      network order; needed in train mode if K > 0.

  Returns:
    Logits f[B, C] and the batch statistics after this batch (unchanged in
    eval mode).

  Raises:
    ValueError: if `drop_path` is missing or misshapen, or a train-mode batch
      has one value per channel.
  """
  paths = model.num_drop_paths
  if train and paths:
    expected = (paths, images.shape[0])
    if drop_path is None or drop_path.shape != expected:
      shape = None if drop_path is None else drop_path.shape
      raise ValueError(
        f'train mode needs drop_path uniforms of shape {expected}, got '
        f'{shape}; draw them with jax.random.uniform'
      )
  options = {'drop_path': drop_path} if paths else {}
  if not train:
    logits = model.apply(variables, images, train=False, **options)
    return logits, variables['batch_stats']
  logits, changed = model.apply(
    variables, images, train=True, mutable=['batch_stats'], **options
  )
  return logits, changed['batch_stats']
