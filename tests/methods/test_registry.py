"""The registry, its documentation, and its errors."""

import dataclasses
import pathlib
import re
import textwrap

import jax
import numpy as np
import pytest

from jaxmu import hparams as hp
from jaxmu import method as method_lib
from jaxmu import methods
from jaxmu.methods import _skeleton
from jaxmu.testing import tiny_problem
from jaxmu.types import Problem
from tests.methods import small, table


def test_the_eighteen_methods_of_the_benchmark_and_two_baselines():
  unlearning = set(methods.METHODS) - set(methods.BASELINES)
  assert len(unlearning) >= 18
  assert set(methods.BASELINES) < set(methods.METHODS)


def test_the_documented_table_is_that_of_the_registry():
  """A method may be missing from the page; no row may be out of date."""
  page = table.PAGE.read_text()
  assert table.HEAD in page
  rows = page.partition(table.HEAD)[2].partition('\n\n')[0].splitlines()
  stale = sorted(set(rows) - set(table.markdown().splitlines()))
  assert len(rows) >= 20 and not stale, (
    'renew docs/methods.md with `python -m tests.methods.table`'
  )


def test_the_code_of_the_page_runs(tmp_path, monkeypatch):
  (tmp_path / 'my_method.py').write_text(
    pathlib.Path(_skeleton.__file__).read_text()
  )
  monkeypatch.chdir(tmp_path)
  blocks = re.findall(r'```python\n(.*?)```', table.PAGE.read_text(), re.S)
  assert len(blocks) == 2
  for block in blocks:
    exec(textwrap.dedent(block), {})


def test_the_skeleton_runs():
  method = _skeleton.METHOD
  hparams = hp.from_config(
    method.Hparams, {'batch_size': 8, 'num_epochs': 1, 'learning_rate': 0.1}
  )
  problem = small.problem()
  found, infos = method_lib.run(method, hparams, small.draws(), problem)
  assert len(infos) == 1 and np.isfinite(infos[0]['loss']).all()
  assert not small.same(found, problem.start)


def test_fidelity_sets_exactly_the_named_options():
  for name, method in methods.METHODS.items():
    reference = methods.hparams_for(name)
    paper = methods.hparams_for(name, 'paper')
    assert reference == hp.defaults(method.Hparams)
    changed = {k: v for k, v in paper.items() if v != reference[k]}
    assert changed == dict(method.card.paper)
    hp.from_config(method.Hparams, paper)  # all values are valid
  assert methods.hparams_for('salun', 'paper')['mask_grad'] == 'sum'
  with pytest.raises(ValueError, match='fidelity'):
    methods.hparams_for('ft', 'exact')


def test_options_default_to_what_the_reference_does():
  expected = {
    'attn_bias_mode': 'cached',
    'bn_mode': 'eval',
    'confuse_scope': 'top_level_conv',
    'epochs_cast_int': False,
    'extra_step': True,
    'live_only': False,
    'mask_grad': 'cumulative',
    'noisy_arch': 'resnet18',
    'relabel_stream': 'randomstate123',
    'rewind': True,
    'rewind_zero': 'final',
  }
  found = set()
  for name, method in methods.METHODS.items():
    for field in hp.declared(method.Hparams):
      info = hp.meta(field)
      if not isinstance(info['valid'], tuple):
        continue
      found.add(field.name)
      assert info['default'] == info['valid'][0]  # as the table has it
      # The reference lacks the gradients of these two methods and raises.
      departs = field.name == 'attn_bias_mode' and name in ('ff', 'iu')
      default = 'live' if departs else expected[field.name]
      assert info['default'] == default, (name, field.name)
  assert found == set(expected)


def test_a_plug_in_is_named_by_file_module_or_object(tmp_path):
  file = tmp_path / 'mine.py'
  file.write_text(pathlib.Path(_skeleton.__file__).read_text())
  from_file = methods.get(str(file))
  assert from_file.name == _skeleton.METHOD.name
  assert methods.get(_skeleton) is _skeleton.METHOD
  assert methods.get(_skeleton.METHOD) is _skeleton.METHOD
  assert methods.get('jaxmu.methods._skeleton') is _skeleton.METHOD
  assert methods.hparams_for(str(file)) == methods.hparams_for(_skeleton)


