"""The example package joins jaxmu's tables, installed and by file path."""

import ast
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

import jaxmu

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / 'examples' / 'jaxmu_extras'
NAMES = {
  'method': 'head_reset',
  'attack': 'margin_rank',
  'metric': 'forget_confidence',
  'model': 'small_net',
}
FILES = {
  kind: str(PACKAGE / 'jaxmu_extras' / f'{name}.py')
  for kind, name in NAMES.items()
}
# Few models, each trained for one epoch.
SMALL = {
  'splits.num_splits': 8,
  'splits.forget_sets': 1,
  'splits.pool': 400,
  'train.num_epochs': 1,
  'unlearn.hparams.num_epochs': 1,
  'timing.repeats': 1,
  'run.devices': 2,
  'run.chunk': 1,
}

# One process, so that jax is imported once. The job comes first: it sets the
# number of devices, which cannot be changed later.
_SCRIPT = """
import json, sys
import jaxmu
from jaxmu import main, testing

names, job = json.loads(sys.argv[1]), sys.argv[2:]
for kind, name in names.items():
  registry = getattr(jaxmu, f'{kind.upper()}S')
  assert registry.installed() == [name]
  rows = [line.split() for line in repr(registry).splitlines()]
  assert [name, '(installed', 'plug-in)'] in rows
  assert registry.resolve(name) is not None
  assert len(registry.fingerprint(name)) == 64
main.main(job)
testing.check_method(names['method'])
testing.check_attack(names['attack'])
testing.check_metric(names['metric'])
testing.check_model(names['model'], image_shape=(16, 16, 3))
print('all checked')
"""


def _assert_one_table(folder: pathlib.Path):
  """Check the numbers and names of a job with all four plug-ins."""
  job = jaxmu.load(folder)
  found = {(row.method, row.metric) for row in job.rows}
  for method in ('head_reset', 'ft', 'retrain'):
    for metric in ('ra', 'forget_log_odds', 'ulira_auc', 'margin_rank_auc'):
      assert (method, metric) in found, (method, metric)
  assert ('head_reset', 'excess_margin_rank_auc') in found
  assert 0 <= job['head_reset', 'margin_rank_auc'].value <= 1
  page = (folder / 'report.html').read_text()
  for words in (
    'Head reset',
    '>HR<',
    '>FT<',
    'Margin rank: AUC',
    'ranking the models by their log-odds of an example',
    'Log-odds of forgotten examples',
    'an example of jaxmu',
  ):
    assert words in page, words


def _python(
  *arguments: str,
  path: pathlib.Path,
  cwd: pathlib.Path,
  environment: dict[str, str],
) -> str:
  paths = os.pathsep.join([str(path), environment['PYTHONPATH']])
  done = subprocess.run(
    [sys.executable, *arguments],
    env={**environment, 'PYTHONPATH': paths},
    cwd=cwd,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )
  assert not done.returncode, done.stdout
  return done.stdout


@pytest.mark.slow
def test_an_installed_package_is_known_by_its_names(tmp_path, job_environment):
  installed, folder = tmp_path / 'installed', tmp_path / 'job'
  _python(
    *('-m', 'pip', 'install', '--quiet', '--no-deps', '--no-build-isolation'),
    *('--disable-pip-version-check', '--target', str(installed)),
    str(shutil.copytree(PACKAGE, tmp_path / 'source')),
    path=installed,
    cwd=tmp_path,
    environment=job_environment,
  )
  fields = {
    **SMALL,
    'compare.ft.num_epochs': 1,
    'metrics': NAMES['metric'],
    'attack.which': f'ulira,{NAMES["attack"]}',
  }
  printed = _python(
    *('-c', _SCRIPT, json.dumps(NAMES)),
    f'--config=unlearn:{NAMES["method"]},{NAMES["model"]},digits',
    '--compare=ft',
    f'--workdir={folder}',
    *(f'--config.{name}={value}' for name, value in fields.items()),
    path=installed,
    cwd=tmp_path,
    environment=job_environment,
  )
  assert 'all checked' in printed
  assert re.search(r'^HR  .*\d', printed, re.M)
  assert re.search(r'^FT  .*\d', printed, re.M)
  _assert_one_table(folder)


@pytest.mark.slow
def test_files_work_without_an_installation(tmp_path):
  jaxmu.run(
    FILES['method'],
    model=FILES['model'],
    compare=['ft'],
    workdir=tmp_path / 'job',
    overrides={
      **SMALL,
      'compare.ft.num_epochs': 1,
      'metrics': (FILES['metric'],),
      'attack.which': f'ulira,{FILES["attack"]}',
    },
  )
  _assert_one_table(tmp_path / 'job')


def _lines_of_code(path: pathlib.Path) -> int:
  """Count lines that are not blank, a comment or part of a docstring."""
  text = path.read_text()
  words = set()
  for node in ast.walk(ast.parse(text)):
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
      words |= set(range(node.lineno, (node.end_lineno or 0) + 1))
  return sum(
    bool(line.strip()) and not line.strip().startswith('#')
    for number, line in enumerate(text.splitlines(), 1)
    if number not in words
  )


def test_the_readme_counts_the_lines_of_each_file():
  rows = re.findall(
    r'^\| `(\S+)` \| .* \| (\d+) \|$', (PACKAGE / 'README.md').read_text(), re.M
  )
  assert len(rows) == 4
  for path, lines in rows:
    assert _lines_of_code(PACKAGE / path) == int(lines), path
