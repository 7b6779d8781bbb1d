"""Write docs/results/README.md, its tables and its pictures.

    python benchmarks/results_page.py

Reads what is stored and trains nothing: the published tables of the study, the
null study (benchmarks/null_*.csv) and the numbers of the independent
re-run. A section whose cells are missing says so. Images of examples need the
data set on this machine; without it their picture stays as it is.

Replaces the text between the markers of the page, and writes claims.csv,
agreement.csv, leaderboard.csv, examples.csv and a picture per cell and kind
beside it. The other sentences of the page are written by hand: check them when
the numbers change. Publishes the numbers and verdicts of the claims as
jaxmu/published/claims, where `python -m jaxmu.reproduce` computes them again.

  --study=DIR   another study, or the work directory of a sweep
  --out=DIR     another folder with a README.md

With one of these, the claims are not published.
"""

import argparse
import datetime
import math
import pathlib
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import publish_study
import rerun_agreement as agreement
import results_pictures as pictures
import table

from jaxmu import claims, files, terms
from jaxmu.claims import cells as cells_lib
from jaxmu.claims.cells import REFERENCE, CannotAnswer, Cell, Job
from jaxmu.claims.evidence import FAILS
from jaxmu.claims.interface import NOT_RUN
from jaxmu.data import datasets
from jaxmu.published import ROOT as PUBLISHED
from jaxmu.published import writing
from jaxmu.published.record import Published
from jaxmu.report import plots, ranks, results, tables
from jaxmu.study import publish

ROOT = pathlib.Path(__file__).parents[1]
OUT = ROOT / 'docs' / 'results'
NULL = ROOT / 'benchmarks' / 'null_study.csv'
SIMULATED = ROOT / 'benchmarks' / 'null_simulation.csv'
FUNCTION = 'jaxmu.claims:numbers'  # what publishes the claims
BEGIN, END = '<!-- begin of the results -->', '<!-- end of the results -->'
# The cells and studies of the protocol.
CELLS = {
  'digits_resnet18': ('main', 'ulira'),
  'digits_vit11m': ('main',),
  'fashion_mnist_resnet18': ('main',),
  'cifar10_resnet18': ('main', 'ulira'),
}
RERUN_CELL = 'cifar10_resnet18'  # that of the independent re-run
LISTED = 5  # disagreements that the page lists per kind
MISSING = 'Not run yet.'
_TITLES = {
  'cifar10': 'CIFAR-10',
  'digits': 'digits',
  'fashion_mnist': 'Fashion-MNIST',
  'resnet18': 'ResNet-18',
  'vit11m': 'TinyViT',
}


def main() -> None:
  """Write the page."""
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--study', type=pathlib.Path)
  parser.add_argument('--out', type=pathlib.Path)
  options = parser.parse_args()
  study = options.study or PUBLISHED / claims.STUDY
  write(cells_lib.read(study), options.out or OUT, study)
  if not options.study and not options.out:
    print(f'written to {publish_claims(PUBLISHED).folder}')


def publish_claims(root: pathlib.Path) -> Published:
  """Publish the numbers of the claims beside the tables of the study."""
  command = 'python benchmarks/results_page.py'
  origin = writing.Origin(command, publish_study.commit())
  return writing.computed(root, 'claims', FUNCTION, claims.STUDY, origin)


def write(
  cells: Sequence[Cell], out: pathlib.Path, study: pathlib.Path | None = None
) -> None:
  """Write the page of some cells to a folder that has a README.md.

  Args:
    cells: with their jobs.
    out: the folder.
    study: folder of the cells, to count what their searches have found.
  """
  out.mkdir(parents=True, exist_ok=True)
  by_name = {cell.name: cell for cell in cells}
  names = list(dict.fromkeys([*CELLS, *by_name]))
  rows = claims.rows(cells)
  parts = [
    done(by_name, study),
    '## Leaderboard',
    leaderboard(cells, out),
    '## Claims',
    claim_table(rows, out),
    '## Where nothing leaks',
    null_table(table.read(NULL)),
    simulation_table(table.read(SIMULATED)),
    '## Cells',
    *(cell_section(name, by_name.get(name), out) for name in names),
    '## Agreement with an independent re-run',
    rerun(by_name.get(RERUN_CELL), out),
    '## What surprised',
    surprises(rows, table.read(NULL)),
    made(cells),
  ]
  text = '\n'.join(part.rstrip() + '\n' for part in parts)
  page = out / 'README.md'
  files.write_text(page, fill(page.read_text(), text))
  print(f'written to {page}')