@pytest.mark.parametrize(
  ('spec', 'says'),
  [
    ('salvn', "did you mean 'salun'"),
    (methods, 'has no METHOD'),
    (3, 'int is not a jaxmu.method.Method; define METHOD'),
    (_skeleton.METHOD._replace(name='ft'), "'ft' is the name of a built-in"),
    (_skeleton.METHOD._replace(name='my method'), 'give a name of letters'),
    (_skeleton.METHOD._replace(card={}), 'card is a dict'),
    (_skeleton.METHOD._replace(Hparams=dict), 'declares no hyper-parameters'),
    (_skeleton.METHOD._replace(epoch=3), 'epoch is a int; give a function'),
    (
      _skeleton.METHOD._replace(init=lambda hparams, draws: None),
      r'write init(hparams, draws, problem)',
    ),
    (
      _skeleton.METHOD._replace(
        card=dataclasses.replace(_skeleton.METHOD.card, reads=('test',))
      ),
      'name sets of retain, forget and val',
    ),
  ],
)
def test_objects_that_are_not_methods_are_refused_in_one_line(spec, says):
  with pytest.raises(ValueError) as error:
    methods.get(spec)
  assert says in str(error.value)
  assert '\n' not in str(error.value)


def test_search_spaces_lie_in_valid_ranges():
  for method in methods.METHODS.values():
    for field in hp.declared(method.Hparams):
      space, valid = (hp.meta(field)[k] for k in ('search', 'valid'))
      if isinstance(space, hp.LogUniform | hp.Uniform):
        inside = (space.low + space.high) / 2, space.high
        assert all(value in valid for value in inside), field.name
      if isinstance(space, hp.Choice):
        assert all(value in valid for value in space.values), field.name


@pytest.mark.parametrize('name', ['bt', 'fcs', 'kde', 'scrub'])
def test_temperature_zero_is_refused(name):
  cls = methods.get(name).Hparams
  with pytest.raises(ValueError, match=r'temperature = 0.*\(0, inf'):
    hp.from_config(cls, {'temperature': 0.0})


@pytest.mark.parametrize('name', ['kde', 'scrub'])
def test_a_missing_validation_set_is_refused(name):
  problem = small.problem()
  split = problem.split.replace(val=problem.split.val[:0])
  problem = problem.replace(split=split)
  with pytest.raises(ValueError, match='needs a val set'):
    method_lib.run(
      methods.get(name), small.hparams(name), small.draws(), problem
    )


class _Without:
  """A model that lists only linear layers."""

  def __init__(self, model):
    self.layers = [layer for layer in model.layers if layer.kind == 'linear']


@pytest.mark.parametrize(
  ('name', 'need'),
  [('ct', 'conv'), ('msg', 'conv'), ('cfw', 'conv'), ('rni', 'batch_norm')],
)
def test_a_model_without_the_layers_it_edits_is_refused(name, need):
  problem = small.problem()
  task = problem.task.replace(model=_Without(problem.task.model))
  problem = Problem(task, problem.split, problem.start)
  with pytest.raises(ValueError, match=f'kind {need}; the model has none'):
    method_lib.check(methods.get(name), problem)


@pytest.mark.parametrize('name', ['cfk', 'euk'])
def test_more_blocks_than_there_are_means_all_with_a_warning(name):
  with pytest.warns(UserWarning, match='the model has 1 blocks'):
    found, _ = small.run(name, num_blocks=7, num_epochs=1)
  everything, _ = small.run(name, num_blocks=1, num_epochs=1)
  assert small.same(found, everything)


def test_scrub_needs_room_for_its_snapshots():
  with pytest.raises(ValueError, match='snapshots = 2 is less than num_epochs'):
    small.state('scrub', num_epochs=3, snapshots=2)
  small.state('scrub', num_epochs=3, snapshots=2, rewind=False)


def test_shapes_are_enough_to_prepare():
  problem = small.problem()
  abstract = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype),
    (problem.split, problem.start),
  )
  abstract = Problem(tiny_problem.task(), *abstract)
  for name, method in methods.METHODS.items():
    method_lib.check(method, abstract)
    hparams = small.hparams(name)
    a = method.prepare(hparams, abstract)
    b = method.prepare(hparams, problem)
    assert small.same(a, b), name
