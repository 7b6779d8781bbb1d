"""A complete sweep that takes seconds: a tiny network on real digits."""

import pathlib
from typing import Any

from jaxmu.sweeps import design


def config(folder: pathlib.Path, **changes: Any) -> dict[str, Any]:
  """Return the configuration of one cell with a search, a table and U-LiRA."""
  return {
    'workdir': str(folder),
    'data': ('digits',),
    'models': ('tiny',),
    'methods': ('ft', 'ga'),
    'studies': design.STUDIES,
    'ulira_data': ('digits',),
    'ulira_models': ('tiny',),
    'ulira_methods': ('ft',),
    'all': {
      'train.num_epochs': 2,
      'timing.repeats': 1,
      'run.devices': 2,
      'run.chunk': 1,
      'search.trials': 2,
      'search.initialisations': 1,
      'search.judges': 1,
      'search.finalists': 1,
      'search.sampler': 'random',
      'search.space': {'batch_size': 64, 'num_epochs': (1, 2)},
    },
    'main': {
      'splits.design': 'main',
      'splits.seeds': 5,
      'splits.num_splits': 1,
      'splits.forget_sets': 1,
      'run.shard': 3,
    },
    'ulira': {'splits.num_splits': 8, 'splits.pool': 640},
    **changes,
  }