def fill(page: str, content: str) -> str:
  """Replace the text between the markers of a page."""
  before, rest = page.split(BEGIN)
  _, after = rest.split(END)
  return f'{before}{BEGIN}\n\n{content}\n{END}{after}'


def title(cell: str) -> str:
  """Return the title of a cell."""
  data, _, model = cell.rpartition('_')
  return f'{_TITLES.get(data, data)}, {_TITLES.get(model, model)}'


def wrapped(text: str, indent: str = '') -> str:
  """Return a paragraph in lines of 80 columns, the later ones indented."""
  filled = textwrap.fill(
    text,
    80,
    subsequent_indent=indent,
    break_long_words=False,
    break_on_hyphens=False,  # options of commands begin with them
  )
  return filled + '\n'


def item(text: str) -> str:
  """Return an item of a list in lines of 80 columns."""
  return wrapped(f'- {text}', indent='  ')


def done(by_name: Mapping[str, Cell], study: pathlib.Path | None) -> str:
  """Say which studies of which cells are there."""
  head = ['Cell', 'search', 'main', 'U-LiRA', 'further jobs']
  body = []
  for name in dict.fromkeys([*CELLS, *by_name]):
    jobs = by_name[name].jobs if name in by_name else {}
    planned = CELLS.get(name, ())

    def state(kind: str, jobs: Any = jobs, planned: Any = planned) -> str:
      if kind in jobs:
        lost = jobs[kind].without_setting
        return _methods(len(jobs[kind].unlearners) - len(lost), lost)
      return 'not run yet' if kind in planned else 'not planned'

    others = [one for one in jobs if one not in ('main', 'ulira')]
    searched = _searched(study / name / 'search') if study else 'not known'
    line = [title(name), searched, state('main'), state('ulira')]
    body.append([*line, ', '.join(others) or 'none yet'])
  return tables.markdown(head, body)


def _searched(folder: pathlib.Path) -> str:
  """Say for how many methods a search has found settings."""
  found = [*folder.glob('settings/*.json'), *folder.glob('search/*/*.json')]
  if not found:
    return 'not run yet'
  path = folder / 'record.json'
  record = results.read_json(path) if path.is_file() else {}
  return _methods(len(found), record.get('no_setting', ()))


def _methods(count: int, lost: Sequence[str]) -> str:
  text = terms.count(count, 'method')
  return f'{text}, without {cells_lib.labels(lost)}' if lost else text


def leaderboard(cells: Sequence[Cell], out: pathlib.Path) -> str:
  """Rank the methods over the main studies, and write leaderboard.csv."""
  jobs = [cell.jobs['main'] for cell in cells if 'main' in cell.jobs]
  names = [cell.name for cell in cells if 'main' in cell.jobs]
  if not jobs:
    return MISSING
  try:
    ranked = ranks.rank(
      [_to_rank(n, job) for n, job in zip(names, jobs, strict=True)]
    )
  except ValueError as error:
    return wrapped(f'Nothing can be ranked: {error}.')
  results.write_csv(out / 'leaderboard.csv', ranks.rows(ranked))
  found = ranks.table(ranked)
  notes = [found.note, *(f'{one}.' for one in ranked.warnings)]
  missing = [title(n) for n in CELLS if n not in names]
  if missing:
    notes.append(f'Not run yet: {"; ".join(missing)}.')
  return '\n'.join(
    [tables.markdown(found.head, found.body), wrapped(' '.join(notes))]
  )


def _to_rank(name: str, job: Job) -> ranks.Job:
  speed = {}
  for method in job.unlearners:
    try:
      speed[method] = job.speed(method)
    except CannotAnswer:
      continue
  return ranks.Job(
    title(name),
    '',
    job.classes,
    dict.fromkeys(job.unlearners, ''),
    {
      method: {metric: list(v) for metric, v in job.values[method].items()}
      for method in job.unlearners
    },
    speed,
  )


