"""Run the job of published numbers again, or read what another run left.

A job is run with the methods that the numbers need and no others. Draws are
keyed by the name of their population, so the numbers are those of the whole
job. Data and splits are compared with the published ones before training.
"""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxmu import files, methods, terms
from jaxmu.published import computed, facts, record, rows, scores
from jaxmu.published.record import Published
from jaxmu.published.rows import Row
from jaxmu.report import glossary, progress, ranks, results
from jaxmu.study import (
  evaluate,
  planner,
  publish,
  run,
  sharing,
  stages,
  store,
  tuned,
)
from jaxmu.study import job as job_lib
from jaxmu.study.settings import Settings
from jaxmu.tuning import driver, opening

# Numbers by population and name, as in results.csv.
Numbers = Mapping[tuple[str, str], float]
Tell = Callable[[str], None]
_GONE = 'no longer computed'


class Found(NamedTuple):
  """The numbers of another run.

  Attributes:
    numbers: the numbers.
    differences: in what its environment differs from the published one; for
      computed numbers also the tables that have changed.
    beside: for computed numbers, in what the interval and the verdict of each
      differ, by the names of `numbers`; '' if they do not.
  """

  numbers: Numbers
  differences: list[str]
  beside: Mapping[tuple[str, str], str] = {}


def of_one_folder(chosen: Sequence[Row]) -> dict[str, list[Row]]:
  """Return numbers by the name of their folder."""
  found: dict[str, list[Row]] = {}
  for row in chosen:
    found.setdefault(row.of.name, []).append(row)
  return found


def judge(
  chosen: Sequence[Row], found: Found, *, from_scores: bool = False
) -> list[rows.Verdict]:
  """Compare the numbers of a folder with those of another run.

  A number that the other run lacks counts as not available. One that scores do
  not give, or a rank where only some methods were run, is not judged. A
  computed number fails as well if its interval or its verdict differs.
  """
  same = not found.differences
  verdicts = []
  for row in chosen:
    value = found.numbers.get((row.method, row.metric), math.nan)
    verdict = rows.judge(row, value, same=same, scores=from_scores)
    if (row.method, row.metric) not in found.numbers and (
      from_scores or row.needs_all
    ):
      why = 'not from scores' if from_scores else 'needs all methods: name it'
      verdict = rows.Verdict(row, math.nan, math.nan, rows.Outcome.OPEN, why)
    beside = found.beside.get((row.method, row.metric))
    if beside:
      failed = verdict.outcome is rows.Outcome.FAIL and beside != _GONE
      why = f'{verdict.note}; {beside}' if failed else beside
      verdict = dataclasses.replace(
        verdict, outcome=rows.Outcome.FAIL, note=why
      )
    verdicts.append(verdict)
  return verdicts


def rerun(
  chosen: Sequence[Row], workdir: pathlib.Path, tell: Tell = print
) -> Found:
  """Run what gives some numbers of one folder.

  Args:
    chosen: numbers of one folder, at least one.
    workdir: folder for all published results; the job runs in a folder below
      it, with their name.
    tell: receives lines about what will be trained.

  Raises:
    ValueError: the configuration does not fit this version, or data or splits
      differ from the published ones; nothing was trained.
  """
  one = chosen[0].of
  folder = workdir / one.name
  run_kind = {
    'table': _run_table,
    'search': _run_search,
    'replicates': _run_replicates,
    'computed': _compute,
  }
  return run_kind[one.kind](one, chosen, folder, tell)


def read(chosen: Sequence[Row], workdir: pathlib.Path) -> Found:
  """Read numbers of one folder from a finished work directory.

  Args:
    chosen: numbers of one folder, at least one.
    workdir: of the job or search, or of the sweep that it is part of.

  Raises:
    ValueError: there is no such work, or it has another configuration; the
      message names the fields.
  """
  one = chosen[0].of
  read_kind = {'table': _read_table, 'search': _read_search}
  if one.kind not in read_kind:
    raise ValueError(
      f'{one.name} is no single job: leave out --read to compute its numbers'
    )
  return read_kind[one.kind](one, chosen, workdir)


