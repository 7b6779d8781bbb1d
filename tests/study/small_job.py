"""A complete job that takes seconds: a tiny network on real digits."""

import pathlib
from typing import Any

from configs import msg_resnet
from jaxmu.study import settings

# The same job on the command line, but for its devices.
ARGUMENTS = [
  '--config=configs/msg_resnet.py',
  '--config.model.name=tiny',
  '--config.model.options={}',
  '--config.splits.num_splits=8',
  '--config.splits.pool=640',
  '--config.train.num_epochs=2',
  '--config.unlearn.hparams.num_epochs=1',
  '--config.timing.repeats=1',
  '--config.run.shard=4',
  '--config.run.share=false',
]


def config(workdir: pathlib.Path, **changes: Any):
  """Return a small configuration; changes are by dotted name."""
  found = msg_resnet.get_config()
  found.workdir = str(workdir)
  found.model = {'name': 'tiny', 'options': {}, 'precision': 'float32'}
  found.splits.num_splits = 8
  found.splits.pool = 640
  found.train.num_epochs = 2
  found.unlearn.hparams.num_epochs = 1
  found.timing.repeats = 1
  found.run.shard = 4
  found.run.share = False  # tests compare jobs in folders beside each other
  # Whatever was measured on this machine must not change a test.
  found.run.devices, found.run.chunk = 2, 1
  for name, value in changes.items():
    *path, last = name.split('__')
    place = found
    for part in path:
      place = place[part]
    place[last] = value
  return found


def make(workdir: pathlib.Path, **changes: Any) -> settings.Settings:
  """Return checked settings of the small job."""
  return settings.from_config(config(workdir, **changes).to_dict())
