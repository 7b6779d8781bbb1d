"""Samplers: which settings a search tries next, by Optuna's ask-and-tell.

  reference   NSGA-III as in the benchmark (arXiv 2410.01276): 50 random
              trials and an evolved generation of 50; parameters without any
              effect are searched too
  tpe         multi-objective TPE
  random      independent draws

A study asks for one generation of trials, all of which are trained together,
and is then told their values. Samplers are deterministic: a study that is
asked again and told the same values proposes the same trials. `Replay` uses
this to continue an interrupted search exactly; no state of a sampler is stored.
"""

import logging
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import optuna

from jaxmu.tuning.spaces import NoSetting, Space

SAMPLERS = ('tpe', 'random', 'reference')
POPULATION = 50  # of NSGA-III
MINIMIZE = optuna.study.StudyDirection.MINIMIZE


def make(name: str, seed: int) -> optuna.samplers.BaseSampler:
  """Return a sampler with a fixed seed; every option is given explicitly.

  Args:
    name: one of `SAMPLERS`.
    seed: i32, of all its draws.
  """
  with warnings.catch_warnings():
    # NSGA-III and the options of TPE are marked as experimental.
    warnings.simplefilter('ignore', optuna.exceptions.ExperimentalWarning)
    if name == 'reference':
      return optuna.samplers.NSGAIIISampler(
        seed=seed,
        population_size=POPULATION,
        crossover=optuna.samplers.nsgaii.UniformCrossover(swapping_prob=0.5),
        crossover_prob=0.9,
        mutation_prob=None,  # 1 / number of parameters
        dividing_parameter=3,
      )
    if name == 'tpe':
      return optuna.samplers.TPESampler(
        seed=seed,
        n_startup_trials=20,
        multivariate=True,
        group=False,
        constant_liar=True,
      )
    return optuna.samplers.RandomSampler(seed=seed)


# Says why a setting is no trial; '' if it is one.
Pruned = Callable[[dict[str, Any]], str]
# So many refused proposals in a row end a search.
MOST_PRUNED = 2000


def silence() -> None:
  """Stop Optuna from printing a line per study and trial."""
  optuna.logging.set_verbosity(logging.WARNING)


class Asked(NamedTuple):
  """A trial to evaluate.

  Attributes:
    number: its number in the study, or in the grid.
    setting: all hyper-parameters.
  """

  number: int
  setting: dict[str, Any]


class Replay:
  """One study in memory; see the module's docstring.

  Args:
    sampler: one of `SAMPLERS`.
    seed: of the sampler.
    space: what is searched.
    pruned: trials that are not evaluated and do not count; another is asked for
      in their place.
    objectives: how many numbers are minimised.
  """

  def __init__(
    self,
    sampler: str,
    seed: int,
    space: Space,
    pruned: Pruned = lambda setting: '',
    *,
    objectives: int = 4,
  ):
    silence()
    self.study = optuna.create_study(
      directions=[MINIMIZE] * objectives, sampler=make(sampler, seed)
    )
    self._space, self._pruned = space, pruned
    # TPE would learn from pruned trials, which have no values, and propose
    # their like; it ignores failed ones. The reference prunes.
    states = optuna.trial.TrialState
    self._refused = states.PRUNED if sampler == 'reference' else states.FAIL

  def ask(self, count: int) -> list[Asked]:
    """Propose `count` trials that are evaluated together.

    Raises:
      NoSetting: `MOST_PRUNED` proposals in a row are pruned.
    """
    asked: list[Asked] = []
    refused = 0
    while len(asked) < count:
      trial = self.study.ask()
      setting = self._space.suggest(trial)
      reason = self._pruned(setting)
      if not reason:
        asked.append(Asked(trial.number, setting))
        refused = 0
        continue
      self.study.tell(trial, state=self._refused)
      refused += 1
      if refused == MOST_PRUNED:
        raise NoSetting(
          f'{refused} settings in a row are no trials, the last because '
          f'{reason}; search other values with config.search.space'
        )
    return asked

  def tell(self, asked: Sequence[Asked], values: np.ndarray) -> None:
    """Report the values of trials, f64[T, K]; infinite for failed ones."""
    for one, objective in zip(asked, values, strict=True):
      self.study.tell(one.number, [float(value) for value in objective])


def generations(trials: int, size: int) -> list[int]:
  """Return the sizes of the generations of a search.

  Example:
    >>> generations(100, 50), generations(70, 50)
    ([50, 50], [50, 20])
  """
  return [min(size, trials - start) for start in range(0, trials, size)]
