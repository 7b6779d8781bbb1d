"""Write folders of published results from finished work.

Only work whose files are those of its configuration is published: a report that
another configuration has written, or that was changed since, is refused.
"""

import csv
import dataclasses
import datetime
import gzip
import io
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from jaxmu import files, methods
from jaxmu.published import computed as computing
from jaxmu.published import facts, record, rows, scores
from jaxmu.published.record import Published
from jaxmu.report import checksums, glossary, results
from jaxmu.study import job as job_lib
from jaxmu.study import publish, tuned
from jaxmu.study.settings import Settings
from jaxmu.tuning import opening, records

TRIALS = 'trials.csv.gz'
# Numbers that differ by more read what is not published, see `scores`.
MOST_ROUNDING = 5e-3


class Origin(NamedTuple):
  """Where published results come from.

  Attributes:
    command: the command line that makes them.
    commit: of the source code; '' if it is not known.
    seconds: what the work took; NaN if it is not known.
    planned: what its plan foretold; NaN if there was none.
    date: of publication; '' for today.
  """

  command: str
  commit: str = ''
  seconds: float = float('nan')
  planned: float = float('nan')
  date: str = ''


def table(
  root: pathlib.Path,
  name: str,
  settings: Settings,
  origin: Origin,
  *,
  most: int = scores.MOST_BYTES,
  no_setting: Sequence[str] = (),
) -> Published:
  """Publish the report of a finished job.

  Args:
    root: folder of all published results.
    name: of these, a path below the root.
    settings: of the job; methods that its report lacks are left out.
    origin: where it comes from.
    most: bytes of scores, which are written where U-LiRA has attacked them.
    no_setting: methods of the study that have no setting, since every trial of
      their search failed.

  Raises:
    ValueError: the report is not that of these settings, or numbers from the
      published scores differ too much from it.
  """
  job, report = finished_job(settings)
  provenance = report['provenance']
  content = facts.of_job(job, name, job.settings)
  content['layout'] = provenance['layout']
  content['left_out'] = []
  content['no_setting'] = list(no_setting)

  def write(folder: pathlib.Path) -> None:
    for path in ('results.csv', 'per_cluster.csv', 'timing.csv', 'curves.csv'):
      if (job.folder / path).is_file():
        data = checksums.read(job.folder / path)
        files.write_bytes(folder / path, data)
    rows_of_report = results.read_csv(folder / 'results.csv')
    if any(row.metric == 'ulira_auc' for row in rows_of_report):
      left_out, content['scores'] = _write_scores(job, folder, content, most)
      content['left_out'] = [
        {**one, 'command': origin.command} for one in left_out
      ]

  return _write(root, name, 'table', content, origin, write)


def finished_job(settings: Settings) -> tuple[job_lib.Job, dict[str, Any]]:
  """Return a finished job with the methods of its report, and the report.

  Raises:
    ValueError: the report is not that of these settings.
  """
  job = job_lib.open_job(settings)
  where = files.shown(job.folder)
  try:
    report = results.read_json(job.folder / 'results.json')
    there = {*report['provenance']['results']}
  except (OSError, ValueError, LookupError, TypeError) as error:
    raise ValueError(
      f'{where} has no finished report ({error}); run the job first'
    ) from None
  populations = {n: p for n, p in job.populations.items() if n in there}
  unlearners = tuple(
    one
    for one in settings.unlearners
    if methods.get(one.method).name in populations
  )
  settings = dataclasses.replace(settings, unlearners=unlearners)
  job = dataclasses.replace(job, settings=settings, populations=populations)
  saved = report['provenance']['configuration']
  changed = facts.changed_fields(settings, saved, [*populations], 'given')
  if changed:
    raise ValueError(
      f'the report in {where} is not that of this configuration: '
      f'{", ".join(changed)}'
    )
  if there - {*populations} or not publish.is_current(job):
    raise ValueError(
      f'the report in {where} is not that of this configuration, machine and '
      'version, or was changed; start the job again, which trains nothing '
      'that is finished'
    )
  return job, report


