"""Checkpoints in and out: PyTorch, safetensors, Flax, Orbax and NumPy.

  variables = checkpoints.read(model, 'model_best.pth.tar')
  checkpoints.write(model, variables, 'unlearned.pth', like='model_best.pth.tar')
"""

import os
from collections.abc import Sequence

from jaxmu.models import interface
from jaxmu.types import Variables

Path = str | os.PathLike[str]


def read(model: interface.Model, path: Path) -> Variables:
  """Read the weights of one model; see the module's docstring."""
  raise NotImplementedError


def read_population(
  model: interface.Model, paths: str | Sequence[Path]
) -> Variables:
  """Read several files as members 0, 1, ...; leaves [P, ...] on the host."""
  raise NotImplementedError


def write(
  model: interface.Model,
  variables: Variables,
  path: Path,
  like: Path | None = None,
) -> None:
  """Write the weights of one model, in the form of the file `like`."""
  raise NotImplementedError