def from_scores(chosen: Sequence[Row]) -> Found:
  """Compute numbers of one folder from its published scores.

  Numbers that the scores do not give are left out.

  Raises:
    ValueError: they give none of the numbers.
  """
  one = chosen[0].of
  known = one.record.get('scores')
  if not known:
    raise ValueError(
      f'{one.name} has no published scores; leave out --from=scores'
    )
  given = [
    row
    for row in chosen
    if row.method in known['populations'] and row.metric in known['rounding']
  ]
  if not given:
    row = chosen[0]
    if row.method not in known['populations']:
      raise ValueError(
        f'{row.name}: the scores of {row.method} are not published (see '
        f'left_out in {one.folder / record.FILE})'
      )
    raise ValueError(
      f'{row.name} is no number of an attack on the published scores, such as '
      'ulira_auc'
    )
  wanted = list(dict.fromkeys(row.method for row in given))
  metrics = {row.metric for row in given}
  attacked = scores.attack(one, wanted, metrics)
  return Found(
    {(r.method, r.metric): r.value for r in attacked if r.metric in metrics},
    [],
  )


def _unlearners(one: Published, chosen: Sequence[Row]) -> list[str]:
  """Return the unlearning methods that some numbers of a job need."""
  every = [methods.get(spec).name for spec in one.methods]
  if all(row.needs_all for row in chosen):
    return every
  # Ranks among other numbers are not worth training all other methods.
  needed = {row.method for row in chosen}
  return [name for name in every if name in needed]


def _with_layout(
  one: Published, settings: Settings, differences: Sequence[str]
) -> Settings:
  """Return settings with the published devices and chunk, if they fit.

  In the same environment, the results are then equal to the last bit.
  """
  from jaxmu import platforms

  if differences:
    return settings
  layout = one.record['layout']
  devices = layout['devices']
  if devices > len(platforms.local_devices()):
    devices = 0
  chosen = dataclasses.replace(
    settings.run, devices=devices, chunk=layout['chunk']
  )
  return dataclasses.replace(settings, run=chosen)


def _run_table(
  one: Published, chosen: Sequence[Row], folder: pathlib.Path, tell: Tell
) -> Found:
  differences = _differences(one)
  settings = record.settings(one, folder, _unlearners(one, chosen))
  settings = _with_layout(one, settings, differences)
  clocks = any(row.is_run_time for row in chosen)
  job, evaluation = _finish(one, settings, tell, clocks)
  found = evaluation.rows
  if clocks:
    found = [*found, *publish.clock_rows(job)]
  names = [population.name for population in job.unlearned]
  if len(names) == len(one.methods):
    found = [
      *found,
      *ranks.job_rows(names, publish.rank_methods(job, evaluation)),
    ]
  differences += facts.changed_code(
    one, {name: p.digest for name, p in job.populations.items()}
  )
  return Found({(r.method, r.metric): r.value for r in found}, differences)


def _differences(one: Published) -> list[str]:
  return rows.environment_differences(one, facts.environment())


def _finish(
  one: Published, settings: Settings, tell: Tell, clocks: bool = False
) -> tuple[job_lib.Job, evaluate.Evaluation]:
  """Run a job without its report, and evaluate it."""
  folder = files.workdir(settings.workdir)
  with store.hold_workdir(folder), progress.Progress() as bars:
    job = job_lib.open_job(settings)
    facts.check_data(one, job)
    sharing.adopt(job, bars.line)
    steps = planner.plan_steps(job)
    tell(_announcement(one, job, steps))
    run.check_job(job, steps)
    job = planner.choose_plan(job, planner.training_work(steps), bars.line)
    run.train_and_predict(job, bars, timed=clocks)
    return job, evaluate.evaluate(job)


