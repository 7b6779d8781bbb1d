"""Put the results of a finished job or sweep where the package ships them.

    python benchmarks/publish_study.py --config=deep_unlearn:laptop \\
      --name=laptop
    python benchmarks/publish_study.py --config=configs/msg_resnet.py \\
      --name=default_job --seconds=95

The configuration is that of the run, with the same --workdir and --config.FIELD
arguments, on the machine of the run, with the same code and the same
JAXMU_CACHE_DIR. Nothing is trained. Each study of a sweep becomes a folder
`jaxmu/published/NAME/CELL/STUDY`, and so does each finished job of
`claim_jobs.py`. Studies without a report are left out and named. A report that
is not that of its configuration is refused, and so is a table whose settings
are not those of the search published beside it. Numbers that were computed from
a table that is new or has changed are named, with the command that computes
them again.

A search is published with the methods that it has finished; the others are
named. Methods that were published before, by a search with the same originals
and budget, stay. So a long search can run in parts, each with
--config.settings=NAME, which holds what the earlier parts have found.

  --only=CELL/STUDY     publish one study of a sweep
  --seconds=NUMBER      what the job took; a sweep has recorded it
  --planned=NUMBER      what the plan foretold, in seconds; of a sweep, a JSON
                        file with the seconds of each CELL/STUDY
  --most=NUMBER         bytes of scores of a job (default 8,000,000)
  --published=DIR       the folder to write to
"""

import json
import pathlib
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import claim_jobs

import jaxmu.sweep as sweep_command
from jaxmu import cli, files, methods, store, terms
from jaxmu import main as job_command
from jaxmu.cli import arguments
from jaxmu.published import ROOT, computed, record, scores, writing
from jaxmu.published.record import Published
from jaxmu.report import results
from jaxmu.study import settings as settings_lib
from jaxmu.study import tuned
from jaxmu.study.settings import Settings
from jaxmu.sweeps import design, graph, status

HOME = pathlib.Path(__file__).parent.parent
CODE = ('jaxmu', ':(exclude,glob)jaxmu/published/*/**')
OWN = ('name', 'only', 'seconds', 'planned', 'most', 'published')


def main(argv: Sequence[str]) -> None:
  """Publish what the arguments describe."""
  if {'-h', '--help'} & set(argv) or not argv:
    print(__doc__)
    return
  with cli.one_line_errors():
    given = list(arguments.split(argv))
    own = {one.name: one.value() for one in given if one.name in OWN}
    rest = [str(one) for one in given if one.name not in OWN]
    if 'name' not in own:
      raise ValueError('no name; give one as --name=laptop')
    root = files.path(own.get('published', ROOT))
    for field, kind in (('seconds', float), ('most', int)):
      _number(own, field, kind)
    configs = [one.value() for one in given if one.name == 'config']
    if len(configs) != 1:
      raise ValueError(
        f'{len(configs)} configurations; give one as --config=NAME or '
        '--config=FILE.py'
      )
    job_command.set_up_jax({})
    publish = _sweep if store.is_sweep(configs[0]) else _job
    some = False
    for one in publish(root, own, rest):
      some = True
      size = terms.readable_bytes(one.bytes)
      print(f'{one.folder} written, {size}', flush=True)
      for file in one.record.get('left_out', ()):
        print(f'  left out: {file["file"]}, {file["bytes"]:,} bytes')
    for line in outdated(root):
      cli.warn(line)
    if not some:
      raise ValueError(
        'nothing was published: the work directory has no finished work that '
        'fits these arguments'
      )


def _number(own: dict[str, str], field: str, kind: type) -> None:
  """Check that an argument is a number, if it is given."""
  try:
    terms.number(own.get(field, '0'), kind)
  except ValueError:
    raise ValueError(f'--{field}={own[field]}: give a number') from None


def outdated(root: pathlib.Path) -> list[str]:
  """Say which computed numbers come from tables that have changed since."""
  return [
    f'{one.name}: {", ".join(changes)}; {one.record["command"]} computes it '
    'again'
    for one in record.find(root).values()
    if one.kind == 'computed' and (changes := computed.changes(one))
  ]


def commit() -> str:
  """Return the commit of the source code; '' if it is not known.

  It ends in '+' if files were changed since; published results are no code.
  """
  try:
    git = ['git', '-C', str(HOME)]
    head = subprocess.run(
      [*git, 'rev-parse', 'HEAD'], capture_output=True, text=True, check=True
    ).stdout.strip()
    changed = subprocess.run(
      [*git, 'status', '--porcelain', '--untracked-files=no', '--', *CODE],
      capture_output=True,
      text=True,
      check=True,
    ).stdout.strip()
  except (OSError, subprocess.CalledProcessError):
    return ''
  return f'{head}+' if changed else head


def _job(
  root: pathlib.Path, own: dict[str, str], argv: Sequence[str]
) -> Iterator[Published]:
  shown = [one for one in argv if not one.startswith('--workdir')]
  origin = writing.Origin(
    shlex.join(['python', '-m', 'jaxmu.main', *shown]),
    commit(),
    float(own.get('seconds', 'nan')),
    float(own.get('planned', 'nan')),
  )
  settings = settings_lib.from_config(arguments.read(argv).config)
  most = int(own.get('most', scores.MOST_BYTES))
  yield writing.table(root, own['name'], settings, origin, most=most)


