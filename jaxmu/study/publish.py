"""The report stage: numbers, tables, pictures and pages in the work directory.

The methods of a job are ranked if there are enough initialisations. The numbers
per cluster are in `per_cluster.csv`, from which `jaxmu.rank` ranks methods
across several jobs. Run times come from the timing stage.
"""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable, Collection, Mapping, Sequence

import jax
import numpy as np

from jaxmu import files, method, terms
from jaxmu.methods import BASELINES
from jaxmu.methods.parts import weights
from jaxmu.metrics import METRICS, cost, ranking, retention
from jaxmu.report import checksums, html, plots, ranks, results, tables
from jaxmu.study import evaluate, stages, store
from jaxmu.study import job as job_lib

ACCURACIES = ('ra', 'fa', 'va', 'ta')
PAPER_TABLE_FILE = 'paper_table.md'

_LISTED = 5  # failed members that are named

Rankings = dict[str, ranking.CellRanking]


def report_shelf(job: job_lib.Job) -> store.Shelf:
  """Return the shelf of the record of the last report."""
  address = files.digest(
    'report',
    job_lib.STAGE_VERSIONS['report'],
    dataclasses.asdict(job.settings.attack),
    dataclasses.asdict(job.settings.timing),
    [(spec, METRICS.fingerprint(spec)) for spec in job.settings.metrics],
    {
      n: (
        p.digest,
        stages.shards_with_curves(p),
        stages.timing_shelf(job, n).address,
      )
      for n, p in job.populations.items()
    },
  )
  return job.shelf('report', 'report', address)


def is_current(job: job_lib.Job) -> bool:
  """Return whether the report in the work directory is that of this job."""
  place = report_shelf(job)
  if place.missing():
    return False
  written = place.info()['files']
  return all(_checksum(job.folder / n) == c for n, c in written.items())


def check_report(job: job_lib.Job) -> None:
  """Check that the report of a job replaces no report of another method.

  Raises:
    ValueError: the work directory has a report of methods that the job lacks.
  """
  try:
    record = files.read_json(job.folder / 'results.json')
    there = set(record['provenance']['results'])
  except (OSError, ValueError, LookupError, TypeError):  # none, or damaged
    return
  lost = sorted(there - set(job.populations) - set(BASELINES))
  if lost:
    raise ValueError(
      f'config.workdir = {files.shown(job.folder)!r} has the report of '
      f'{", ".join(lost)}, which this job would replace; choose another folder '
      'beside it with --config.workdir=PATH (finished models are shared), or '
      f'compare the methods in one report with --compare={",".join(lost)}'
    )


def publish(job: job_lib.Job, command: str) -> None:
  """Evaluate the predictions and write all files of the report."""
  checksums.remove(job.folder)
  evaluation = evaluate.evaluate(job)
  rankings = rank_methods(job, evaluation)
  clock = clock_rows(
    job, [n for n, f in evaluation.failed.items() if f[0] == f[1]]
  )
  ranked = ranks.job_rows([p.name for p in job.unlearned], rankings)
  problems: list[str] = []
  drawn = [
    *pictures(evaluation, problems),
    *ranking_pictures(job, rankings, evaluation.rows, problems),
    *_learning_curves(job, problems),
  ]
  report = html.Report(
    title=_title(job),
    lead=_lead(job),
    rows=evaluation.rows + clock + ranked,
    pictures=drawn,
    provenance=job_lib.provenance(job),
    command=command,
    warnings=[*training_warnings(job), *evaluation.warnings, *problems],
    failed={n: f for n, f in evaluation.failed.items() if f[0]},
    missing=evaluation.missing,
  )
  paths = html.write_report(job.folder, report)
  paths += stages.write_curves(job)
  paths.append(
    results.write_csv(
      job.folder / results.PER_CLUSTER_FILE,
      observations(evaluation),
      results.Observation,
    )
  )
  table = benchmark_table(job, evaluation)
  content = tables.paper_markdown(table).encode()
  paths.append(files.write_bytes(job.folder / PAPER_TABLE_FILE, content))
  for population in job.unlearned:
    paths.append(job.folder / 'scores' / f'{population.name}.npz')
    evaluate.write_scores(job, population.name, paths[-1])
  paths.append(checksums.write(job.folder, paths))
  info = {
    'files': {str(p.relative_to(job.folder)): _checksum(p) for p in paths},
    'failed': report.failed,
    'missing': [[*key, reason] for key, reason in report.missing.items()],
    'table': results.to_plain(table),
  }
  report_shelf(job).save(0, info=info)


def report_rows(job: job_lib.Job) -> list[results.Row]:
  """Read the rows of the last report, clock measurements included."""
  evaluate.chosen_metrics(job.settings)  # adds their terms to the glossary
  return [
    row
    for name in ('results.csv', 'timing.csv')
    if (job.folder / name).is_file()
    for row in results.read_csv(job.folder / name)
  ]


