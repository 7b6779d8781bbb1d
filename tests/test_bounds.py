"""Numbers out of range are refused in one line, before memory is used."""

import numpy as np

import jaxmu
from jaxmu import files
from jaxmu.data import datasets
from tests.data import refusals

IMAGES = np.arange(60 * 64, dtype=np.uint8).reshape(60, 8, 8)
LABELS = np.arange(60) % 3
HUGE = (10**12, 2**64 - 1, 10**30)


def _split(changes):
  return jaxmu.split('digits', **changes)


def _arrays(changes):
  return datasets.from_arrays(IMAGES, LABELS, **changes)


def _train(changes):
  return jaxmu.train('digits', model='tiny', **changes)


def test_numbers_of_python_functions():
  """Seeds of 32 bits and more would be those of others (2**32 is 0)."""
  assert not refusals.unclear(
    _split,
    [
      *(({'seed': n}, 'seed = .* from 0 to') for n in (-1, 1.5, True, 2**32)),
      *(({'seed': n}, 'seed = .* from 0 to') for n in HUGE),
      *(({'splits': n}, 'num_splits') for n in (-2, 0, 2.0, 'x', *HUGE)),
      *(({'forget_sets': n}, 'forget_sets') for n in (-1, 0, 1.5, *HUGE)),
      *(({'pool': n}, 'pool') for n in (-1, 1, 640.5, 'x', *HUGE)),
      ({'splits': 10_000, 'forget': 1e-3, 'forget_sets': 500}, '100,000 model'),
      *(({'forget': f'class:{n}'}, 'forget set') for n in ('9' * 5000, '٣')),
    ],
  )
  assert not refusals.unclear(
    _arrays,
    [
      *(({'seed': n}, 'seed = .* from 0 to') for n in (-1, 'x', 1.5, 2**32)),
      *(({'test_fraction': x}, 'between 0 and 1') for x in ('x', 0, 1.5)),
      *(({'size': n}, 'at most 4096') for n in (0, 8.0, *HUGE)),
      *(({'num_classes': n}, 'at most') for n in (1, 2**31 - 1, *HUGE)),
      *(({'mean': x}, 'give 3 finite') for x in ('x', np.nan, [1, 2])),
      *(({'std': x}, 'give 3 finite') for x in ('x', np.inf, 0, 1e-300)),
      *(({'flip': x}, 'True or False') for x in ('no', 1)),
      *(({'crop_padding': n}, 'crop_padding') for n in (-1, 8, 1.5, *HUGE)),
    ],
  )
  assert not refusals.unclear(
    _train,
    [
      *(({'seed': n}, 'seed = .* from 0 to') for n in (-1, 1.5, 2**32, *HUGE)),
      *(({'seeds': n}, 'seeds = .* from 1 to 6250') for n in (0, 1.5, 6251)),
      *(({'seeds': n}, 'seeds = .* from 1 to 6250') for n in HUGE),
    ],
  )


def test_a_loaded_set_takes_checked_values_alone():
  digits = jaxmu.load_data('digits')
  assert not refusals.unclear(
    lambda changes: jaxmu.load_data(digits, **changes),
    [
      ({'flip': 'no'}, 'flip is'),
      ({'crop_padding': 32}, 'crop_padding is 32'),
      ({'crop_padding': -1}, 'crop_padding is -1'),
      ({'mean': 'x'}, 'mean is'),
      ({'std': (1, 1, 0)}, 'std is'),
    ],
  )


def test_seeds_may_be_numbers_of_numpy():
  draws = [jaxmu.split('digits', seed=n) for n in (7, np.int64(7))]
  np.testing.assert_array_equal(draws[0].forget, draws[1].forget)


def test_names_that_no_disk_takes():
  """By every function and flag, since all paths pass `files.path`."""
  names = ('x' * 256, 'a/' + 'é' * 128, 'a\0b', '~no_such_user_here/x')
  assert not refusals.unclear(
    files.path, [(name, 'is not a usable path') for name in names]
  )
  assert not refusals.unclear(
    jaxmu.load_data, [('x' * 5000, 'longer than 255 bytes')]
  )