JUDGED = (
  'A claim holds in a cell if the numbers would be unlikely were it false '
  '(one-sided p of at most 2.5%, which for a number and a threshold means that '
  'the 95% interval is on the right side), does not hold if they would be '
  'unlikely were it true, and is undecided otherwise. A claim of several parts '
  "holds if all do, and 'at least k of n' is counted with Holm's correction. "
  'Methods are compared by Wilcoxon signed-rank tests, paired by '
  'initialisation; numbers of attacks by intervals over pairs of splits. The '
  'rules are in `jaxmu/claims/evidence.py`, all numbers in '
  '[claims.csv](claims.csv). Some claims need small jobs beside the sweep: '
  '`python benchmarks/claim_jobs.py --config=deep_unlearn:laptop`.'
)


def claim_table(rows: list[dict[str, Any]], out: pathlib.Path) -> str:
  """Write claims.csv, and return a table of verdicts and all sentences."""
  table.write(out / 'claims.csv', rows)
  body, sentences = [], []
  for claim in claims.CLAIMS:
    own = [row for row in rows if row['claim'] == claim.number]
    run = [row for row in own if row['verdict'] != NOT_RUN]
    verdicts = '; '.join(
      f'{_short(row["cell"])}: {row["verdict"]}' for row in run
    )
    body.append([claim.number, claim.title, verdicts or NOT_RUN])
    sentences.append(_of_claim(claim, run, own))
  head = ['', 'claim', 'verdict']
  lines = ''.join(
    f'| {" | ".join(map(str, row))} |\n'
    for row in (head, ['---:', '---', '---'], *body)
  )
  return '\n'.join([wrapped(JUDGED), lines, *sentences])


def _short(cell: str) -> str:
  parts = cell.split(', ')
  return ' and '.join(title(one) if one in CELLS else one for one in parts)


def _of_claim(
  claim: claims.Claim,
  run: Sequence[Mapping[str, Any]],
  own: Sequence[Mapping[str, Any]],
) -> str:
  lines = [wrapped(f'**{claim.number}. {claim.title}** {claim.statement}')]
  for row in run:
    text = f'{_short(row["cell"])}, *{row["verdict"]}*: {row["sentence"]}'
    lines.append(item(text))
  lacking = [row for row in own if row not in run]
  if not run:
    lines.append(item(f'Not run: it needs {claim.needs}.'))
  elif lacking:
    names = '; '.join(
      f'{_short(row["cell"])} ({row["sentence"].rstrip(".").lower()})'
      for row in lacking
    )
    lines.append(item(f'Not run: {names}.'))
  return lines[0] + '\n' + ''.join(lines[1:])


NULL_COLUMNS = ('negatives', 'null', 'seeds', 'mean', 'error', 'z')


def null_table(rows: Sequence[Mapping[str, str]]) -> str:
  """Return the null study as a table per job."""
  if not rows:
    return MISSING
  parts = []
  head = ['number', 'against', 'null', 'seeds', 'mean', 'error', 'z']
  head += ['p (Holm)', 'coverage']
  for job in dict.fromkeys(row['job'] for row in rows):
    own = [row for row in rows if row['job'] == job]
    body = [
      [
        row['metric'],
        *(row[name] for name in NULL_COLUMNS),
        _p(row),
        f'{row["coverage"]} [{row["coverage_low"]}, {row["coverage_high"]}]'
        if row['coverage']
        else '',
      ]
      for row in own
    ]
    parts += [
      f'### {job}\n',
      tables.markdown(head, body),
      _how(own[0]),
    ]
  return '\n'.join(parts)


def simulation_table(rows: Sequence[Mapping[str, str]]) -> str:
  """Return the AUCs of U-LiRA on simulated scores as a table."""
  if not rows:
    return MISSING
  names = ('scores', 'designs', 'mean', 'error', 'z')
  parts = [
    '### AUC of U-LiRA on simulated scores\n',
    tables.markdown(names, [[row[name] for name in names] for row in rows]),
    _how(rows[0]),
  ]
  return '\n'.join(parts)