def report_missing(job: job_lib.Job) -> results.Missing:
  """Read why numbers of the last report are not available."""
  entries = report_shelf(job).info()['missing']
  return {(method, metric): reason for method, metric, reason in entries}


def plug_in_numbers(job: job_lib.Job) -> list[str]:
  """Return the names of the numbers of `config.metrics`."""
  specs = job.settings.metrics
  return [n for spec in specs for n in METRICS.resolve(spec).card.terms]


def paper_results(job: job_lib.Job) -> tables.PaperTable:
  """Read the benchmark's table of the last report."""
  return tables.PaperTable(**report_shelf(job).info()['table'])


def clock_rows(
  job: job_lib.Job, failed: Collection[str] = ()
) -> list[results.Row]:
  """Return run times and their ratio to retraining, from the timing stage.

  Args:
    job: the job, with its run times.
    failed: populations of which all models failed; they have no speed-up.
  """
  rows = []
  reference = _seconds(job, results.REFERENCE)
  for name in job.populations:
    if not stages.is_timed(job, name) or name in failed:
      continue
    times = _seconds(job, name)
    for metric, unit in _CLOCKED.items():
      value, retrained = times[unit], reference[unit]
      if metric != 'seconds':
        value, retrained = cost.rte(retrained, value), 1.0
      if math.isnan(value):
        continue
      row = results.Row(
        method=name,
        metric=metric,
        value=value,
        retrained=retrained,
        gap=value - retrained,
        n=1 if metric == 'rte_cold' else job.settings.timing.repeats,
      )
      rows.append(row)
  return rows


# Numbers made from run times, and the time that each reads.
_CLOCKED = {'rte': 'seconds', 'rte_cold': 'seconds_cold', 'seconds': 'seconds'}


def _seconds(job: job_lib.Job, name: str) -> dict[str, float]:
  """Return both run times of a population, NaN if the job does not have it."""
  if name not in job.populations:
    return {'seconds': math.nan, 'seconds_cold': math.nan}
  return {
    'seconds': stages.warm_seconds(job, name),
    'seconds_cold': stages.cold_seconds(job, name),
  }


def _title(job: job_lib.Job) -> str:
  titles = [population.method.card.title for population in job.unlearned]
  many = f'{len(titles)} unlearning methods'
  return (
    f'{", ".join(titles) if len(titles) < 4 else many} on {job.source.name}'
  )


def _lead(job: job_lib.Job) -> list[str]:
  chosen, sizes = job.settings.splits, job.sizes
  originals = job.populations[results.ORIGINAL].members.size
  sets = len(job.design.split) * chosen.seeds
  splits = len(np.unique(job.design.split))
  per_split = len(job.design.split) // splits
  options = job.settings.model_options.items()
  model = ', '.join([job.settings.model, *(f'{k} {v}' for k, v in options)])
  comparison = (
    'a model was retrained without it, as the reference, and the original '
    'unlearned it. The closer the unlearned models are to the retrained ones, '
    'the better.'
  )
  if results.REFERENCE not in job.populations:
    comparison = 'the original unlearned it. No model was retrained.'
  return [
    f'The job has {terms.count(originals, "original model")} ({model}), each '
    f'trained on {sizes.retain + sizes.forget:,} images of {job.source.name}, '
    f'and {terms.count(sets, "forget set")} of {sizes.forget:,} images. For '
    f'each forget set, {comparison}',
    f'Design {chosen.design!r}: {terms.count(splits, "split")}, '
    f'{terms.count(chosen.seeds, "initialisation")} and '
    f'{terms.count(per_split, "forget set")} per split.',
  ]


def training_warnings(job: job_lib.Job) -> list[str]:
  """Return which members failed, and which chosen weights have no effect."""
  one = stages.one_model_shapes(job)['params']
  total = sum(math.prod(x.shape) for x in jax.tree.leaves(one))
  dead = sum(weights.count_dead(job.task, one).values())
  sentences = []
  for name, population in job.populations.items():
    sentences += failure_warnings(
      name, stages.failed_epochs(population.models), population.members
    )
    chosen = population.method.card.chosen
    if not dead or chosen is None:
      continue
    counts = np.full((1, 1), dead)
    if chosen.info:
      counts = population.models.arrays(chosen.info)
    if np.isfinite(counts).any():
      sentences.append(dead_weights_warning(name, chosen, counts, dead, total))
  return sentences


