"""The built-in models, and how to build a model by name.

  model = models.build('resnet18', num_classes=10, options={'width': 8})
  variables = models.init(model, key, (32, 32, 3))
  logits, batch_stats = models.apply(model, variables, images, train=True)

A custom network is named as `my_net.py:Net`; see `jaxmu.plugins`.
"""

import inspect
from collections.abc import Mapping
from typing import Any

from jaxmu import plugins
from jaxmu.models import custom, resnet, tiny, tiny_vit
from jaxmu.models.adapters import PureModel
from jaxmu.models.interface import Blocks, Card, Layer, Model, apply, init

__all__ = [
  'MODELS',
  'Blocks',
  'Card',
  'Layer',
  'Model',
  'PureModel',
  'apply',
  'build',
  'fingerprint',
  'init',
]


def _check(entry: Any) -> Any:
  """Accept finished models, and networks for `custom.wrap`."""
  if not _is_model(entry):
    custom.check_is_network(entry)
  return entry


def _title(entry: Any) -> str:
  card = entry.card
  about = f'{card.title} ({card.source}), images: {card.images}'
  return f'{about}; {card.note}' if card.note else about


MODELS: plugins.Registry[Any] = plugins.Registry(
  'model',
  {
    'resnet18': resnet.ResNet18,
    'tiny': tiny.Tiny,
    'vit11m': tiny_vit.TinyViT,
  },
  check=_check,
  title=_title,
)


def build(
  spec: Any,
  *,
  num_classes: int,
  image_shape: tuple[int, int, int] | None = None,
  options: Mapping[str, Any] | None = None,
) -> Model:
  """Build a model by name, or from a custom network.

  Args:
    spec: a built-in name; an entry point, `my_package.nets:Net` or
      `my_net.py:Net`; or a Flax linen module or its class, a Flax NNX class, a
      `PureModel`, a function that returns one of these, or a model.
    num_classes: number of logits C.
    image_shape: (H, W, channels); needed only for a custom network.
    options: further arguments, e.g. {'width': 8}.

  Returns:
    A frozen, hashable model without arrays.

  Raises:
    ValueError: if the name, an option or a value is unknown, or the network
      does not do what `custom.wrap` requires.

  Example:
    >>> from jaxmu import models
    >>> models.build('resnet18', num_classes=10).blocks.classifier
    ('fc',)
  """
  entry: Any = MODELS.resolve(spec)
  name = _name(spec)
  if _is_model(entry) and inspect.isclass(entry):
    return _build_class(name, entry, num_classes, dict(options or {}))
  if _is_model(entry):
    return _ready(name, entry, num_classes, options)
  if image_shape is None:
    raise ValueError(
      f'model {name!r} is read with images of one shape; give image_shape='
      '(height, width, channels)'
    )
  try:
    return custom.wrap(
      entry, num_classes=num_classes, image_shape=image_shape, options=options
    )
  except ValueError as error:
    raise ValueError(f'model {name!r}: {error}') from error


def fingerprint(spec: Any) -> str:
  """Return the part of a result's address that identifies a model's code.

  Args:
    spec: as for `build`.

  Returns:
    '' for a built-in name; else the digest of the plug-in's source, and the
    settings of an instance.

  Raises:
    ValueError: the source cannot be read; see `plugins.Registry.fingerprint`.
  """
  code = MODELS.fingerprint(spec)
  if not code or isinstance(spec, str) or not hasattr(spec, '__dict__'):
    return code
  return code if inspect.isclass(spec) else f'{code} {spec!r}'


def _is_model(entry: Any) -> bool:
  """Whether an object or class describes its own layers and blocks."""
  return all(
    hasattr(entry, name) for name in ('layers', 'blocks', 'num_drop_paths')
  )


def _name(spec: Any) -> str:
  if isinstance(spec, str):
    return spec
  return getattr(spec, '__name__', type(spec).__name__)


def _build_class(
  name: str, cls: Any, num_classes: int, options: dict[str, Any]
) -> Model:
  custom.check_options(f'model {name!r}', options, custom.accepted(cls))
  return cls(num_classes=num_classes, **options)


def _ready(name: str, model: Any, num_classes: int, options: Any) -> Model:
  if options or model.num_classes != num_classes:
    raise ValueError(
      f'model {name!r} is already built with num_classes = '
      f'{model.num_classes}; set {num_classes} classes and options when you '
      'build it'
    )
  return model
