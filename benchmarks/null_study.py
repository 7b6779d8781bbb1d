"""Are attacks at chance on retrained models? One job with many seeds.

  python benchmarks/null_study.py --config=msg_resnet [--seeds=20]
  python benchmarks/null_study.py --config=deep_unlearn:laptop \\
    --study=cifar10_resnet18/ulira [--seeds=20]

Trains only the retrained models of a job, which never saw the images that they
are attacked on, so that an AUC of one half is the truth. `seed` and
`splits.seed` are 0, 1, 2, ...; nothing else differs, so that all seeds use one
compiled program. Every attack that has such a null runs on them as in the
report of a job. The attacks that compare with retrained models have none here:
it takes a second set of retrained models.

Writes benchmarks/null_study.csv, a row per job and number:

  negatives       what forgotten images are compared with. Test images may be
                  harder than those of the pool, which a population attack sees
                  without a leak
  null            its expectation where nothing leaks, one half but for the
                  accuracy of the population attack, whose folds are unbalanced
  mean, error     over the seeds, with the standard error
  z               (mean - null) / error; beyond 2 is suspect, but of 20 numbers
                  one is beyond it by chance
  p_holm          of z, by the t-test, with Holm's correction for the numbers of
                  the job
  coverage        share of the seeds whose 95% interval contains null, with the
                  exact interval of that share
  width           mean half-width of the intervals

`--pool` predicts the images of the pool alone and runs only the attacks that
need no others. Where the data set is much larger than the pool, that takes a
third of the time.

`--publish` writes the numbers of each seed to jaxmu/published/null, so that
`python -m jaxmu.reproduce` can repeat a seed. Seeds that are in WORKDIR are not
trained again, and `--keep` keeps their models. The other arguments are those of
`python -m jaxmu.main`, or with `--study` of `python -m jaxmu.sweep`.
"""

import argparse
import dataclasses
import math
import pathlib
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import publish_study
import table
from scipy import stats

import jaxmu.sweep as sweep_command
from jaxmu import files, terms
from jaxmu import main as command
from jaxmu.attacks import intervals, registry
from jaxmu.data import splits
from jaxmu.metrics import indiscernibility, ranking
from jaxmu.population import Layout, Predictions, Predictor, Trainer
from jaxmu.report import progress, results
from jaxmu.study import evaluate, planner, stages, store
from jaxmu.study import job as job_lib
from jaxmu.study.settings import Settings
from jaxmu.sweeps import design

SUMMARY = pathlib.Path(__file__).with_suffix('.csv')
PUBLISHED = SUMMARY.parents[1] / 'jaxmu' / 'published'
CHANCE = 0.5
VARIED = ('seed', 'splits.seed')
# Numbers that are one half where nothing leaks.
ENDINGS = (
  *('_auc', '_balanced_accuracy', 'per_example_mean', 'mia_val', 'mia_test'),
)
NOT_NULL = ('best_balanced_accuracy', 'retain_auc')
# What forgotten images are compared with, where it is not the same images in
# models that never saw them.
NEGATIVES = {
  'population_auc': 'test images',
  'mia_test': 'test images',
  'mia_val': 'validation images',
}


def with_seed(settings: Settings, seed: int, folder: pathlib.Path) -> Settings:
  """Return the settings of one seed."""
  return dataclasses.replace(
    settings,
    seed=seed,
    splits=dataclasses.replace(settings.splits, seed=seed),
    workdir=str(folder / f'seed_{seed}'),
  )


def with_all_attacks(settings: Settings) -> Settings:
  """Return settings that name every attack that has a null, or those given."""
  if settings.attack.names:
    return settings
  names = [
    name
    for name, attack in registry.ATTACKS.items()
    if 'retrained' in attack.card.populations
    and attack.card.by_default
    and not {'logits', 'correctness'} & set(attack.card.needs)
  ]
  attack = dataclasses.replace(settings.attack, which=','.join(names))
  return dataclasses.replace(settings, attack=attack)


def needs_pool_alone(name: str) -> bool:
  """Say whether an attack reads no image outside the pool."""
  return 'population_examples' not in registry.ATTACKS[name].card.needs