def failure_warnings(
  name: str, failed: np.ndarray, members: job_lib.Members
) -> list[str]:
  """Say which members failed, and when.

  Args:
    name: of the population.
    failed: epoch of the first loss that was not finite, the number of epochs if
      the result alone is not finite, -1 for members that did not fail; i64[P].
    members: their names.
  """
  bad = np.flatnonzero(failed >= 0)
  if not bad.size:
    return []
  if bad.size == len(failed):
    first, last = int(failed.min()), int(failed.max())
    when = f'epoch {first}' if first == last else f'epochs {first} to {last}'
    which = f'all {bad.size} models' if bad.size > 1 else 'the only model'
    return [
      f'{name}: {which} failed, at {when}: losses or weights became non-finite.'
      ' Nothing can be concluded from these numbers'
    ]
  named = [
    f'epoch {failed[p]} (initialisation {members.seed[p]}, split '
    f'{members.split[p]}'
    + (f', forget set {members.forget_set[p]}' if name != 'original' else '')
    + ')'
    for p in bad[:_LISTED]
  ]
  more = bad.size - len(named)
  tail = f' and {more} more' if more else ''
  return [
    f'{name}: {bad.size} of {len(failed)} models became non-finite, at '
    f'{"; ".join(named)}{tail}; the others were not affected'
  ]


_DONE_TO_WEIGHTS = {
  'replaced': 'replaced',
  'selected': 'selected for training',
  'pruned': 'pruned',
  'noised': 'added noise to',
}


def dead_weights_warning(
  name: str,
  chosen: method.Chosen,
  counts: np.ndarray,
  dead: int,
  total: int,
) -> str:
  """Say how many of the weights that a method chose are dead.

  Args:
    name: of the method.
    chosen: the weights, and what it does to them.
    counts: dead weights among those of each epoch, f64[P, E]; NaN where a
      member was done.
    dead: dead weights of the network.
    total: all weights of the network.
  """
  over = np.nansum if chosen.every_epoch else np.nanmax
  return (
    f'{name}: of the weights that it {_DONE_TO_WEIGHTS[chosen.action]}, '
    f'{over(counts, axis=1).mean():,.0f} (the mean over models) only multiply '
    f'padding and have no effect, as do {dead:,} of the {total:,} weights '
    'of this network at this image size'
  )


def pictures(
  evaluation: evaluate.Evaluation, problems: list[str]
) -> list[html.Picture]:
  """Draw ROC curves, log-odds and accuracies.

  Args:
    evaluation: what to draw.
    problems: gets a sentence for each picture that cannot be drawn.
  """
  return [
    picture
    for name, draw in drawings(evaluation).items()
    for picture in html.draw(name, draw, problems)
  ]


def drawings(
  evaluation: evaluate.Evaluation,
) -> dict[str, Callable[[], plots.Figure | None]]:
  """Return functions that draw ROC curves, log-odds and accuracies."""
  rows, scores = evaluation.rows, evaluation.scores
  return {
    'roc': lambda: roc_figure(evaluation.curves, rows),
    'log_odds': lambda: plots.log_odds(scores) if scores else None,
    'accuracy': lambda: _accuracies(rows),
  }


def roc_figure(
  curves: Mapping[str, Mapping[str, np.ndarray]], rows: Sequence[results.Row]
) -> plots.Figure | None:
  """Draw U-LiRA's curves; None if there are none.

  Args:
    curves: of each population, as in `evaluate.Evaluation`.
    rows: the numbers, among them the AUC.
  """
  auc = {r.method: r.value for r in rows if r.metric == 'ulira_auc'}
  parts = ('fpr', 'tpr', 'low', 'high', 'supported')
  drawn = {
    name: plots.Roc(
      **{part: curve[part] for part in parts}, remark=f'AUC {auc[name]:.3f}'
    )
    for name, curve in curves.items()
  }
  return plots.roc(drawn) if drawn else None


def _accuracies(rows: list[results.Row]) -> plots.Figure:
  methods = list(dict.fromkeys(row.method for row in rows))
  by_name = {(row.method, row.metric): row for row in rows}
  absent = results.Row('', '', math.nan)

  def table(field: str) -> np.ndarray:
    return np.array(
      [
        [getattr(by_name.get((m, s), absent), field) for s in ACCURACIES]
        for m in methods
      ]
    )

  return plots.accuracies(methods, table('value'), table('low'), table('high'))


def _learning_curves(
  job: job_lib.Job, problems: list[str]
) -> list[html.Picture]:
  read = {n: stages.read_curves(p) for n, p in job.populations.items()}
  recorded = {name: curve for name, curve in read.items() if curve}
  titles = {'test': 'Test images', 'retain': 'Retained images'}
  panels = {
    title: {name: curve[key] for name, curve in recorded.items()}
    for key, title in titles.items()
  }
  return html.draw(
    'curves',
    lambda: plots.training_curves(panels) if recorded else None,
    problems,
  )


