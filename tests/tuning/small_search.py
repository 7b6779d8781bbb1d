"""A complete search that takes seconds: a tiny network on real digits."""

import pathlib
from typing import Any

from jaxmu import hparams as hp
from jaxmu import methods
from jaxmu.study import settings as settings_lib
from tests.study import small_job


def config(folder: pathlib.Path, **changes: Any) -> dict[str, Any]:
  """Return the configuration of a search; changes are those of a small job."""
  found = small_job.config(folder, **changes).to_dict()
  found['splits'].update(design='main', pool=0, num_splits=1, forget_sets=1)
  found['unlearn'] = {
    'method': 'ft',
    'hparams': {**hp.defaults(methods.get('ft').Hparams), 'num_epochs': 1},
  }
  found['search'] = {
    'trials': 4,
    'initialisations': 2,
    'sampler': 'random',
    'judges': 1,
    'finalists': 2,
    'space': {'batch_size': 64, 'num_epochs': (1, 2)},
    'grid': {},
  }
  return found


def settings(folder: pathlib.Path, **search: Any) -> settings_lib.Settings:
  """Return checked settings; changes are those of the section `search`."""
  chosen = config(folder)
  chosen['search'] |= search
  return settings_lib.from_config(chosen)
