"""The platform can be another one than this machine's."""

import importlib.util
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmu
import jaxmu.search as search_command
from jaxmu import hparams as hp
from jaxmu import main, methods, platforms, population, precision
from jaxmu.models.conv import choose
from jaxmu.testing import tiny_problem


def test_the_platform_is_this_machines_unless_another_is_the_target():
  names = [platforms.name()]
  with platforms.target('tpu'):
    names.append(platforms.name())
    with platforms.target('gpu'):
      names.append(platforms.name())
    names.append(platforms.name())
  names.append(platforms.name())
  here = jax.default_backend()
  assert names == [here, 'tpu', 'gpu', 'tpu', here]


def test_the_target_decides_formulation_and_precision():
  layer = (256, 32, 32, 3), (7, 7, 3, 64), 2, 3, jnp.dtype('bfloat16')
  found = {}
  for target in ('cpu', 'tpu'):
    with platforms.target(target), precision.products('float32'):
      (dot,) = jax.make_jaxpr(jnp.dot)(jnp.ones((2, 2)), jnp.ones((2, 2))).eqns
      found[target] = choose.choose(*layer), str(dot.params['precision'])
  assert found['cpu'] == ('blocks', 'None')
  assert found['tpu'][0] == 'library' and 'HIGHEST' in found['tpu'][1]


def test_caches_keep_platforms_apart():
  traced = []

  @jax.jit
  def program(x):
    traced.append(platforms.name())
    return x + (0 if platforms.is_cpu() else 1)

  for target, expected in [('cpu', 0), ('tpu', 1), ('cpu', 0), ('tpu', 1)]:
    with platforms.target(target):
      assert program(0) == expected
  assert traced == ['cpu', 'tpu']


def _shapes(tree):
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def _population(size):
  method = methods.get('ft')
  values = {**hp.defaults(method.Hparams), 'num_epochs': 1, 'batch_size': 8}
  return method, (
    [hp.from_config(method.Hparams, values)] * size,
    tiny_problem.keys(size),
    tiny_problem.splits(size),
    tiny_problem.originals(size),
  )


def test_programs_lowered_from_shapes_are_those_that_run():
  layout = population.Layout(2, 1)
  method, (hparams, *arrays) = _population(3)
  task = tiny_problem.task()
  trainer = population.Trainer(method, task, layout)
  loaded = trainer.load(hparams, *arrays)
  bare = task.replace(dataset=_shapes(task.dataset))
  lowered = population.Trainer(method, bare, layout).lower(
    hparams, *_shapes(arrays)
  )
  assert lowered.members == _laid_out(loaded.members)
  init, epoch = (one.compile() for one in lowered.programs)
  active = np.ones(4, bool)
  for programs in [(loaded.init, loaded.epoch), (init, epoch)]:
    state = programs[0](trainer.task, loaded.members, None, active)
    result = programs[1](
      trainer.task, loaded.members, state, jnp.int32(0), active
    )
    if programs[0] is loaded.init:
      expected = result
  jax.tree.map(np.testing.assert_array_equal, result, expected)


def _laid_out(tree):
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree
  )


def test_predictions_are_lowered_from_shapes():
  layout = population.Layout(2, 1)
  task, models = tiny_problem.task(), tiny_problem.originals(3)
  bare = task.replace(dataset=_shapes(task.dataset))
  lowered = population.Predictor(bare, layout).lower(_shapes(models))
  padded = population.put(population.pad((models, None), layout), layout)
  scores = lowered.compile()(population.replicate(task, layout), padded)
  expected = population.Predictor(task, layout).run(models)
  np.testing.assert_array_equal(scores.log_odds[:3], expected.log_odds)


def test_a_layout_takes_given_devices():
  given = tuple(platforms.local_devices()[4:7])
  layout = population.Layout(2, 1, given)
  assert list(layout.mesh().devices) == list(given[:2])
  assert layout.halved().given == given
  with pytest.raises(ValueError, match='devices = 4; 3 are given'):
    population.Layout(4, 1, given)


def test_members_are_traced_for_the_given_devices():
  class Described:  # of a device that is not there
    platform = 'cuda'

  with population.Layout(1, 1, (Described(),)).tracing():  # type: ignore
    assert platforms.name() == 'gpu'
  here = population.Layout(1, 1)
  with platforms.target('tpu'), here.tracing():
    assert platforms.name() == 'tpu'


