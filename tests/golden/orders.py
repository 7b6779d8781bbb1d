"""The recorded draws of each method: orders, noise, fresh weights.

Every function turns a recording into draws by path, for `Draws.recorded`.
"""

from typing import Any

import numpy as np

from jaxmu import models
from jaxmu.data import batches
from jaxmu.models import pytorch_names
from jaxmu.types import Variables
from tests.golden import replay, rules
from tests.golden.replay import Recording

Draws = dict[str, Any]

# First global number and size of what is passed over.
PARTS = {
  **{part: (rules.FIRST[part], rules.SIZES[part]) for part in rules.SIZES},
  'train': (0, rules.SIZES['retain'] + rules.SIZES['forget']),
}


def _order(rows: np.ndarray, part: str = 'retain') -> np.ndarray:
  """Turn rows of global numbers into an order of positions in a set."""
  first, size = PARTS[part]
  found = rows[rows >= 0] - first
  rest = np.setdiff1d(np.arange(size), found)  # of a pass that was cut short
  return np.concatenate([found, rest]).astype(np.int32)


def _passes(rows: np.ndarray, part: str = 'retain') -> np.ndarray:
  """Cut rows of steps into passes over a set, i32[E, N]."""
  ids, size = rows[rows >= 0], PARTS[part][1]
  starts = range(0, len(ids), size)
  return np.stack([_order(ids[i : i + size], part) for i in starts])


def retain(recording: Recording) -> Draws:
  """Return the orders of passes over the retain set."""
  return {'epoch/retain': _passes(recording.arrays['step_ids0'])}


def forget(recording: Recording) -> Draws:
  """Return the orders of passes over the forget set."""
  return {'epoch/forget': _passes(recording.arrays['step_ids0'], 'forget')}


def train(recording: Recording) -> Draws:
  """Return the orders of passes over both sets."""
  return {'epoch/train': _passes(recording.arrays['step_ids0'], 'train')}


def _tensor_draws(
  recording: Recording, kind: str, counts: tuple[int, ...] = (0,)
) -> dict[str, np.ndarray]:
  """Return the recorded draws of a kind by path of our tensors."""
  leaves = {leaf.torch: leaf for leaf in pytorch_names.leaves(recording.model)}
  make = {'normal': rules.normal, 'uniform': rules.uniform}[kind]
  found = {}
  for drawn, tensor, count, shape in recording.meta['draws']:
    if drawn == kind and count in counts:
      value = make(recording.tag(kind, tensor, count), tuple(shape))
      leaf = leaves[tensor]
      found[leaf.path] = np.asarray(pytorch_names.our_layout(leaf, value))
  return found


def neggrad_plus(recording: Recording) -> Draws:
  """Return retain orders and the forget partition of each epoch."""
  retained = retain(recording)
  replayed = np.split(
    recording.arrays['step_ids1'], len(retained['epoch/retain'])
  )
  size = rules.SIZES['forget']
  forget = [_order(rows[rows >= 0][:size], 'forget') for rows in replayed]
  return {**retained, 'epoch/forget': np.stack(forget)}


def msg(recording: Recording) -> Draws:
  """Return orders, the subset, and fresh kernels."""
  arrays = recording.arrays
  forget = arrays['pre_ids0'][1:]
  fresh = _tensor_draws(recording, 'normal')
  return {
    **retain(recording),
    # As the subset was shuffled once more, which dropped paths can tell.
    'init/subset': _order(arrays['pre_ids0'][:1]),
    'init/forget': _order(forget, 'forget'),
    **{f'init/fresh/{path}': value for path, value in fresh.items()},
  }


def salun(recording: Recording) -> Draws:
  """Return the order of the mask and those of training."""
  mask = _order(recording.arrays['pre_ids0'], 'forget')
  return {**train(recording), 'init/forget': mask}