def _checksum(path: pathlib.Path) -> str:
  if not path.is_file():
    return ''
  return files.sha256(path)


def observations(
  evaluation: evaluate.Evaluation,
) -> list[results.Observation]:
  """Return every number of every cluster."""
  return [
    results.Observation(method, metric, cluster, float(value))
    for method, metrics in evaluation.per_cluster.items()
    for metric, values in metrics.items()
    for cluster, value in enumerate(values)
  ]


def rank_methods(job: job_lib.Job, evaluation: evaluate.Evaluation) -> Rankings:
  """Rank the unlearning methods by RetDev and Disc, if there are enough."""
  return ranking.rank_methods(
    {p.name: evaluation.per_cluster[p.name] for p in job.unlearned},
    classes=job.source.num_classes,
  )


def ranking_pictures(
  job: job_lib.Job,
  rankings: Rankings,
  rows: list[results.Row],
  problems: list[str],
) -> list[html.Picture]:
  """Draw the front of accuracy and privacy, and the ranks if there are any."""
  if len(job.unlearned) < 2:
    return []
  drawn = html.draw('front', functools.partial(_front, rows), problems)
  names = [population.name for population in job.unlearned]
  return drawn + ranks.job_pictures(names, rankings, problems)


def _front(rows: list[results.Row]) -> plots.Figure | None:
  value = {(row.method, row.metric): row.value for row in rows}
  methods = results.ordered(row.method for row in rows)

  def column(metric: str) -> np.ndarray:
    return np.array([value.get((m, metric), np.nan) for m in methods])

  # The per-example attack if there is one, else the population attack.
  strong = any(metric == 'excess_ulira_auc' for _, metric in value)
  if strong:
    metric = 'excess_ulira_auc'
    value[results.REFERENCE, metric] = 0.0
    privacy = column(metric)
  else:
    metric = 'disc_test'
    privacy = 1 - column('indisc_test')
  both = np.stack([column('ret_dev'), privacy], axis=1)
  if not np.isfinite(both).all(axis=1).any():
    return None
  competes = [m not in (results.REFERENCE, results.ORIGINAL) for m in methods]
  competing = np.where(np.array(competes)[:, None], both, np.nan)
  return plots.pareto(
    methods,
    both[:, 0],
    both[:, 1],
    ranking.pareto_front(competing),
    y_metric=metric,
  )


def benchmark_table(
  job: job_lib.Job, evaluation: evaluate.Evaluation
) -> tables.PaperTable:
  """Return the contents of the benchmark's table, run times included."""
  per_seed = {}
  for name, metrics in evaluation.per_cluster.items():
    bad, models = evaluation.failed[name]
    rte = _speed_ups(job, name) if bad < models else np.full(1, np.nan)
    per_seed[name] = {
      metric: np.asarray(values)
      for metric, values in {**metrics, 'rte': rte}.items()
      if metric in tables.PAPER_COLUMNS
    }
  failed = {name: many for name, many in evaluation.failed.items() if many[0]}
  one_split = len(np.unique(job.design.pair)) == 1
  floor = {}
  if one_split and results.REFERENCE in per_seed:
    floor = noise_floor(per_seed[results.REFERENCE])
  units = 'initialisations' if one_split else 'splits'
  pairs, halves = (
    len(np.unique(x)) for x in (job.design.pair, job.design.split)
  )
  if (
    pairs < halves
    and not one_split
    and job.settings.attack.leave_out != 'split'
  ):
    units = 'pairs of splits'
  return tables.PaperTable(per_seed, floor, failed, units)


def noise_floor(
  retrained: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
  """Compare each retrained model with that of the next seed, cyclically.

  Args:
    retrained: 'ra', 'fa' and 'ta' of the retrained models, f64[S].

  Returns:
    'rr', 'fr', 'tr' and 'ret_dev', f64[S]; nothing for a single seed.
  """
  ra, fa, ta = (retrained[name] for name in ('ra', 'fa', 'ta'))
  if len(ra) < 2:
    return {}
  kept = retention.retention(
    (ra, fa, ta), (np.roll(ra, -1), np.roll(fa, -1), np.roll(ta, -1))
  )
  return dict(
    rr=kept.retain, fr=kept.forget, tr=kept.test, ret_dev=kept.deviation
  )


def _speed_ups(job: job_lib.Job, name: str) -> np.ndarray:
  if not stages.is_timed(job, name):
    return np.array([])
  seconds = stages.timing_shelf(job, name).info()['warm_seconds']
  if results.REFERENCE not in job.populations:
    return np.full(len(seconds), np.nan)
  reference = stages.warm_seconds(job, results.REFERENCE)
  return np.array([cost.rte(reference, one) for one in seconds])
