"""What the recorded runs show besides losses and weights: masks, curvatures.

A check is a pair (ours, recorded) by name; masks are compared exactly.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxmu.methods import msg
from tests.golden import replay, rules

Check = dict[str, tuple[Any, Any]]


def _masks(recording: replay.Recording, masks: dict[str, np.ndarray]) -> Check:
  names = recording.meta['mask_names']
  found = np.stack([rules.mask_checksum(masks[name]) for name in names])
  checks = {'masks': (found, recording.arrays['mask_checksum'])}
  if 'mask_conv1_64' in recording.arrays:
    first = masks[names[0]].reshape(-1)[:64]
    checks['first mask'] = (first, recording.arrays['mask_conv1_64'])
  return checks


def _msg(recording: replay.Recording, ours: replay.Replay) -> Check:
  state, problem = ours.states[0], recording.problem
  scale = replay.parameters(recording.model, state.grad_scale)
  checks = _masks(recording, {k: v == 1 for k, v in scale.items()})
  gradient = jax.jit(msg.gradient_difference)
  _, total = gradient(ours.hparams, ours.draws.at('init'), problem)
  found = replay.parameters(recording.model, total)
  zeros = [
    int(np.sum(found[name] == 0)) for name in recording.meta['mask_names']
  ]
  return {
    **checks,
    'zero gradients': (zeros, recording.meta['n_zero_grad']),
    'gradient_fp': (
      replay.parameter_fingerprints(recording.model, total),
      recording.arrays['grad_fp'],
    ),
  }


EXTRAS: dict[str, Callable[[replay.Recording, replay.Replay], Check]] = {
  'MSG': _msg,
}
