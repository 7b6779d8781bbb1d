"""The non-default values of options whose default is a quirk of the reference.

The defaults themselves are compared with recorded runs in tests/golden.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmu import hparams as hp
from jaxmu import methods
from jaxmu.method import Sizes
from jaxmu.methods import euk, prmq, rni, salun
from jaxmu.methods.parts import forward, training, weights
from jaxmu.models import pytorch_names
from jaxmu.testing import tiny_problem
from tests.methods import small


@pytest.mark.parametrize(
  ('name', 'values'),
  [
    ('bt', {'num_epochs': 1, 'learning_rate': 1e-3, 'noisy_arch': 'same'}),
    ('kde', {'num_epochs': 1, 'retain_num_epochs': 1}),
    ('prmq', {'num_epochs': 1.0}),
    ('scrub', {'num_epochs': 1, 'num_ascents': 1, 'learning_rate': 0.1}),
  ],
)
def test_cached_and_repeated_teachers_are_equal(name, values):
  cached, _ = small.run(name, **values)
  asked, _ = small.run(name, **values, cache_teacher=False)
  small.assert_close(cached, asked, 2e-3)


@pytest.mark.parametrize('name', ['neggrad_plus', 'cfk', 'euk'])
def test_batch_statistics_move_in_training_mode_only(name):
  start = small.problem().start['batch_stats']
  frozen, _ = small.run(name, num_epochs=1)
  assert small.same(frozen['batch_stats'], start)
  moved, infos = small.run(name, num_epochs=1, bn_mode='train')
  assert not small.same(moved['batch_stats'], start)
  assert infos[0]['loss'].shape == (3,)  # the tail is a step of its own


def test_euk_resets_the_statistics_of_what_it_retrains():
  _, state = small.state('euk', num_blocks=1, bn_mode='train')
  stats = state.variables['batch_stats']
  np.testing.assert_array_equal(stats['bn2']['mean'], 0)
  np.testing.assert_array_equal(stats['bn2']['var'], 1)
  on = {'bn1': {'scale': jnp.zeros(())}, 'bn2': {'scale': jnp.ones(())}}
  before = {k: {'mean': jnp.ones(2), 'var': 3 * jnp.ones(2)} for k in on}
  reset = euk._reset(before, on)
  np.testing.assert_array_equal(reset['bn1']['var'], 3)
  np.testing.assert_array_equal(reset['bn2']['var'], 1)


def test_salun_sums_gradients_once_or_again_after_each_batch():
  problem, hparams = small.problem(), small.hparams('salun')
  once = salun.saliency(
    hparams.replace(mask_grad='sum'), small.draws(), problem
  )
  again = salun.saliency(hparams, small.draws(), problem)
  order = small.draws().permutation('forget', 10)
  index = problem.split.forget[order]

  def mean_gradient(index):
    def loss(params):
      variables = {**problem.start, 'params': params}
      images = forward.clean_images(problem.task, index, jnp.float32)
      logits = forward.eval_logits(problem.task, variables, images)
      label = problem.task.dataset.label[index]
      log_p = jax.nn.log_softmax(logits)
      return jnp.mean(log_p[jnp.arange(len(index)), label])

    return jax.grad(loss)(problem.start['params'])

  first, second = mean_gradient(index[:8]), mean_gradient(index[8:])
  add = jax.tree.map
  small.assert_close(once, add(lambda a, b: a + b, first, second), 1e-4)
  small.assert_close(again, add(lambda a, b: 2 * a + b, first, second), 1e-4)


def test_salun_trains_what_the_mask_selects():
  found, _ = small.run('salun', mask_fraction=0.3, num_epochs=1)
  prepared, state = small.state('salun', mask_fraction=0.3)
  start = small.problem().start['params']
  total = sum(leaf.size for leaf in jax.tree.leaves(start))
  chosen = sum(float(leaf.sum()) for leaf in jax.tree.leaves(state.mask))
  assert chosen == int(prepared.count) == int(total * 0.3)
  still = jax.tree.map(
    lambda new, old, on: np.array_equal(new[on == 0], old[on == 0]),
    found['params'],
    start,
    state.mask,
  )
  assert all(jax.tree.leaves(still))


def test_labels_of_the_reference_are_the_same_every_epoch():
  problem = small.problem()

  def labels(epoch, source):
    place = small.draws().at('epoch', epoch)
    full, tail = training.relabelled_batches(problem, place, 8, source)
    index, label = (
      np.concatenate([a.reshape(-1), b])
      for a, b in zip(full, tail, strict=True)
    )
    forgotten = np.isin(index, problem.split.forget)
    true = np.asarray(problem.task.dataset.label)[index]
    np.testing.assert_array_equal(label[~forgotten], true[~forgotten])
    return label[forgotten]

  expected = np.random.RandomState(123).randint(0, tiny_problem.CLASSES, 10)
  for epoch in range(2):
    np.testing.assert_array_equal(labels(epoch, 'randomstate123'), expected)
  assert not np.array_equal(labels(0, 'key'), labels(1, 'key'))


def test_cfw_confuses_the_stem_or_every_convolution():
  start = small.problem().start['params']
  _, stem = small.state('cfw', first_noise=0.5)
  _, every = small.state('cfw', first_noise=0.5, confuse_scope='all_conv')
  for path, leaf in weights.by_path(start).items():
    one = weights.by_path(stem.variables['params'])[path]
    both = weights.by_path(every.variables['params'])[path]
    assert np.array_equal(one, leaf) == (path != 'conv1/kernel')
    assert np.array_equal(both, leaf) == (leaf.ndim != 4)


@pytest.mark.parametrize(
  ('values', 'steps'),
  [
    ({}, 8),  # floor(3 x 2.5) and one more
    ({'extra_step': False}, 7),
    ({'epochs_cast_int': True}, 7),
    ({'epochs_cast_int': True, 'extra_step': False}, 6),
  ],
)
def test_prmq_counts_its_steps(values, steps):
  hparams = small.hparams('prmq', num_epochs=2.5, **values)
  prepared = prmq.prepare(hparams, small.problem())
  assert int(prepared.num_steps) == steps
  assert int(prepared.num_passes) == -(-steps // 3)


def test_prmq_stops_in_the_middle_of_a_pass():
  values = {'learning_rate': 0.1, 'epochs_cast_int': False}
  whole, infos = small.run('prmq', num_epochs=1.0, extra_step=False, **values)
  more, _ = small.run('prmq', num_epochs=1.0, **values)
  cut, _ = small.run('prmq', num_epochs=0.34, extra_step=False, **values)
  assert len(infos) == 1
  assert not small.same(whole, more) and not small.same(whole, cut)
  rounded = jax.tree.map(lambda x: x.astype(jnp.float16), whole)
  small.assert_close(
    whole, jax.tree.map(lambda x: x.astype(jnp.float32), rounded), 0.0
  )


def test_rni_repeats_the_choices_of_the_reference():
  # 28 tensors as in ResNet-18; the first permutation is a published number.
  names = [f'{i:02d}.weight' for i in range(28)] + ['bn1.weight']
  trained, noisy = rni.choices(names, num_coarse=2, quiet=1, num_noisy=6)
  first = [24, 5, 7, 8, 25, 11, 20, 21, 12]
  np.testing.assert_array_equal(
    np.flatnonzero(trained[0]), sorted([*first, 28])
  )
  assert trained[2:].all() and not noisy[[0, 2]].any()
  assert not noisy[1][first].any()  # what was trained before gets no noise
  assert 0 < noisy[1].sum() <= 6 and (trained[1] >= noisy[1]).all()


def test_rni_trains_the_chosen_alone():
  names = {'num_epochs': 1, 'fine_num_epochs': 0, 'reset_num_epochs': 1}
  found, _ = small.run('rni', **names, learning_rate=0.1)
  prepared, state = small.state('rni', **names)
  tensors = pytorch_names.parameters(small.problem().task.model)
  before = weights.by_path(state.variables['params'])
  after = weights.by_path(found['params'])
  for tensor, on in zip(tensors, prepared.trained[0], strict=True):
    still = np.array_equal(before[tensor.path], after[tensor.path])
    assert still != on, tensor.path


def test_cost_of_prmq_counts_the_steps_that_are_taken():
  sizes = Sizes(retain=70, forget=21, val=24, classes=10)  # 5 batches of 16
  settings = hp.defaults(prmq.Hparams) | {'batch_size': 16, 'num_epochs': 2.3}
  cost = methods.get('prmq').card.cost
  assert cost(settings, sizes) == 4 * 16 * 12
  assert cost({**settings, 'epochs_cast_int': True}, sizes) == 4 * 16 * 11
