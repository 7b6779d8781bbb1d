"""The leaderboard: numbers of all cells, ranks over cells, a page to sort."""

import base64
import csv
import hashlib
import re
import shutil
import subprocess

import numpy as np
import pytest
from scipy import stats

from jaxmu import rank
from jaxmu.report import results
from jaxmu.sweeps import design, leaderboard
from tests.sweeps import small_sweep

METHODS = ('ft', 'ga', 'msg')
SEEDS = 10


def _write_main(folder, seed):
  """Write what the job of a main table leaves."""
  rng = np.random.default_rng(seed)
  observed = []
  for place, method in enumerate(('original', 'retrain', *METHODS)):
    for s in range(SEEDS):
      values = {
        'ret_dev': 0.1 * place + 0.01 * rng.random(),
        'indisc_test': 0.95 - 0.05 * place + 1e-3 * rng.random(),
        'ta': 0.9 + 0.01 * rng.random(),
      }
      observed += [
        results.Observation(method, k, s, v) for k, v in values.items()
      ]
  rows = [
    results.Row(
      method,
      metric,
      _mean(observed, method, metric),
      n=SEEDS,
    )
    for method in ('original', 'retrain', *METHODS)
    for metric in ('ret_dev', 'indisc_test', 'ta')
  ]
  clock = [results.Row(m, 'rte', 2.0 + i) for i, m in enumerate(METHODS)]
  folder.mkdir(parents=True)
  results.write_csv(folder / 'per_cluster.csv', observed, results.Observation)
  results.write_csv(folder / 'results.csv', rows)
  results.write_csv(folder / 'timing.csv', clock)
  facts = {'provenance': {'data': {'classes': 10}, 'results': {}}}
  results.write_json(folder / 'results.json', facts)


def _write_ulira(folder):
  rows = [
    results.Row('retrain', 'ulira_auc', 0.5, 0.48, 0.52),
    results.Row('ft', 'ulira_auc', 0.6, 0.55, 0.65, 0.5, 0.1, 8, 0.05, 0.15),
    results.Row('ft', 'excess_ulira_auc', 0.1, 0.05, 0.15, 0.0, 0.1, 8),
  ]
  folder.mkdir(parents=True)
  results.write_csv(folder / 'results.csv', rows)
  results.write_csv(folder / 'per_cluster.csv', [], results.Observation)


def _mean(observed, method, metric):
  return float(
    np.mean(
      [o.value for o in observed if (o.method, o.metric) == (method, metric)]
    )
  )


@pytest.fixture(scope='module')
def board(tmp_path_factory):
  folder = tmp_path_factory.mktemp('board')
  sweep = design.from_config(
    small_sweep.config(
      folder,
      methods=METHODS,
      models=('tiny', 'resnet18'),
      data=('digits', 'mnist'),
      all={},
    )
  )
  cells = ('digits_tiny', 'digits_resnet18', 'mnist_tiny')
  for seed, cell in enumerate(cells):
    _write_main(folder / cell / 'main', seed)
  _write_ulira(folder / 'digits_tiny' / 'ulira')
  leaderboard.write(sweep, 'python -m jaxmu.sweep <all>')
  return folder, sweep, cells


def _rows(folder):
  with open(folder / 'leaderboard.csv', newline='') as file:
    return list(csv.DictReader(file))


def test_every_number_of_every_cell_has_its_mean_and_deviation(board):
  folder, _, cells = board
  rows = _rows(folder)
  for cell in cells:
    data, _, model = cell.partition('_')
    observed = results.read_csv(
      folder / cell / 'main/per_cluster.csv', results.Observation
    )
    for method in METHODS:
      own = [
        o.value for o in observed if (o.method, o.metric) == (method, 'ret_dev')
      ]
      (row,) = (
        r
        for r in rows
        if (r['data'], r['model'], r['study']) == (data, model, 'main')
        and (r['method'], r['metric']) == (method, 'ret_dev')
      )
      assert float(row['mean']) == pytest.approx(np.mean(own))
      assert float(row['deviation']) == pytest.approx(np.std(own, ddof=1))


def test_ranks_are_means_over_cells(board):
  folder, _, cells = board
  naive = []
  for cell in cells:
    observed = results.read_csv(
      folder / cell / 'main/per_cluster.csv', results.Observation
    )
    table = np.array(
      [
        [
          o.value
          for o in observed
          if (o.method, o.metric) == (method, 'ret_dev')
        ]
        for method in METHODS
      ]
    )
    naive.append(stats.rankdata(stats.rankdata(table, axis=0).mean(axis=1)))
  found = {
    row['method']: float(row['mean'])
    for row in _rows(folder)
    if (row['study'], row['metric']) == ('cells', 'rank_ret_dev')
  }
  assert [found[m] for m in METHODS] == pytest.approx(np.mean(naive, axis=0))
  text = (folder / 'leaderboard.md').read_text()
  assert '## Ranks over 3 cells' in text
  assert 'Critical difference of mean ranks: ' in text


