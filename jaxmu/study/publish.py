"""The report stage: tables, plots and pages in the work directory.

Methods of a job ranked against each other, and what a ranking is made from.

The numbers per cluster are kept in `per_cluster.csv`, from which `jaxmu.rank`
ranks methods across several jobs.

The benchmark's table of a job: what it shows and where it lies.
"""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from jaxmu import files
from jaxmu.metrics import ranking, utility
from jaxmu.report import html, plots, tables
from jaxmu.report import results as results_lib
from jaxmu.study import curves, evaluate, stages, store
from jaxmu.study import job as job_lib

ACCURACIES = ('ra', 'fa', 'va', 'ta')


def report_shelf(job: job_lib.Job) -> store.Shelf:
  """Return where the record of the last report lies."""
  address = files.digest(
    'report',
    job_lib.STAGE_VERSIONS['report'],
    dataclasses.asdict(job.settings.attack),
    dataclasses.asdict(job.settings.timing),
    {
      n: (
        p.digest,
        curves.recorded_shards(p),
        stages.timing_shelf(job, n).address,
      )
      for n, p in job.populations.items()
    },
  )
  return job.shelf('report', 'report', address)


def is_current(job: job_lib.Job) -> bool:
  """Whether the files in the work directory are those of this job."""
  place = report_shelf(job)
  if place.missing():
    return False
  written = place.info()['files']
  return all(_checksum(job.folder / n) == c for n, c in written.items())


def publish(job: job_lib.Job, command: str) -> None:
  """Evaluate the predictions and write all files of the report."""
  found = evaluate.evaluate(job)
  ranking = rank_methods(job, found)
  report = html.Report(
    title=_title(job),
    lead=_lead(job),
    rows=found.rows + clock_rows(job) + ranking_rows(job, ranking),
    pictures=[
      *_pictures(found),
      *ranking_pictures(job, ranking, found.rows),
      *_learning_curves(job),
    ],
    provenance=job_lib.provenance(job),
    command=command,
    warnings=found.warnings,
    failed={n: f for n, f in found.failed.items() if f[0]},
  )
  paths = html.write_report(job.folder, report)
  paths += curves.write(job)
  paths.append(
    results_lib.write_csv(
      job.folder / PER_CLUSTER_FILE,
      observations(found),
      results_lib.Observation,
    )
  )
  table = paper_table(job, found)
  content = tables.paper_table_markdown(table).encode()
  paths.append(files.write_bytes(job.folder / PAPER_TABLE_FILE, content))
  for people in job.unlearned:
    paths.append(job.folder / 'scores' / f'{people.name}.npz')
    evaluate.write_scores(job, people.name, paths[-1])
  written = {str(p.relative_to(job.folder)): _checksum(p) for p in paths}
  info = {
    'files': written,
    'failed': report.failed,
    'table': pack_table(table),
  }
  report_shelf(job).save(0, info=info)


def report_rows(job: job_lib.Job) -> list[Any]:
  """Read the rows of the last report, clock measurements included."""
  return [
    row
    for name in ('results.csv', 'timing.csv')
    for row in results_lib.read_csv(job.folder / name)
  ]


def clock_rows(job: job_lib.Job) -> list[results_lib.Row]:
  """Return run times and their ratio to retraining, from the timing stage."""
  found = []
  reference = {
    'seconds': stages.warm_seconds(job, 'retrain'),
    'seconds_cold': stages.cold_seconds(job, 'retrain'),
  }
  for name in job.populations:
    if not stages.is_timed(job, name):
      continue
    own = {
      'seconds': stages.warm_seconds(job, name),
      'seconds_cold': stages.cold_seconds(job, name),
    }
    values = {
      'rte': (utility.rte(reference['seconds'], own['seconds']), 1.0),
      'rte_cold': (
        utility.rte(reference['seconds_cold'], own['seconds_cold']),
        1.0,
      ),
      'seconds': (own['seconds'], reference['seconds']),
    }
    runs = job.settings.timing.repeats
    found += [
      results_lib.Row(
        method=name,
        metric=metric,
        value=value,
        retrained=retrained,
        gap=value - retrained,
        n=1 if metric == 'rte_cold' else runs,
      )
      for metric, (value, retrained) in values.items()
    ]
  return found


def paper_results(job: job_lib.Job) -> tables.PaperTable:
  """Read the benchmark's table of the last report."""
  return unpack_table(report_shelf(job).info()['table'])


def _title(job: job_lib.Job) -> str:
  titles = [people.method.card.title for people in job.unlearned]
  many = f'{len(titles)} unlearning methods'
  return (
    f'{", ".join(titles) if len(titles) < 4 else many} on {job.source.name}'
  )


