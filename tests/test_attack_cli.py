"""`python -m jaxmu.attack`: a file of arrays in, a report out."""

import io
import json
import pathlib
import re
import shlex
import subprocess
import sys
import types
import warnings
import zipfile

import numpy as np
import pytest

import jaxmu
from jaxmu import attack, files
from jaxmu.api import audits
from jaxmu.attacks import registry, scores
from jaxmu.report import glossary, results, tables
from tests.attacks import populations, test_suite


def write(folder: pathlib.Path, **changes) -> pathlib.Path:
  path = folder / 'scores.npz'
  np.savez(path, **{**test_suite.make_arrays(), **changes})
  return path


def _scores(path: pathlib.Path) -> scores.Scores:
  return scores.from_arrays(audits.read_scores(path))


def call(*arguments: str) -> subprocess.CompletedProcess:
  return subprocess.run(
    [sys.executable, '-m', 'jaxmu.attack', *arguments],
    capture_output=True,
    text=True,
  )


def test_the_report_of_a_job_is_not_replaced(tmp_path):
  (tmp_path / results.PER_CLUSTER_FILE).write_text('of a job')
  with pytest.raises(SystemExit, match='is the work directory of a job'):
    attack.main([f'--scores={write(tmp_path)}', f'--out={tmp_path}'])
  assert not (tmp_path / 'report.html').exists()


def test_outputs_are_compared_with_those_of_retrained_models():
  arrays = test_suite.make_arrays()
  group = np.asarray(arrays['split']) // 2
  found = audits.output_rows(arrays, group)
  assert not glossary.missing(row.metric for row in found)
  rows = {(r.method, r.metric.removeprefix('outputs_')): r for r in found}
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
  own = rows['unlearned', 'kl']
  assert own.value == pytest.approx(np.mean(averages), rel=1e-5)
  assert own.retrained == rows['retrain', 'kl'].value and own.n == 8
  averages = [np.nanmean(np.array(null)[group == g]) for g in np.unique(group)]
  assert rows['retrain', 'total_variation'].value == pytest.approx(
    np.mean(averages), rel=1e-5
  )
  assert 0 <= rows['unlearned', 'disagreement'].value <= 1
  assert audits.output_rows({'state': state}, group) == []


def _same(row, estimate, retrained):
  np.testing.assert_array_equal(
    [row.value, row.low, row.high, row.n, row.retrained],
    [estimate.value, estimate.low, estimate.high, estimate.n, retrained],
  )


def test_report_of_a_file(tmp_path):
  out = tmp_path / 'with blank'
  before = test_suite.make_arrays(shift=2.0)['logits']
  path = write(tmp_path, original_logits=before)
  attack.main(
    [f'--scores={path}', f'--out={out}', '--attacks=ulira,per_example,klom']
  )
  rows = results.read_csv(out / 'results.csv')
  value = {(row.method, row.metric): row for row in rows}
  for one in registry.run(
    _scores(path), attacks=['ulira', 'per_example', 'klom']
  ):
    method = audits.METHODS[one.population]
    null = value.get(('retrain', one.metric))
    _same(
      value.pop((method, one.metric)) if method != 'retrain' else null,
      one.estimate,
      null.value if null else np.nan,
    )
    if one.excess is not None and np.isfinite(one.excess.value):
      _same(value.pop((method, f'excess_{one.metric}')), one.excess, 0.0)
  assert {method for method, _ in value} == {'retrain'}
  html = (out / 'report.html').read_text()
  assert 'U-LiRA' in html and 'complementary pairs' in html
  for name in ('roc', 'trade_off', 'log_odds', 'vulnerability'):
    assert (out / 'plots' / f'{name}.png').stat().st_size > 1000
  data = _scores(path)
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


def test_the_terminal_shows_one_row_per_attack_and_the_command_runs(tmp_path):
  path, out = write(tmp_path), tmp_path / 'with blank'
  arguments = ('--attacks=loss,ulira', '--fprs=0.1')
  done = call(f'--scores={path}', f'--out={out}', *arguments)
  assert done.returncode == 0, done.stderr
  lines = [x for x in done.stdout.splitlines() if not x.startswith('attack:')]
  start = next(i for i, x in enumerate(lines) if x.startswith('Attack '))
  titles = ('Loss attack', 'U-LiRA')
  assert [sum(x.startswith(t) for x in lines) for t in titles] == [1, 1]
  assert start < 4 and len(lines) < 30
  first = 'Forgotten against never-seen examples: Unlearned, 2 of 2 attacks '
  assert lines[0].startswith(f'{first}find more than on retrained models')
  first = (out / 'results.csv').read_bytes()
  facts = json.loads((out / 'results.json').read_text())
  words = shlex.split(facts['command'])
  assert words[:3] == ['python', '-m', 'jaxmu.attack']
  assert set(words[3:]) == {f'--scores={path}', f'--out={out}', *arguments}
  (out / 'results.csv').unlink()
  attack.main(words[3:])
  assert (out / 'results.csv').read_bytes() == first


