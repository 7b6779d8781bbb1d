"""SGD and Adam, against torch's update rules written out."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmu.methods.parts import training

GRADIENTS = [np.array([1.0, -2.0, 0.5]), np.array([0.3, 0.0, -1.0])]
START = np.array([0.2, -0.4, 1.0])


def _run(optimiser, gradients=GRADIENTS):
  params = {'a': jnp.asarray(START)}
  state = optimiser.init(params)
  for gradient in gradients:
    updates, state = optimiser.update(
      {'a': jnp.asarray(gradient)}, state, params
    )
    params = optax.apply_updates(params, updates)
  return np.asarray(params['a'])


def _naive(scale=1.0, frozen=0.0):
  theta, buffer = START.copy(), np.zeros(3)
  for gradient in GRADIENTS:
    total = (scale * gradient + 0.1 * theta) * (1 - frozen)
    buffer = 0.9 * buffer + total
    theta = theta - 0.05 * buffer
  return theta


def test_decay_is_part_of_the_gradient_and_the_rate_scales_the_buffer():
  found = _run(training.sgd(0.05, 0.9, 0.1))
  np.testing.assert_allclose(found, _naive(), rtol=1e-5)


def test_masked_weights_still_decay():
  scale = np.array([1.0, 0.0, 0.1])
  found = _run(
    training.sgd(0.05, 0.9, 0.1, grad_scale={'a': jnp.asarray(scale)})
  )
  np.testing.assert_allclose(found, _naive(scale=scale), rtol=1e-5)


def test_frozen_weights_do_not_move():
  free = jnp.asarray([1.0, 0.0, 1.0])
  found = _run(training.sgd(0.05, 0.9, 0.1, trainable={'a': free}))
  frozen = np.array([0.0, 1.0, 0.0])
  np.testing.assert_allclose(found, _naive(frozen=frozen), rtol=1e-5)
  assert found[1] == np.float32(START[1])


def test_a_zero_factor_hides_nan():
  free = jnp.asarray([1.0, 0.0, 1.0])
  gradients = [np.array([1.0, np.nan, 1.0])]
  found = _run(training.sgd(0.05, None, 0.0, trainable={'a': free}), gradients)
  assert np.isfinite(found).all()


def test_adam_has_decay_in_its_moments():
  theta, first, second = START.copy(), np.zeros(3), np.zeros(3)
  for step, gradient in enumerate(GRADIENTS, start=1):
    total = gradient + 0.1 * theta
    first = 0.9 * first + 0.1 * total
    second = 0.999 * second + 0.001 * total**2
    mean = first / (1 - 0.9**step)
    root = np.sqrt(second / (1 - 0.999**step))
    theta = theta - 0.05 * mean / (root + 1e-8)
  found = _run(training.adam(0.05, 0.1))
  np.testing.assert_allclose(found, theta, rtol=1e-5)


def test_rates_may_be_traced():
  @jax.jit
  def step(rate):
    return training.sgd(rate, 0.9, 0.0).update(
      {'a': jnp.ones(3)},
      training.sgd(0.0, 0.0, 0.0).init({'a': jnp.ones(3)}),
      {'a': jnp.ones(3)},
    )[0]['a']

  np.testing.assert_allclose(step(0.5), -0.5 * np.ones(3))
