"""Models: what a network is, and how to build one by name.

model = models.build('resnet18', num_classes=10, width=8)
variables = models.init(model, key, (32, 32, 3))
logits, batch_stats = models.apply(model, variables, images, train=True)
"""

import dataclasses
from typing import Any

from jaxmu.models import resnet, tiny, tiny_vit
from jaxmu.models.interface import Blocks, Layer, Model, apply, init

__all__ = ['MODELS', 'Blocks', 'Layer', 'Model', 'apply', 'build', 'init']

MODELS: dict[str, Any] = {
  'resnet18': resnet.ResNet18,
  'tiny': tiny.Tiny,
  'vit11m': tiny_vit.TinyViT,
}


def build(
  name: str, *, num_classes: int, options: dict[str, Any] | None = None
) -> Model:
  """Build a model by name.

  Args:
    name: a key of `MODELS`.
    num_classes: number of logits.
    options: further fields of the model, e.g. `{'width': 8}`.

  Returns:
    A frozen, hashable model without arrays.

  Raises:
    ValueError: if the name, an option or a value is unknown.
  """
  if name not in MODELS:
    known = ', '.join(MODELS)
    raise ValueError(f'unknown model {name!r}; choose one of: {known}')
  model = MODELS[name]
  known = [
    field.name
    for field in dataclasses.fields(model)
    if field.name not in ('num_classes', 'parent', 'name')
  ]
  options = options or {}
  unknown = [option for option in options if option not in known]
  if unknown:
    raise ValueError(
      f'model {name!r} has no option {unknown[0]!r}; it has: '
      + ', '.join(known)
    )
  return model(num_classes=num_classes, **options)
