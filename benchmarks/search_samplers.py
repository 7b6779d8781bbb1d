"""Compares the samplers of a search at equal budget.

    python benchmarks/search_samplers.py [--workdir=workdir/benchmark_digits]

Every sampler searches every method at the digits scale. Each initialisation has
a study of its own, with its own seed of the sampler, and counts as one search:
its best trials are judged again on initialisations that no study searched, and
its result is the smallest mean norm. So samplers are compared by the setting
that they deliver, not by the smallest of many noisy norms, which is given as
well (`best_25` to `best_100`, after so many trials, on the searched
initialisation). Unlike in a search, the default setting is not among the
finalists, since it would hide differences.

The regret of a search is its norm minus the smallest of all samplers for the
same method and seed, divided by the norm of the unchanged originals, which is
the same for all. Differences of the mean regret between two samplers are paired
by method and seed. Their intervals are Student's over the means of the methods,
because the seeds of a method share its space, and hold for all pairs together
(Bonferroni). All methods and samplers share the initialisations and the judges,
so that the intervals do not cover other initialisations.

Trials that are in the store of the work directory are not trained again, those
of an earlier `python -m jaxmu.search --config=benchmark` included. The default
sampler is the last one, so that the settings and reports in WORKDIR/search are
those of its search. The table is printed and written to
benchmarks/search_samplers.csv.
"""

import argparse
import dataclasses
import itertools
import math
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import table
from scipy import stats

from jaxmu import files
from jaxmu import main as command
from jaxmu.report import progress
from jaxmu.study import recipes, store
from jaxmu.study import settings as settings_lib
from jaxmu.tuning import driver, judging, opening, records
from jaxmu.tuning.trials import Evaluator, Trial

TABLE = pathlib.Path(__file__).with_suffix('.csv')
METHODS = ('ft', 'msg', 'scrub', 'salun', 'neggrad_plus', 'cfk')
SAMPLERS = ('reference', 'random', 'tpe')  # the default is the last one
BUDGETS = (25, 50, 75, 100)
LEVEL = 0.95


def make_settings(
  workdir: str, methods: Sequence[str], sampler: str, **search: Any
) -> settings_lib.Settings:
  """Return the settings of a search of some methods of the benchmark.

  Args:
    workdir: the work directory.
    methods: their names.
    sampler: name of the sampler.
    **search: further fields of `config.search`.
  """
  config = recipes.benchmark()
  config['workdir'] = workdir
  config['search'].update(sampler=sampler, **search)
  config['search']['space'] = recipes.digits_space(methods)
  settings = settings_lib.from_config(config)
  chosen = {one.method: one for one in settings.unlearners}
  return dataclasses.replace(
    settings, unlearners=tuple(chosen[name] for name in methods)
  )


class Judge:
  """Judges settings on the initialisations that no study searched."""

  def __init__(self, settings: settings_lib.Settings, method: str):
    bars = progress.Progress()
    job = opening.open_search(settings, bars.line).job
    first = settings.search.initialisations
    self.places = range(first, first + settings.search.judges)
    self.method = method
    self.evaluator = Evaluator(job, method, bars)
    self.retrained = self.evaluator.retrained()
    self.originals = self.evaluator.originals()

  def norms(self, settings: Sequence[judging.Setting]) -> np.ndarray:
    """Return the mean norm of each setting over the judges, f64[S]."""
    trials = [Trial(one, place) for one in settings for place in self.places]
    outcomes = self.evaluator.evaluate(trials, lambda *_: None)
    values = judging.objectives(
      outcomes,
      np.array([trial.initialisation for trial in trials]),
      retrained=self.retrained,
      originals=self.originals,
    )
    each = judging.norm(values)
    return each.reshape(len(settings), len(self.places)).mean(axis=1)


