"""Checks of recorded runs besides losses and weights at the ends of epochs.

Masks, gradients, curvatures, class weights, errors, choices of tensors; and
models inside an epoch. A check is a pair (ours, recorded) by name; integers are
compared exactly, names ending in '_fp' as fingerprints.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmu.methods import cfw, fcs, ff, iu, msg, prmq, rni, salun
from jaxmu.methods.parts import forward, last_blocks, losses, weights
from jaxmu.models import pytorch_names
from jaxmu.types import Task, Variables
from tests.golden import orders, replay, rules

Check = dict[str, tuple[Any, Any]]


def _masks(recording: replay.Recording, masks: dict[str, np.ndarray]) -> Check:
  names = recording.meta['mask_names']
  found = np.stack([rules.mask_checksum(masks[name]) for name in names])
  checks = {'masks': (found, recording.arrays['mask_checksum'])}
  if 'mask_conv1_64' in recording.arrays:
    first = masks[names[0]].reshape(-1)[:64].astype(int)
    golden = np.asarray(recording.arrays['mask_conv1_64']).astype(int)
    checks['first mask'] = (first, golden)
  return checks


def _msg(recording: replay.Recording, ours: replay.Replay) -> Check:
  model = recording.model
  scale = replay.parameters(model, ours.states[0].grad_scale)
  gradient = replay.compiled(msg, 'gradient_difference')
  _, total = gradient(ours.hparams, ours.draws.at('init'), recording.problem)
  found = replay.parameters(model, total)
  names = recording.meta['mask_names']
  zeros = [int(np.sum(found[name] == 0)) for name in names]
  return {
    **_masks(recording, {k: v == 1 for k, v in scale.items()}),
    'zero gradients': (zeros, recording.meta['n_zero_grad']),
    'gradient_fp': (
      replay.parameter_fingerprints(model, total),
      recording.arrays['grad_fp'],
    ),
  }


def _salun(recording: replay.Recording, ours: replay.Replay) -> Check:
  model, arrays = recording.model, recording.arrays
  mask = replay.parameters(model, ours.states[0].mask)
  gradient = replay.compiled(salun, 'saliency')
  total = gradient(ours.hparams, ours.draws.at('init'), recording.problem)
  found = replay.parameter_fingerprints(model, total)
  checks = {
    **_masks(recording, mask),
    'gradient_fp': (found, arrays['G_fp']),
  }
  # Softmax ignores the bias of attention's keys, whose gradient is zero but for
  # rounding: exact zeros can be counted only where there is no attention.
  if all(layer.kind != 'attention_bias' for layer in model.layers):
    zeros = sum(int(jnp.sum(leaf == 0)) for leaf in jax.tree.leaves(total))
    checks['zero gradients'] = (zeros, recording.meta['n_zero_grad'])
  return checks


def _prmq(recording: replay.Recording, ours: replay.Replay) -> Check:
  mask = jax.jit(prmq.prune_mask)(ours.hparams, recording.problem)
  leaves = pytorch_names.parameters(recording.model)
  masks = {
    leaf.torch: np.asarray(pytorch_names.torch_layout(leaf, mask[leaf.path]))
    for leaf in leaves
    if leaf.path in mask
  }
  count = losses.class_counts(recording.problem)
  weight = losses.power_class_weights(count, prmq.CLASS_EXPONENT, jnp.float64)
  return {
    **_masks(recording, masks),
    'class weights': (weight, recording.arrays['class_weights']),
  }


def _cfw(recording: replay.Recording, ours: replay.Replay) -> Check:
  del ours
  count = losses.class_counts(recording.problem)
  weight = losses.balanced_class_weights(count, jnp.float64)
  return {'class weights': (weight, recording.arrays['class_weights'])}


def _ff(recording: replay.Recording, ours: replay.Replay) -> Check:
  problem, arrays = recording.problem, recording.arrays
  curvature, loss = replay.compiled(ff, 'fisher')(ours.hparams, problem)
  spread = ff.variance(ours.hparams, problem, curvature)
  fingerprints = replay.parameter_fingerprints
  return {
    'losses': (np.asarray(loss).reshape(-1), arrays['pre_loss']),
    'curvature_fp': (fingerprints(recording.model, curvature), arrays['H_fp']),
    'variance_fp': (fingerprints(recording.model, spread), arrays['var_fp']),
  }


def _iu(recording: replay.Recording, ours: replay.Replay) -> Check:
  arrays = recording.arrays
  found = replay.compiled(iu, 'influence')(ours.hparams, recording.problem)
  fingerprints = replay.parameter_fingerprints
  return {
    'losses': (np.concatenate(found.losses), arrays['pre_loss']),
    'first_fp': (fingerprints(recording.model, found.first), arrays['v_fp']),
    'step_fp': (fingerprints(recording.model, found.step), arrays['k_fp']),
  }


def _last_blocks(recording: replay.Recording, ours: replay.Replay) -> Check:
  model, params = recording.model, recording.problem.start['params']
  free = weights.by_path(
    last_blocks.trainable(model, params, ours.hparams.num_blocks)
  )
  leaves = pytorch_names.parameters(model)
  names = [leaf.torch for leaf in leaves if free[leaf.path]]
  return {'trained': _names(model, names, recording.meta['trainable'])}


def _names(model: Any, found: list[str], golden: list[str]) -> tuple[Any, Any]:
  """Compare sets of names as flags in the order of all tensors."""
  every = [leaf.torch for leaf in pytorch_names.parameters(model)]
  assert set(golden) <= set(every)
  return [n in found for n in every], [n in golden for n in every]


def _rni(recording: replay.Recording, ours: replay.Replay) -> Check:
  every = [leaf.torch for leaf in pytorch_names.parameters(recording.model)]
  checks = {}
  for epoch, golden in enumerate(recording.meta['trainable_per_epoch']):
    row = np.asarray(ours.hparams.trained)[epoch]
    found = [name for name, on in zip(every, row, strict=True) if on]
    checks[f'trained {epoch}'] = _names(recording.model, found, golden)
  return checks


def _scrub(recording: replay.Recording, ours: replay.Replay) -> Check:
  """Compare the two errors that decide; ours are shares, not percents."""
  state = ours.states[-1]
  golden = recording.arrays['val_acc'][:, 0].reshape(-1, 4)
  count = len(golden)
  return {
    'forget error': (100 * state.forget_error[:count], 100 - golden[:, 1]),
    'val error': (100 * state.val_error[:count], 100 - golden[:, 3]),
  }


def _bt(recording: replay.Recording, ours: replay.Replay) -> Check:
  del ours
  task = recording.problem.task
  noisy = Task(task.dataset, forward.resnet18_like(task.model), task.transform)
  twin = recording._replace(
    problem=recording.problem.replace(task=noisy),
  )
  logits = replay.probe_logits(twin, orders.noisy_teacher(recording))
  return {'noisy logits': (logits, recording.arrays['noisy_logits'])}


def _fcs(recording: replay.Recording, ours: replay.Replay) -> Check:
  first = replay.compiled(fcs, 'flatten')
  _, info = first(ours.hparams, ours.draws.at('init'), recording.problem)
  values, rate = np.asarray(info['loss']), np.asarray(info['learning_rate'])
  count = len(values)
  return {
    'first losses': (values, recording.arrays['step_loss'][:count]),
    'first rates': (
      np.full(count, rate),
      recording.arrays['step_lr'][:count],
    ),
  }


EXTRAS: dict[str, Callable[[replay.Recording, replay.Replay], Check]] = {
  'BT': _bt,
  'CFW': _cfw,
  'CFk': _last_blocks,
  'EUk': _last_blocks,
  'FCS': _fcs,
  'FF': _ff,
  'IU': _iu,
  'MSG': _msg,
  'PRMQ': _prmq,
  'RNI': _rni,
  'SCRUB': _scrub,
  'SalUN': _salun,
}


def _weakened(
  recording: replay.Recording, ours: replay.Replay
) -> dict[str, Variables]:
  last = len(ours.epochs) - 1
  variables = cfw.confuse(
    ours.hparams,
    ours.draws.at('epoch', last),
    recording.problem,
    ours.states[last].variables,
    ours.hparams.second_noise,
  )
  return {'noise1': variables} if last else {}


def _disturbed(
  recording: replay.Recording, ours: replay.Replay
) -> dict[str, Variables]:
  disturb = jax.jit(rni.disturb)
  return {
    f'opt{epoch}': disturb(
      ours.hparams,
      ours.draws.at('epoch', epoch),
      recording.problem,
      state,
      jnp.int32(epoch),
    )
    for epoch, state in enumerate(ours.states[:-1])
  }


# Models inside an epoch, by the label of the recorded snapshot.
MOMENTS: dict[
  str,
  Callable[[replay.Recording, replay.Replay], dict[str, Variables]],
] = {
  'CFW': _weakened,
  'RNI': _disturbed,
}