def _announcement(
  one: Published, job: job_lib.Job, steps: Sequence[planner.Step]
) -> str:
  """Say what will be trained, and about how long it takes."""
  missing = {
    step.stage.partition(' ')[2]: step.missing
    for step in steps
    if step.stage.startswith('train ') and step.missing
  }
  where = files.shown(job.folder)
  if not missing:
    return f'{one.name}: all models are in {where}'
  listed = ', '.join(f'{n} {name}' for name, n in missing.items())
  settings = job.settings
  options = ' '.join(f'{k} {v}' for k, v in settings.model_options.items())
  return (
    f'{one.name}: training {listed} models ({settings.model} {options}, '
    f'{settings.data.name}) in {where}'
    + _about(one, {n: job.counted_cost(n) * k for n, k in missing.items()})
  )


def _about(one: Published, work: Mapping[str, float]) -> str:
  """Say how long work takes where the whole took what the record says."""
  whole = sum(m['number'] * m['work'] for m in one.record['models'].values())
  whole *= len(one.record.get('replicates', [0]))
  seconds = one.record['seconds']
  if not seconds or not whole:
    return ''
  share = min(sum(work.values()) / whole, 1.0)
  text = results.format_duration(seconds * share)
  return f'; about {text} on the machine of the published results'


def _run_search(
  one: Published, chosen: Sequence[Row], folder: pathlib.Path, tell: Tell
) -> Found:
  differences = _differences(one)
  wanted = list(dict.fromkeys(row.method for row in chosen))
  settings = record.settings(one, folder, wanted)
  settings = _with_layout(one, settings, differences)
  opened = opening.open_search(settings, tell, probe=False)
  facts.check_data(one, opened.job)
  budgets = [opening.budget(settings, space) for space in opened.spaces]
  share = len(wanted) / max(len(one.chosen), 1)
  seconds = one.record['seconds']
  about = (
    f'; about {results.format_duration(seconds * share)} on the machine of the '
    'published results'
    if seconds
    else ''
  )
  tell(
    f'{one.name}: searching {", ".join(wanted)} '
    f'({terms.count(sum(b.models for b in budgets), "model")}) in '
    f'{files.shown(opened.job.folder)}{about}'
  )
  numbers = {
    (found.method, name): value
    for found in driver.run(settings)
    for name, value in rows.search_numbers(found.judged).items()
  }
  differences += facts.changed_code(
    one, {name: p.digest for name, p in opened.job.populations.items()}
  )
  return Found(numbers, differences)


def _run_replicates(
  one: Published, chosen: Sequence[Row], folder: pathlib.Path, tell: Tell
) -> Found:
  differences = _differences(one)
  every = any(not row.method for row in chosen)
  seeds = [
    seed
    for seed in one.record['replicates']
    if every or any(row.method == seed for row in chosen)
  ]
  metrics = {row.metric.partition('/')[0] for row in chosen}
  by_metric: dict[str, list[results.Row]] = {}
  for seed in seeds:
    settings = record.settings(one, folder / f'seed_{seed}', ())
    settings = _with_seed(settings, one.record['varied'], int(seed))
    settings = _with_layout(one, settings, differences)
    for row in _of_seed(one, settings, seed, metrics, tell):
      by_metric.setdefault(row.metric, []).append(row)
  numbers: dict[tuple[str, str], float] = {}
  for metric, several in by_metric.items():
    numbers |= {(row.method, metric): row.value for row in several}
    numbers['', metric] = rows.mean(several)[0]
    numbers['', f'{metric}/{rows.COVERAGE}'] = rows.coverage(several)[0]
  return Found(numbers, differences)