def search_row(
  rows: Sequence[records.TrialRow], judge: Judge, finalists: int
) -> dict[str, Any]:
  """Return what the search of one initialisation delivers.

  Args:
    rows: its trials, in the order in which they were proposed.
    judge: of the method.
    finalists: how many of the best trials are judged again.

  Returns:
    Columns of the table; the norm is infinite if no trial may win.
  """
  norms = np.array([row.norm for row in rows])
  usable = np.array([row.usable for row in rows])
  order = judging.ranked(
    norms,
    np.array([row.initialisation for row in rows]),
    np.array([row.number for row in rows]),
    usable,
  )
  settings = [row.setting for row in rows]
  positions = judging.distinct(order, settings, finalists)
  judged = judge.norms([settings[p] for p in positions]) if positions else []
  counted = np.where(usable, norms, np.inf)
  return {
    'norm': float(min(judged, default=np.inf)),
    'trials': len(rows),
    'failed': sum(row.failed for row in rows),
    'cannot_win': sum(not row.failed and not row.usable for row in rows),
    **{
      f'best_{budget}': float(counted[:budget].min())
      for budget in BUDGETS
      if budget <= len(rows)
    },
  }


def run(
  workdir: str,
  methods: Sequence[str],
  samplers: Sequence[str],
  *,
  finalists: int,
  **search: Any,
) -> list[dict[str, Any]]:
  """Search with every sampler; a row per method, sampler and seed.

  Args:
    workdir: the work directory.
    methods: their names.
    samplers: their names; the files of the last one's search remain.
    finalists: trials of a study that are judged again.
    **search: further fields of `config.search`.
  """
  found = {}
  for sampler in samplers:
    # The choice from all studies together is needed for the last one only.
    few = {} if sampler == samplers[-1] else {'finalists': 1}
    settings = make_settings(workdir, methods, sampler, **few, **search)
    for one in driver.run(settings):
      found[one.method, sampler] = one
  settings = make_settings(workdir, methods, samplers[-1], **search)
  seeds = range(settings.search.initialisations)
  made = []
  with store.hold_workdir(files.path(workdir)):
    for method in methods:
      judge = Judge(settings, method)
      for sampler, seed in itertools.product(samplers, seeds):
        one = found[method, sampler]
        own = [row for row in one.rows if row.initialisation == seed]
        made.append(
          {
            'method': method,
            'sampler': sampler,
            'seed': seed,
            **search_row(own, judge, finalists),
            'norm_of_default': one.judged['default'],
            'norm_of_original': one.judged['original'],
          }
        )
  return made


class Difference(NamedTuple):
  """The mean regret of one sampler minus that of another, with an interval."""

  first: str
  second: str
  mean: float
  low: float
  high: float

  @property
  def shown(self) -> bool:
    """Whether the interval excludes 0."""
    return self.low > 0 or self.high < 0


def regrets(norms: np.ndarray, scale: np.ndarray) -> np.ndarray:
  """Return the normalised regret of each search, f64[S, M, K].

  Args:
    norms: f64[S, M, K] by sampler, method and seed.
    scale: f64[M, K], norms of the unchanged originals.
  """
  return (norms - norms.min(axis=0)) / scale


def mean_interval(
  values: np.ndarray, level: float = LEVEL
) -> tuple[float, float, float]:
  """Return a mean and its interval, clustered by method.

  Args:
    values: f64[M, K] by method and seed.
    level: of the interval.

  Returns:
    Mean, lower and upper end; infinite ends for a single method.
  """
  each = values.mean(axis=1)
  mean, count = float(each.mean()), len(each)
  if count < 2:
    return mean, -math.inf, math.inf
  error = each.std(ddof=1) / math.sqrt(count)
  half = float(stats.t.ppf((1 + level) / 2, count - 1) * error)
  return mean, mean - half, mean + half


