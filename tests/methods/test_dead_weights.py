"""Weights that only meet padding: counted, and excluded on request."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmu import methods, models
from jaxmu.methods import msg, prmq, salun
from jaxmu.methods.parts import weights
from jaxmu.models import layers
from jaxmu.testing import tiny_problem
from jaxmu.types import Problem
from tests.methods import small

# At 2x2 pixels the second 3x3 kernel of the tiny model sees a single pixel.
EDGE = 2


def _problem() -> Problem:
  problem = small.problem()
  dataset = problem.task.dataset
  dataset = dataset.replace(image=dataset.image[:, ::4, ::4])
  assert dataset.image.shape[1:3] == (EDGE, EDGE)
  return problem.replace(task=problem.task.replace(dataset=dataset))


def _init(module, name, **values):
  problem = _problem()
  hparams = module.prepare(small.hparams(name, **values), problem)
  place = small.draws().at('init')
  return hparams, jax.jit(module.init)(hparams, place, problem)


def _count(name: str, pixels: int) -> dict[str, int]:
  """Count the dead taps of each kernel of a full-size model."""
  model = models.build(name, num_classes=10)
  params = jax.eval_shape(
    lambda key: models.init(model, key, (pixels, pixels, 3)), jax.random.key(0)
  )['params']
  task = tiny_problem.task()
  image = np.zeros((1, pixels, pixels, 3), np.uint8)
  dataset = task.dataset.replace(image=image)
  return weights.count_dead(task.replace(model=model, dataset=dataset), params)


def test_dead_weights_of_resnet18_are_those_measured():
  found = _count('resnet18', 32)
  assert sum(found.values()) == 6_946_816
  assert found['layer4_0/conv1/kernel'] == 655_360
  for path in ('layer4_0/conv2', 'layer4_1/conv1', 'layer4_1/conv2'):
    assert found[f'{path}/kernel'] == 2_097_152
  assert not sum(_count('resnet18', 224).values())


def test_dead_weights_of_tiny_vit_are_those_measured():
  found = [count for count in _count('vit11m', 32).values() if count]
  assert found == [2240, 3584, 3584]


@pytest.mark.parametrize(
  'name',
  [
    name
    for name, method in methods.METHODS.items()
    if method.card.chosen and method.card.chosen.info
  ],
)
def test_a_report_finds_the_count_in_the_info(name):
  method, problem = methods.get(name), _problem()
  hparams = method.prepare(small.hparams(name), problem)
  draws = small.draws()

  def first():
    state = method.init(hparams, draws.at('init'), problem)
    place = draws.at('epoch', 0)
    return method.epoch(hparams, place, problem, state, jnp.int32(0))[1]

  count = jax.eval_shape(first)[method.card.chosen.info]
  assert count.shape == () and count.dtype == jnp.int32


def test_a_three_by_three_kernel_on_one_pixel_uses_its_centre():
  model = models.build('resnet18', num_classes=10)
  alive = layers.live_taps(model, (32, 32, 3))['layer4_1/conv2/kernel']
  assert alive.sum() == 1 and alive[1, 1]


def test_dead_taps_have_no_gradient_and_live_ones_have():
  problem = _problem()
  gradient = salun.saliency(small.hparams('salun'), small.draws(), problem)
  alive = weights.live_weights(problem.task, gradient)['conv2']['kernel'][
    :, :, 0, 0
  ]
  moved = np.abs(gradient['conv2']['kernel']).sum(axis=(2, 3)) > 0
  np.testing.assert_array_equal(moved, alive)
  assert alive.sum() == 1


def _dead(problem, chosen) -> int:
  """Count dead weights among chosen ones, one by one."""
  alive = weights.by_path(
    weights.live_weights(problem.task, problem.start['params'])
  )
  found = 0
  for path, mask in chosen.items():
    found += int((np.asarray(mask) & ~np.asarray(alive[path])).sum())
  return found


@pytest.mark.parametrize('live_only', [False, True])
def test_salun(live_only):
  hparams, state = _init(salun, 'salun', mask_fraction=0.9, live_only=live_only)
  chosen = weights.by_path(jax.tree.map(lambda m: m > 0, state.mask))
  dead = _dead(_problem(), chosen)
  assert dead == int(state.dead)
  assert (dead == 0) == live_only
  assert sum(int(m.sum()) for m in chosen.values()) == int(hparams.count)


@pytest.mark.parametrize('live_only', [False, True])
def test_prmq(live_only):
  hparams, state = _init(prmq, 'prmq', prune_fraction=0.8, live_only=live_only)
  chosen = prmq.prune_mask(hparams, _problem())
  dead = _dead(_problem(), chosen)
  assert dead == int(state.dead)
  assert (dead == 0) == live_only
  assert sum(int(m.sum()) for m in chosen.values()) == int(hparams.count)


@pytest.mark.parametrize('live_only', [False, True])
def test_msg(live_only):
  hparams, state = _init(msg, 'msg', reinit_fraction=0.5, live_only=live_only)
  kernels = weights.conv_kernels(state.grad_scale)
  chosen = {path: scale == 1 for path, scale in kernels.items()}
  for path, mask in chosen.items():
    assert int(mask.sum()) == int(hparams.counts[path])
  dead = _dead(_problem(), chosen)
  assert dead == int(state.dead)
  assert (dead == 0) == live_only
