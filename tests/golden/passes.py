"""The training-mode forward passes of each method, in order of time.

A transformer drops paths at random in each of them; recorded runs number these
draws through the whole run.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxmu.methods import msg
from tests.golden import rules
from tests.golden.orders import PARTS, Draws
from tests.golden.replay import Recording

# A training-mode forward pass: place of its draws, counters, batch size.
Pass = tuple[str, tuple[int, ...], int]


def _pass(
  place: str, size: int, batch_size: int, epoch: int | None = None
) -> list[Pass]:
  """List the forward passes of one pass over `size` examples."""
  begin = () if epoch is None else (epoch,)
  full, tail = divmod(size, batch_size)
  steps = [(f'{place}/step', (*begin, t), batch_size) for t in range(full)]
  return steps + ([(f'{place}/tail', begin, tail)] if tail else [])


def passes_over(part: str) -> Callable[[Recording, Any], list[Pass]]:
  """List the forward passes of epochs that are one pass over a set."""

  def forwards(recording: Recording, hparams: Any) -> list[Pass]:
    del recording
    return [
      found
      for epoch in range(int(hparams.num_epochs))
      for found in _pass('epoch', PARTS[part][1], hparams.batch_size, epoch)
    ]

  return forwards


def drop_paths(recording: Recording, passes: list[Pass], paths: int) -> Draws:
  """Make the drop-path draws of forward passes in order of time.

  Each pass takes `paths` draws, numbered on through the whole run.
  """
  ends = {}
  for place, counters, size in passes:
    before = ends.get(place, (*[0] * len(counters), size))
    assert before[-1] == size, place
    reached = tuple(
      max(a, b + 1) for a, b in zip(before[:-1], counters, strict=True)
    )
    ends[place] = (*reached, size)
  draws = {
    f'{place}/drop_path': np.zeros((*end[:-1], paths, end[-1]))
    for place, end in ends.items()
  }
  for number, (place, counters, size) in enumerate(passes):
    tags = [recording.tag('droppath', number * paths + k) for k in range(paths)]
    rows = np.stack([rules.uniform(tag, (size,)) for tag in tags])
    draws[f'{place}/drop_path'][counters] = rows
  return draws


def no_passes(recording: Recording, hparams: Any) -> list[Pass]:
  """NG+, CF-k, EU-k, FF and IU stay in evaluation mode."""
  del recording, hparams
  return []


def msg_passes(recording: Recording, hparams: Any) -> list[Pass]:
  """Two passes for the gradients, then the epochs."""
  size, batch_size = rules.SIZES['forget'], hparams.batch_size
  return [
    *_pass('init/gradient_0', size, min(size, msg.SUBSET_BATCH)),
    *_pass('init/gradient_1', size, min(size, batch_size)),
    *passes_over('retain')(recording, hparams),
  ]


def scrub_passes(recording: Recording, hparams: Any) -> list[Pass]:
  """Ascent on the forget set while it lasts, then the retain set."""
  del recording
  found = []
  forget, retain = rules.SIZES['forget'], rules.SIZES['retain']
  for epoch in range(int(hparams.num_epochs)):
    if epoch < int(hparams.num_ascents):
      size = hparams.forget_batch_size
      found += _pass('epoch/forget', forget, size, epoch)
    found += _pass('epoch', retain, hparams.retain_batch_size, epoch)
  return found


def fcs_passes(recording: Recording, hparams: Any) -> list[Pass]:
  """Two forward passes per contrast, forget batch first."""
  del recording
  size = hparams.batch_size
  forget, retain = rules.SIZES['forget'], rules.SIZES['retain']
  found = _pass('init', forget, size)
  for epoch in range(int(hparams.num_epochs)):
    for place, counters, count in _pass('epoch/contrast', forget, size, epoch):
      found.append((f'{place}/forget', counters, count))
      found.append((f'{place}/retain', counters, size))
    found += _pass('epoch', retain, size, epoch)
  return found


def prmq_passes(recording: Recording, hparams: Any) -> list[Pass]:
  """Epochs of which the last may be cut short."""
  del recording
  every = [
    found
    for epoch in range(int(hparams.num_passes))
    for found in _pass(
      'epoch', rules.SIZES['retain'], hparams.batch_size, epoch
    )
  ]
  return every[: int(hparams.num_steps)]


def kde_passes(recording: Recording, hparams: Any) -> list[Pass]:
  """The warm-up on the validation set, then the retain set."""
  del recording
  size, warm_up = hparams.batch_size, int(hparams.num_epochs)
  found = []
  for epoch in range(warm_up):
    found += _pass('epoch/val', rules.SIZES['val'], size, epoch)
  for epoch in range(warm_up, warm_up + int(hparams.retain_num_epochs)):
    found += _pass('epoch', rules.SIZES['retain'], size, epoch)
  return found