def scrub(recording: Recording) -> Draws:
  """Return the retain orders; the forget set is never shuffled."""
  ids = recording.arrays['step_ids0']
  retain = ids[(ids.max(axis=1) < rules.FIRST['forget'])]
  return {'epoch/retain': _passes(retain)}


def bt(recording: Recording) -> Draws:
  """Return the orders and the noisy teacher."""
  return {**train(recording), 'init/noisy': noisy_teacher(recording)}


def noisy_teacher(recording: Recording) -> Variables:
  """Return the recorded run's teacher of random weights."""
  model = models.build('resnet18', num_classes=rules.CLASSES)
  state = rules.noisy_state_dict(
    model, replay.shapes('resnet18'), recording.meta['set']
  )
  return pytorch_names.from_torch(model, state)


def _fresh(recording: Recording) -> Draws:
  fresh = _tensor_draws(recording, 'uniform')
  return {f'init/fresh/{path}': value for path, value in fresh.items()}


def fresh_retain(recording: Recording) -> Draws:
  """Return the retain orders and fresh weights."""
  return {**retain(recording), **_fresh(recording)}


def ff(recording: Recording) -> Draws:
  """Return the noise of every tensor."""
  noise = _tensor_draws(recording, 'normal')
  return {f'init/noise/{path}': value for path, value in noise.items()}


def fcs(recording: Recording) -> Draws:
  """Return the orders of the three stages."""
  size = recording.meta['hyper_parameters']['batch_size']
  forget, retain = (
    batches.num_steps(rules.SIZES[part], size) for part in ('forget', 'retain')
  )
  first, second = (recording.arrays[f'step_ids{i}'] for i in (0, 1))
  starts = range(forget, len(first), forget + retain)
  contrast = [slice(i, i + forget) for i in starts]
  repair = [slice(i + forget, i + forget + retain) for i in starts]
  return {
    'init/forget': _order(first[:forget], 'forget'),
    'epoch/contrast/forget': _stack(first, contrast, 'forget'),
    'epoch/contrast/retain': _stack(second, contrast, 'retain'),
    'epoch/retain': _stack(first, repair, 'retain'),
  }


def _stack(rows: np.ndarray, slices: list[slice], part: str) -> np.ndarray:
  return np.stack([_order(rows[one], part) for one in slices])


def cfw(recording: Recording) -> Draws:
  """Return the retain orders and both noises."""
  orders = retain(recording)
  first = _tensor_draws(recording, 'normal')
  second = _tensor_draws(recording, 'normal', counts=(1,))
  draws = {f'init/noise/{path}': value for path, value in first.items()}
  for path, value in second.items():
    every = np.zeros((len(orders['epoch/retain']), *value.shape))
    every[-1] = value
    draws[f'epoch/noise/{path}'] = every
  return {**orders, **draws}


def kde(recording: Recording) -> Draws:
  """Return fresh weights and retain orders; validation is in order."""
  ids = recording.arrays['step_ids0']
  val = ids.max(axis=1) >= rules.FIRST['val']
  retain = _passes(ids[~val])
  warm_up = int(recording.meta['hyper_parameters']['num_epochs'])
  unused = np.repeat(retain[:1], warm_up, axis=0)
  fresh = _fresh(recording)
  return {'epoch/retain': np.concatenate([unused, retain]), **fresh}


def rni(recording: Recording) -> Draws:
  """Place each recorded noise at the epoch in which its tensor is chosen.

  Neither the reference nor our method uses the draw for a tensor that was
  trained before, but the list contains it.
  """
  orders = retain(recording)
  count = len(orders['epoch/retain'])
  noise = _tensor_draws(recording, 'normal')
  draws = {
    f'epoch/noise/{path}': np.broadcast_to(value, (count, *value.shape))
    for path, value in noise.items()
  }
  return {**orders, **draws, **_fresh(recording)}


def none(recording: Recording) -> Draws:
  """Return no draws."""
  del recording
  return {}
