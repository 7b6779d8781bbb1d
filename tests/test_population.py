"""Layout, order and other members do not change a member of a population."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmu import hparams as hp
from jaxmu import layout as layout_lib
from jaxmu import platforms, population
from jaxmu.draws import Draws, derive
from jaxmu.methods import METHODS
from jaxmu.testing import tiny_problem

SIZE = 8
COLLECTIVES = (
  'all-reduce',
  'all-gather',
  'all-to-all',
  'collective-permute',
  'collective-broadcast',
  'reduce-scatter',
)
# A step that needs the host: Python called back, values sent or fetched.
HOST = ('callback', 'infeed', 'outfeed', 'send(', 'recv(', 'S(5)')
# Chunks and padding, devices, and both with more places than members.
LAYOUTS = [(1, 3), (8, 1), (8, 3)]


def _train(layout, members=None):
  """Train a convolutional network with BatchNorm; epochs differ by member."""
  members = np.arange(SIZE) if members is None else members
  method = METHODS['retrain']
  chosen = [
    hp.from_config(
      method.Hparams,
      {
        'num_epochs': 1 + m % 3,
        'learning_rate': 0.01 * (m + 1),
        'batch_size': 8,
      },
    )
    for m in members
  ]
  pick = lambda tree: jax.tree.map(lambda x: x[members], tree)  # noqa: E731
  trainer = population.Trainer(method, tiny_problem.task(), layout)
  return trainer.run(
    chosen,
    tiny_problem.keys(SIZE)[members],
    pick(tiny_problem.splits(SIZE)),
    pick(tiny_problem.originals(SIZE)),
  )


@pytest.fixture(scope='module')
def one_by_one():
  return _train(population.Layout(1, 1))


@pytest.mark.xdist_group('population')
@pytest.mark.parametrize(('devices', 'chunk'), LAYOUTS)
def test_layout_does_not_change_the_result(one_by_one, devices, chunk):
  other = _train(population.Layout(devices, chunk))
  pairs = zip(
    jax.tree.leaves(one_by_one.variables),
    jax.tree.leaves(other.variables),
    strict=True,
  )
  for a, b in pairs:
    np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4)
  np.testing.assert_array_equal(
    np.isnan(one_by_one.losses), np.isnan(other.losses)
  )


@pytest.mark.xdist_group('population')
@pytest.mark.parametrize(('devices', 'chunk'), [(1, 1), (2, 3)])
def test_states_that_replace_each_other_give_the_same_models(
  one_by_one, monkeypatch, devices, chunk
):
  monkeypatch.setattr(layout_lib, 'replaces_states', lambda: True)
  other = _train(population.Layout(devices, chunk))
  pairs = zip(
    jax.tree.leaves(one_by_one.variables),
    jax.tree.leaves(other.variables),
    strict=True,
  )
  for a, b in pairs:
    np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4)
  np.testing.assert_array_equal(
    np.isnan(one_by_one.losses), np.isnan(other.losses)
  )


@pytest.mark.parametrize(
  ('name', 'cache_teacher', 'reads'),
  [
    ('original', True, False),
    ('msg', True, False),
    ('scrub', True, False),
    ('scrub', False, True),
  ],
)
def test_starts_are_on_the_devices_only_if_an_epoch_reads_them(
  monkeypatch, name, cache_teacher, reads
):
  monkeypatch.setattr(layout_lib, 'replaces_states', lambda: True)
  method = METHODS[name]
  values = {**hp.defaults(method.Hparams), 'num_epochs': 1}
  task = tiny_problem.task().replace(cache_teacher=cache_teacher)
  trainer = population.Trainer(method, task, population.Layout(2, 1))
  lowered = trainer.lower(
    [hp.from_config(method.Hparams, values)] * 3,
    tiny_problem.keys(3),
    tiny_problem.splits(3),
    tiny_problem.originals(3),
  )
  assert (lowered.members.start is not None) == reads
  assert (lowered.start is None) == reads


@pytest.mark.xdist_group('population')
def test_other_members_and_order_do_not_change_a_member(one_by_one):
  members = np.array([5, 2, 7])
  few = _train(population.Layout(1, 1), members)
  for a, b in zip(
    jax.tree.leaves(one_by_one.variables),
    jax.tree.leaves(few.variables),
    strict=True,
  ):
    np.testing.assert_array_equal(np.asarray(a)[members], b)


@pytest.mark.parametrize(('devices', 'chunk'), LAYOUTS)
def test_draws_are_bitwise_equal_in_every_layout(devices, chunk):
  layout = population.Layout(devices, chunk)

  def draw(_, key):
    draws = Draws(key).at('epoch', 3)
    return draws.permutation('order', 50), draws.normal('noise', (7,))

  keys = population.put(population.pad(tiny_problem.keys(SIZE), layout), layout)
  mapped = jax.jit(
    lambda keys: population.map_members(draw, (), keys, layout=layout)
  )(keys)
  for member in range(SIZE):
    alone = draw((), tiny_problem.keys(SIZE)[member])
    for a, b in zip(alone, mapped, strict=True):
      np.testing.assert_array_equal(a, b[member])


@pytest.mark.xdist_group('population')
@pytest.mark.parametrize(
  ('name', 'devices', 'chunk'),
  [('retrain', 1, 2), ('scrub', 8, 1)],
)
def test_devices_work_alone_and_the_state_is_reused(name, devices, chunk):
  layout = population.Layout(devices, chunk)
  method, task = METHODS[name], tiny_problem.task()
  trainer = population.Trainer(method, task, layout)
  sizes = [n for n in hp.defaults(method.Hparams) if n.endswith('batch_size')]
  hparams = hp.from_config(
    method.Hparams, {'num_epochs': 1, **dict.fromkeys(sizes, 8)}
  )
  loaded = trainer.load(
    [hparams] * SIZE,
    tiny_problem.keys(SIZE),
    tiny_problem.splits(SIZE),
    tiny_problem.originals(SIZE),
  )
  text = loaded.epoch.as_text()
  for word in (*COLLECTIVES, *HOST):
    assert word not in text
  state = jax.eval_shape(
    trainer._init, trainer.task, loaded.members, None, np.ones(SIZE, bool)
  )
  here = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
  account = loaded.epoch.memory_analysis()
  assert account.alias_size_in_bytes == here // devices
  # Results that do not reuse the state are a few numbers per member.
  new = account.output_size_in_bytes - account.alias_size_in_bytes
  assert new < 1000 * SIZE // devices
  assert 'input_output_alias' in text


def test_contact_with_the_host_is_detected():
  layout = population.Layout(1, 2)

  def shown(_, x):
    jax.debug.callback(lambda x: None, x)
    return x

  mapped = jax.jit(
    lambda x: population.map_members(shown, (), x, layout=layout)
  )
  assert HOST[0] in mapped.lower(np.zeros(2)).compile().as_text()


def test_only_one_member_runs_when_asked(one_by_one):
  layout = population.Layout(2, 1)
  method = METHODS['retrain']
  trainer = population.Trainer(method, tiny_problem.task(), layout)
  hparams = hp.from_config(
    method.Hparams, {'num_epochs': 1, 'learning_rate': 0.01, 'batch_size': 8}
  )
  loaded = trainer.load(
    [hparams] * SIZE,
    tiny_problem.keys(SIZE),
    tiny_problem.splits(SIZE),
    tiny_problem.originals(SIZE),
  )
  alone = trainer.train(loaded, takes_part=np.arange(SIZE) == 0)
  for a, b in zip(
    jax.tree.leaves(one_by_one.variables),
    jax.tree.leaves(alone.variables),
    strict=True,
  ):
    np.testing.assert_allclose(np.asarray(a)[0], b[0], rtol=2e-3, atol=2e-4)
    assert not np.asarray(b)[1:].any()


def test_programs_make_room_for_others(monkeypatch):
  """XLA crashes where a process has no memory map left."""

  def trainer(name):
    method = METHODS[name]
    made = population.Trainer(
      method, tiny_problem.task(), population.Layout(1, 1)
    )
    hparams = hp.from_config(method.Hparams, {'num_epochs': 1})
    few = jax.tree.map(lambda x: x[:2], tiny_problem.splits(SIZE))
    starts = jax.tree.map(lambda x: x[:2], tiny_problem.originals(SIZE))
    return made, ([hparams] * 2, tiny_problem.keys(SIZE)[:2], few, starts)

  (first, given), (second, _) = trainer('retrain'), trainer('retrain')
  loaded = first.load(*given)
  second.load(*given)
  expected = first.train(loaded)
  assert first.num_programs == second.num_programs == 1
  monkeypatch.setattr(platforms, 'has_room_for_programs', lambda: False)
  third, others = trainer('ga')
  third.load(*others)
  counts = [one.num_programs for one in (first, second, third)]
  assert counts == [0, 0, 1]
  # What was loaded before can still train.
  for again in (first.train(loaded), first.train(first.load(*given))):
    jax.tree.map(
      np.testing.assert_array_equal, expected.variables, again.variables
    )


def test_failures_name_the_first_epoch():
  losses = np.array([[1, np.nan, 2], [1, 1, np.nan], [np.inf, 1, 1]])
  finite = np.array([False, True, False])
  failed = population.failure_epochs(losses, np.array([3, 2, 3]), finite)
  np.testing.assert_array_equal(failed, [1, -1, 0])
  # Losses say nothing where a method takes no epochs.
  failed = population.failure_epochs(
    np.zeros((2, 0)), np.zeros(2, int), finite[:2]
  )
  np.testing.assert_array_equal(failed, [0, -1])


def test_keys_follow_from_names():
  root = jax.random.key(0)
  paths = [('a', 1), ('a', 2), ('b', 1), (1, 'a'), ('a', 1, 0)]
  data = [jax.random.key_data(derive(root, *p)).tolist() for p in paths]
  assert len({tuple(d) for d in data}) == len(paths)


def test_layout_refuses_devices_that_are_not_there():
  with pytest.raises(ValueError, match='devices = 99'):
    population.Layout(devices=99)
  with pytest.raises(ValueError, match='chunk = 0'):
    population.Layout(chunk=0)


def test_recorded_draws_replace_made_ones():
  recorded = {'epoch/noise': jnp.arange(6.0).reshape(3, 2)}
  draws = Draws(jax.random.key(0), recorded).at('epoch', 2)
  np.testing.assert_array_equal(draws.normal('noise', (2,)), [4, 5])
  with pytest.raises(ValueError, match='one leading axis per counter'):
    draws.normal('noise', (3,))


def _addresses(array):
  return {one.data.unsafe_buffer_pointer() for one in array.addressable_shards}


@pytest.mark.xdist_group('population')
def test_devices_of_a_cpu_read_one_copy_of_the_data(tmp_path):
  image = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), np.uint8)
  np.save(tmp_path / 'image.npy', image)
  mapped = np.load(tmp_path / 'image.npy', mmap_mode='r')
  label = np.arange(40) % 10
  dataset = population.device_dataset(mapped, label)
  assert _addresses(dataset.image) == {mapped.ctypes.data}
  for one in (dataset, population.replicate(dataset, population.Layout(4, 1))):
    shared = population.replicate(one, population.Layout(8, 1))
    assert len(shared.image.addressable_shards) == 8
    assert _addresses(shared.image) == {mapped.ctypes.data}
    assert len(_addresses(shared.label)) == 1
    np.testing.assert_array_equal(shared.image, image)
    np.testing.assert_array_equal(shared.label, label)
  # Programs read it where it is.
  shared = population.replicate(dataset, population.Layout(8, 1))
  rows = population.put(np.arange(8), population.Layout(8, 1))
  program = jax.jit(
    lambda shared, rows: population.map_members(
      lambda shared, row: shared.image[row],
      shared,
      rows,
      layout=population.Layout(8, 1),
    )
  )
  compiled = program.lower(shared, rows).compile()
  assert compiled.memory_analysis().temp_size_in_bytes < mapped.nbytes / 2
  np.testing.assert_array_equal(compiled(shared, rows), image[:8])


def test_a_data_set_that_its_owner_may_change_is_copied():
  image = np.zeros((4, 64, 64, 3), np.uint8)
  dataset = population.device_dataset(image, np.arange(4))
  image[:] = 1
  assert not np.any(dataset.image)
