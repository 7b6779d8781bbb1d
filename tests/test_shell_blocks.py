"""Every command in the documents is one that the programs accept."""

import pathlib
import re
import shlex
from collections.abc import Callable

import numpy as np
import pytest

import jaxmu.sweep as sweep
import jaxmu.unlearn as unlearn
from jaxmu import attack, cli, main, prepare, rank, reproduce, store
from jaxmu.cli import arguments
from jaxmu.study import settings
from jaxmu.sweeps import design
from tests import test_docs

ROOT = test_docs.ROOT
MODULES = {one.module: name for name, one in cli.COMMANDS.items()}


def commands(page: str) -> list[list[str]]:
  """Return the commands of this project in the code blocks of a page."""
  text = (ROOT / page).read_text()
  fenced = re.findall(r'^```\w*\n(.*?)^```$', text, re.M | re.S)
  plain = re.sub(r'^```.*?^```$', '', text, flags=re.M | re.S)
  indented = re.findall(r'(?:^    .*\n)+', plain, re.M)
  found = []
  for block in [*fenced, *indented]:
    for line in block.replace('\\\n', ' ').splitlines():
      # Optional words of a synopsis are in brackets.
      line = re.sub(r'\[(--\S+)\]', r'\1', line)
      for part in line.split('&&'):
        words = _words(part)
        if words:
          found.append(words)
  return found


def _words(part: str) -> list[str]:
  """Return the name of a command and its arguments; nothing for others."""
  if not re.match(r'\s*(python -m jaxmu\b|jaxmu )', part):
    return []
  words = shlex.split(part, comments=True)
  if words[0] == 'jaxmu':
    return words[1:]
  module, *rest = words[2:]
  return rest if module == 'jaxmu' else [MODULES[module], *rest]


def _job(argv: list[str]) -> None:
  config = arguments.read(argv, ('for', 'quick')).config
  if config['train'] != 'tuned':  # what a search before it has written
    settings.from_config(config)


def _search(argv: list[str]) -> None:
  _job([one for one in argv if one != '--training'])


def _prepare(argv: list[str]) -> None:
  chosen = prepare._parser().parse_args(argv)
  prepare._expand_paths(chosen)
  prepare._check_flags(chosen)


PARSERS: dict[str, Callable[[list[str]], object]] = {
  'run': _job,
  'search': _search,
  'sweep': lambda argv: design.from_config(sweep.read(argv).config),
  'store': store.read,
  'audit': lambda argv: attack._parser().parse_args(argv),
  'rank': lambda argv: rank._parser().parse_args(argv),
  'prepare': _prepare,
  'unlearn': unlearn.parse,
  'reproduce': reproduce.read,
}

# Files that documents let the reader write, and what stands for them here.
EXTRAS = ROOT / 'examples' / 'jaxmu_extras' / 'jaxmu_extras'
OF_THE_READER = {
  'my_method.py': EXTRAS / 'head_reset.py',
  'my_net.py': EXTRAS / 'small_net.py',
}
# Names that the package of examples brings, once it is installed.
INSTALLED = 'examples/jaxmu_extras/README.md'


@pytest.fixture(name='folder')
def _folder(tmp_path, monkeypatch) -> pathlib.Path:
  monkeypatch.chdir(tmp_path)
  for name, path in OF_THE_READER.items():
    text = path.read_text()
    if name == 'my_net.py':
      text += '\n\nNet = SmallNet\n'
    (tmp_path / name).write_text(text)
  monkeypatch.setenv('JAXMU_DATA_DIR', str(tmp_path / 'data'))
  monkeypatch.setenv('JAXMU_CACHE_DIR', str(tmp_path / 'cache'))
  (tmp_path / 'data' / 'pets').mkdir(parents=True)
  for part, size in (('train', 64), ('test', 16)):
    image = np.random.default_rng(0).integers(0, 256, (size, 8, 8, 3), np.uint8)
    np.savez(
      tmp_path / 'data' / 'pets' / f'{part}.npz',
      image=image,
      label=np.arange(size) % 2,
    )
  return tmp_path


def test_commands_are_found():
  found = [one for page in test_docs.every_page() for one in commands(page)]
  assert len(found) > 50
  assert {name for name, *_ in found} == set(PARSERS)


def test_every_command_is_accepted(folder):
  wrong = []
  for page in test_docs.every_page():
    for name, *argv in commands(page):
      if page == INSTALLED:
        continue
      try:
        PARSERS[name](argv)
      except (ValueError, OSError, SystemExit) as error:
        wrong.append((page, shlex.join([name, *argv]), str(error)))
  assert not wrong


@pytest.mark.slow
def test_every_job_on_the_digits_would_run(folder, monkeypatch, capsys):
  """Up to the first step of training."""
  monkeypatch.setattr(main, 'set_up_jax', lambda config: None)
  wrong, count = [], 0
  for page in test_docs.every_page():
    for name, *argv in commands(page):
      if name != 'run' or page == INSTALLED:
        continue
      config = arguments.read(argv, ('for', 'quick')).config
      elsewhere = any(one.startswith('--for') for one in argv)
      needs = str(config['splits']['forget']).startswith(('most', 'least'))
      tuned = any(one.endswith('=tuned') for one in argv)
      if config['data']['name'] != 'digits' or elsewhere or needs or tuned:
        continue
      count += 1
      plan = [one for one in argv if not one.startswith(('--plan', '--quick'))]
      try:
        main.main([*plan, '--plan', '--quick'])
      except SystemExit as error:
        wrong.append((page, argv, str(error)))
  assert count > 5
  assert not wrong