def _write_scores(
  job: job_lib.Job,
  folder: pathlib.Path,
  content: Mapping[str, Any],
  most: int,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
  """Write scores, attack them, and say what their rounding changes.

  Scores are in float16 where its range suffices (`scores.rounded`). If this
  changes the AUC of U-LiRA of a population by more than `rows.OF_SCORES`, its
  scores are in float32.

  Returns:
    The files that are left out, and the facts for the record.

  Raises:
    ValueError: the AUC differs by more from scores in float32, too.
  """
  written = Published('', folder, content)
  exact = results.read_csv(folder / 'results.csv')
  wide: set[str] = set()
  while True:
    left_out = scores.write(folder, scores.compact(job, wide), most)
    there = scores.names(written)
    changed = scores.rounding(exact, scores.attack(written, there))
    beyond = {
      name
      for (name, metric), one in changed.items()
      if metric == 'ulira_auc' and one > rows.OF_SCORES
    }
    if not beyond - wide:
      break
    wide |= beyond
  if beyond:
    raise ValueError(
      'the published scores would give an AUC of U-LiRA that is more than '
      f'{rows.OF_SCORES:g} from that of the report, for '
      f'{", ".join(sorted(beyond))}; report this as a defect'
    )
  return left_out, {'populations': there, 'rounding': rounding_facts(changed)}


def rounding_facts(
  changed: Mapping[tuple[str, str], float],
) -> dict[str, float]:
  """Return by how much rounding changes each number, over all populations.

  Numbers that differ by more than `MOST_ROUNDING` read scores that are not
  published. They are left out, with their excesses: a difference of two of them
  can be small by chance.

  Args:
    changed: from `scores.rounding`.

  Example:
    >>> far = {('ft', 'ulira_retain_auc'): 0.1, ('ft', 'ulira_auc'): 1e-6}
    >>> rounding_facts(far | {('ft', 'excess_ulira_retain_auc'): 0.001})
    {'ulira_auc': 1e-06}
  """
  worst: dict[str, float] = {}
  for (_, metric), one in sorted(changed.items()):
    worst[metric] = max(worst.get(metric, 0.0), one)

  def is_rounding(metric: str) -> bool:
    of = worst.get(metric.removeprefix(glossary.EXCESS), 0.0)
    return max(worst[metric], of) <= MOST_ROUNDING

  return {name: worst[name] for name in sorted(worst) if is_rounding(name)}


def search(
  root: pathlib.Path, name: str, settings: Settings, origin: Origin
) -> Published:
  """Publish the settings that a search has chosen, and its trials.

  Methods that the work directory does not have, but that were published under
  this name, stay; how long the whole search took is not known then. Of a method
  without a usable trial, the trials are published, and the record's
  `no_setting` names it.

  Args:
    root: folder of all published results.
    name: of these, a path below the root.
    settings: of the search; methods without a chosen setting are left out.
    origin: where it comes from.

  Raises:
    ValueError: a settings file, or what was published before, is damaged or
      not that of these settings; or the work directory has no finished search.
  """
  job = opening.open_search(settings, lambda line: None, probe=False).job
  found: dict[str, dict[str, Any]] = {}
  is_new = False
  trials: list[dict[str, str]] = []
  kept = []
  no_setting: list[str] = []
  for one in settings.unlearners:
    method = methods.get(one.method).name
    folder = tuned.folder(settings.workdir, method)
    before = root / name / 'settings' / f'{method}.json'
    if (folder / tuned.NAME).is_file():
      is_new = True
      found[method] = _checked_setting(folder / tuned.NAME, settings, job)
      with (folder / records.TABLE).open(newline='') as file:
        trials += csv.DictReader(file)
    elif before.is_file():
      changed = checksums.changed(root / name)
      if changed:
        raise ValueError(
          f'{root / name}: {", ".join(changed)} changed after it was '
          'published; take it from version control again'
        )
      origin = origin._replace(seconds=float('nan'))  # of a part alone
      found[method] = _checked_setting(before, settings, job)
      trials += [row for row in _trials(root / name) if row['method'] == method]
    else:
      lost = _all_failed(folder / records.TABLE, settings)
      if not lost and method in without_setting(root / name):
        lost = [row for row in _trials(root / name) if row['method'] == method]
      if lost:
        trials += lost
        no_setting.append(method)
      continue
    kept.append(one)
  if not is_new:  # what was published before keeps its commit and date
    raise ValueError(
      f'{settings.workdir} has no settings of a finished search; run '
      'python -m jaxmu.search first'
    )
  settings = dataclasses.replace(settings, unlearners=tuple(kept))
  content = {**facts.of_job(job, name, settings), 'left_out': []}
  content['no_setting'] = no_setting

  def write(folder: pathlib.Path) -> None:
    for method, chosen in found.items():
      results.write_json(folder / 'settings' / f'{method}.json', chosen)
    files.write_bytes(folder / TRIALS, _compressed(_csv(trials)))

  return _write(root, name, 'search', content, origin, write)


def _checked_setting(
  path: pathlib.Path, settings: Settings, job: job_lib.Job
) -> dict[str, Any]:
  """Read a settings file that these settings have written.

  Raises:
    ValueError: other settings have.
  """
  content = tuned.read(path)
  search = content.get('search', {})
  wanted = {
    'originals': job.populations[results.ORIGINAL].digest,
    'train': results.to_plain(settings.train),
    **results.to_plain(dataclasses.asdict(settings.search)),
  }
  given = {'originals': content.get('originals'), 'train': content.get('train')}
  for field, value in wanted.items():
    there = given[field] if field in given else search.get(field)
    if there != value:
      raise ValueError(
        f'{path} is not of this configuration: {field} = {there}, expected '
        f'{value}; search again'
      )
  hardware = dict(content.get('hardware', {}))
  hardware.pop('system', None)
  return {**content, 'hardware': hardware}


def _all_failed(path: pathlib.Path, settings: Settings) -> list[dict[str, str]]:
  """Return the trials of a finished search without a usable one.

  Empty where a trial is usable, or where trials are left to run.
  """
  if not path.is_file():
    return []
  with path.open(newline='') as file:
    rows = [dict(row) for row in csv.DictReader(file)]
  budget = settings.search.trials * settings.search.initialisations
  usable = any(row['state'] == records.COMPLETE for row in rows)
  return [] if usable or len(rows) < budget else rows


def without_setting(folder: pathlib.Path) -> Sequence[str]:
  """Return the methods that a published search found no setting for."""
  path = folder / record.FILE
  if not path.is_file():
    return ()
  return results.read_json(path).get('no_setting', ())


def _csv(rows: Sequence[Mapping[str, str]]) -> str:
  columns = list(dict.fromkeys(name for row in rows for name in row))
  text = io.StringIO(newline='')
  writer = csv.DictWriter(text, columns, restval='', lineterminator='\n')
  writer.writeheader()
  writer.writerows(rows)
  return text.getvalue()


def _trials(folder: pathlib.Path) -> list[dict[str, str]]:
  """Read the trials of a published search; what they lack is left out."""
  with gzip.open(folder / TRIALS, 'rt', newline='') as file:
    return [
      {name: value for name, value in row.items() if value}
      for row in csv.DictReader(file)
    ]


def _compressed(text: str) -> bytes:
  """Return gzip bytes that depend on the text alone."""
  content = io.BytesIO()
  with gzip.GzipFile('', 'wb', fileobj=content, mtime=0) as file:
    file.write(text.encode())
  return content.getvalue()


def replicates(
  root: pathlib.Path,
  name: str,
  settings: Settings,
  numbers: Sequence[results.Row],
  varied: Sequence[str],
  origin: Origin,
) -> Published:
  """Publish numbers of the retrained models of one job with several seeds.

  Args:
    root: folder of all published results.
    name: of these, a path below the root.
    settings: of the job with the first seed.
    numbers: of every seed, with the seed as `method`.
    varied: fields of the configuration that are set to the seed, such as
      'seed' and 'splits.seed'.
    origin: where they come from.
  """
  job = job_lib.open_job(settings)
  content = facts.of_job(job, name, settings)
  content.update(
    left_out=[],
    models={n: content['models'][n] for n in methods.BASELINES},
    varied=list(varied),
    replicates=list(dict.fromkeys(row.method for row in numbers)),
  )

  return _write(root, name, 'replicates', content, origin, _only(numbers))


def computed(
  root: pathlib.Path, name: str, function: str, study: str, origin: Origin
) -> Published:
  """Publish what a function computes from the published tables of a study.

  Args:
    root: folder of all published results.
    name: of these, a path below the root.
    function: its place in this package, MODULE:FUNCTION. It takes the root and
      returns `jaxmu.published.computed.Computed`.
    study: the tables that it reads are those whose names begin with STUDY/.
    origin: where they come from; how long it took is measured here.

  Raises:
    ValueError: a table is damaged, or the study has none.
  """
  tables = computing.tables(root, study)
  if not tables:
    raise ValueError(f'{root} has no table of {study}')
  for one in tables:
    record.check(one)
  begin = time.perf_counter()
  found = computing.call(function, root)
  seconds = round(time.perf_counter() - begin, 1)
  content = {
    'function': function,
    'study': study,
    'sources': computing.sources(root, study),
    'verdicts': found.verdicts,
    'meanings': found.meanings,
    'versions': job_lib.versions(),
  }
  return _write(
    *(root, name, 'computed', content),
    origin._replace(seconds=seconds),
    _only(found.numbers),
  )


def _only(numbers: Sequence[results.Row]) -> Callable[[pathlib.Path], object]:
  """Return what writes a folder that has numbers alone."""
  return lambda folder: results.write_csv(folder / 'results.csv', numbers)


def _write(
  root: pathlib.Path,
  name: str,
  kind: str,
  content: dict[str, Any],
  origin: Origin,
  write: Callable[[pathlib.Path], object],
) -> Published:
  """Write a folder, in one step that replaces an older one."""
  with files.atomic_folder(root) as folder:
    write(folder)
    results.write_json(
      folder / record.FILE,
      {
        'name': name,
        'kind': kind,
        'command': origin.command,
        'commit': origin.commit,
        'date': origin.date or datetime.date.today().isoformat(),
        'seconds': origin.seconds,
        'planned_seconds': origin.planned,
        **content,
      },
    )
    paths = sorted(path for path in folder.rglob('*') if path.is_file())
    checksums.write(folder, paths)
    files.publish_folder(folder, root / name)
  return record.read(root / name, root)
