"""Five unlearning methods as plain PyTorch loops over one model.

Written like published code: no sharing between models, the teacher runs in
every step, masks are tensors of the size of the weights. Draws are those
recorded by jaxmu's backend, so fresh weights cost nothing here.
"""

import copy
import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from pytorch.data import Data, Member
from pytorch.train import cosine, descend, epoch, set_rate, sgd

SUBSET_BATCH = 64  # of the gradients of MSG
SLOW = 0.1  # gradient factor of the weights that MSG keeps


def _kernels(model: nn.Module) -> dict[str, nn.Parameter]:
  return {n: p for n, p in model.named_parameters() if p.ndim == 4}


def _retain(member: Member, number: int, size: int) -> tuple:
  order = member.draws['epoch:retain'][number].long()
  return member.retain[order].split(size)


def msg(model, data, member, hparams, epochs, _) -> list[torch.Tensor]:
  """Renew the kernel weights both sets agree on, then fine-tune."""
  masks = _renew(model, data, member, hparams)
  optimiser = sgd(model, hparams)

  def slow():
    for parameter, factor in masks:
      parameter.grad *= factor

  losses = []
  for number in range(epochs):
    set_rate(optimiser, _triangle(hparams['learning_rate'], number, epochs))
    batches = _retain(member, number, hparams['batch_size'])
    losses.append(epoch(model, data, optimiser, batches, edit=slow))
  return losses


def _renew(model, data, member, hparams) -> list[tuple]:
  """Sum retain minus forget gradients; renew where they are smallest."""
  model.train()
  model.zero_grad()
  subset = member.retain[member.draws['start:subset'].long()]
  forget = member.forget[member.draws['start:forget'].long()]
  passes = (
    (1, subset[: len(forget)].split(SUBSET_BATCH)),
    (-1, forget.split(hparams['batch_size'])),
  )
  for sign, batches in passes:
    for index in batches:
      loss = F.cross_entropy(model(data.image[index]), data.label[index])
      (sign * loss).backward()
  masks = []
  for name, parameter in _kernels(model).items():
    # Logical order, because ties go to the lower flat index.
    size = parameter.grad.abs().reshape(-1)
    count = round(hparams['reinit_fraction'] * size.numel())
    chosen = torch.zeros_like(size, dtype=torch.bool)
    chosen[size.sort(stable=True).indices[:count]] = True
    chosen = chosen.view(parameter.shape)
    out, _, height, width = parameter.shape
    deviation = math.sqrt(2 / (out * height * width))
    fresh = deviation * member.draws[f'fresh:{name}']
    with torch.no_grad():
      parameter.copy_(torch.where(chosen, fresh, parameter))
      factor = torch.empty_like(parameter).fill_(SLOW).masked_fill_(chosen, 1.0)
    masks.append((parameter, factor))
  return masks


def _triangle(rate: float, number: int, epochs: int) -> float:
  peak = (epochs + 1) // 2
  if number < peak:
    return rate * (number + 1) / peak
  return rate * (epochs - number) / (epochs + 1 - peak)


def ct(model, data, member, hparams, epochs, _) -> list[torch.Tensor]:
  """Swap height and width of every kernel, then fine-tune."""
  with torch.no_grad():
    for parameter in _kernels(model).values():
      parameter.copy_(parameter.transpose(2, 3).clone())
  optimiser = sgd(model, hparams)
  losses = []
  for number in range(epochs):
    set_rate(optimiser, cosine(hparams['learning_rate'], number, epochs))
    batches = _retain(member, number, hparams['batch_size'])
    losses.append(epoch(model, data, optimiser, batches))
  return losses


def neggrad_plus(model, data, member, hparams, epochs, _) -> list[torch.Tensor]:
  """Descend on retain batches and ascend on forget batches, in eval mode."""
  optimiser, alpha = sgd(model, hparams), hparams['alpha']
  model.eval()
  totals = []
  for number in range(epochs):
    order = member.draws['epoch:forget'][number].long()
    forget = member.forget[order].split(hparams['batch_size'])
    losses = []
    for step, keep in enumerate(_retain(member, number, hparams['batch_size'])):
      leave = forget[step % len(forget)]
      kept = F.cross_entropy(model(data.image[keep]), data.label[keep])
      left = F.cross_entropy(model(data.image[leave]), data.label[leave])
      losses.append(descend(optimiser, alpha * kept - (1 - alpha) * left))
    totals.append(torch.stack(losses).mean())
  return totals