def _lead(job: job_lib.Job) -> list[str]:
  cuts, sizes = job.settings.splits, job.sizes
  originals = job.populations['original'].members.size
  others = job.populations['retrain'].members.size
  splits = len(np.unique(job.design.split))
  options = job.settings.model_options.items()
  model = ', '.join([job.settings.model, *(f'{k} {v}' for k, v in options)])
  return [
    f'{originals} original models ({model}) were trained on '
    f'{sizes.retain + sizes.forget} images each of {job.source.name}. For each '
    f'of {others} forget sets of {sizes.forget} images, a model was retrained '
    'without it, the gold standard, and the original was made to unlearn it. '
    'The closer the unlearned models come to the retrained ones, the better.',
    f'Design {cuts.design!r}: {_count(splits, "split")}, '
    f'{_count(cuts.seeds, "initialisation")} and '
    f'{_count(cuts.forget_sets, "forget set")} per split.',
  ]


def _count(number: int, thing: str) -> str:
  return f'{number} {thing}{"s" * (number != 1)}'


def _pictures(found: evaluate.Evaluation) -> list[html.Picture]:
  pictures = []
  if found.curves:
    auc = {r.method: r for r in found.rows if r.metric == 'ulira_auc'}
    curves = {
      name: plots.Roc(
        fpr=curve['fpr'],
        tpr=curve['tpr'],
        low=curve['low'],
        high=curve['high'],
        supported=curve['supported'],
        remark=f'AUC {auc[name].value:.3f}',
      )
      for name, curve in found.curves.items()
    }
    pictures.append(
      html.Picture(
        'roc',
        'How many forgotten points U-LiRA finds (vertical) at the price of how '
        'many false alarms (horizontal), both on logarithmic axes. The '
        'diagonal is guessing; the bands are 95 % intervals.',
        plots.roc(curves),
      )
    )
  pictures.append(
    html.Picture(
      'log_odds',
      'Confidence in the true class, as log-odds, on points the models were '
      'made to forget and on points they never saw. The less the two differ, '
      'the less an attacker can tell.',
      plots.log_odds(found.scores),
    )
  )
  pictures.append(
    html.Picture(
      'accuracy',
      'Share of images classified correctly: retained (RA), forgotten (FA), '
      'validation (VA) and test (TA), with 95 % intervals.',
      _accuracy_bars(found.rows),
    )
  )
  return pictures


def _learning_curves(job: job_lib.Job) -> list[html.Picture]:
  read = {n: curves.read(p) for n, p in job.populations.items()}
  recorded = {name: found for name, found in read.items() if found}
  if not recorded:
    return []
  titles = {'test': 'Test images', 'retain': 'Retained images'}
  panels = {
    title: {name: found[key] for name, found in recorded.items()}
    for key, title in titles.items()
  }
  return [
    html.Picture(
      'curves',
      'Accuracy while the models are trained from scratch, on images they '
      'never see and on images they are trained on. The distance between the '
      'two is what they learned by heart.',
      plots.training_curves(panels),
    )
  ]


def _accuracy_bars(rows: list[results_lib.Row]) -> Any:
  methods = list(dict.fromkeys(row.method for row in rows))
  by_name = {(row.method, row.metric): row for row in rows}

  def table(field: str) -> np.ndarray:
    return np.array(
      [[getattr(by_name[m, s], field) for s in ACCURACIES] for m in methods]
    )

  return plots.accuracy_bars(
    methods, table('value'), table('low'), table('high')
  )


def _checksum(path: pathlib.Path) -> str:
  if not path.is_file():
    return ''
  return files.sha256(path)


PER_CLUSTER_FILE = 'per_cluster.csv'


def observations(found: evaluate.Evaluation) -> list[results_lib.Observation]:
  """Return every number of every cluster."""
  return [
    results_lib.Observation(method, metric, cluster, float(value))
    for method, metrics in found.per_cluster.items()
    for metric, values in metrics.items()
    for cluster, value in enumerate(values)
  ]


def rank_methods(
  job: job_lib.Job, found: evaluate.Evaluation
) -> dict[str, ranking.CellRanking]:
  """Rank the unlearning methods by RetDev and Disc; empty if too few."""
  return ranking.rank_methods(
    {p.name: found.per_cluster[p.name] for p in job.unlearned},
    classes=job.source.num_classes,
  )


def ranking_rows(
  job: job_lib.Job, found: dict[str, ranking.CellRanking]
) -> list[results_lib.Row]:
  """Return mean rank and group of each method."""
  return [
    results_lib.Row(
      people.name, f'{kind}_{metric}', float(values[i]), n=cell.seeds
    )
    for metric, cell in found.items()
    for kind, values in (('rank', cell.mean_rank), ('group', cell.placement()))
    for i, people in enumerate(job.unlearned)
  ]


