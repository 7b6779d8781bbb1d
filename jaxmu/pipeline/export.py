"""Scores of a job as one file per method, the input of `jaxmu.attack`."""

import pathlib

import numpy as np

from jaxmu.pipeline import evaluate
from jaxmu.pipeline import job as job_lib


def write(job: job_lib.Job, name: str, path: pathlib.Path) -> None:
  """Write the log-odds of an unlearning method beside those of O and R.

  Keys: `log_odds`, `original_log_odds`, `retrained_log_odds` f32[P, N], `state`
  int8[P, N] (0 retained, 1 forgotten, 2 never seen, 3 excluded) and `split`
  i64[P]; an original is repeated for every forget set of its split.
  """
  people = {
    key: evaluate.read(job, key, []) for key in ('original', 'retrain', name)
  }
  path.parent.mkdir(parents=True, exist_ok=True)
  draft = path.with_suffix('.draft.npz')
  np.savez(
    draft,
    log_odds=people[name].phi.astype(np.float32),
    original_log_odds=people['original'].phi.astype(np.float32),
    retrained_log_odds=people['retrain'].phi.astype(np.float32),
    state=people[name].state,
    split=people[name].split,
  )
  draft.replace(path)
