"""Null and leak study on real models: every attack on O, R and U.

    python -m benchmarks.attack_study --config=configs/msg_resnet.py \
      --config.splits.num_splits=32 --out=DIR

Runs the main job (or takes it from its work directory), writes the log-odds of
original, retrained and unlearned models to DIR/scores.npz, and attacks them
with `jaxmu.attack`: the null study is what it says of retrained models
('retrained_*'), the leak study what it says of originals ('original_*').
"""

import pathlib
import subprocess
import sys

import numpy as np
from absl import app, flags

from jaxmu import main as main_job

_OUT = flags.DEFINE_string('out', None, 'Directory for scores and report.')


def main(argv: list[str]) -> None:
  del argv
  config = main_job.CONFIG.value.to_dict()
  main_job.set_up_jax(config)
  from jaxmu.pipeline import evaluate, run, settings

  job = run.run(settings.from_config(config))
  unlearned = next(
    name for name in job.populations if name not in ('original', 'retrain')
  )
  people = {
    name: evaluate.read(job, name, [])
    for name in ('original', 'retrain', unlearned)
  }
  directory = pathlib.Path(_OUT.value)
  directory.mkdir(parents=True, exist_ok=True)
  path = directory / 'scores.npz'
  np.savez_compressed(
    path,
    log_odds=people[unlearned].phi.astype(np.float32),
    retrained_log_odds=people['retrain'].phi.astype(np.float32),
    original_log_odds=people['original'].phi.astype(np.float32),
    state=people[unlearned].state,
    split=people[unlearned].split,
  )
  subprocess.run(
    [
      sys.executable,
      '-m',
      'jaxmu.attack',
      f'--scores={path}',
      f'--out={_OUT.value}',
    ],
    check=True,
  )


if __name__ == '__main__':
  flags.mark_flags_as_required(['config', 'out'])
  app.run(main)
