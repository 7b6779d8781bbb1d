"""The commands of docs/search.md are accepted; its Python runs elsewhere."""

import pathlib
import re
import shlex

import pytest

from jaxmu import hparams as hp
from jaxmu.cli import arguments
from jaxmu.study import settings as settings_lib
from jaxmu.tuning import opening

PAGE = pathlib.Path(__file__).parents[2] / 'docs' / 'search.md'
TEXT = PAGE.read_text()
LINES = re.findall(r'^    (\S.*)$', re.sub(r'(?s)^```.*?^```', '', TEXT), re.M)


def _arguments(line: str) -> list[str]:
  words = shlex.split(line, comments=True)
  if words[0] == 'python':
    return words[3:]
  return ['--config=msg_resnet', *words]


@pytest.mark.parametrize('line', LINES)
def test_commands_of_the_page_are_accepted(line, tmp_path):
  given = [
    '--config.search.training=true' if one == '--training' else one
    for one in _arguments(line)
    if not one.endswith('=tuned')
  ]
  request = arguments.read([*given, f'--workdir={tmp_path}'])
  settings = settings_lib.from_config(request.config)
  for one in opening.targets(settings):
    space = opening.method_space(settings, one)
    changed = [word for word in given if 'search.space.' in word]
    changed += [word for word in given if 'search.grid.' in word]
    for word in changed:
      name = word.partition('=')[0].rpartition('.')[2]
      assert name in {**space.searched, **space.fixed}
      held = word == '--config.search.space.weight_decay=5e-4'
      assert (name in space.fixed) == held


def test_the_page_has_every_field():
  for name in settings_lib.Search.__dataclass_fields__:
    assert f'| `{name}` |' in TEXT


def test_limits_of_the_page_are_those_of_the_program():
  from jaxmu.tuning import spaces

  assert f'at most {hp.MOST_MEMBERS:,} models' in TEXT
  assert f'at most {spaces.MOST_TRIALS:,}\ncombinations' in TEXT
