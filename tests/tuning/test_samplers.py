"""Batches of trials are those of a plain serial loop, and can be replayed."""

import zlib

import numpy as np
import optuna
import pytest

from jaxmu import methods
from jaxmu.tuning import samplers, spaces


def _space(dead: bool = True) -> spaces.Space:
  return spaces.of_method(
    methods.get('scrub').Hparams, {}, train_epochs=50, dead=dead
  )


def _values(setting) -> list[float]:
  """Return four numbers that depend on the whole setting."""
  rng = np.random.default_rng([zlib.crc32(repr(setting).encode())])
  rate = abs(np.log10(setting['learning_rate']) + 3)
  return [rate, setting['gamma'], setting['num_epochs'] / 10, rng.random()]


@pytest.mark.parametrize('seed', [0, 1])
def test_reference_equals_a_serial_optuna_loop(seed):
  space, trials = _space(), 120
  replay = samplers.Replay('reference', seed, space)
  ours = []
  for size in samplers.generations(trials, samplers.POPULATION):
    asked = replay.ask(size)
    values = [_values(one.setting) for one in asked]
    replay.tell(asked, np.array(values))
    ours += [one.setting for one in asked]
  # The same sampler, asked and told one trial after the other by Optuna.
  theirs = []

  def objective(trial):
    setting = space.suggest(trial)
    theirs.append(setting)
    return _values(setting)

  study = optuna.create_study(
    directions=['minimize'] * 4,
    sampler=optuna.samplers.NSGAIIISampler(seed=seed, population_size=50),
  )
  study.optimize(objective, n_trials=trials)
  assert ours == theirs


@pytest.mark.parametrize('name', samplers.SAMPLERS)
def test_a_replayed_study_proposes_the_same_trials(name):
  def run(count):
    replay = samplers.Replay(name, 3, _space(dead=name == 'reference'))
    settings = []
    for _ in range(count):
      asked = replay.ask(25)
      replay.tell(asked, np.array([_values(one.setting) for one in asked]))
      settings += [one.setting for one in asked]
    return settings

  whole = run(4)
  # Children of NSGA-III may equal a parent.
  assert len({repr(setting) for setting in whole}) > 90
  assert run(2) == whole[:50]  # what an interrupted search had proposed
  assert run(4) == whole


def test_failed_trials_do_not_stop_a_study():
  replay = samplers.Replay('reference', 0, _space())
  for _ in range(3):
    asked = replay.ask(50)
    values = np.array([_values(one.setting) for one in asked])
    values[::2] = np.inf
    replay.tell(asked, values)
  assert len(replay.study.trials) == 150


def test_pruned_trials_are_replaced():
  replay = samplers.Replay(
    *('reference', 0, _space()),
    lambda s: 'too large' if s['retain_batch_size'] == 256 else '',
  )
  asked = replay.ask(50)
  assert len(asked) == 50
  assert all(one.setting['retain_batch_size'] != 256 for one in asked)
  states = {trial.state for trial in replay.study.trials}
  assert optuna.trial.TrialState.PRUNED in states


def test_tpe_does_not_propose_what_is_refused_again_and_again():
  replay = samplers.Replay(
    *('tpe', 0, _space()), lambda s: 'is dead' if s['gamma'] > 0.4 else ''
  )
  replay.ask(25)
  # Independent draws would need 62; from pruned ones TPE learns to repeat them.
  assert len(replay.study.trials) < 120


def test_a_space_without_trials_is_refused():
  replay = samplers.Replay('random', 0, _space(), lambda setting: 'all is dead')
  with pytest.raises(ValueError, match='in a row are no trials.*all is dead'):
    replay.ask(1)


def test_sizes_of_generations():
  assert samplers.generations(100, 50) == [50, 50]
  assert samplers.generations(30, 50) == [30]
  assert samplers.generations(51, 25) == [25, 25, 1]