def _p(row: Mapping[str, str]) -> str:
  """Return a p-value, which the table rounds to three digits."""
  return '< 0.001' if row['p_holm'] == '0.000' else row['p_holm']


def _how(row: Mapping[str, str]) -> str:
  """Return the command, versions and hardware of a benchmark's row."""
  return wrapped(f'`{row["command"]}`; {row["versions"]}; {row["hardware"]}.')


def cell_section(name: str, cell: Cell | None, out: pathlib.Path) -> str:
  """Return tables and pictures of a cell."""
  parts = [f'### {title(name)}\n']
  jobs = cell.jobs if cell else {}
  main_job, ulira = jobs.get('main'), jobs.get('ulira')
  parts.append(
    main_table(main_job) if main_job else f'Main study: {_not_yet()}'
  )
  if ulira:
    parts.append(ulira_table(ulira))
  elif 'ulira' in CELLS.get(name, ()):
    parts.append(f'Study of U-LiRA: {_not_yet()}')
  for label, job, words in (
    (name, main_job, 'the population attack'),
    (
      f'{name}_ulira',
      ulira,
      'U-LiRA, with the settings and models of its study',
    ),
  ):
    if job is None:
      continue
    metric = pictures.leak(job)
    parts += _picture(
      out,
      f'{label}_front',
      f'Distance from retraining in accuracies against the leak by {words}',
      lambda job=job, metric=metric: pictures.front(job, metric),
    )
    parts += _picture(
      out,
      f'{label}_speed',
      f'Run time against the leak by {words}, with 95% intervals',
      lambda job=job, metric=metric: pictures.speed(job, metric),
    )
  if main_job:
    parts += learning_curves(name, main_job, out)
  if ulira and cell:
    parts += exposure(cell, ulira, out)
  return '\n'.join(part.rstrip() + '\n' for part in parts)


def _not_yet() -> str:
  return MISSING[0].lower() + MISSING[1:]


def _picture(
  out: pathlib.Path, name: str, caption: str, draw: Callable[[], Any]
) -> list[str]:
  """Draw a picture, and return the line that shows it."""
  fig = draw()
  if fig is None:
    return []
  files.write_bytes(out / f'{name}.png', plots.png(fig))
  return [f'![{caption}]({name}.png)\n']


def main_table(job: Job) -> str:
  """Return the benchmark's table of a cell."""
  per_seed: dict[str, dict[str, np.ndarray]] = {}
  failed = {}
  for method in results.ordered(job.values):
    numbers = {
      metric: values
      for metric, values in job.values[method].items()
      if metric in tables.PAPER_COLUMNS
    }
    try:
      numbers['rte'] = np.array([job.speed(method)])
    except CannotAnswer:
      pass
    if method in job.without_setting:
      numbers = {}
    per_seed[method] = numbers
    # Predictions of failed models count as wrong.
    bad = numbers.get('ra', np.ones(1)) == 0
    if bad.any():
      failed[method] = int(bad.sum()), bad.size
  floor = {}
  if REFERENCE in per_seed:
    floor = publish.noise_floor(per_seed[REFERENCE])
  text = tables.paper_markdown(
    tables.PaperTable(per_seed, floor, failed, 'initialisations')
  )
  for method in job.without_setting:
    text += '\n' + wrapped(
      f'{results.label(method)} has no setting, since every trial of its '
      'search failed. In ranks and claims it counts as a method that guesses.'
    )
  return text


ULIRA = {
  'ulira_auc': 'AUC',
  'excess_ulira_auc': 'excess',
  'ulira_tpr_0.01': 'TPR at 1% FPR',
  'rmia_auc': 'AUC of RMIA',
  'population_auc': 'AUC of the population attack',
  'per_example_exposed': 'exposed examples',
}


def ulira_table(job: Job) -> str:
  """Return the numbers of the study of U-LiRA."""
  known = {metric for _, metric in job.rows}
  chosen = {m: words for m, words in ULIRA.items() if m in known}
  body = []
  for method in results.ordered(job.values):
    line = [results.label(method)]
    for metric in chosen:
      try:
        line.append(cells_lib.text(job.number(method, metric)))
      except CannotAnswer:
        line.append('')
    body.append(line)
  note = (
    'U-LiRA, with 95% intervals over pairs of splits. Excess: the AUC minus '
    'that of retrained models, paired. Exposed examples: share whose scores '
    'are higher than those of unseen examples, at a false-discovery rate of 5%.'
  )
  return (
    tables.markdown(['Method', *chosen.values()], body) + '\n' + wrapped(note)
  )


