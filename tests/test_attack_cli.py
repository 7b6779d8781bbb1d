"""`python -m jaxmu.attack`: a file of arrays in, a report out."""

import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

from jaxmu import attack
from jaxmu.attacks import registry, scores
from jaxmu.report import glossary, results
from tests.attacks import test_suite


def write(folder: pathlib.Path, **changes) -> pathlib.Path:
  path = folder / 'scores.npz'
  np.savez(path, **{**test_suite.make_arrays(), **changes})
  return path


def call(*arguments: str) -> subprocess.CompletedProcess:
  return subprocess.run(
    [sys.executable, '-m', 'jaxmu.attack', *arguments],
    capture_output=True,
    text=True,
    timeout=300,
  )


def test_outputs_are_compared_with_those_of_retrained_models():
  arrays = test_suite.make_arrays()
  group = np.asarray(arrays['split']) // 2
  rows = {r.metric: r for r in attack.output_rows(arrays, group)}
  p = np.exp(arrays['retrained_logits'].astype(float))
  q = np.exp(arrays['logits'].astype(float))
  p, q = (x / x.sum(axis=-1, keepdims=True) for x in (p, q))
  state, models = arrays['state'], range(len(group))
  kl, null = [], []
  for m in models:
    each = [
      sum(p[m, n] * np.log(p[m, n] / q[m, n]))
      for n in np.flatnonzero(state[m] == 1)
    ]
    kl.append(np.mean(each))
    k = (m + 1) % len(group)
    unused = (state[m] == 1) & (state[k] != 0)
    each = [abs(p[m, n] - p[k, n]).sum() / 2 for n in np.flatnonzero(unused)]
    null.append(np.mean(each) if each else np.nan)
  averages = [np.nanmean(np.array(kl)[group == g]) for g in np.unique(group)]
  assert rows['kl'].value == pytest.approx(np.mean(averages), rel=1e-5)
  averages = [np.nanmean(np.array(null)[group == g]) for g in np.unique(group)]
  assert rows['retrained_total_variation'].value == pytest.approx(
    np.mean(averages), rel=1e-5
  )
  assert 0 <= rows['disagreement'].value <= 1 and rows['kl'].n == 8
  assert not glossary.missing(f'outputs_{name}' for name in rows)
  assert attack.output_rows({'state': state}, group) == []


def test_report_of_a_file(tmp_path):
  out = tmp_path / 'out'
  before = test_suite.make_arrays(shift=2.0)['logits']
  path = write(tmp_path, original_logits=before)
  done = call(
    f'--scores={path}', f'--out={out}', '--attacks=ulira,per_example,klom'
  )
  assert done.returncode == 0, done.stderr
  rows = results.read_csv(out / 'results.csv', results.AttackRow)
  header = (out / 'results.csv').read_text().splitlines()[0]
  assert header == 'attack,metric,value,low,high,n'
  assert {row.attack for row in rows} == {'ulira', 'per_example', 'klom'}
  found = registry.run(
    attack.read(str(path)), attacks=['ulira', 'per_example', 'klom']
  )
  by_name = {
    (row.attack, row.metric): estimate
    for one in found
    for row, estimate in zip(
      attack.rows([one]), attack._named(one).values(), strict=True
    )
  }
  assert [(row.attack, row.metric) for row in rows] == list(by_name)
  for row in rows:
    estimate = by_name[row.attack, row.metric]
    np.testing.assert_array_equal(
      [row.value, row.low, row.high, row.n],
      [estimate.value, estimate.low, estimate.high, estimate.n],
    )
  html = (out / 'report.html').read_text()
  assert 'U-LiRA' in html and 'complementary pairs' in html
  for name in ('roc', 'trade_off', 'log_odds', 'vulnerability'):
    assert (out / 'plots' / f'{name}.png').stat().st_size > 1000
  data = attack.read(str(path))
  ratio = registry.score('ulira', data)['unlearned']
  with np.load(out / 'membership.npz') as said:
    np.testing.assert_array_equal(said['log_ratio'], ratio.astype(np.float32))
    np.testing.assert_allclose(
      said['probability'], 1 / (1 + np.exp(-ratio)), rtol=1e-6
    )
  lines = (out / 'per_example.csv').read_text().splitlines()
  assert lines[0] == 'example,auc,p_value,discovered,retrained_auc'
  aucs = [float(line.split(',')[1]) for line in lines[1:]]
  assert len(aucs) == 80 and aucs == sorted(aucs, reverse=True)
  assert 'AUC' in done.stdout


def test_errors_end_before_any_work(tmp_path):
  good = write(tmp_path)
  text = tmp_path / 'text.npz'
  text.write_text('not arrays')
  pickled = tmp_path / 'pickled.npz'
  np.savez(pickled, log_odds=np.array([{}], object))
  blocked = tmp_path / 'file'
  blocked.write_text('')
  cases = [
    (attack.read, str(tmp_path / 'none.npz'), 'no such file'),
    (attack.read, str(text), 'plain arrays'),
    (attack.read, str(pickled), 'plain arrays'),
    (attack.check_directory, str(blocked / 'out'), '--out='),
    (attack.parse_fprs, ['0.1', '10'], "'10'"),
    (attack.parse_fprs, ['ten'], "'ten'"),
  ]
  for function, argument, message in cases:
    with pytest.raises(ValueError, match=message):
      function(argument)
  assert attack.parse_fprs(['0.5']) == (0.5,)
  assert attack.read(str(good)).state.shape == (32, 88)
  broken = write(tmp_path, state=np.zeros((2, 2)))
  with pytest.raises(ValueError, match=r'scores\.npz: state is float64'):
    attack.read(str(broken))


def test_a_refusal_is_one_line_and_an_exit_code(tmp_path):
  path = write(tmp_path)
  done = call(
    f'--scores={path}', f'--out={tmp_path / "out"}', '--attacks=magic'
  )
  assert done.returncode == 1
  assert 'unknown attack' in done.stderr and 'Traceback' not in done.stderr


def test_refused_and_pooled_numbers_are_explained():
  data = scores.from_arrays(test_suite.make_arrays())
  found = registry.run(data, attacks=['ulira'], fprs=(0.0001, 0.01))
  text = '\n'.join(attack.notes(found))
  assert 'needs 100000' in text and 'one threshold for all' in text


def test_the_page_on_attacks_shows_code_that_runs(capsys):
  page = pathlib.Path(__file__).parent.parent / 'docs' / 'attacks.md'
  blocks = re.findall(r'```python\n(.*?)```', page.read_text(), re.DOTALL)
  ran = 0
  for block in blocks:
    if 'torch' not in block:
      exec(block, {})
      ran += 1
  assert ran == 3
  printed = capsys.readouterr().out
  assert 'unlearned ulira_auc 0.' in printed and 'bounded_auc 0.' in printed


def test_the_page_on_defects_names_tests_that_exist():
  root = pathlib.Path(__file__).parent
  text = (root.parent / 'docs' / 'what_goes_wrong.md').read_text()
  named = set(re.findall(r'\b(test_[a-z0-9_]+)(?!\w|\.py)', text))
  source = '\n'.join(p.read_text() for p in root.rglob('test_*.py'))
  assert len(named) > 20
  assert not {name for name in named if f'def {name}(' not in source}


def test_every_number_has_a_glossary_entry():
  data = scores.from_arrays(test_suite.make_arrays())
  found = registry.run(data, fprs=(0.01,))
  names = {f.metric for f in found}
  assert not glossary.missing(names)
