"""Running out of memory halves the chunk and starts the same work again."""

import functools

import jax
import numpy as np
import pytest

from jaxmu import population
from jaxmu.study import execution
from jaxmu.testing import tiny_problem

FULL = jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory: 12 bytes')


class _Program:
  def __init__(self, chunk):
    self.layout = population.Layout(1, chunk)

  def narrow(self):
    self.layout = self.layout.halved()


def _work(program, most, error=FULL):
  def work():
    if program.layout.chunk > most:
      raise error
    return program.layout.chunk

  return work


@pytest.mark.parametrize(
  'error', [FULL, MemoryError(), execution.DoesNotFit('x')]
)
def test_the_chunk_is_halved_until_it_fits(error):
  program, seen = _Program(8), []
  found = execution.retry_smaller(
    _work(program, 2, error), program, on_smaller=seen.append
  )
  assert found == 2
  assert seen == [4, 2]


def test_odd_chunks_end_at_one():
  program = _Program(5)
  assert execution.retry_smaller(_work(program, 1), program) == 1


def test_at_a_chunk_of_one_the_error_names_remedies():
  program = _Program(2)
  with pytest.raises(
    ValueError, match='12 bytes.*run.shard.*run.memory'
  ) as one:
    execution.retry_smaller(_work(program, 0), program)
  assert 'run.devices' not in str(one.value)
  program.layout = population.Layout(2, 1)
  with pytest.raises(ValueError, match='2 devices .*run.devices'):
    execution.retry_smaller(_work(program, 0), program)


def test_other_errors_pass_through():
  program = _Program(4)
  for error in (
    jax.errors.JaxRuntimeError('INTERNAL: no'),
    ValueError('RESOURCE_EXHAUSTED'),
  ):
    with pytest.raises(type(error)):
      execution.retry_smaller(_work(program, 1, error), program)
  assert program.layout.chunk == 4


class _Small(population.Predictor):
  def run(self, variables, index=None):
    if self.layout.chunk > 2:
      raise FULL
    return super().run(variables, index)


def test_a_predictor_scores_the_same_in_smaller_chunks():
  task, variables = tiny_problem.task(), tiny_problem.originals(4)
  large = population.Predictor(task, population.Layout(1, 4))
  small = _Small(task, population.Layout(1, 4))
  expected = large.run(variables)
  found = execution.retry_smaller(
    functools.partial(small.run, variables), small
  )
  assert small.layout.chunk == 2
  np.testing.assert_allclose(found.log_odds, expected.log_odds, atol=1e-5)
  np.testing.assert_array_equal(found.correct, expected.correct)
