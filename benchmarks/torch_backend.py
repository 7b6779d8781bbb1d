"""PyTorch's backend of a comparison: the same models, one after another."""

import pathlib
from typing import Any

import numpy as np
import torch
from pytorch import data as data_lib
from pytorch import resnet, tiny_vit, train, unlearn
from workload import MEAN, STD, Workload

FORMATS = {
  'contiguous': torch.contiguous_format,
  'channels_last': torch.channels_last,
}
METHODS = {
  'original': train.original,
  'retrain': train.retrain,
  **unlearn.METHODS,
}


def build(workload: Workload, form: str = 'padded') -> torch.nn.Module:
  """Build a network of the workload's architecture."""
  if workload.model == 'resnet18':
    return resnet.ResNet18(workload.classes, **workload.options)
  return tiny_vit.TinyViT(workload.classes, **workload.options, form=form)


def load_weights(
  model: torch.nn.Module, weights: dict[str, torch.Tensor]
) -> None:
  """Load all weights of a network; counts of batches are left out."""
  missing, extra = model.load_state_dict(weights, strict=False)
  if extra or any('num_batches_tracked' not in name for name in missing):
    raise ValueError(f'weights do not fit: {missing}, {extra}')


class TorchBackend:
  """Some members of a population, trained one after another."""

  def __init__(
    self,
    workload: Workload,
    folder: str,
    hparams: dict[str, Any],
    *,
    threads: int,
    layout: str,
    part: tuple[int, int] = (0, 1),
    form: str = 'padded',
    device: str = 'cpu',
    compiled: bool = False,
  ):
    """Build the backend.

    Args:
      workload: what to train.
      folder: where jaxmu's backend wrote its members.
      hparams: of the method, all of them.
      threads: of an operation.
      layout: of images in memory, see `FORMATS`.
      part: which members: every n-th from the first, as (first, n).
      form: of attention, see `pytorch.tiny_vit`.
      device: of models and data.
      compiled: whether to use `torch.compile`.
    """
    torch.set_num_threads(threads)
    self.workload, self.hparams = workload, hparams
    memory_format = FORMATS[layout]
    self.data = data_lib.load(
      *workload.data(), MEAN, STD, memory_format, device
    )
    self.numbers = range(part[0], workload.members, part[1])
    self.members = [
      data_lib.read(pathlib.Path(folder) / f'{number}.npz', device)
      for number in self.numbers
    ]
    self.models, self.callable = [], []
    for _ in self.members:
      model = build(workload, form)
      model = model.to(device, memory_format=memory_format)
      self.models.append(model)
      self.callable.append(torch.compile(model) if compiled else model)

  def run(self) -> None:
    """Run one epoch for every member, from the original weights."""
    for position in range(len(self.members)):
      self._one(position, 1)

  def losses(self, epochs: int) -> dict[int, np.ndarray]:
    """Run some epochs on jaxmu's draws; mean loss of each, by member."""
    return {
      number: torch.stack(self._one(position, epochs, True)).cpu().numpy()
      for position, number in enumerate(self.numbers)
    }

  def _one(self, position: int, epochs: int, noise: bool = False) -> list:
    model, member = self.models[position], self.members[position]
    load_weights(model, member.weights)
    run = METHODS[self.workload.method]
    noise = noise and 'noise' in member.draws
    network = self.callable[position]
    return run(network, self.data, member, self.hparams, epochs, noise)