def _of_seed(
  one: Published,
  settings: Settings,
  seed: str,
  metrics: Collection[str],
  tell: Tell,
) -> list[results.Row]:
  """Train the retrained models of a job alone, and attack them.

  Args:
    one: the published results.
    settings: of the job with this seed.
    seed: its seed, the `method` of the numbers.
    metrics: the numbers that are needed.
    tell: receives a line about what will be trained.

  Returns:
    The numbers, and others of the same attacks.
  """
  # Other seeds have other splits.
  first = seed == one.record['replicates'][0]
  record_of_splits = one.record['splits'] if first else {}
  checked = dataclasses.replace(
    one, record={**one.record, 'splits': record_of_splits}
  )
  with (
    store.hold_workdir(files.workdir(settings.workdir)),
    progress.Progress() as bars,
  ):
    job = job_lib.open_job(settings)
    facts.check_data(checked, job)
    name = results.REFERENCE
    job = dataclasses.replace(job, populations={name: job.populations[name]})
    steps = planner.training_steps(job)
    tell(_announcement(one, job, steps))
    run.check_job(job, steps)
    job = planner.choose_plan(job, planner.training_work(steps), bars.line)
    run.train(job, name, stages.trainer(job, name), bars, timed=False)
    stages.predict(job, name, bars)
  collected = evaluate.Collected()
  population = evaluate.read_population(job, name, [])
  population = dataclasses.replace(population, retrained=population)
  for metric in evaluate.chosen_metrics(job.settings):
    evaluate.measure(population, metric, collected)
  attacks = sorted({glossary.attack_of(metric) for metric in metrics} - {''})
  if attacks:
    runner = evaluate.Attacks(
      collected, attacks, settings=evaluate.attack_settings(job.settings)
    )
    runner.run(population, np.arange(population.size))
  return [
    dataclasses.replace(row, method=seed) for row in evaluate.rows(collected)
  ]


def _with_seed(
  settings: Settings, varied: Sequence[str], seed: int
) -> Settings:
  """Return settings with some fields set to a seed.

  Example:
    >>> from jaxmu.study import recipes, settings
    >>> job = settings.from_config(recipes.job_config('ft'))
    >>> _with_seed(job, ['splits.seed'], 7).splits.seed
    7
  """
  for field in varied:
    section, dot, name = field.rpartition('.')
    if not dot:
      settings = dataclasses.replace(settings, **{name: seed})
      continue
    changed = dataclasses.replace(getattr(settings, section), **{name: seed})
    settings = dataclasses.replace(settings, **{section: changed})
  return settings


def _compute(
  one: Published, chosen: Sequence[Row], folder: pathlib.Path, tell: Tell
) -> Found:
  del folder
  place = one.record['function']
  tell(
    f'{one.name}: computing {place} from the tables of {one.record["study"]}'
  )
  try:
    found = computed.call(place, one.root)
  except ValueError as error:
    raise ValueError(f'{one.folder / record.FILE}: {error}') from None
  return compare(chosen, found)


def compare(chosen: Sequence[Row], found: computed.Computed) -> Found:
  """Compare computed numbers of one folder, their intervals and verdicts.

  Args:
    chosen: numbers of one folder, at least one.
    found: what its function computes now.
  """
  one = chosen[0].of
  by_name = {(r.method, r.metric): r for r in found.numbers}
  beside = {}
  for row in chosen:
    again = by_name.get((row.method, row.metric))
    verdict = found.verdicts.get(f'{row.method}/{row.metric}', '')
    beside[row.method, row.metric] = _beside(row, again, verdict)
  versions = {'versions': job_lib.versions()}
  return Found(
    {name: row.value for name, row in by_name.items()},
    computed.changes(one) + rows.environment_differences(one, versions),
    beside,
  )


def _beside(row: Row, again: results.Row | None, verdict: str) -> str:
  """Say in what the interval and verdict of a computed number differ.

  Args:
    row: the published number.
    again: what it is now, None if there is no such number any more.
    verdict: what follows from it now, '' if nothing does.
  """
  if again is None:
    return _GONE
  texts = []
  for name in ('low', 'high'):
    theirs, ours = getattr(row, name), getattr(again, name)
    end = dataclasses.replace(row, value=theirs)
    if rows.judge(end, ours, same=True).outcome is rows.Outcome.FAIL:
      texts.append(f'{name} end {ours:.6g}')
  if verdict != row.verdict:
    texts.append(f'verdict {verdict or "none"}')
  return ', '.join(texts)


