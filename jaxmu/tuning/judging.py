"""Evaluate trials and turn their outcomes into objectives."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxmu.study.settings import Search
from jaxmu.tuning import objectives, pace, records, selection
from jaxmu.tuning.trials import Evaluator, Outcomes, Trial


class Regret(NamedTuple):
  """What a search without retrained models loses.

  Attributes:
    chosen: norm of the reference objectives of the chosen setting.
    best: that of the best setting that the same trials give if they are chosen
      by the reference objectives.
  """

  chosen: float
  best: float

  @property
  def value(self) -> float:
    """Their difference; 0 is best."""
    return self.chosen - self.best


class Judge:
  """Evaluates trials and turns outcomes into objectives.

  Args:
    evaluator: of the method.
    search: how hyper-parameters are searched.
    progress: receives every trial.
  """

  def __init__(self, evaluator: Evaluator, search: Search, progress: pace.Pace):
    self.evaluator, self._pace = evaluator, progress
    self._recipe = search.training
    self._oracle = search.objective == 'reference'
    self._originals = None if self._recipe else evaluator.originals()
    self._retrained = None if self._recipe else evaluator.retrained()

  @property
  def measures_regret(self) -> bool:
    """Whether the search does without retrained models that exist."""
    return not self._oracle and self._retrained is not None

  def evaluate(
    self, trials: Sequence[Trial], usable: Sequence[bool] | None = None
  ) -> tuple[Outcomes, np.ndarray]:
    """Return the outcomes and the objectives of trials, f64[T, K].

    Args:
      trials: the trials.
      usable: which settings may win, for the best norm that is shown; None for
        trials that are judged again.
    """
    where = _where(trials)

    def on_shard(shard: np.ndarray, outcomes: Outcomes | None) -> None:
      best = np.inf
      if outcomes is not None and usable is not None:
        norms = objectives.norm(self._values(outcomes, where[shard]))
        best = min(norms[np.array(usable)[shard]], default=np.inf)
      self._pace.advance(len(shard), stored=outcomes is None, best=best)

    outcomes = self.evaluator.evaluate(trials, on_shard)
    values = self._values(outcomes, where)
    if usable is not None:
      norms = objectives.norm(values)[np.array(usable)]
      self._pace.advance(0, stored=True, best=min(norms, default=np.inf))
    return outcomes, values

  def reference_norms(
    self, trials: Sequence[Trial], outcomes: Outcomes
  ) -> np.ndarray:
    """Return the norms of the reference objectives, f64[T].

    NaN where the search has these objectives itself, or no retrained models.
    """
    if not self.measures_regret:
      return np.full(len(trials), np.nan)
    values = self._values(outcomes, _where(trials), oracle=True)
    return objectives.norm(values)

  def untouched(self, initialisations: Sequence[int]) -> float:
    """Return the mean norm of the unchanged originals."""
    assert self._originals, 'a recipe starts from nothing'
    where = np.asarray(initialisations)
    own = Outcomes(*(field[where] for field in self._originals))
    return float(np.mean(objectives.norm(self._values(own, where))))

  def mean_norms(
    self,
    chosen: Sequence[selection.Setting],
    initialisations: Sequence[int],
    *,
    oracle: bool = False,
  ) -> np.ndarray:
    """Return the mean norm of settings over initialisations, f64[S].

    Args:
      chosen: the settings, S.
      initialisations: where they are evaluated.
      oracle: take the reference objectives, whatever the search minimises.
    """
    trials = [Trial(s, i) for s in chosen for i in initialisations]
    outcomes, values = self.evaluate(trials)
    norms = objectives.norm(values)
    if oracle:
      norms = self.reference_norms(trials, outcomes)
    return norms.reshape(len(chosen), len(initialisations)).mean(axis=1)

  def _values(
    self, outcomes: Outcomes, where: np.ndarray, *, oracle: bool = False
  ) -> np.ndarray:
    if self._originals is None:
      return objectives.of_recipe(outcomes)
    return objectives.values(
      outcomes,
      where,
      retrained=self._retrained if oracle or self._oracle else None,
      originals=self._originals,
    )


def ranked(
  rows: Sequence[records.TrialRow], norms: Sequence[float] | np.ndarray
) -> np.ndarray:
  """Return positions of the usable trials; see `selection.ranked`."""
  return selection.ranked(
    np.array(norms),
    np.array([row.initialisation for row in rows]),
    np.array([row.number for row in rows]),
    np.array([row.usable for row in rows]),
  )


def regret(
  judge: Judge,
  rows: Sequence[records.TrialRow],
  choice: selection.Choice,
  *,
  default: selection.Setting | None,
  finalists: int,
  judges: Sequence[int],
) -> Regret | None:
  """Measure what a search loses by its objectives; None if it cannot.

  The trials are chosen from once more, by the reference objectives: the best
  of them are judged on the same initialisations as the finalists of the search.
  This changes no choice.

  Args:
    judge: of the search.
    rows: all trials.
    choice: what the search chose.
    default: a setting that is judged with the finalists; None if it may not
      win.
    finalists: how many settings are judged.
    judges: initialisations to judge on; none to take the values of the trials.
  """
  if not judge.measures_regret:
    return None
  norms = [row.reference_norm for row in rows]
  order = ranked(rows, norms)
  if not judges:
    assert choice.trial is not None, 'only judges choose the default'
    return Regret(norms[choice.trial], norms[order[0]])
  settings = [row.setting for row in rows]
  study = np.array([row.initialisation for row in rows])
  best = selection.finalists(order, settings, study, finalists)
  tried = [choice.setting, *(settings[p] for p in best)]
  if default is not None:
    tried.append(default)
  means = judge.mean_norms(tried, judges, oracle=True)
  return Regret(float(means[0]), float(means.min()))


def _where(trials: Sequence[Trial]) -> np.ndarray:
  return np.array([trial.initialisation for trial in trials])