def differences(
  names: Sequence[str], regret: np.ndarray, level: float = LEVEL
) -> list[Difference]:
  """Compare all pairs of samplers; the intervals hold together.

  Args:
    names: of the samplers.
    regret: f64[S, M, K].
    level: at which all intervals hold together.
  """
  pairs = list(itertools.combinations(range(len(names)), 2))
  each = 1 - (1 - level) / max(len(pairs), 1)
  return [
    Difference(names[a], names[b], *mean_interval(regret[a] - regret[b], each))
    for a, b in pairs
  ]


def verdict(names: Sequence[str], regret: np.ndarray) -> str:
  """Say which sampler has the smallest regret, and what that is worth.

  Args:
    names: of the samplers.
    regret: f64[S, M, K].
  """
  best = names[int(np.argmin(regret.mean(axis=(1, 2))))]
  beaten = [
    d.second if d.first == best else d.first
    for d in differences(names, regret)
    if d.shown and best in (d.first, d.second)
  ]
  if not beaten:
    return f'{best} has the smallest mean regret; no difference shown'
  return f'{best} has the smallest mean regret, smaller than {beaten}'


def by_sampler(
  rows: Sequence[dict[str, Any]], column: str
) -> tuple[list[str], np.ndarray]:
  """Return the samplers and a column of a table, f64[S, M, K]."""
  names, methods, seeds = (
    list(dict.fromkeys(row[key] for row in rows))
    for key in ('sampler', 'method', 'seed')
  )
  cells = {(r['sampler'], r['method'], r['seed']): r[column] for r in rows}
  values = [
    [[cells[name, m, seed] for seed in seeds] for m in methods]
    for name in names
  ]
  return names, np.array(values, float)


def summary(rows: Sequence[dict[str, Any]]) -> str:
  """Return the mean regrets, their differences and the verdict as text."""
  names, norms = by_sampler(rows, 'norm')
  scale = by_sampler(rows, 'norm_of_original')[1][0]
  regret = regrets(norms, scale)
  columns = [
    f'best_{b}' for b in BUDGETS if all(f'best_{b}' in r for r in rows)
  ]
  best = {name: by_sampler(rows, name)[1].mean(axis=(1, 2)) for name in columns}
  lines = []
  for index, name in enumerate(names):
    mean, low, high = mean_interval(regret[index])
    history = ', '.join(
      f'{best[column][index]:.4f} ({column})' for column in columns
    )
    lines.append(
      f'{name}: mean regret {mean:.3f} [{low:.3f}, {high:.3f}]; mean norm '
      f'{norms[index].mean():.4f}; best norms {history}'
    )
  for d in differences(names, regret):
    lines.append(
      f'{d.first} - {d.second}: {d.mean:+.3f} [{d.low:+.3f}, {d.high:+.3f}]'
    )
  return '\n'.join([*lines, verdict(names, regret)])


def names(text: str) -> list[str]:
  """Return names that commas separate."""
  return text.split(',')


def parser(
  description: str | None, methods: Sequence[str], trials: int, finalists: int
) -> argparse.ArgumentParser:
  """Return a parser of the options of searches."""
  one = argparse.ArgumentParser(description=description)
  one.add_argument('--workdir', default='workdir/benchmark_digits')
  one.add_argument('--methods', type=names, default=list(methods))
  one.add_argument('--trials', type=int, default=trials)
  one.add_argument('--initialisations', type=int, default=3)
  one.add_argument('--finalists', type=int, default=finalists)
  return one


def main() -> None:
  one = parser(__doc__, METHODS, trials=100, finalists=7)
  one.add_argument('--samplers', type=names, default=list(SAMPLERS))
  options = vars(one.parse_args())
  command.set_up_jax({})
  rows = run(**options)
  keys = list(dict.fromkeys(key for row in rows for key in row))
  table.save(TABLE, [{k: _text(row.get(k, '')) for k in keys} for row in rows])
  print(summary(rows))


def _text(value: Any) -> Any:
  return f'{value:.6g}' if isinstance(value, float) else value


if __name__ == '__main__':
  main()
