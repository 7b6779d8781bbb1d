"""The published results of the package: all of them, and some again.

The slow tests run the command in a process of its own, with the compiler as
users have it: tests compile with fewer optimisations.
"""

import csv
import math
import os
import pathlib
import re
import subprocess
import sys

import pytest

from jaxmu import methods
from jaxmu.claims.interface import NOT_RUN
from jaxmu.published import ROOT, computed, facts, record, rows, running, scores
from jaxmu.published.rows import Outcome
from jaxmu.study import job as job_lib

pytestmark = pytest.mark.xdist_group('published')

FOUND = record.find()
# Of each of these, one number is computed again.
GROUPS = ('default_job', 'main', 'ulira', 'search', 'replicates', 'computed')
PAGE = pathlib.Path(ROOT).parents[1] / 'docs' / 'results'
MOST_BYTES = 12_000_000  # of a folder


def _group(one: record.Published) -> str:
  """Return what a folder is an example of, such as 'ulira'."""
  runs = one.kind in ('table', 'search')
  return one.name.rpartition('/')[2] if runs else one.kind


COMPUTED = [one for one in FOUND.values() if one.kind == 'computed']
RUNS = [one for one in FOUND.values() if one.kind != 'computed']
WITH_SCORES = [one for one in RUNS if one.record.get('scores')]
# Other data sets are not part of the package.
OF_DIGITS = [
  one
  for one in RUNS
  if one.kind == 'table' and one.record['data']['name'] == 'digits'
]


def _each(several):
  return pytest.mark.parametrize('one', several, ids=lambda one: one.name)


@_each(FOUND.values())
def test_every_folder_is_sound(one):
  record.check(one)
  assert one.bytes < MOST_BYTES
  text = (one.folder / record.FILE).read_text()
  assert not re.search('["= ]/(tmp|home|root|work|mnt|data)', text)
  every = rows.rows(one)
  assert every
  for row in every:
    assert row.name.startswith(f'{one.name}/') and ' ' not in row.name
    # Percentiles of resamples need not be on both sides of a claim's number.
    if math.isfinite(row.low + row.high) and one.kind != 'computed':
      assert row.low <= row.value <= row.high, row.name


@_each(RUNS)
def test_configurations_are_those_of_this_version(one, tmp_path):
  whole = record.settings(one, tmp_path)
  assert len(whole.unlearners) == len(one.methods)
  assert one.record['seeds']['seed'] == whole.seed


@_each(OF_DIGITS)
def test_hashes_are_those_of_the_digits(one, tmp_path):
  facts.check_data(one, job_lib.open_job(record.settings(one, tmp_path, ())))


@_each(WITH_SCORES)
def test_numbers_of_scores_pass(one):
  there = scores.names(one)
  assert there == one.record['scores']['populations']
  chosen = [
    row
    for row in rows.rows(one)
    if row.metric == 'ulira_auc' and row.method in there[:3]
  ]
  assert len(chosen) == 3
  judged = running.judge(chosen, running.from_scores(chosen), from_scores=True)
  assert {verdict.outcome for verdict in judged} == {Outcome.PASS}


@_each(COMPUTED)
def test_computed_numbers_are_those_of_the_published_tables(one):
  """If this fails, the command of the record computes them again."""
  assert computed.changes(one) == [], one.record['command']
  found = computed.call(one.record['function'], one.root)
  chosen = rows.rows(one)
  names = {(row.method, row.metric) for row in chosen}
  assert {(row.method, row.metric) for row in found.numbers} == names
  assert found.verdicts == one.record['verdicts']
  judged = running.judge(chosen, running.compare(chosen, found))
  wrong = [v.row.name for v in judged if v.outcome is not Outcome.PASS]
  assert not wrong, one.record['command']


def test_claims_of_the_page_are_the_published_ones():
  """Numbers, p-values and verdicts; the page rounds to six digits."""
  known = rows.every([FOUND['claims']])
  with (PAGE / 'claims.csv').open(newline='') as file:
    answers = [row for row in csv.DictReader(file) if row['verdict'] != NOT_RUN]
  of_the_page = set()
  for answer in answers:
    cell = answer['cell'].replace(', ', '_').replace(' ', '_')
    name = f'claims/{cell}/claim_{answer["claim"]}'
    of_the_page.add(name)
    row = known[name]
    assert answer['verdict'] == row.verdict, name
    shown = {'value': row.value, 'low': row.low, 'high': row.high}
    for p_value in ('p_if_false', 'p_if_true'):
      other = known.get(f'{name}/{p_value}')
      shown[p_value] = other.value if other else math.nan
    for column, value in shown.items():
      text = '' if math.isnan(value) else f'{value:.6g}'
      assert answer[column] == text, (name, column)
  assert of_the_page == {name for name, row in known.items() if row.verdict}


def test_names_are_unique():
  assert rows.every(FOUND.values())


def test_every_group_is_published():
  assert {*GROUPS} <= {_group(one) for one in FOUND.values()}


def _cheapest(group: str) -> rows.Row:
  """Return a number of a group that takes little time to compute again.

  Its data set is in the package.
  """
  several = [
    one
    for one in FOUND.values()
    if _group(one) == group
    and one.record.get('data', {}).get('name', 'digits') == 'digits'
  ]
  least = min(several, key=lambda one: one.record.get('seconds') or math.inf)
  known = rows.every([least])
  if group == 'replicates':
    return next(row for row in known.values() if row.method)
  if group in ('computed', 'search', 'ulira_search'):
    return next(iter(known.values()))
  name = 'retrained/ulira_auc'
  if group == 'main':
    work = {n: m['work'] for n, m in least.record['models'].items()}
    unlearned = [n for n in work if n not in methods.BASELINES]
    name = f'{min(unlearned, key=work.__getitem__)}/ta'
  return known[f'{least.name}/{name}']


@pytest.mark.slow
@pytest.mark.parametrize('group', GROUPS)
def test_a_number_of_each_group_is_reproduced(group, tmp_path):
  row = _cheapest(group)
  done = _command(row.name, f'--workdir={tmp_path}')
  assert done.returncode == 0, done.stdout + done.stderr
  # The name is also the beginning of others.
  named = len(rows.choose(rows.every([row.of]), [row.name]))
  last = done.stdout.splitlines()[-1]
  # The norm of a search has no interval, and is not judged elsewhere.
  elsewhere = 'not the published environment' in done.stdout
  assert last == f'{named} pass' or (elsewhere and last == '1 not judged')


def _command(*argv: str) -> subprocess.CompletedProcess[str]:
  environment = {k: v for k, v in os.environ.items() if k != 'XLA_FLAGS'}
  return subprocess.run(
    [sys.executable, '-m', 'jaxmu.reproduce', *argv],
    env={**environment, 'PYTHONPATH': str(pathlib.Path(ROOT).parents[1])},
    capture_output=True,
    text=True,
  )
