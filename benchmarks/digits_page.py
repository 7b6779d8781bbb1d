"""Ship the settings of a search at the digits scale, and make their page.

    python -m jaxmu.search --config=benchmark
    python benchmarks/digits_page.py [--workdir=workdir/benchmark_digits]

Copies the settings and trials of the finished search into the package
(`benchmarks/shipped.py`). Runs the benchmark at the default and at the searched
settings, with the same originals and retrained models; nothing that is in the
store is trained again. Replaces the text between the markers of
`docs/benchmark_digits.md` with both tables, the budget of the search, and how
well the rankings of methods at the two settings agree
(`benchmarks/rank_agreement.py`), which is also written to
benchmarks/digits_page.csv. The other sentences of the page are written by hand:
check them when the numbers change.
"""

import argparse
import dataclasses
import datetime
import pathlib
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import rank_agreement
import shipped
import table

from jaxmu import hparams as hp
from jaxmu import main as command
from jaxmu import methods
from jaxmu.report import results, tables
from jaxmu.study import job as job_lib
from jaxmu.study import publish, recipes, run, tuned
from jaxmu.study import settings as settings_lib
from jaxmu.study.settings import Settings
from jaxmu.tuning import opening

PAGE = pathlib.Path(__file__).parent.parent / 'docs' / 'benchmark_digits.md'
TABLE = pathlib.Path(__file__).with_suffix('.csv')
BEGIN, END = '<!-- begin of the tables -->', '<!-- end of the tables -->'
PACKAGES = ('python', 'jax', 'flax', 'numpy', 'scipy')
# Columns of the summary of a search, with their titles on the page.
SEARCH = {
  'norm_of_chosen': 'Norm, chosen',
  'norm_of_default': 'default',
  'norm_of_original': 'original',
  'trials': 'Trials',
  'failed': 'failed',
  'cannot_win': 'cannot win',
  'epochs': 'Epochs',
  'forward_equivalents': 'Forward passes',
  'seconds': 'Seconds',
  'programs': 'Programs',
}
AGREEMENT = {
  'tau': 'tau',
  'low': 'low',
  'high': 'high',
  'halves_of_default': 'halves, default',
  'halves_of_tuned': 'halves, searched',
}