def learning_curves(name: str, job: Job, out: pathlib.Path) -> list[str]:
  """Draw the learning curves of a job that recorded them."""
  path = job.folder / 'curves.csv'
  if not path.is_file():
    return ['Learning curves: not recorded.\n']
  panels: dict[str, dict[str, np.ndarray]] = {}
  rows = table.read(path)
  epochs = max(int(row['epoch']) for row in rows)
  titles = {'test': 'Test images', 'retain': 'Retained images'}
  for method in dict.fromkeys(row['method'] for row in rows):
    own = [row for row in rows if row['method'] == method]
    members = {}
    for row in own:
      key = row['seed'], row['split'], row['forget_set']
      members.setdefault(key, len(members))
    for column, heading in titles.items():
      curve = np.full((len(members), epochs), math.nan)
      for row in own:
        key = row['seed'], row['split'], row['forget_set']
        curve[members[key], int(row['epoch']) - 1] = float(row[column])
      panels.setdefault(heading, {})[method] = curve
  return _picture(
    out,
    f'{name}_curves',
    'Accuracy on test and on retained images while models are trained',
    lambda: plots.training_curves(panels),
  )


def exposure(cell: Cell, job: Job, out: pathlib.Path) -> list[str]:
  """Draw the exposure of single examples under the method that leaks most."""
  scored = job.scored()
  if not scored:
    return ['Exposure of single examples: the scores are not published.\n']
  method = max(
    scored, key=lambda one: _or_nothing(job, one, 'excess_ulira_auc')
  )
  exposed = pictures.exposures(job, method)
  most, least = pictures.extremes(job, method, exposed)
  rows = [
    {
      'cell': cell.name,
      'method': method,
      'kind': kind,
      'position': one.position,
      'label': one.label,
      **{name: f'{value:.4f}' for name, value in one.auc.items()},
    }
    for kind, some in (('most exposed', most), ('least exposed', least))
    for one in some
  ]
  path = out / 'examples.csv'
  others = [r for r in table.read(path) if r['cell'] != cell.name]
  table.write(path, [*others, *rows])
  label = results.label(method)
  parts = [
    wrapped(
      f'Exposure of single images under {label}, the method with the largest '
      'excess among those whose scores are published, and the images that the '
      'original models expose most and least:'
    )
  ]
  parts += _picture(
    out,
    f'{cell.name}_exposure',
    f'AUC of each image under the original models and under {label}',
    lambda: plots.vulnerability(
      exposed['original'],
      exposed['unlearned'],
      method=method,
      retrained=exposed.get('retrained'),
    ),
  )
  images = _images(cell.data)
  caption = f'The most and the least exposed images, before and after {label}'
  if images is None:
    print(f'{cell.data} is not on this machine; its images are not drawn')
    name = f'{cell.name}_images'
    there = (out / f'{name}.png').is_file()
    return parts + [f'![{caption}]({name}.png)\n'] * there
  headings = ('Most exposed by the original models', 'Least exposed')
  return parts + _picture(
    out,
    f'{cell.name}_images',
    caption,
    lambda: pictures.examples(
      images, list(zip(headings, (most, least), strict=True)), method
    ),
  )


def _or_nothing(job: Job, method: str, metric: str) -> float:
  try:
    return job.row(method, metric).value
  except CannotAnswer:
    return -math.inf


def _images(data: str) -> np.ndarray | None:
  """Return the images of a data set, None if it is not on this machine."""
  try:
    return datasets.load(data).image
  except (OSError, ValueError):
    return None