def test_an_unknown_machine_is_refused_with_those_there_are():
  with pytest.raises(ValueError, match="'v5f:2x2'.*'v5e:2x2'.*v4:2x2x1, h100"):
    platforms.machine('v5f:2x2')
  with pytest.raises(ValueError, match="no machine 'v5e:3x3'"):
    platforms.machine('v5e:3x3')


@pytest.mark.parametrize(
  ('name', 'extra'), [('v5e', 'jaxmu[aot]'), ('h100:8', 'jaxmu[aot-cuda]')]
)
def test_a_missing_compiler_is_named(monkeypatch, name, extra):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda package: None)
  with pytest.raises(ImportError) as raised:
    platforms.machine(name)
  assert str(raised.value).endswith(f"not installed; pip install '{extra}'")


@pytest.mark.parametrize(
  ('arguments', 'line'),
  [
    (['--for=v5e'], '--for=v5e describes a plan; add --plan'),
    (['--plan', '--for=v7e'], "no machine 'v7e'; choose from v5e:1x1, v5e:2x2"),
    (['--plan', '--for'], '--for needs a value, as --for=VALUE'),
  ],
)
def test_the_command_says_what_is_wrong(monkeypatch, tmp_path, arguments, line):
  monkeypatch.setattr(main, 'set_up_jax', lambda config: None)
  monkeypatch.setattr(jax.config, 'update', lambda name, value: None)
  monkeypatch.chdir(tmp_path)
  with pytest.raises(SystemExit) as raised:
    main.main(['--config=ft_resnet', *arguments])
  assert str(raised.value).startswith(f'error: {line}')
  assert '\n' not in str(raised.value)
  assert not list(tmp_path.iterdir())


def test_a_search_has_no_other_machines():
  with pytest.raises(SystemExit, match='unknown flag --for'):
    search_command.main(['--config=ft_resnet', '--plan', '--for=v5e'])


def test_a_platform_that_is_not_here_is_one_line(monkeypatch, tmp_path):
  command = ['--config=ft_resnet', '--config.model.name=tiny', '--plan']
  done = subprocess.run(
    [sys.executable, '-m', 'jaxmu.main', *command, f'--workdir={tmp_path}/w'],
    env={**os.environ, 'JAX_PLATFORMS': 'nowhere'},
    capture_output=True,
    text=True,
  )
  (line,) = done.stderr.splitlines()
  assert done.returncode == 1 and line.startswith(
    'error: JAX_PLATFORMS=nowhere'
  )
  assert 'set JAX_PLATFORMS=cpu' in line

  # JAX has no message where its plug-in finds no GPU.
  def no_device():
    raise AssertionError

  monkeypatch.setattr(jax, 'devices', no_device)
  before = jax.config.jax_platforms
  try:
    jax.config.update('jax_platforms', 'cuda')
    with pytest.raises(ValueError, match='=cuda cannot .*no such device'):
      jaxmu.train(jaxmu.load_data('digits'), model='tiny')
  finally:
    jax.config.update('jax_platforms', before)


def test_an_accelerator_without_its_jax_is_pointed_out(monkeypatch):
  """On a CPU by choice, nothing is said."""
  there = '/dev/nvidia[0-9]*'
  monkeypatch.setattr(
    platforms.glob, 'glob', lambda one: [one] * (one == there)
  )
  for chosen, said in ((None, "pip install 'jax[cuda13]'"), ('cpu', '')):
    monkeypatch.setattr(
      type(jax.config), 'jax_platforms', chosen, raising=False
    )
    line = platforms.unused_accelerator()
    assert said in line and bool(said) == bool(line)
  monkeypatch.setattr(type(jax.config), 'jax_platforms', None, raising=False)
  there = ''
  assert not platforms.unused_accelerator()


def test_room_for_programs_is_half_of_the_memory_maps(tmp_path):
  assert platforms.has_room_for_programs()
  assert platforms.has_room_for_programs(str(tmp_path))  # nothing is known
  for name, text in (('sys/vm/max_map_count', '100'), ('self/maps', '')):
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text(text)
  for count, room in ((49, True), (50, False)):
    (tmp_path / 'self' / 'maps').write_text('one\n' * count)
    assert platforms.has_room_for_programs(str(tmp_path)) is room