def test_failed_models_are_said(tmp_path):
  failed = np.zeros(32, bool)
  failed[:5] = True
  path = write(tmp_path, failed=failed, retrained_failed=~np.zeros(32, bool))
  report = audits.of_scores(
    audits.read_scores(path), 'x', ['loss'], (0.1,)
  ).report()
  assert report.failed == {'unlearned': (5, 32), 'retrain': (32, 32)}
  text = ' '.join([*report.warnings, *report.findings])
  assert '5 of 32 models failed' in text and 'all 32 models failed' in text
  value = {(row.method, row.metric): row.value for row in report.rows}
  assert np.isfinite(value['unlearned', 'loss_auc'])
  assert np.isnan(value['retrain', 'loss_auc'])
  assert ('unlearned', 'excess_loss_auc') not in value


CONSTANT = np.zeros((8, 40))
EXTREME = np.where(np.arange(40) % 2, 3e38, -3e38) * np.ones((8, 1))


@pytest.mark.parametrize(
  'scores_of',
  [
    pytest.param(CONSTANT, id='constant'),
    pytest.param(EXTREME, id='extreme'),
    pytest.param(EXTREME * 1e-38 * 1e300, id='beyond float32'),
  ],
)
def test_no_value_of_scores_ends_a_report(tmp_path, scores_of):
  """Four splits in two pairs, as a small job exports them."""
  state, split = populations.states(np.random.default_rng(0), 4, 2, 40)
  arrays = {
    'log_odds': scores_of,
    'retrained_log_odds': scores_of,
    'original_log_odds': scores_of,
    'state': state,
    'split': split,
  }
  audit = audits.of_scores(arrays, 'x', None, (0.1,), costly=True)
  report = audit.report()
  audit.save(tmp_path, report)
  tables.show_attacks(report.rows)
  shown = {glossary.attack_of(row.metric) for row in report.rows}
  data = scores.from_arrays(arrays)
  assert shown == set(registry.possible_attacks(data))


def test_errors_end_before_any_work(tmp_path):
  good = write(tmp_path)
  text = tmp_path / 'text.npz'
  text.write_text('not arrays')
  pickled = tmp_path / 'pickled.npz'
  np.savez(pickled, log_odds=np.array([{}], object))
  array = tmp_path / 'array.npy'
  np.save(array, np.zeros((4, 3)))
  cut = tmp_path / 'cut.npz'
  cut.write_bytes(good.read_bytes()[:-200])
  blocked = tmp_path / 'file'
  blocked.write_text('')
  read = audits.read_scores
  cases = [
    (read, str(tmp_path / 'none.npz'), 'no file'),
    (read, str(text), 'text.npz cannot be read'),
    (read, str(pickled), 'holds Python objects'),
    (read, str(array), r'is one array: write several with np.savez'),
    (read, str(cut), 'it is damaged'),
    (
      lambda out: files.writable_folder(out, '--out'),
      blocked / 'out',
      '--out=',
    ),
    (attack.parse_fprs, ['0.1', '10'], "'10'"),
    (attack.parse_fprs, ['ten'], "'ten'"),
    *((attack.parse_gb, text, '--max_gb') for text in ('0', 'inf', 'nan', 'x')),
  ]
  for function, argument, message in cases:
    with pytest.raises(ValueError, match=message):
      function(argument)
  assert attack.parse_fprs(['0.5']) == (0.5,)
  assert attack.parse_gb('0.5') == 0.5
  assert _scores(good).state.shape == (32, 88)
  broken = write(tmp_path, state=np.zeros((2, 2)))
  with pytest.raises(ValueError, match=r'scores\.npz: state is float64'):
    jaxmu.audit(broken)


def test_a_small_file_that_unpacks_to_much_needs_a_flag(tmp_path):
  """What is no larger than the file itself needs none."""
  arrays = test_suite.make_arrays()
  stored, packed = tmp_path / 'stored.npz', tmp_path / 'packed.npz'
  np.savez(stored, **arrays)
  np.savez_compressed(packed, **arrays)
  assert audits.read_scores(stored, most=1e3).keys() == arrays.keys()
  assert audits.read_scores(packed, most=1e7).keys() == arrays.keys()
  with pytest.raises(ValueError, match=r'unpacks to .*1e-06 GB.*--max_gb'):
    audits.read_scores(packed, most=1e3)
  out = f'--out={tmp_path / "out"}'
  with pytest.raises(SystemExit, match='more than 1e-06 GB'):
    attack.main([f'--scores={packed}', out, '--max_gb=1e-6'])
  chosen = attack._parser().parse_args(['--scores=a', out, '--max_gb=64'])
  assert attack.command(chosen).endswith('--max_gb=64')