SOURCE = (
  'The numbers of the re-run are those that a third party measured with the '
  "benchmark's own code on CIFAR-10 with ResNet-18 of full width: 182 epochs, "
  'ten initialisations, 17 methods (github.com/santimebi/deepunlearn, commit '
  '380123a, reports/raw_metrics.csv; means and deviations in '
  '[independent_rerun.csv](independent_rerun.csv)). This study is smaller, so '
  'signs, orders and ratios of run time can be compared, values cannot. A '
  "sign is that of a method's number minus that of retrained models; it is "
  'undecided where either side cannot be told from 0 (95%). Orders agree if '
  'tau is above 0 with p < .05 for methods in random order. Ratios agree '
  'within a factor of two; they depend on the epochs that each search has '
  'chosen.'
)


def rerun(cell: Cell | None, out: pathlib.Path) -> str:
  """Compare the cell of the re-run with it, and write agreement.csv."""
  if cell is None or 'main' not in cell.jobs:
    return '\n'.join([wrapped(SOURCE), MISSING])
  rows = agreement.compare(cell, agreement.read_rerun())
  table.write(out / 'agreement.csv', rows)
  counted = tables.markdown(
    ['Number', agreement.AGREE, agreement.UNDECIDED, agreement.DISAGREE],
    agreement.counts(rows),
  )
  orders = [row for row in rows if row['kind'] == 'order']
  apart = [
    row
    for row in rows
    if row['agreement'] == agreement.DISAGREE and row['kind'] != 'order'
  ]
  return '\n'.join(
    [
      wrapped(SOURCE),
      counted,
      wrapped(
        'In the re-run, most methods have a lower RA and TA than retraining '
        f'({agreement.share_below(rows, "RA")} and '
        f'{agreement.share_below(rows, "TA")} methods), so that agreement in '
        'these signs says little.'
      ),
      _agreement_table(orders),
      wrapped('Where signs or ratios disagree:') if apart else '',
      _agreement_table(apart) if apart else '',
      wrapped('All comparisons are in [agreement.csv](agreement.csv).'),
    ]
  )


def _agreement_table(rows: Iterable[Mapping[str, Any]]) -> str:
  body = [
    [
      f'{row["kind"]} of {row["number"]}',
      agreement.label(row),
      row['theirs'],
      row['ours'],
      row['agreement'],
      row['reason'],
    ]
    for row in rows
  ]
  return tables.markdown(
    ['Number', 'Method', 'Re-run', 'This study', 'agreement', 'reason'], body
  )


def surprises(
  rows: Sequence[Mapping[str, Any]], null: Sequence[Mapping[str, str]]
) -> str:
  """List claims with the cells where they fail, and attacks not at chance.

  Args:
    rows: of `claims.rows`.
    null: rows of the null study.
  """
  failing: dict[str, list[str]] = {}
  for row in rows:
    if row['verdict'] == FAILS:
      name = f'Claim {row["claim"]} ("{row["title"].rstrip(".")}")'
      failing.setdefault(name, []).append(_short(row['cell']))
  lines = [
    f'{name} does not hold on {"; ".join(where)}.'
    for name, where in failing.items()
  ]
  lines += [
    f'Where nothing leaks, {row["metric"]} of {row["job"]} against '
    f'{row["negatives"]} is {row["mean"]} '
    f"(z {row['z']}, p {_p(row)} with Holm's correction)."
    for row in null
    if abs(float(row['z'])) > 2
  ]
  if not lines and all(row['verdict'] == NOT_RUN for row in rows):
    return MISSING
  if not lines:
    return wrapped('Every claim that was decided holds.')
  return ''.join(map(item, lines))


def made(cells: Sequence[Cell]) -> str:
  """Say with what, where and when the page and its numbers were made."""
  how = set()
  for cell in cells:
    for job in cell.jobs.values():
      facts = job.facts
      versions = facts.get('versions', {})
      hardware = facts.get('hardware', {})
      how.add(
        f'jax {versions.get("jax", "?")}, numpy {versions.get("numpy", "?")} '
        f'on {hardware.get("processor", "?")} with '
        f'{hardware.get("cores", "?")} cores'
      )
  text = f'Page written on {datetime.date.today()} by '
  text += '`python benchmarks/results_page.py`.'
  if how:
    text += f' Jobs ran with {"; ".join(sorted(how))}.'
  return wrapped(text)


if __name__ == '__main__':
  main()
