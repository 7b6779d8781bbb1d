"""The commands of docs/sweep.md are accepted, and its fields are all there."""

import pathlib
import re
import shlex

import pytest

import jaxmu.sweep as command
from jaxmu import store
from jaxmu.sweeps import design, graph

PAGE = pathlib.Path(__file__).parents[2] / 'docs' / 'sweep.md'
TEXT = PAGE.read_text()
LINES = re.findall(r'^    (\S.*)$', TEXT, re.M)


@pytest.mark.parametrize('line', LINES)
def test_commands_of_the_page_are_accepted(line):
  words = shlex.split(line, comments=True)
  if words[:3] == ['python', '-m', 'jaxmu.store']:
    action, folder, _ = store.read(words[3:])
    assert action in store.ACTIONS and folder == 'WORKDIR'
    return
  if words[:3] == ['python', '-m', 'jaxmu.rank']:
    assert words[3:] == ['WORKDIR']
    return
  assert words[:3] == ['python', '-m', 'jaxmu.sweep']
  sweep = design.from_config(command.read(words[3:]).config)
  assert len(graph.build(sweep))


def test_the_page_has_every_field_and_scale():
  for name in design.FIELDS:
    assert f'`{name}`' in TEXT or f'`{name}.FIELD`' in TEXT
  for scale in design.SCALES[1:]:
    assert f'`deep_unlearn:{scale}`' in TEXT