class Programs:
  """The programs of all seeds, compiled for the first of them."""

  def __init__(self) -> None:
    self._trainer: Trainer | None = None
    self._layout: Layout | None = None
    self._predictors: dict[Layout, Predictor] = {}

  @property
  def number(self) -> int:
    """How many training programs were compiled."""
    return self._trainer.num_programs if self._trainer else 0

  def run(
    self, settings: Settings, bars: progress.Progress, *, pool: bool = False
  ) -> tuple[job_lib.Job, evaluate.Evaluated]:
    """Train and score the retrained models of one seed.

    Args:
      settings: of the seed.
      bars: where to show progress.
      pool: keep the images of the pool alone.
    """
    job = job_lib.open_job(settings)
    name = results.REFERENCE
    if self._layout is None:
      work = job.counted_cost(name) * job.populations[name].members.size
      self._layout = planner.choose_plan(job, work, bars.line).layout
    job = dataclasses.replace(job, layout=self._layout)
    if self._trainer is None:
      self._trainer = stages.trainer(job, name)
    stages.train(job, name, self._trainer, bars)
    warnings: list[str] = []
    if pool:
      population = self._read_pool(job, bars, warnings)
    else:
      stages.predict(job, name, bars, self._predictors)
      population = evaluate.read_population(job, name, warnings)
    for line in warnings:
      bars.line(line)
    return job, population

  def _read_pool(
    self, job: job_lib.Job, bars: progress.Progress, warnings: list[str]
  ) -> evaluate.Evaluated:
    """Predict the images of the pool, and keep no others."""
    population = job.populations[results.REFERENCE]
    predictor = stages.predictor_of(job, population.name, self._predictors)
    examples = len(job.source.label)
    state = splits.membership(job.design, examples)
    columns = np.flatnonzero((state != terms.EXCLUDED).any(axis=0))
    index = columns.astype(np.int32)
    parts = [
      stages.score(job, population.name, shard, predictor, bars, index)
      for shard in range(population.models.size)
    ]
    narrow = Predictions(*map(np.concatenate, zip(*parts, strict=True)))
    shape = (len(narrow.finite), examples)
    whole = Predictions(
      np.full(shape, np.nan, np.float32),
      np.zeros(shape, bool),
      np.ones(shape, bool),
    )
    for all_images, found in zip(whole, narrow, strict=True):
      all_images[:, columns] = found
    read = evaluate.read_population(job, population.name, warnings, whole)
    none = np.zeros(0, np.int64)
    return dataclasses.replace(
      read,
      log_odds=read.log_odds[:, columns],
      correct=read.correct[:, columns],
      state=read.state[:, columns],
      validation=none,
      test=none,
    )


def attack(
  job: job_lib.Job, population: evaluate.Evaluated, *, pool: bool = False
) -> list[results.Row]:
  """Return the numbers of the retrained models, as in a report.

  Args:
    job: of one seed.
    population: its retrained models.
    pool: whether the population has the images of the pool alone, so that only
      attacks that need no others can run.
  """
  collected = evaluate.Collected()
  population = dataclasses.replace(population, retrained=population)
  options = job.settings.attack
  names = options.names
  if pool:
    names = [name for name in names if needs_pool_alone(name)]
  else:
    for metric in evaluate.chosen_metrics(job.settings):
      evaluate.measure(population, metric, collected)
  attacks = evaluate.Attacks(
    collected,
    names,
    settings={
      'ulira': {
        name: getattr(options, name)
        for name in ('mode', 'variance', 'location')
      }
    },
  )
  attacks.run(population, np.arange(population.size))
  for line in attacks.warnings:
    print(line, flush=True)
  return evaluate.rows(collected)


def one_seed(
  settings: Settings,
  programs: Programs,
  bars: progress.Progress,
  *,
  keep: bool = False,
  pool: bool = False,
) -> tuple[list[results.Row], float]:
  """Return the numbers of a seed and the seconds that they took.

  Both are read from its work directory if they are there.
  """
  folder = files.workdir(settings.workdir)
  address = job_lib.open_job(settings).populations[results.REFERENCE].digest
  version = job_lib.STAGE_VERSIONS['report']
  attacks = files.digest(version, dataclasses.asdict(settings.attack))
  images = '_pool' if pool else ''
  path = folder / f'null_{address}_{attacks}{images}.csv'
  clock = path.with_suffix('.json')
  if path.is_file() and clock.is_file():
    return results.read_csv(path), files.read_json(clock)['seconds']
  begin = time.perf_counter()
  with store.hold_workdir(folder):
    job, population = programs.run(settings, bars, pool=pool)
    rows = attack(job, population, pool=pool)
    results.write_csv(path, rows)
    if not keep:
      shutil.rmtree(folder / 'store')
  seconds = time.perf_counter() - begin
  results.write_json(clock, {'seconds': seconds})
  return rows, seconds


def is_null(metric: str) -> bool:
  """Say whether a number is one half where nothing leaks."""
  return metric.endswith(ENDINGS) and not metric.endswith(NOT_NULL)


def null_of(metric: str, forget: int) -> float:
  """Return the expectation of a number where nothing leaks.

  That of the population attack's accuracy is below one half, because its folds
  are not balanced; see `indiscernibility.noise_floor`.

  Args:
    metric: name of the number.
    forget: images of a forget set.
  """
  if metric.startswith('mia_'):
    return indiscernibility.noise_floor(forget).mean
  return CHANCE


def summary(
  by_seed: Sequence[Sequence[results.Row]], forget: int
) -> list[dict[str, Any]]:
  """Return mean, error, z and coverage of every number, a row each.

  Args:
    by_seed: the numbers of each seed.
    forget: images of a forget set.
  """
  gathered: dict[str, list[results.Row]] = {}
  for rows in by_seed:
    for row in rows:
      if is_null(row.metric) and math.isfinite(row.value):
        gathered.setdefault(row.metric, []).append(row)
  found = [
    _numbers(metric, rows, null_of(metric, forget))
    for metric, rows in gathered.items()
  ]
  given = [row.pop('p') for row in found]
  p_values = iter(ranking.holm(np.array([p for p in given if p is not None])))
  for row, p in zip(found, given, strict=True):
    row['p_holm'] = '' if p is None else f'{next(p_values):.3f}'
  return found


