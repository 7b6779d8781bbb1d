"""jaxmu and PyTorch on one workload: check that they agree, then time them.

Backends, on the same cores:

  jaxmu                the population as one compiled program, one device a core
  torch contiguous     one model after another, operations on all cores
  torch channels_last  the same with the other layout of images in memory
  torch, n processes   the better layout, models split over processes of one
                       thread each
  torch, compiled      the better layout through `torch.compile`, on request
  jaxmu, huge pages    jaxmu with large arrays in pages of 2 MB, on request

`speed_up` is a backend's time divided by jaxmu's, round by round. Two turns of
each layout that count decide which is faster; only that one is measured
further, and the other one is compared with the median of jaxmu.
"""

import contextlib
import os
import statistics
import tempfile
from typing import Any

import jax_backend
import numpy as np
import take_turns
import torch_backend
from workload import Workload

from jaxmu import hparams as hp
from jaxmu import methods

LAYOUTS = ('contiguous', 'channels_last')
HUGE_PAGES = {'GLIBC_TUNABLES': 'glibc.malloc.hugetlb=1'}
ROUNDS = 5
TRIALS = 2  # turns that decide which layout is the better one
CHECKED = 1  # epochs whose losses are compared
# Relative tolerance. Training amplifies rounding: for ResNet-18 of width 64
# with batches of 64, mean losses are 6e-7 apart after 1 step, 9e-5 after 4,
# 3e-3 after 12.
TOLERANCE = 5e-3
# MSG renews the weights with the smallest gradients; among many that are nearly
# zero, rounding decides which these are.
LOOSE = {'msg': 5e-2}


def cores() -> int:
  """Return how many cores this process may use."""
  return len(os.sched_getaffinity(0))


def run(
  workload: Workload,
  *,
  rounds: int = ROUNDS,
  checked: int = CHECKED,
  form: str = 'padded',
  processes: bool = True,
  compiled: bool = False,
  huge_pages: bool = False,
  devices: int = 0,
) -> list[dict[str, Any]]:
  """Compare the backends on one workload; rows of a table, jaxmu first.

  Args:
    workload: what to run.
    rounds: turns of each backend that count.
    checked: epochs whose losses are compared.
    form: of PyTorch's attention.
    processes: whether to run the backend of several processes.
    compiled: whether to run the backend of `torch.compile`.
    huge_pages: whether to run the backend of jaxmu with huge pages.
    devices: CPU devices of jaxmu; 0 for one per core.

  Raises:
    RuntimeError: the backends do not compute the same.
  """
  with contextlib.ExitStack() as stack:
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    options = {
      'workload': workload,
      'folder': folder,
      'devices': devices or cores(),
    }
    ours = stack.enter_context(
      take_turns.Backend('jaxmu', jax_backend.make, [options])
    )
    theirs = [
      stack.enter_context(_torch(workload, folder, layout, form))
      for layout in LAYOUTS
    ]
    trial = take_turns.rounds(theirs, 'run', TRIALS)
    best = min(theirs, key=lambda backend: min(trial[backend.name]))
    layout, backends = best.name.split()[1], [best]
    if processes and cores() > 1:
      many = _torch(workload, folder, layout, form, cores())
      backends.append(stack.enter_context(many))
    if compiled:
      quick = _torch(workload, folder, layout, form, compiled=True)
      backends.append(stack.enter_context(quick))
    (expected,) = ours.call('losses', checked)
    apart = [
      differ(expected, backend.call('losses', checked)) for backend in backends
    ]
    check(workload, max(apart))
    if huge_pages:
      large = take_turns.Backend(
        'jaxmu, huge pages', jax_backend.make, [options], HUGE_PAGES
      )
      (found,) = stack.enter_context(large).call('losses', checked)
      if not np.array_equal(found, expected):
        raise RuntimeError('huge pages change losses of jaxmu')
      backends.append(large)
    seconds = trial | take_turns.rounds([ours, *backends], 'run', rounds)
    (facts,) = ours.call('facts')
  return rows(workload, seconds, best.name, max(apart), facts, form)


def _torch(
  workload: Workload,
  folder: str,
  layout: str,
  form: str,
  processes: int = 1,
  compiled: bool = False,
) -> take_turns.Backend:
  """Start a backend of PyTorch that shares the cores among its processes."""
  threads = cores() // processes
  parts = [(first, processes) for first in range(processes)]
  options = {
    'workload': workload,
    'folder': folder,
    'hparams': settings(workload),
    'threads': threads,
    'layout': layout,
    'form': form,
    'compiled': compiled,
  }
  name = f'torch {layout}' + (', compiled' if compiled else '')
  if processes > 1:
    name += f', {processes} processes'
  return take_turns.Backend(
    name,
    torch_backend.TorchBackend,
    [{**options, 'part': part} for part in parts],
    {'OMP_NUM_THREADS': str(threads)},
  )


def settings(workload: Workload) -> dict[str, Any]:
  """Return all hyper-parameters of a workload's method."""
  known = hp.defaults(methods.get(workload.method).Hparams)
  return {**known, **jax_backend.hyper_parameters(workload, 1)}


def differ(expected: np.ndarray, answers: list[dict[int, np.ndarray]]) -> float:
  """Return the largest relative difference of the losses of all members."""
  found = {number: x for answer in answers for number, x in answer.items()}
  table = np.stack([found[number] for number in range(len(expected))])
  return float(np.max(np.abs(table - expected) / np.abs(expected)))


def check(workload: Workload, apart: float) -> None:
  """Raise an error unless the backends compute the same.

  Raises:
    RuntimeError: the losses are further apart than rounding explains.
  """
  most = LOOSE.get(workload.method, TOLERANCE)
  if not apart < most:
    raise RuntimeError(
      f'{workload.label}, {workload.method}, batch {workload.batch}: the '
      f'losses differ by {apart:.1e} of their size, more than {most}'
    )


def rows(
  workload: Workload,
  seconds: dict[str, list[float]],
  best: str,
  apart: float,
  facts: dict[str, Any],
  form: str,
) -> list[dict[str, Any]]:
  """Make the rows of a table from the seconds of each backend's turns."""
  images = workload.members * workload.retain
  ours, found = seconds.pop('jaxmu'), []
  tried = {f'torch {layout}' for layout in LAYOUTS} - {best}
  for name, spent in {'jaxmu': ours, **seconds}.items():
    alone, torch = name == 'jaxmu', name.startswith('torch')
    against = [statistics.median(ours)] if name in tried else ours
    found.append(
      {
        'method': workload.method,
        'model': workload.label,
        'attention': form if workload.model == 'vit11m' and torch else '',
        'population': workload.members,
        'batch': workload.batch,
        'backend': name + (' (counted)' if name == best else ''),
        **take_turns.columns('images_per_s', images, spent, against),
        'rounds': len(spent),
        'compile_s': f'{facts["compile_seconds"]:.1f}' if alone else '',
        'losses_apart': f'{apart:.0e}' if torch else '',
      }
    )
  return found