def test_the_ranks_of_a_sweep_and_of_its_jobs_are_those_of_the_leaderboard(
  board, tmp_path, capsys
):
  folder, _, cells = board
  wanted = {
    (row['method'], row['metric']): float(row['mean'])
    for row in _rows(folder)
    if row['study'] == 'cells'
  }
  jobs = [str(folder / cell / 'main') for cell in cells]
  texts = []
  for folders, study in (([str(folder)], 'main'), (jobs, '')):
    rank.main([*folders, f'--out={tmp_path}'])
    out, err = capsys.readouterr()
    texts.append(out.partition(str(tmp_path))[0])
    rows = results.read_csv(tmp_path / study / 'results.csv')
    assert {(r.method, r.metric): r.value for r in rows} == wanted
    assert ('ulira: ' in err) == bool(study)  # it has no initialisations
  assert texts[0] == texts[1]
  title, *lines = filter(None, texts[0].splitlines())
  assert title == 'Ranks over 3 cells'
  part = (folder / 'leaderboard.md').read_text().partition(title)[2]
  table = [line for line in part.splitlines() if line.startswith('| ')]
  for method, line in zip(METHODS, table[2:], strict=False):
    printed = ' '.join(lines[1 + METHODS.index(method)].split())
    assert printed == ' '.join(line.replace('|', ' ').split())
  with pytest.raises(SystemExit, match='jobs or sweeps, not both'):
    rank.main([str(folder), jobs[0]])
  with pytest.raises(SystemExit, match='give the workdir of a finished job'):
    rank.main([str(tmp_path / 'none')])


def test_cells_of_u_lira_are_ranked_among_themselves(tmp_path):
  sweep = design.from_config(
    small_sweep.config(tmp_path, methods=METHODS, ulira_methods=METHODS)
  )
  _write_main(tmp_path / 'digits_tiny/main', 0)
  _write_main(tmp_path / 'digits_tiny/ulira', 1)
  leaderboard.write(sweep)
  text = (tmp_path / 'leaderboard.md').read_text()
  assert '## Ranks over 1 cell' in text
  assert '## U-LiRA: ranks over 1 cell' in text
  studies = {row['study'] for row in _rows(tmp_path)}
  assert {'cells', 'ulira cells'} <= studies


def test_cells_without_a_report_are_named(board):
  folder, _, _ = board
  for ending in ('md', 'html'):
    text = (folder / f'leaderboard.{ending}').read_text()
    assert 'mnist_resnet18/main has no report' in text
    assert 'digits_tiny/main has no report' not in text


def test_u_lira_has_the_excess_over_retrained(board):
  folder, _, _ = board
  text = (folder / 'leaderboard.md').read_text()
  part = text[text.index('## digits, tiny: U-LiRA') :].splitlines()
  assert part[2] == '| Method | U-LiRA AUC | excess AUC |'
  assert '| FT | 0.600 [0.550, 0.650] | 0.100 [0.050, 0.150] |' in part


def test_latex_has_a_table_per_cell_and_no_bare_symbols(board):
  folder, _, cells = board
  text = (folder / 'leaderboard.tex').read_text()
  assert text.count(r'\begin{tabular}') == len(cells) + 2
  assert r'$\pm$' in text and '±' not in text
  assert not re.search(r'(?<!\\)_', text)


def test_the_page_has_a_row_per_method_and_cell_with_links(board):
  folder, _, cells = board
  text = (folder / 'leaderboard.html').read_text()
  for cell in cells:
    data, _, model = cell.partition('_')
    row = f'<tr data-data="{data}" data-model="{model}" data-method="ft">'
    assert row in text
    assert f'<a href="{cell}/main/report.html">' in text
  assert '<a href="digits_tiny/ulira/report.html">' in text
  for field, count in (('data', 2), ('model', 2), ('method', 5)):
    found = re.search(rf'table-main" data-field="{field}">(.*?)</select>', text)
    assert found and found[1].count('<option') == 1 + count
  assert 'jaxmu.sweep &lt;all&gt;' in text


def test_the_page_runs_its_own_script_alone_and_fetches_nothing(board):
  folder, _, _ = board
  text = (folder / 'leaderboard.html').read_text()
  (script,) = re.findall(r'<script>(.*?)</script>', text, re.S)
  allowed = hashlib.sha256(script.encode()).digest()
  policy = re.search(r'Content-Security-Policy" content="(.*?)"', text)
  assert policy is not None
  word = base64.b64encode(allowed).decode()
  assert f'script-src &#x27;sha256-{word}&#x27;' in policy[1]
  assert not re.search(r'(src|href)="(https?:)?//', text)


def test_without_a_report_there_is_no_leaderboard(tmp_path):
  sweep = design.from_config(small_sweep.config(tmp_path))
  with pytest.raises(ValueError, match='no cell in .* has a report yet'):
    leaderboard.write(sweep)


# A table of three rows in a document that has only what the script uses.
DOCUMENT = """
const script = require('fs').readFileSync(0, 'utf8');
function cell(text, value) {
  return {
    textContent: text, style: {}, dataset: value === undefined ? {} : {value},
    addEventListener(event, act) { this.act = act; },
  };
}
const titles = [cell('Data'), cell('RA')];
const body = {
  rows: [['b', '0.3'], ['a', 'nan'], ['c', '0.1']].map(([text, value]) => (
    {cells: [cell(text), cell(text, value)], dataset: {data: text}})),
  append(...rows) { this.rows = rows; },
};
const table = {tHead: {rows: [{cells: titles}]}, tBodies: [body]};
const filter = {...cell(''), dataset: {table: 't', field: 'data'}, value: ''};
global.document = {
  querySelectorAll: (what) => what.startsWith('table') ? [table] : [filter],
  getElementById: () => table,
};
eval(script);
const show = () => console.log(body.rows.filter((row) => !row.hidden)
  .map((row) => row.cells[0].textContent).join(''));
titles[1].act(); show();
titles[1].act(); show();
titles[0].act(); show();
filter.value = 'c'; filter.act(); show();
filter.value = ''; filter.act(); show();
"""


@pytest.mark.skipif(shutil.which('node') is None, reason='needs Node.js')
def test_the_script_sorts_and_filters():
  done = subprocess.run(
    ['node', '-e', DOCUMENT],
    input=leaderboard.SCRIPT,
    capture_output=True,
    text=True,
    check=True,
  )
  # Values that are not numbers come last.
  assert done.stdout.split() == ['cba', 'bca', 'abc', 'c', 'abc']
