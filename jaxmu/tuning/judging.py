"""What a search minimises, and which setting it chooses.

Four numbers per trial, and their norm:

  reference   |RA - RA_R| / 3, |FA - FA_R| / 3, |VA - VA_R| / 3, 1 - Indisc
  no_oracle   |RA - RA_O| / 3, |FA - VA| / 3,   |VA - VA_O| / 3, 1 - Indisc

RA, FA, VA are accuracies on the retain, forget and validation sets; R are the
retrained and O the original models of the same initialisation; Indisc is that
of the population attack, forget against validation. The first is that of the
benchmark (arXiv 2410.01276). The second needs no retrained models: a model that
never saw the forgotten images classifies them as well as validation images.

The norm weighs Indisc most, since the other three are divided by 3.

A search of the training recipe minimises one number, 1 - VA.

The smallest of hundreds of noisy values is not that of the best setting. By
default the best trials (`config.search.finalists`) are therefore judged again
on initialisations that no study searched (`config.search.judges`), and the
smallest mean wins. Finalists are taken from all studies alike, because
initialisations differ more than settings: where an original model is close to
the retrained one, every small step has a small norm. The default setting is
judged with them, so the choice is never worse than it on the judges.

With `judges=0` the choice is that of the reference: the smallest value of any
trial, ties to the lower initialisation, then to the lower number.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxmu.study.settings import Search
from jaxmu.tuning import records
from jaxmu.tuning.plan import Pace
from jaxmu.tuning.spaces import NoSetting
from jaxmu.tuning.trials import Evaluator, Outcomes, Trial

Setting = Mapping[str, Any]


class Choice(NamedTuple):
  """The setting that a search chooses.

  Attributes:
    setting: all hyper-parameters.
    norm: its norm, the mean over the judges; with the reference's rule, its
      value in the trial that won.
    trial: position of the winning trial; None if the default setting won.
    finalists: positions of the trials that were judged again.
    means: mean norms over the judges of the finalists and of the default
      setting, which is last, f64[F + 1].
  """

  setting: Setting
  norm: float
  trial: int | None
  finalists: list[int]
  means: np.ndarray


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


def objectives(
  outcomes: Outcomes,
  initialisation: np.ndarray,
  *,
  retrained: Outcomes | None,
  originals: Outcomes,
) -> np.ndarray:
  """Return the four objectives of each trial, f64[T, 4].

  Args:
    outcomes: of the trials.
    initialisation: i64[T], the position of each trial's initialisation in
      `retrained` and `originals`.
    retrained: outcomes of the retrained models; None for 'no_oracle'.
    originals: outcomes of the original models.

  Returns:
    The objectives; infinity in all four places for trials that failed or whose
    attack cannot be computed.
  """
  target = originals if retrained is None else retrained
  aims = [field[initialisation] for field in target[:3]]
  if retrained is None:
    aims[1] = outcomes.val
  gaps = [
    abs(own - aim) / 3 for own, aim in zip(outcomes[:3], aims, strict=True)
  ]
  each = np.stack([*gaps, 1 - outcomes.indisc], axis=1)
  usable = (outcomes.failed < 0) & np.isfinite(each).all(axis=1)
  return np.where(usable[:, None], each, np.inf)


def of_recipe(outcomes: Outcomes) -> np.ndarray:
  """Return the validation error of each model, f64[T, 1]; inf if it failed."""
  error = np.where(outcomes.failed < 0, 1 - outcomes.val, np.inf)
  return error[:, None]


def norm(values: np.ndarray) -> np.ndarray:
  """Return the Euclidean norm of the objectives, f64[T]."""
  return np.sqrt((values**2).sum(axis=1))


class Judge:
  """Evaluates trials and turns outcomes into objectives.

  Args:
    evaluator: of the method.
    search: how hyper-parameters are searched.
    progress: receives every trial.
  """

  def __init__(self, evaluator: Evaluator, search: Search, progress: Pace):
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
        norms = norm(self._values(outcomes, where[shard]))
        best = min(norms[np.array(usable)[shard]], default=np.inf)
      self._pace.advance(len(shard), stored=outcomes is None, best=best)

    outcomes = self.evaluator.evaluate(trials, on_shard)
    values = self._values(outcomes, where)
    if usable is not None:
      norms = norm(values)[np.array(usable)]
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
    return norm(values)

  def untouched(self, initialisations: Sequence[int]) -> float:
    """Return the mean norm of the unchanged originals."""
    assert self._originals, 'a recipe starts from nothing'
    where = np.asarray(initialisations)
    own = Outcomes(*(field[where] for field in self._originals))
    return float(np.mean(norm(self._values(own, where))))

  def mean_norms(
    self,
    chosen: Sequence[Setting],
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
    norms = norm(values)
    if oracle:
      norms = self.reference_norms(trials, outcomes)
    return norms.reshape(len(chosen), len(initialisations)).mean(axis=1)

  def _values(
    self, outcomes: Outcomes, where: np.ndarray, *, oracle: bool = False
  ) -> np.ndarray:
    if self._originals is None:
      return of_recipe(outcomes)
    return objectives(
      outcomes,
      where,
      retrained=self._retrained if oracle or self._oracle else None,
      originals=self._originals,
    )


def ranked(
  norms: np.ndarray,
  initialisation: np.ndarray,
  number: np.ndarray,
  usable: np.ndarray,
) -> np.ndarray:
  """Return positions of the usable trials, the smallest norm first.

  Args:
    norms: f64[T]; trials that are not finite are left out.
    initialisation: i64[T], which breaks ties.
    number: i64[T], which breaks further ties.
    usable: bool[T], trials whose setting may win.
  """
  order = np.lexsort([number, initialisation, norms])
  return order[(np.isfinite(norms) & usable)[order]]


def alternate(order: np.ndarray, initialisation: np.ndarray) -> np.ndarray:
  """Return positions with the best of every study first, then the second best.

  Args:
    order: positions, the best first.
    initialisation: i64[T], the study of each trial.

  Example:
    >>> alternate(np.array([2, 0, 1, 3]), np.array([5, 6, 5, 6])).tolist()
    [2, 1, 0, 3]
  """
  seen: dict[int, int] = {}
  place = []
  for position in order:
    study = int(initialisation[position])
    place.append(seen.get(study, 0))
    seen[study] = place[-1] + 1
  return order[np.argsort(place, kind='stable')]


def finalists(
  order: np.ndarray,
  settings: Sequence[Setting],
  initialisation: np.ndarray,
  count: int,
) -> list[int]:
  """Return the trials that are judged again, with different settings.

  Args:
    order: positions of trials as `ranked` returns them.
    settings: of all trials.
    initialisation: i64[T], the study of each trial.
    count: at most so many.
  """
  return distinct(alternate(order, initialisation), settings, count)


def distinct(
  order: np.ndarray, settings: Sequence[Setting], count: int
) -> list[int]:
  """Return the first positions whose settings differ, at most `count`."""
  chosen: list[int] = []
  for position in order:
    if len(chosen) == count:
      break
    if all(settings[position] != settings[other] for other in chosen):
      chosen.append(int(position))
  return chosen


def choose(
  order: np.ndarray,
  norms: np.ndarray,
  settings: Sequence[Setting],
  *,
  initialisation: np.ndarray,
  default: Setting,
  default_may_win: bool = True,
  count: int,
  judge: Callable[[list[Setting]], np.ndarray] | None,
) -> Choice:
  """Choose the setting of a search.

  Args:
    order: positions of trials as `ranked` returns them.
    norms: f64[T] of all trials.
    settings: of all trials.
    initialisation: i64[T], the study of each trial.
    default: a setting that is judged with the finalists.
    default_may_win: False where the method does not act as its name says at the
      default setting.
    count: how many of the best are judged again.
    judge: returns the mean norm of settings on further initialisations, f64[F];
      None to choose as the reference, which takes no default.

  Raises:
    NoSetting: no trial is usable.
  """
  if not len(order):
    raise NoSetting(
      'every trial failed or has a setting at which the method does not act as '
      'its name says; search other values with config.search.space'
    )
  if judge is None:
    best = int(order[0])
    return Choice(settings[best], float(norms[best]), best, [], np.zeros(0))
  positions = finalists(order, settings, initialisation, count)
  means = judge([*(settings[p] for p in positions), default])
  candidates = means if default_may_win else means[:-1]
  first = int(np.argmin(candidates))
  trial = positions[first] if first < len(positions) else None
  setting = default if trial is None else settings[trial]
  return Choice(setting, float(means[first]), trial, positions, means)


def ranked_rows(
  rows: Sequence[records.TrialRow], norms: Sequence[float] | np.ndarray
) -> np.ndarray:
  """Return positions of the usable trials; see `ranked`."""
  return ranked(
    np.array(norms),
    np.array([row.initialisation for row in rows]),
    np.array([row.number for row in rows]),
    np.array([row.usable for row in rows]),
  )


def regret(
  judge: Judge,
  rows: Sequence[records.TrialRow],
  choice: Choice,
  *,
  default: Setting | None,
  count: int,
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
    count: how many settings are judged.
    judges: initialisations to judge on; none to take the values of the trials.
  """
  if not judge.measures_regret:
    return None
  norms = [row.reference_norm for row in rows]
  order = ranked_rows(rows, norms)
  if not judges:
    assert choice.trial is not None, 'only judges choose the default'
    return Regret(norms[choice.trial], norms[order[0]])
  settings = [row.setting for row in rows]
  study = np.array([row.initialisation for row in rows])
  best = finalists(order, settings, study, count)
  tried = [choice.setting, *(settings[p] for p in best)]
  if default is not None:
    tried.append(default)
  means = judge.mean_norms(tried, judges, oracle=True)
  return Regret(float(means[0]), float(means.min()))


def _where(trials: Sequence[Trial]) -> np.ndarray:
  return np.array([trial.initialisation for trial in trials])