def _place(one: Published, workdir: pathlib.Path, file: str) -> pathlib.Path:
  """Return the folder of a job in a work directory, by a file that it has.

  Raises:
    ValueError: there is none.
  """
  parts = one.name.split('/')
  candidates = [workdir.joinpath(*parts[n:]) for n in range(len(parts), -1, -1)]
  for folder in candidates:
    files.refresh(folder)
    if (folder / file).is_file():
      return folder
  raise ValueError(
    f'{files.shown(workdir)} has no {file} of {one.name}; give the work '
    'directory of its finished job, or of its sweep'
  )


def _refuse(place: pathlib.Path, one: Published, changed: list[str]) -> None:
  if changed:
    raise ValueError(
      f'{files.shown(place)} has another configuration than {one.name}: '
      f'{", ".join(changed)}'
    )


def _read_table(
  one: Published, chosen: Sequence[Row], workdir: pathlib.Path
) -> Found:
  folder = _place(one, workdir, 'results.json')
  try:
    provenance = results.read_json(folder / 'results.json')['provenance']
    addresses = dict(provenance['results'])
    saved, data = provenance['configuration'], provenance['data']
  except (LookupError, TypeError) as error:
    raise ValueError(
      f'{folder}/results.json has no {error}; run the job again'
    ) from None
  wanted = _unlearners(one, chosen)
  published = record.settings(one, folder, wanted)
  changed = facts.changed_fields(published, saved, wanted)
  theirs, ours = one.record['data'], data
  if theirs['fingerprint'] != ours['fingerprint']:
    changed.append(f'the arrays of the data set {theirs["name"]}')
  if theirs['splits'] != ours['splits']:
    changed.append('the index sets of the splits')
  _refuse(folder, one, changed)
  found = [
    row
    for name in ('results.csv', 'timing.csv')
    if (folder / name).is_file()
    for row in results.read_csv(folder / name)
  ]
  there = _environment(one, provenance)
  differences = rows.environment_differences(one, there)
  kept = (*methods.BASELINES, *wanted)
  differences += facts.changed_code(
    one, {n: a for n, a in addresses.items() if n in kept}
  )
  return Found({(r.method, r.metric): r.value for r in found}, differences)


def _environment(one: Published, there: Mapping[str, Any]) -> dict[str, Any]:
  """Return the environment of a run; its compiler settings are not known."""
  known = {name: there.get(name, {}) for name in ('versions', 'hardware')}
  return {**known, 'compiler': one.record['compiler']}


def _read_search(
  one: Published, chosen: Sequence[Row], workdir: pathlib.Path
) -> Found:
  numbers: dict[tuple[str, str], float] = {}
  differences: list[str] = []
  for method in dict.fromkeys(row.method for row in chosen):
    file = f'search/{method}/{tuned.NAME}'
    folder = _place(one, workdir, file)
    content = tuned.read(folder / file)
    published = one.chosen[method]
    changed = [
      f'{section}.{name} = {content.get(section, {}).get(name)} '
      f'(published: {value})'
      for section in ('search', 'train', 'model_options')
      for name, value in published[section].items()
      if name not in ('seconds', 'failed', 'cannot_win')
      and content.get(section, {}).get(name) != value
    ]
    for name in ('data', 'model'):
      if content[name] != published[name]:
        changed.append(f'{name} = {content[name]} ({published[name]})')
    if content.get('originals') != published.get('originals'):
      # Their address covers all of these.
      changed.append('seeds, splits, data, shards or code of the originals')
    _refuse(folder, one, changed)
    numbers |= {
      (method, name): value
      for name, value in rows.search_numbers(content['norms']).items()
    }
    there = _environment(one, content)
    differences += rows.environment_differences(one, there)
  return Found(numbers, list(dict.fromkeys(differences)))
