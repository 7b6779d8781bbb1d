"""The report stage: tables, plots and pages in the work directory."""

import dataclasses
import hashlib
import pathlib
from typing import Any

import numpy as np

from jaxmu.metrics import runtime
from jaxmu.pipeline import (
  benchmark_table,
  curve,
  digest,
  evaluate,
  export,
  provenance,
  ranks,
  store,
  timing,
)
from jaxmu.pipeline import job as job_lib
from jaxmu.report import bundle, files, page, paper_table, plots, records

SETS = ('ra', 'fa', 'va', 'ta')


def shelf(job: job_lib.Job) -> store.Shelf:
  """Return where the record of the last report lies."""
  address = digest.digest(
    'report',
    job_lib.VERSION['report'],
    dataclasses.asdict(job.settings.attack),
    dataclasses.asdict(job.settings.timing),
    {n: (p.digest, curve.recorded(p)) for n, p in job.populations.items()},
  )
  return job.shelf('report', 'report', address)


def is_current(job: job_lib.Job) -> bool:
  """Whether the files in the work directory are those of this job."""
  place = shelf(job)
  if place.missing():
    return False
  written = place.info()['files']
  return all(_checksum(job.folder / n) == c for n, c in written.items())


def publish(job: job_lib.Job, command: str) -> None:
  """Evaluate the predictions and write all files of the report."""
  found = evaluate.evaluate(job)
  ranking = ranks.rank(job, found)
  report = page.Report(
    title=_title(job),
    lead=_lead(job),
    rows=found.rows + clock_rows(job) + ranks.rows(job, ranking),
    pictures=[
      *_pictures(found),
      *ranks.pictures(job, ranking, found.rows),
      *_learning_curves(job),
    ],
    provenance=provenance.provenance(job),
    command=command,
    warnings=found.warnings,
    failed={n: f for n, f in found.failed.items() if f[0]},
  )
  paths = bundle.write(job.folder, report)
  paths += curve.write(job)
  paths.append(
    records.write_csv(
      job.folder / ranks.FILE, ranks.observations(found), records.Observation
    )
  )
  table = benchmark_table.results(job, found)
  content = paper_table.markdown(table).encode()
  paths.append(files.write_bytes(job.folder / benchmark_table.FILE, content))
  for people in job.unlearned:
    paths.append(job.folder / 'scores' / f'{people.name}.npz')
    export.write(job, people.name, paths[-1])
  written = {str(p.relative_to(job.folder)): _checksum(p) for p in paths}
  info = {
    'files': written,
    'failed': report.failed,
    'table': benchmark_table.pack(table),
  }
  shelf(job).save(0, info=info)


def rows(job: job_lib.Job) -> list[Any]:
  """Read the rows of the last report, clock measurements included."""
  return [
    row
    for name in ('results.csv', 'timing.csv')
    for row in records.read_csv(job.folder / name)
  ]


def clock_rows(job: job_lib.Job) -> list[records.Row]:
  """Return run times and their ratio to retraining, from the timing stage."""
  found = []
  reference = {
    'seconds': timing.warm_seconds(job, 'retrain'),
    'seconds_cold': timing.cold_seconds(job, 'retrain'),
  }
  for name in job.populations:
    own = {
      'seconds': timing.warm_seconds(job, name),
      'seconds_cold': timing.cold_seconds(job, name),
    }
    values = {
      'rte': (runtime.rte(reference['seconds'], own['seconds']), 1.0),
      'rte_cold': (
        runtime.rte(reference['seconds_cold'], own['seconds_cold']),
        1.0,
      ),
      'seconds': (own['seconds'], reference['seconds']),
    }
    runs = job.settings.timing.repeats
    found += [
      records.Row(
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


def paper_results(job: job_lib.Job) -> paper_table.Results:
  """Read the benchmark's table of the last report."""
  return benchmark_table.unpack(shelf(job).info()['table'])


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


def _pictures(found: evaluate.Evaluation) -> list[page.Picture]:
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
      page.Picture(
        'roc',
        'How many forgotten points U-LiRA finds (vertical) at the price of how '
        'many false alarms (horizontal), both on logarithmic axes. The '
        'diagonal is guessing; the bands are 95 % intervals.',
        plots.roc(curves),
      )
    )
  pictures.append(
    page.Picture(
      'log_odds',
      'Confidence in the true class, as log-odds, on points the models were '
      'made to forget and on points they never saw. The less the two differ, '
      'the less an attacker can tell.',
      plots.log_odds(found.scores),
    )
  )
  pictures.append(
    page.Picture(
      'accuracy',
      'Share of images classified correctly: retained (RA), forgotten (FA), '
      'validation (VA) and test (TA), with 95 % intervals.',
      _accuracy_bars(found.rows),
    )
  )
  return pictures


def _learning_curves(job: job_lib.Job) -> list[page.Picture]:
  curves = {n: curve.read(p) for n, p in job.populations.items()}
  recorded = {name: found for name, found in curves.items() if found}
  if not recorded:
    return []
  titles = {'test': 'Test images', 'retain': 'Retained images'}
  panels = {
    title: {name: found[key] for name, found in recorded.items()}
    for key, title in titles.items()
  }
  return [
    page.Picture(
      'curves',
      'Accuracy while the models are trained from scratch, on images they '
      'never see and on images they are trained on. The distance between the '
      'two is what they learned by heart.',
      plots.training_curves(panels),
    )
  ]


def _accuracy_bars(rows: list[records.Row]) -> Any:
  methods = list(dict.fromkeys(row.method for row in rows))
  by_name = {(row.method, row.metric): row for row in rows}

  def table(field: str) -> np.ndarray:
    return np.array(
      [[getattr(by_name[m, s], field) for s in SETS] for m in methods]
    )

  return plots.accuracy_bars(
    methods, table('value'), table('low'), table('high')
  )


def _checksum(path: pathlib.Path) -> str:
  if not path.is_file():
    return ''
  return hashlib.sha256(path.read_bytes()).hexdigest()
