"""Search spaces are those of the specification, and users can replace them."""

import numpy as np
import pytest
from optuna import distributions

from jaxmu import hparams as hp
from jaxmu import methods
from jaxmu.study import recipes
from jaxmu.tuning import opening, spaces
from tests.tuning import small_search

# Searched hyper-parameters of the reference, those without effect included,
# from the published search (arXiv 2410.01276). A fixed momentum is not counted.
COUNTS = {
  **dict.fromkeys(('ft', 'ga', 'srl', 'ct'), 4),
  'bt': 5,
  'cfk': 7,
  'cfw': 6,
  'euk': 8,
  'fcs': 10,
  'ff': 2,
  'iu': 3,
  'kde': 8,
  'msg': 5,
  'neggrad_plus': 5,
  'prmq': 5,
  'rni': 10,
  'salun': 7,
  'scrub': 11,
}


def _space(method: str, **options):
  return spaces.of_method(
    methods.get(method).Hparams, {}, **{'train_epochs': 182, **options}
  )


def test_every_method_has_the_space_of_the_reference():
  names = [name for name in methods.METHODS if name not in methods.BASELINES]
  counts = {}
  for name in names:
    searched = _space(name, dead=True).searched
    counts[name] = sum(not kind.single() for kind in searched.values())
  assert counts == COUNTS


def test_values_without_effect_are_left_out_unless_asked_for():
  assert 'beta' not in _space('scrub').searched
  assert _space('scrub').fixed['beta'] == 0.0
  assert 'beta' in _space('scrub', dead=True).searched


def test_kinds_of_distributions():
  space = _space('prmq').searched
  assert space['learning_rate'] == distributions.FloatDistribution(
    1e-5, 1e-1, log=True
  )
  assert space['num_epochs'] == distributions.FloatDistribution(1, 37)
  assert space['batch_size'] == distributions.CategoricalDistribution(
    (64, 128, 256)
  )
  assert _space('ft').searched['num_epochs'] == distributions.IntDistribution(
    1, 37
  )


def test_room_for_snapshots_follows_the_epochs():
  assert _space('scrub').fixed['snapshots'] == 37
  assert _space('scrub', train_epochs=12).fixed['snapshots'] == 5


def test_a_user_replaces_spaces():
  space = _space(
    'msg',
    changes={
      'learning_rate': 'log(1e-3, 1e-1)',
      'reinit_fraction': 'uniform(0.1, 0.5)',
      'num_epochs': 'uniform(1, 4)',
      'batch_size': (32, 64),
      'weight_decay': 1e-4,
      'momentum': 'uniform(0.5, 0.9)',
    },
  )
  assert space.fixed['weight_decay'] == 1e-4
  assert space.searched['num_epochs'] == distributions.IntDistribution(1, 4)
  assert space.searched['batch_size'].choices == (32, 64)
  assert space.searched['momentum'].low == 0.5


@pytest.mark.parametrize(
  'name, value, words',
  [
    ('lr', 0.1, "did you mean 'learning_rate'"),
    ('learning_rate', 'log(0, 1)', 'must be below the second, and positive'),
    ('learning_rate', 'log(1, 0.1)', 'must be below the second'),
    ('learning_rate', 'uniform(a, 1)', "give 'log(LOW, HIGH)'"),
    ('learning_rate', 'normal(0, 1)', "give 'log(LOW, HIGH)'"),
    ('learning_rate', 'uniform(0, 1_0)', "give 'log(LOW, HIGH)'"),
    ('learning_rate', (), "give 'log(LOW, HIGH)'"),
    ('learning_rate', (0.1, 0.2, 0.1), 'repeats 0.1; give every value once'),
    ('learning_rate', 'uniform(-1, 1)', 'learning_rate = -1; give a value'),
    ('reinit_fraction', 'uniform(0, 2)', 'reinit_fraction = 2; give a value'),
    ('batch_size', (64, 0), 'batch_size = 0; give a value'),
    ('batch_size', 'uniform(0, 64)', 'batch_size = 0; give a value'),
    ('num_epochs', 'uniform(1.2, 1.7)', 'num_epochs = 1.2; give a whole'),
    ('num_epochs', 'log(0.5, 3)', 'num_epochs = 0.5; give a whole number'),
    ('num_epochs', 1.5, 'num_epochs = 1.5; give a whole number'),
  ],
)
def test_a_wrong_space_is_refused_in_one_line(name, value, words):
  with pytest.raises(ValueError) as error:
    _space('msg', changes={name: value})
  assert words in str(error.value) and '\n' not in str(error.value)


def test_a_grid_keeps_what_a_space_holds_fixed(tmp_path):
  def of(**search):
    settings = small_search.settings(tmp_path, **search)
    return opening.method_space(settings, *settings.unlearners)

  changes = {'batch_size': 32, 'momentum': 'uniform(0, 0.5)'}
  space = of(space=changes, grid={'learning_rate': (0.1, 0.2)})
  assert list(space.searched) == ['learning_rate']
  assert space.fixed['batch_size'] == 32 and space.fixed['momentum'] == 0.9
  assert (
    of(space=changes, grid={'batch_size': 16}).combinations()[0]['batch_size']
    == 16
  )
  with pytest.raises(ValueError, match='space.batch_size = -1; give a value'):
    of(space={'batch_size': -1}, grid={'learning_rate': 0.1})


def test_a_grid_has_every_value_once(tmp_path):
  settings = small_search.settings(
    tmp_path, grid={'num_epochs': (1, 2), 'learning_rate': (0.1, 0.2, 0.1)}
  )
  words = r'grid.learning_rate = \(0.1, 0.2, 0.1\) repeats 0.1; give every'
  with pytest.raises(ValueError, match=words) as error:
    opening.method_space(settings, *settings.unlearners)
  assert '\n' not in str(error.value)


def test_arrays_and_ranges_are_lists(tmp_path):
  rates = np.array([0.1, 0.2])
  settings = small_search.settings(
    tmp_path, space={'num_epochs': range(1, 3)}, grid={'ft': {'rate': rates}}
  )
  assert settings.search_space == {'num_epochs': (1, 2)}
  assert settings.search_grid == {'ft': {'rate': (0.1, 0.2)}}


def test_a_setting_has_every_hyper_parameter():
  from jaxmu.tuning import samplers

  for name in methods.METHODS:
    if name in methods.BASELINES:
      continue
    space = _space(name, dead=True)
    (asked,) = samplers.Replay('random', 0, space).ask(1)
    assert asked.setting.keys() == hp.defaults(methods.get(name).Hparams).keys()
    hp.from_config(methods.get(name).Hparams, asked.setting)


def test_the_default_of_every_method_has_a_nearest_setting():
  for name in recipes.PAPER_METHODS:
    cls = methods.get(name).Hparams
    space = spaces.of_method(cls, {}, train_epochs=12)
    nearest = space.nearest(hp.defaults(cls))
    assert set(nearest) == set(hp.defaults(cls)), name
    hp.from_config(cls, nearest)
    assert nearest.get('num_epochs', 1) <= 3, name
