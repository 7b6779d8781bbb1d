"""The plain training loop: cross-entropy, SGD, a learning rate per epoch."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from pytorch.data import Data, Member


def sgd(model: nn.Module, hparams: dict[str, Any]) -> torch.optim.SGD:
  """Build the optimiser; the fused one is the fastest on CPU and GPU."""
  return torch.optim.SGD(
    model.parameters(),
    hparams['learning_rate'],
    hparams['momentum'],
    weight_decay=hparams['weight_decay'],
    fused=True,
  )


def set_rate(optimiser: torch.optim.SGD, rate: float) -> None:
  """Change the learning rate."""
  for group in optimiser.param_groups:
    group['lr'] = rate


def cosine(rate: float, epoch: int, epochs: int) -> float:
  """Anneal from the full rate at epoch 0 towards 0 at the last."""
  return rate * (1 + math.cos(math.pi * epoch / epochs)) / 2


def descend(
  optimiser: torch.optim.SGD,
  loss: torch.Tensor,
  edit: Callable[[], None] | None = None,
) -> torch.Tensor:
  """Take a gradient step; `edit` may change gradients before it."""
  optimiser.zero_grad(set_to_none=True)
  loss.backward()
  if edit is not None:
    edit()
  optimiser.step()
  return loss.detach()


def epoch(
  model: nn.Module,
  data: Data,
  optimiser: torch.optim.SGD,
  batches: Iterable[torch.Tensor],
  noise: torch.Tensor | None = None,
  edit: Callable[[], None] | None = None,
) -> torch.Tensor:
  """Take one pass of cross-entropy in training mode; mean loss of the steps.

  Args:
    model: to be trained.
    data: images and labels.
    optimiser: of the model.
    batches: indices of each step.
    noise: draws of dropped paths f[S, K, B]; the model draws them if None.
    edit: changes gradients before each step.
  """
  model.train()
  losses = []
  for step, index in enumerate(batches):
    logits = model(data.image[index], None if noise is None else noise[step])
    loss = F.cross_entropy(logits, data.label[index])
    losses.append(descend(optimiser, loss, edit))
  return torch.stack(losses).mean()


def retrain(
  model: nn.Module,
  data: Data,
  member: Member,
  hparams: dict[str, Any],
  epochs: int,
  recorded_noise: bool,
) -> list[torch.Tensor]:
  """Train on the retain set; mean loss of each epoch."""
  return _train(
    model,
    data,
    member,
    hparams,
    epochs,
    recorded_noise,
    (member.retain, 'epoch:retain'),
  )


def original(
  model: nn.Module,
  data: Data,
  member: Member,
  hparams: dict[str, Any],
  epochs: int,
  recorded_noise: bool,
) -> list[torch.Tensor]:
  """Train on retain and forget set together; mean loss of each epoch."""
  both = torch.cat((member.retain, member.forget))
  return _train(
    model,
    data,
    member,
    hparams,
    epochs,
    recorded_noise,
    (both, 'epoch:train'),
  )


def _train(model, data, member, hparams, epochs, recorded_noise, examples):
  index, name = examples
  optimiser = sgd(model, hparams)
  losses = []
  for number in range(epochs):
    set_rate(optimiser, cosine(hparams['learning_rate'], number, epochs))
    batches = index[member.draws[name][number].long()].split(
      hparams['batch_size']
    )
    noise = member.draws['noise'][number] if recorded_noise else None
    losses.append(epoch(model, data, optimiser, batches, noise))
  return losses