def ranking_pictures(
  job: job_lib.Job,
  found: dict[str, ranking.CellRanking],
  results: list[results_lib.Row],
) -> list[html.Picture]:
  """Draw the front of accuracy and privacy, and the ranks where there are."""
  if len(job.unlearned) < 2:
    return []
  drawn = [_front(results)]
  for metric, cell in found.items():
    title = ranking.TITLES[metric]
    drawn.append(
      html.Picture(
        f'rank_{metric}',
        f'Mean rank of each method by {title} over {cell.seeds} '
        'initialisations (or pairs of splits); 1 is best. Methods under a bar '
        'differ by less than the critical difference of the Nemenyi test.',
        plots.critical_difference(
          [people.name for people in job.unlearned],
          cell.mean_rank,
          ranking.critical_difference(len(cell.mean_rank), cell.seeds),
          title=f'Mean rank by {title} (1 is best)',
        ),
      )
    )
  return drawn


def _front(results: list[results_lib.Row]) -> html.Picture:
  value = {(row.method, row.metric): row.value for row in results}
  methods = results_lib.ordered(row.method for row in results)
  # An attack on single points where there is one, else one for all points.
  strong = any(metric == 'excess_ulira_auc' for _, metric in value)
  if strong:
    metric = 'excess_ulira_auc'
    value[results_lib.REFERENCE, metric] = 0.0
    privacy = [value.get((m, metric), np.nan) for m in methods]
  else:
    metric = 'disc_test'
    privacy = [1 - value[m, 'indisc_test'] for m in methods]
  both = np.array([[value[m, 'ret_dev'] for m in methods], privacy]).T
  rivals = [
    m not in (results_lib.REFERENCE, results_lib.ORIGINAL) for m in methods
  ]
  competing = np.where(np.array(rivals)[:, None], both, np.nan)
  return html.Picture(
    'front',
    'Distance from retraining in accuracies (horizontal) and what an attack '
    'finds (vertical): both should be small. No other method beats a filled '
    'one in both; the original and the retrained models do not compete.',
    plots.pareto(
      methods,
      both[:, 0],
      both[:, 1],
      ranking.pareto_front(competing),
      y_metric=metric,
    ),
  )


PAPER_TABLE_FILE = 'paper_table.md'
_KEPT = ('per_seed', 'floor', 'failed')


def paper_table(
  job: job_lib.Job, found: evaluate.Evaluation
) -> tables.PaperTable:
  """Return what the table of a job shows, run times included."""
  per_seed = {
    name: {
      metric: np.asarray(values)
      for metric, values in {**metrics, 'rte': _speed_ups(job, name)}.items()
      if metric in tables.COLUMNS
    }
    for name, metrics in found.per_cluster.items()
  }
  failed = {name: count for name, count in found.failed.items() if count[0]}
  one_split = len(np.unique(job.design.pair)) == 1
  floor = noise_floor(per_seed[results_lib.REFERENCE]) if one_split else {}
  return tables.PaperTable(per_seed, floor, failed)


def noise_floor(retrained: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Compare each retrained model with that of the next seed, in a circle.

  Args:
    retrained: 'ra', 'fa' and 'ta' of the retrained models, f64[S].

  Returns:
    'rr', 'fr', 'tr' and 'ret_dev', f64[S]; nothing for a single seed.
  """
  ra, fa, ta = (retrained[name] for name in ('ra', 'fa', 'ta'))
  if len(ra) < 2:
    return {}
  kept = utility.retention(
    (ra, fa, ta), (np.roll(ra, -1), np.roll(fa, -1), np.roll(ta, -1))
  )
  return dict(
    rr=kept.retain, fr=kept.forget, tr=kept.test, ret_dev=kept.deviation
  )


def pack_table(table: tables.PaperTable) -> dict:
  """Return a table as what JSON can hold."""

  def lists(values):
    return {metric: np.asarray(v).tolist() for metric, v in values.items()}

  per_seed = {name: lists(values) for name, values in table.per_seed.items()}
  return dict(
    per_seed=per_seed, floor=lists(table.floor), failed=dict(table.failed)
  )


def unpack_table(packed: dict) -> tables.PaperTable:
  """Return the table that `pack` packed."""
  return tables.PaperTable(**{name: packed[name] for name in _KEPT})


def _speed_ups(job: job_lib.Job, name: str) -> np.ndarray:
  if not stages.is_timed(job, name):
    return np.array([])
  reference = stages.warm_seconds(job, results_lib.REFERENCE)
  seconds = stages.timing_shelf(job, name).info()['warm_seconds']
  return np.array([utility.rte(reference, one) for one in seconds])