def _sweep(
  root: pathlib.Path, own: dict[str, str], argv: Sequence[str]
) -> Iterator[Published]:
  shown = [one for one in argv if not one.startswith('--workdir')]
  line = shlex.join(['python', '-m', 'jaxmu.sweep', *shown])
  # With the settings that it has found, a search would not be made.
  searched = [one for one in shown if not one.startswith('--config.settings')]
  search_line = shlex.join(['python', '-m', 'jaxmu.sweep', *searched])
  config = sweep_command.read(argv).config
  sweep = design.from_config(config)
  searches = {
    study.name: study
    for study in design.from_config({**config, 'settings': ''}).studies
    if study.searches
  }
  planned: dict[str, Any] = {}
  if 'planned' in own:
    planned = json.loads(files.path(own['planned']).read_text())
  took = seconds_of(sweep)
  most = int(own.get('most', scores.MOST_BYTES))
  tables = [study for study in sweep.studies if not study.searches]
  _check_only(own, [*searches, *(study.name for study in tables)])
  for study in (*searches.values(), *tables):
    if own.get('only', study.name) not in (study.name, study.cell.name):
      continue
    name = f'{own["name"]}/{study.name}'
    origin = writing.Origin(
      f'{search_line if study.searches else line} --only={study.name}',
      commit(),
      took.get(study.name, float('nan')),
      float(planned.get(study.name, 'nan')),
    )
    try:
      if study.searches:
        done = writing.search(root, name, study.settings, origin)
        lost = done.record['no_setting']
        if lost:
          cli.warn(
            f'{study.name} has no setting of {", ".join(lost)}: every trial '
            'failed'
          )
        lacking = [m for m in study.methods if m not in (*done.chosen, *lost)]
        if lacking:
          cli.warn(
            f'{study.name} has no setting of {", ".join(lacking)} yet; '
            'continue its search'
          )
        yield done
      else:
        ready = [m for m in study.methods if _is_ready(study, m)]
        settings = study.ready(ready) if ready else study.settings
        lost = []
        if study.search or study.earlier:
          cell = root / own['name'] / study.cell.name
          folder = cell / design.search_of(study.kind)
          _check_search(folder, settings)
          found = writing.without_setting(folder)
          lost = [method for method in study.methods if method in found]
        yield writing.table(
          *(root, name, settings, origin), most=most, no_setting=lost
        )
    except ValueError as error:
      cli.warn(f'{study.name} is left out: {error}')
  for cell in sweep.cells:
    yield from _beside(root, own, argv, sweep, cell)


def _check_search(folder: pathlib.Path, settings: Settings) -> None:
  """Check that a table has the settings of the search published beside it.

  Raises:
    ValueError: a method has another setting, or the published search has none.
  """
  other = []
  for one in settings.unlearners:
    method = methods.get(one.method).name
    path = folder / 'settings' / f'{method}.json'
    published = tuned.read(path)['hparams'] if path.is_file() else None
    if published != results.to_plain(one.hparams):
      other.append(method)
  if other:
    raise ValueError(
      f'its settings of {", ".join(other)} are not those of {folder}; publish '
      'the search that found them, or run the study with '
      f'--config.settings={folder.parent.parent}'
    )


def _check_only(own: dict[str, str], studies: Sequence[str]) -> None:
  """Check that --only names a cell, a study or a job beside one."""
  cells = list(dict.fromkeys(name.partition('/')[0] for name in studies))
  beside = [f'{c}/{job.name}' for c in cells for job in claim_jobs.JOBS]
  known = [*cells, *studies, *beside]
  if own.get('only', known[0]) not in known:
    raise ValueError(
      f'--only={own["only"]}: no such cell or study; '
      f'{terms.nearest(own["only"], known)}choose from {", ".join(known)}'
    )


def _beside(
  root: pathlib.Path,
  own: dict[str, str],
  argv: Sequence[str],
  sweep: design.Sweep,
  cell: design.Cell,
) -> Iterator[Published]:
  """Publish the finished jobs of a cell that claims need."""
  shown = [one for one in argv if not one.startswith('--workdir')]
  line = shlex.join(['python', 'benchmarks/claim_jobs.py', *shown])
  most = int(own.get('most', scores.MOST_BYTES))
  for job in claim_jobs.JOBS:
    name = f'{cell.name}/{job.name}'
    if own.get('only', name) not in (name, cell.name):
      continue
    try:
      found = claim_jobs.jobs(sweep, name)
    except ValueError as error:  # a search that it needs has not finished
      if own.get('only') == name:
        cli.warn(f'{name} is left out: {error}')
      continue
    origin = writing.Origin(f'{line} --only={name}', commit())
    for _, settings in found:
      if not (files.workdir(settings.workdir) / 'results.json').is_file():
        continue
      try:
        place = f'{own["name"]}/{name}'
        yield writing.table(root, place, settings, origin, most=most)
      except ValueError as error:
        cli.warn(f'{name} is left out: {error}')


def _is_ready(study: design.Study, method: str) -> bool:
  path = study.settings_file(method)
  return path is None or path.is_file()


def seconds_of(sweep: design.Sweep) -> dict[str, float]:
  """Return what each study of a sweep took, by name.

  Records count whatever code has written them; whether results are those of the
  configuration is checked by their addresses. Studies of which a unit has no
  record are left out.
  """
  units = graph.build(sweep).units
  took: dict[str, float] = {}
  done = set()
  for name, part, _ in status.stored(sweep.workdir):
    unit = units.get(name)
    one = status.read(sweep.workdir, unit, part) if unit else None
    if unit and one and one.state == 'done' and unit.kind != 'table':
      took[unit.owner] = took.get(unit.owner, 0.0) + one.seconds
      done.add(name)
  unknown = {unit.owner for name, unit in units.items() if name not in done}
  return {n: round(s, 1) for n, s in took.items() if n not in unknown}


if __name__ == '__main__':
  main(sys.argv[1:])
