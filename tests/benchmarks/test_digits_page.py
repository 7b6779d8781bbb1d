"""The page with the benchmark on digits, and how its tables are written."""

import dataclasses
import datetime

import numpy as np
import pytest

from jaxmu import methods
from jaxmu.report import results, tables
from jaxmu.study import recipes, tuned
from jaxmu.study import settings as settings_lib
from tests.study import small_job


@pytest.fixture
def digits_page(load):
  return load('digits_page')


def test_the_page_has_a_row_for_every_benchmark_method_and_all_columns(
  digits_page,
):
  lines = digits_page.PAGE.read_text().splitlines()
  rows = [[cell.strip() for cell in line.split('|')[1:-1]] for line in lines]
  rows = [row for row in rows if len(row) == 1 + len(tables.PAPER_COLUMNS)]
  labels = {row[0].split(' (')[0] for row in rows}
  # 18 methods and two baselines; others may have been added since it was run.
  known = {results.label(method) for method in methods.METHODS}
  assert len(known & labels) >= 20


def test_filling_replaces_the_tables_and_nothing_else(digits_page):
  page = f'above\n{digits_page.BEGIN}old{digits_page.END}\nbelow\n'
  once = digits_page.fill(page, 'new\n')
  assert once.startswith('above\n') and once.endswith('\nbelow\n')
  assert 'new' in once and 'old' not in once
  assert digits_page.fill(once, 'new\n') == once
  assert digits_page.fill(digits_page.PAGE.read_text(), 'new\n')


def test_provenance_names_versions_and_machine(digits_page):
  versions = dict.fromkeys(digits_page.PACKAGES, '1.2')
  hardware = dict(processor='Chip', cores=2, devices=2, device='cpu')
  data = {'fingerprint': 'f' * 64}
  facts = dict(versions=versions, hardware=hardware, data=data)
  text = digits_page.provenance(facts, datetime.date(2026, 1, 2))
  assert '2026-01-02' in text and 'jax 1.2' in text and 'Chip, 2 cores' in text


def test_default_settings_are_the_nearest_ones_that_the_search_allows(
  digits_page,
):
  config = recipes.job_config('ft', compare=['scrub'])
  settings = settings_lib.from_config(config)
  chosen = digits_page.default_settings(settings)
  usual = methods.hparams_for('ft')
  assert usual['num_epochs'] > 3
  assert chosen['ft'] == {**usual, 'batch_size': 64, 'num_epochs': 3}
  for name, value in methods.hparams_for('scrub').items():
    if name in ('learning_rate', 'gamma', 'alpha', 'temperature'):
      assert chosen['scrub'][name] == value
  assert chosen['scrub']['retain_batch_size'] == 64
  changed = digits_page.with_hparams(settings, chosen)
  assert {u.method: u.hparams for u in changed.unlearners} == chosen


def test_the_second_table_has_the_lines_of_the_first_without_its_notes(
  digits_page,
):
  one = dict.fromkeys(tables.PAPER_COLUMNS, np.array([0.5, 0.6]))
  table = tables.PaperTable({'retrain': one, 'ft': one})
  lines = digits_page.without_notes(table).splitlines()
  assert [line.split(' |')[0] for line in lines] == [
    *('| Method', '| ---', '| Retrained', '| FT')
  ]


def test_tables_have_a_cell_for_every_title(digits_page):
  rows = [
    {'ranking': 'RetDev', **dict.fromkeys(digits_page.AGREEMENT, '0.5')},
    {'ranking': 'Indisc', **dict.fromkeys(digits_page.AGREEMENT, '')},
  ]
  lines = digits_page.agreement_table(rows).splitlines()
  assert len({line.count('|') for line in lines}) == 1
  rows = [{'method': 'msg', **dict.fromkeys(digits_page.SEARCH, '1')}]
  lines = digits_page.search_table(rows).splitlines()
  assert len({line.count('|') for line in lines}) == 1
  assert lines[2].startswith('| MSG | 1 |')


def _small_benchmark(folder):
  """Return a job of two methods on a tiny network, with 5 initialisations."""
  config = small_job.config(folder).to_dict()
  config['splits'].update(
    design='main', pool=0, num_splits=1, forget_sets=1, seeds=5
  )
  usual = methods.hparams_for('ft')
  config['unlearn'] = {'method': 'ft', 'hparams': usual}
  config['compare'] = {'ga': methods.hparams_for('ga')}
  space = {'batch_size': 64}
  config['search'] = {'trials': 1, 'initialisations': 1, 'space': space}
  return config


def _found(name: str) -> dict:
  search = dataclasses.asdict(settings_lib.Search(trials=1))
  return {
    **{'method': name, 'data': 'digits', 'model': 'tiny'},
    'hparams': {**methods.hparams_for(name), 'num_epochs': 1},
    'norms': {'chosen': 0.1, 'default': 0.2, 'original': 0.3},
    'search': {**search, 'failed': 0, 'cannot_win': 0, 'seconds': 1.0},
  }


@pytest.mark.slow
@pytest.mark.xdist_group('digits_page')
def test_both_jobs_share_the_originals_and_fill_the_page(
  digits_page, tmp_path, monkeypatch
):
  for name in ('ft', 'ga'):
    folder = tuned.folder(tmp_path, name)
    tuned.write(folder / tuned.NAME, _found(name))
    row = {'method': name, **_found(name)['hparams']}
    lines = [row, row.values()]
    text = '\n'.join(','.join(map(str, line)) for line in lines)
    (folder / 'trials.csv').write_text(text + '\n')
  page = tmp_path / 'page.md'
  page.write_text(f'above\n{digits_page.BEGIN}{digits_page.END}\nbelow\n')
  monkeypatch.setattr(digits_page, 'PAGE', page)
  monkeypatch.setattr(digits_page, 'TABLE', tmp_path / 'page.csv')
  monkeypatch.setattr(digits_page.rank_agreement, 'GROUP_RESAMPLES', 2)
  monkeypatch.setattr(digits_page.command, 'set_up_jax', lambda config: None)
  small = _small_benchmark(tmp_path)
  monkeypatch.setattr(digits_page.recipes, 'benchmark', lambda: small)
  place = str(tmp_path / 'tuned')
  arguments = ['x', f'--workdir={tmp_path}', f'--shipped={place}']
  monkeypatch.setattr('sys.argv', arguments)
  digits_page.main()
  stored = [p.name.split('-')[0] for p in tmp_path.glob('store/models/*')]
  assert sorted(stored) == ['ft', 'ft', 'ga', 'ga', 'original', 'retrain']
  text = page.read_text()
  assert text.startswith('above\n') and text.endswith('below\n')
  assert text.count('| FT |') == 3  # two tables and the search
  assert '| RetDev | ' in text and 'Every method had the same budget' in text
  # Once more: nothing is trained, and the shipped files are the same.
  before = {p: p.read_bytes() for p in (tmp_path / 'tuned').rglob('*.*')}
  monkeypatch.setattr(digits_page.run, 'run', None)
  digits_page.main()
  assert page.read_text() == text
  assert before == {p: p.read_bytes() for p in before}
  assert len(before) == 4