def test_headers_that_are_no_header_are_refused(tmp_path):
  """NumPy parses them as Python, which raises errors of many types."""
  path, wrong = tmp_path / 'x.npz', []
  for text in ('(' * 5000, '3', "{'descr'", '__import__("os")', '\\', ''):
    header = text.encode().ljust(118) + b'\n'
    size = len(header).to_bytes(2, 'little')
    with zipfile.ZipFile(path, 'w') as archive:
      archive.writestr('state.npy', b'\x93NUMPY\x01\x00' + size + header)
    try:
      audits.read_scores(path)
      wrong.append(text)
    except ValueError as error:
      if 'x.npz cannot be read' not in str(error) or '\n' in str(error):
        wrong.append((text, error))
  assert not wrong


def test_arrays_of_one_name_are_refused(tmp_path):
  path = tmp_path / 'twice.npz'
  np.savez(path, state=np.zeros(3))
  content = io.BytesIO()
  np.save(content, np.ones(3))
  with zipfile.ZipFile(path, 'a') as archive, warnings.catch_warnings():
    warnings.simplefilter('ignore')
    archive.writestr('state.npy', content.getvalue())
  with pytest.raises(ValueError, match='holds state.npy twice'):
    audits.read_scores(path)


def test_a_refusal_is_one_line_and_an_exit_code(tmp_path):
  path = write(tmp_path)
  words = [f'--scores={path}', f'--out={tmp_path / "out"}']
  wrong = []
  for argv, expected in (
    ([*words, '--attacks=magic'], 'unknown attack'),
    ([*words, '--attacks=ULIRA'], "did you mean 'ulira'"),
    ([*words, '--fprs=2'], "--fprs has '2'"),
    ([*words, '--atacks=loss'], "did you mean '--attacks'"),
    (words[1:], '--scores'),
    ([words[0]], '--out'),
    ([words[1], f'--scores={tmp_path}/none.npz'], 'none.npz'),
  ):
    with pytest.raises(SystemExit) as caught:
      attack.main(argv)
    text = str(caught.value.code)
    if not text.startswith('error: ') or '\n' in text or expected not in text:
      wrong.append((argv, text))
  assert not wrong
  done = call(*words, '--attacks=magic')
  assert done.returncode == 1 and len(done.stderr.splitlines()) == 1


def test_an_attack_that_raises_is_named_with_its_error_and_file(tmp_path):
  path = tmp_path / 'fragile.py'
  path.write_text(
    'from jaxmu.attacks import single_model\n'
    'import dataclasses\n'
    'def report(*arguments):\n'
    '  return {}[3]\n'
    'ATTACK = dataclasses.replace(\n'
    "  single_model.LOSS, name='fragile', report=report)\n"
  )
  arrays = test_suite.make_arrays()
  audit = audits.of_scores(arrays, 'x', [str(path), 'loss'], (0.1,))
  assert audit.missing['unlearned', 'fragile_auc'] == (
    'KeyError: 3 (fragile.py, line 4)'
  )
  assert any('fragile.py, line 4' in line for line in audit.warnings)
  assert np.isfinite(audit['unlearned', 'loss_auc'].value)


def test_refused_and_pooled_numbers_are_explained():
  arrays = test_suite.make_arrays()
  audit = audits.of_scores(arrays, 'x', ['ulira'], (0.0001, 0.01))
  text = '\n'.join(audit.warnings)
  assert 'needs 100000' in text and 'one threshold for all' in text


class _Tensor(np.ndarray):
  """As much of a tensor of PyTorch as the page uses."""

  float = cpu = lambda self: self

  def numpy(self):
    return np.asarray(self, np.float32)


def test_the_page_on_attacks_shows_code_that_runs(
  capsys, tmp_path, monkeypatch
):
  page = pathlib.Path(__file__).parent.parent / 'docs' / 'attacks.md'
  blocks = re.findall(r'```python\n(.*?)```', page.read_text(), re.DOTALL)
  assert len(blocks) == 4
  monkeypatch.chdir(tmp_path)
  # The first takes PyTorch and outputs of the reader's models for granted.
  torch = types.ModuleType('torch')
  torch.Tensor = _Tensor  # SciPy looks for it
  torch.stack = lambda parts: np.stack(parts).view(_Tensor)
  given = test_suite.make_arrays()
  with monkeypatch.context() as patch:
    patch.setitem(sys.modules, 'torch', torch)
    exec(blocks[0], {'all_logits': list(given['logits']), **given})
  assert jaxmu.audit('file.npz', attacks=['loss']).rows
  for block in blocks[1:]:
    exec(block, {})
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
  audit = audits.of_scores(
    test_suite.make_arrays(), 'x', None, (0.01,), costly=True
  )
  assert not glossary.missing(row.metric for row in audit.rows)