def _numbers(
  metric: str, rows: Sequence[results.Row], null: float
) -> dict[str, Any]:
  values = np.array([row.value for row in rows])
  n = len(values)
  error = values.std(ddof=1) / math.sqrt(n) if n > 1 else math.nan
  excess = values.mean() - null
  z = excess / error if error else math.copysign(math.inf, excess)
  z = z if excess else 0.0
  given = [row for row in rows if math.isfinite(row.low + row.high)]
  inside = sum(row.low <= null <= row.high for row in given)
  low, high = intervals.clopper_pearson(inside, len(given))
  width = np.mean([row.high - row.low for row in given]) / 2 if given else ''
  return {
    'metric': metric,
    'negatives': NEGATIVES.get(metric, 'never seen'),
    'null': f'{null:.4f}',
    'seeds': n,
    'mean': f'{values.mean():.5f}',
    'error': f'{error:.5f}',
    'z': f'{z:.2f}',
    'p': float(2 * stats.t.sf(abs(z), n - 1)) if n > 1 else None,
    'coverage': f'{inside / len(given):.3f}' if given else '',
    'coverage_low': f'{low:.3f}' if given else '',
    'coverage_high': f'{high:.3f}' if given else '',
    'width': f'{width:.4f}' if given else '',
  }


def publish(
  name: str,
  settings: Settings,
  by_seed: Iterable[tuple[int, Sequence[results.Row]]],
  seconds: float,
) -> None:
  """Publish the numbers of each seed.

  Args:
    name: of the job.
    settings: of the first seed.
    by_seed: seeds with their numbers.
    seconds: what all seeds took.
  """
  from jaxmu.published import writing

  rows = [
    dataclasses.replace(row, method=str(seed))
    for seed, rows in by_seed
    for row in rows
    if is_null(row.metric) and math.isfinite(row.value)
  ]
  line = table.made(SUMMARY)['command']
  origin = writing.Origin(line, publish_study.commit(), seconds)
  place = f'null/{name.replace("/", "_")}'
  writing.replicates(PUBLISHED, place, settings, rows, VARIED, origin)
  print(f'published as {place}')


def read(argv: Sequence[str], study: str) -> Settings:
  """Return the settings of a job, or of a study of a sweep."""
  if not study:
    chosen, _ = command.start(argv)
    return chosen
  sweep = design.from_config(sweep_command.read(argv).config)
  known = {one.name: one for one in sweep.studies}
  if study not in known:
    raise SystemExit(
      f'--study={study}: the sweep has {", ".join(known)}; choose one'
    )
  command.set_up_jax(known[study].config)
  return known[study].settings


def main() -> None:
  """Run all seeds and write the tables."""
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument('--seeds', type=int, default=20)
  parser.add_argument('--first', type=int, default=0)
  parser.add_argument('--study', default='')
  parser.add_argument('--name', default='')
  parser.add_argument('--keep', action='store_true')
  parser.add_argument('--pool', action='store_true')
  parser.add_argument('--publish', action='store_true')
  options, rest = parser.parse_known_args()
  for name, least in (('seeds', 1), ('first', 0)):
    if (given := getattr(options, name)) < least:
      parser.error(f'--{name}={given}: choose at least {least}')
  settings = with_all_attacks(read(rest, options.study))
  name = options.name or options.study or pathlib.Path(settings.workdir).name
  folder = files.workdir(settings.workdir).with_name(
    f'null_{name.replace("/", "_")}'
  )
  programs, found, total = Programs(), [], 0.0
  with progress.Progress() as bars:
    for seed in range(options.first, options.first + options.seeds):
      own = with_seed(settings, seed, folder)
      begin = time.perf_counter()
      rows, seconds = one_seed(
        own, programs, bars, keep=options.keep, pool=options.pool
      )
      found.append((seed, rows))
      total += seconds
      auc = {r.metric: r.value for r in found[-1][1]}.get('ulira_auc', math.nan)
      bars.line(
        f'seed {seed}: U-LiRA {auc:.3f}, {time.perf_counter() - begin:.0f} s, '
        f'{programs.number} training programs'
      )
  forget = job_lib.open_job(
    with_seed(settings, options.first, folder)
  ).sizes.forget
  numbers = summary([rows for _, rows in found], forget)
  rows = [{'job': name, **row} for row in numbers]
  table.show(rows)
  others = [row for row in table.read(SUMMARY) if row['job'] != name]
  how = table.made(SUMMARY)
  table.write(SUMMARY, [*others, *({**row, **how} for row in rows)])
  print(f'written to {SUMMARY}')
  if options.publish:
    first = with_seed(settings, options.first, folder)
    publish(name, first, found, total)


if __name__ == '__main__':
  sys.exit(main())