def main() -> None:
  """Ship the settings, run both jobs and rewrite the page."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--workdir', default='workdir/benchmark_digits')
  parser.add_argument('--shipped', default=str(tuned.SHIPPED))
  options = parser.parse_args()
  config = recipes.benchmark()
  config['workdir'] = options.workdir
  command.set_up_jax(config)
  settings = settings_lib.from_config(config)
  names = [one.method for one in settings.unlearners]
  found = shipped.read(options.workdir, names)
  chosen = {one.method: one.content['hparams'] for one in found}
  # The report of the last job stays in the folder.
  default = finish(with_hparams(settings, default_settings(settings)))
  last = with_hparams(settings, chosen)
  searched = finish(last)
  job = job_lib.open_job(last)
  folder = shipped.write(pathlib.Path(options.shipped), found, job.sizes)
  print(f'settings and trials written to {folder}')
  rows = rank_agreement.agreement(
    default.per_seed, searched.per_seed, names, job.source.num_classes
  )
  table.save(TABLE, rows)
  parts = [
    '## Searched settings',
    tables.paper_markdown(searched),
    '## Default settings',
    DEFAULT,
    without_notes(default),
    '## The search',
    budget(found),
    search_table([shipped.summary(one, job.sizes) for one in found]),
    '## Do the settings decide the ranking?',
    RANKINGS,
    agreement_table(rows),
    provenance(job_lib.provenance(job), datetime.date.today()),
  ]
  text = '\n'.join(part.rstrip() + '\n' for part in parts)
  PAGE.write_text(fill(PAGE.read_text(), text))


DEFAULT = textwrap.fill(
  'The same originals and retrained models, with the default settings of the '
  "benchmark's code, moved to the nearest value that the search allows: "
  'batches of 64 and at most 3 epochs. They were made for 64 channels, tens of '
  'thousands of images and hundreds of epochs.',
  80,
)
RANKINGS = textwrap.fill(
  "Kendall's tau between the rankings of the methods at default and at "
  'searched settings, with the 95% interval over resampled initialisations. '
  'Two columns have the tau of the same settings on two halves of the '
  'initialisations: noise alone makes it smaller than 1.',
  80,
)


def default_settings(settings: Settings) -> dict[str, dict[str, Any]]:
  """Return the settings that a search compares its choice with, by method."""
  return {
    one.method: opening.method_space(settings, one).nearest(
      hp.defaults(methods.get(one.method).Hparams)
    )
    for one in settings.unlearners
  }


def with_hparams(
  settings: Settings, chosen: Mapping[str, Mapping[str, Any]]
) -> Settings:
  """Return the settings of a job with other hyper-parameters, by method."""
  unlearners = tuple(
    dataclasses.replace(one, hparams=dict(chosen[one.method]))
    for one in settings.unlearners
  )
  return dataclasses.replace(settings, unlearners=unlearners)


def finish(settings: Settings) -> tables.PaperTable:
  """Run a job, unless it was, and return its table."""
  job = job_lib.open_job(settings)
  if publish.report_shelf(job).missing():
    job = run.run(settings, command='python benchmarks/digits_page.py')
  return publish.paper_results(job)


def without_notes(paper: tables.PaperTable) -> str:
  """Return the lines of a table in Markdown."""
  return tables.paper_markdown(paper).partition('\n\n')[0]


def budget(found: Sequence[shipped.Found]) -> str:
  """Say that all methods had the same budget, and what it was."""
  search = found[0].content['search']
  trials = search['trials'] * search['initialisations']
  text = (
    f'Every method had the same budget: {search["trials"]} trials for each of '
    f'{search["initialisations"]} initialisations, {trials} in all, of at most '
    f'a fifth of the epochs of training (sampler {search["sampler"]!r}). The '
    f'{search["finalists"]} best settings were judged again on '
    f'{search["judges"]} initialisations that were not searched; the norms are '
    'means over these, and smaller is better. No initialisation of the tables '
    'was searched. "Cannot win" counts trials at which a method leaves out '
    'what it is named after. Forward passes are the counted work of all '
    'trials, in passes of one image; seconds include compilation, one per '
    'program.'
  )
  return textwrap.fill(text, 80)


def search_table(rows: Sequence[Mapping[str, Any]]) -> str:
  """Return the summary of all searches in Markdown."""
  labels = [results.label(row['method']) for row in rows]
  cells = [
    [
      f'{float(value) / 1e6:.2f} M' if name == 'forward_equivalents' else value
      for name, value in ((name, row[name]) for name in SEARCH)
    ]
    for row in rows
  ]
  body = [[name, *line] for name, line in zip(labels, cells, strict=True)]
  return tables.markdown(['Method', *SEARCH.values()], body)


def agreement_table(rows: Sequence[Mapping[str, Any]]) -> str:
  """Return the agreement of rankings in Markdown."""
  body = [[row['ranking'], *(row[name] for name in AGREEMENT)] for row in rows]
  return tables.markdown(['Ranking', *AGREEMENT.values()], body)


def fill(page: str, content: str) -> str:
  """Replace the text between the markers of a page."""
  before, rest = page.split(BEGIN)
  _, after = rest.split(END)
  return f'{before}{BEGIN}\n\n{content}\n{END}{after}'


def provenance(facts: Mapping[str, Any], day: datetime.date) -> str:
  """Return a paragraph with the versions, machine and date of the results."""
  versions = ', '.join(f'{name} {facts["versions"][name]}' for name in PACKAGES)
  machine = facts['hardware']
  text = (
    f'Made on {day} with {versions}; {machine["processor"]}, '
    f'{machine["cores"]} cores, {machine["devices"]} devices of kind '
    f'{machine["device"]!r}; data {facts["data"]["fingerprint"][:16]}.'
  )
  return textwrap.fill(text, 80) + '\n'


if __name__ == '__main__':
  main()
