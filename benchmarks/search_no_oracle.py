"""Measures what a search without retrained models loses.

    python benchmarks/search_no_oracle.py [--workdir=workdir/benchmark_digits]

Every method is searched at the digits scale with `objective=no_oracle`, which
sees no retrained model. Its chosen setting is compared with the best one that
the same trials give if they are chosen by the reference objectives. All norms
of the table are those of the reference objectives, means over initialisations
that were not searched. `regret` is the norm of the choice (`chosen`) less that
of the best setting (`best`), the smallest of all settings that were judged; it
cannot be negative. `relative` is the regret in units of the norm of the
unchanged originals. `seeds` are those of the samplers, one per initialisation.

The interval of the mean is Student's over methods, which share initialisations
and judges; it does not cover others. Trials that are in the store of the work
directory are not trained again. The table is printed and written to
benchmarks/search_no_oracle.csv.
"""

import argparse
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import search_samplers
import table

from jaxmu import files
from jaxmu import hparams as hp
from jaxmu import main as command
from jaxmu import methods as registry
from jaxmu.study import store
from jaxmu.tuning import driver, objectives
from jaxmu.tuning.trials import Outcomes

TABLE = pathlib.Path(__file__).with_suffix('.csv')
METHODS = ('msg', 'ct', 'scrub', 'ft', 'salun', 'neggrad_plus')
SAMPLER = 'tpe'


def run(
  workdir: str, methods: Sequence[str], **search: Any
) -> list[dict[str, Any]]:
  """Search methods without retrained models; a row per method.

  Args:
    workdir: the work directory.
    methods: their names.
    **search: further fields of `config.search`.
  """
  settings = search_samplers.make_settings(
    workdir, methods, SAMPLER, objective='no_oracle', **search
  )
  searched = driver.run(settings)
  first = settings.search.seed
  rows = []
  with store.hold_workdir(files.path(workdir)):
    for one in searched:
      judge = search_samplers.Judge(settings, one.method)
      lost = one.content['regret']
      original = original_norm(judge)
      cls = registry.get(one.method).Hparams
      default = one.space.nearest(hp.defaults(cls))
      rows.append(
        {
          'method': one.method,
          'seeds': f'{first} to {first + settings.search.initialisations - 1}',
          'trials': len(one.rows),
          'chosen': lost['chosen'],
          'best': lost['best'],
          'regret': lost['regret'],
          'relative': lost['regret'] / original,
          'norm_of_default': float(judge.norms([default])[0]),
          'norm_of_original': original,
        }
      )
  return rows


def original_norm(judge: search_samplers.Judge) -> float:
  """Return the mean norm of the unchanged originals over the judges."""
  places = np.array(judge.places)
  own = Outcomes(*(field[places] for field in judge.originals))
  values = objectives.values(
    own, places, retrained=judge.retrained, originals=judge.originals
  )
  return float(objectives.norm(values).mean())


def summary(rows: Sequence[dict[str, Any]]) -> str:
  """Return the mean regret with its interval as text."""
  relative = np.array([[row['relative']] for row in rows])
  mean, low, high = search_samplers.mean_interval(relative)
  each = [float(np.mean([row[name] for row in rows])) for name in _NORMS]
  norms = ', '.join(
    f'{name} {value:.4f}' for name, value in zip(_NORMS, each, strict=True)
  )
  return (
    f'mean regret {mean:.3f} [{low:.3f}, {high:.3f}] of the norm of the '
    f'originals; mean norms: {norms}'
  )


_NORMS = ('chosen', 'best', 'norm_of_default', 'norm_of_original')


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--workdir', default='workdir/benchmark_digits')
  parser.add_argument('--methods', default=','.join(METHODS))
  parser.add_argument('--trials', type=int, default=50)
  parser.add_argument('--initialisations', type=int, default=3)
  parser.add_argument('--finalists', type=int, default=10)
  options = parser.parse_args()
  command.set_up_jax({'workdir': options.workdir})
  rows = run(
    options.workdir,
    options.methods.split(','),
    trials=options.trials,
    initialisations=options.initialisations,
    finalists=options.finalists,
  )
  text = lambda x: f'{x:.6g}' if isinstance(x, float) else x  # noqa: E731
  table.save(TABLE, [{k: text(v) for k, v in row.items()} for row in rows])
  print(summary(rows))


if __name__ == '__main__':
  main()
