"""Learning rates per epoch, against tables and the plain formula."""

import math

import numpy as np
import pytest

from jaxmu.methods.parts import training


@pytest.mark.parametrize('total', [1, 2, 5, 37])
def test_cosine(total):
  for epoch in range(total):
    found = training.cosine(0.3, epoch, total, floor=0.01)
    share = (1 + math.cos(math.pi * epoch / total)) / 2
    np.testing.assert_allclose(found, 0.01 + 0.29 * share, rtol=1e-6)


@pytest.mark.parametrize(
  ('total', 'shares'),
  [
    (1, [1]),
    (2, [1, 1 / 2]),
    (4, [1 / 2, 1, 2 / 3, 1 / 3]),
    (5, [1 / 3, 2 / 3, 1, 2 / 3, 1 / 3]),
  ],
)
def test_triangle(total, shares):
  found = [training.triangle(0.5, epoch, total) for epoch in range(total)]
  np.testing.assert_allclose(found, 0.5 * np.array(shares), rtol=1e-6)


COUNTED_FROM_ONE = {
  1: [3],
  2: [0, 3],
  3: [0, 1, 3],
  5: [0, 0, 1, 1, 3],
  10: [0, 0, 0, 0, 0, 1, 1, 1, 2, 3],
}
COUNTED_FROM_ZERO = {
  1: [0],
  2: [0, 0],
  3: [0, 0, 1],
  5: [0, 0, 0, 1, 1],
  10: [0, 0, 0, 0, 0, 0, 1, 1, 1, 2],
}


@pytest.mark.parametrize('first', [0, 1])
@pytest.mark.parametrize('total', [1, 2, 3, 5, 10])
def test_milestones_as_published(first, total):
  table = (COUNTED_FROM_ZERO, COUNTED_FROM_ONE)[first][total]
  found = [
    training.milestones(2.0, epoch + first, total, 0.1)
    for epoch in range(total)
  ]
  np.testing.assert_allclose(found, [2.0 * 0.1**n for n in table], rtol=1e-6)


def test_marks_are_rounded_down_as_in_floating_point():
  for total in range(1, 400):
    marks = [math.floor(share * total) for share in (0.5, 0.8, 0.9)]
    for time in (*marks, marks[0] + 1, marks[1] + 1, total):
      passed = sum(time > mark for mark in marks)
      found = float(training.milestones(1.0, time, np.int32(total), 2.0))
      assert found == 2.0**passed, (total, time)


def test_zero_factor_stops_training_only_once_a_mark_is_passed():
  found = [training.milestones(1.0, t, 2, 0.0) for t in (0, 1, 2)]
  np.testing.assert_array_equal(found, [1.0, 1.0, 0.0])