def scrub(model, data, member, hparams, epochs, _) -> list[torch.Tensor]:
  """Move away from the teacher on forget, towards it on retain."""
  teacher = copy.deepcopy(model).eval()
  optimiser, kept = sgd(model, hparams), []
  temperature = hparams['temperature']

  def distil(index):
    images = data.image[index]
    with torch.no_grad():
      target = F.log_softmax(teacher(images) / temperature, 1)
    logits = model(images)
    found = F.log_softmax(logits / temperature, 1)
    distance = F.kl_div(found, target, reduction='batchmean', log_target=True)
    return temperature**2 * distance, logits

  def ascend():
    for index in member.forget.split(hparams['forget_batch_size']):
      descend(optimiser, -distil(index)[0])

  def follow(index):
    distance, logits = distil(index)
    entropy = F.cross_entropy(logits, data.label[index])
    loss = hparams['gamma'] * entropy + hparams['alpha'] * distance
    return descend(optimiser, loss)

  totals = []
  kept.append((_errors(model, data, member, hparams), model.state_dict()))
  for number in range(epochs):
    set_rate(optimiser, _milestones(hparams, number + 1, epochs))
    model.train()
    if number < hparams['num_ascents']:
      ascend()
    batches = _retain(member, number, hparams['retain_batch_size'])
    totals.append(torch.stack([follow(index) for index in batches]).mean())
    errors = _errors(model, data, member, hparams)
    kept.append((errors, copy.deepcopy(model.state_dict())))
  aim = kept[-1][0][1]
  best = min(range(len(kept)), key=lambda i: abs(kept[i][0][0] - aim))
  model.load_state_dict(kept[best or -1][1])
  return totals


@torch.no_grad()
def _errors(
  model: nn.Module, data: Data, member: Member, hparams: dict[str, Any]
) -> tuple[float, float]:
  """Errors on the forget set and on validation examples of its classes."""
  model.eval()
  size = hparams['retain_batch_size']

  def wrong(examples):
    parts = [
      model(data.image[index]).argmax(1) != data.label[index]
      for index in examples.split(size)
    ]
    return torch.cat(parts).float().mean().item()

  classes = data.label[member.forget].unique()
  chosen = torch.isin(data.label[member.val], classes)
  return wrong(member.forget), wrong(member.val[chosen])


def _milestones(hparams: dict[str, Any], time: int, epochs: int) -> float:
  marks = (epochs // 2, 4 * epochs // 5, 9 * epochs // 10)
  passed = sum(time > mark for mark in marks)
  return hparams['learning_rate'] * hparams['decay_rate'] ** passed


def salun(model, data, member, hparams, epochs, _) -> list[torch.Tensor]:
  """Train on random labels for the forget set, salient weights only."""
  masks = _salient(model, data, member, hparams)
  optimiser = sgd(model, hparams)
  examples = torch.cat((member.retain, member.forget))
  retain, classes = len(member.retain), 1 + int(data.label.max())

  def mask():
    for parameter, factor in masks:
      parameter.grad *= factor

  totals = []
  for number in range(epochs):
    random = np.random.RandomState(123).randint(0, classes, len(member.forget))
    order = member.draws['epoch:train'][number].long()
    label = data.label[examples[order]]
    label[order >= retain] = torch.from_numpy(random).to(label.device)
    model.train()
    losses = []
    pairs = zip(
      examples[order].split(hparams['batch_size']),
      label.split(hparams['batch_size']),
      strict=True,
    )
    for index, target in pairs:
      loss = F.cross_entropy(model(data.image[index]), target)
      losses.append(descend(optimiser, loss, mask))
    totals.append(torch.stack(losses).mean())
  return totals


def _salient(model, data, member, hparams) -> list[tuple]:
  """Mark the parameters with the largest gradient of the forget loss."""
  model.eval()
  model.zero_grad()
  forget = member.forget[member.draws['start:forget'].long()]
  parameters = list(model.parameters())
  total = [torch.zeros_like(p) for p in parameters]
  for index in forget.split(hparams['batch_size']):
    loss = -F.cross_entropy(model(data.image[index]), data.label[index])
    loss.backward()  # gradients are not cleared between batches
    for t, p in zip(total, parameters, strict=True):
      t += p.grad
  flat = torch.cat([t.abs().reshape(-1) for t in total])
  count = math.floor(flat.numel() * hparams['mask_fraction'])
  chosen = torch.zeros_like(flat)
  chosen[flat.sort(descending=True, stable=True).indices[:count]] = 1
  parts = chosen.split([p.numel() for p in parameters])
  pairs = zip(parameters, parts, strict=True)
  return [(p, torch.empty_like(p).copy_(m.view(p.shape))) for p, m in pairs]


METHODS = {
  'msg': msg,
  'ct': ct,
  'neggrad_plus': neggrad_plus,
  'scrub': scrub,
  'salun': salun,
}
