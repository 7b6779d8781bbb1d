"""Metrics and attacks on populations of models, or on stored scores.

jaxmu.audit(unlearned, against=jaxmu.retrain(original))
jaxmu.audit('scores.npz', attacks=('ulira', 'rmia'))
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxmu.api import printing, training
from jaxmu.api.populations import Models
from jaxmu.attacks import intervals, registry, roc
from jaxmu.attacks import scores as scores_lib
from jaxmu.data import splits as splits_lib
from jaxmu.report import results, tables
from jaxmu.report.results import Row

Estimates = dict[str, intervals.Estimate]
Arrays = Mapping[str, Any]  # of NumPy

# Keys of rows for the populations of a file of scores.
_KEYS = {
  'unlearned': 'unlearned',
  'retrained': results.REFERENCE,
  'original': results.ORIGINAL,
}
_ACCURACIES = ('ra', 'fa', 'va', 'ta')
_FPR_GRID = np.geomspace(1e-3, 1.0, 61)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Audit(printing.Tabular):
  """Numbers with intervals, beside those of retrained models; see `audit`.

  Attributes:
    rows: every number: method, metric, value, ends of its 95 % interval, the
      value of the retrained models, the difference, and the number of
      independent groups behind it. NaN where something is not available.
    warnings: what a reader must know before relying on the numbers.
    failed: (failed models, all models) of methods with failed models.
    curves: U-LiRA's curve of each population as arrays `fpr`, `tpr`, `low`,
      `high` and `supported`.
    scores: what the attacks read, as arrays of `jaxmu.attacks.scores`, by
      method.
    title: headline of the report.
  """

  rows: Sequence[Row]
  warnings: Sequence[str] = ()
  failed: Mapping[str, tuple[int, int]] = dataclasses.field(
    default_factory=dict
  )
  curves: Mapping[str, Arrays] = dataclasses.field(default_factory=dict)
  scores: Mapping[str, Arrays] = dataclasses.field(default_factory=dict)
  title: str = 'Audit'

  def __getitem__(self, key: tuple[str, str]) -> Row:
    """Return the row of (method, metric), such as ('msg', 'ulira_auc').

    Raises:
      KeyError: there is no such row.
    """
    for row in self.rows:
      if (row.method, row.metric) == key:
        return row
    known = sorted({row.metric for row in self.rows if row.method == key[0]})
    raise KeyError(f'no {key[1]!r} of {key[0]!r}; there are {known}')

  def columns(self) -> dict[str, list[Any]]:
    """Return one line per number."""
    names = [field.name for field in dataclasses.fields(Row)]
    return {n: [getattr(row, n) for row in self.rows] for n in names}

  def table(self, *, width: int = 100, everything: bool = True) -> str:
    """Return the numbers as text, a block per metric.

    Args:
      width: columns of the terminal.
      everything: all metrics; else those to read first, as `print` shows.
    """
    chosen = self.rows if everything else _headline(self.rows)
    return tables.table_text(list(chosen), width=width, failed=self.failed)

  def __repr__(self) -> str:
    lines = [f'Note: {warning}' for warning in self.warnings]
    return '\n'.join([self.table(everything=False).rstrip('\n'), *lines])

  def plot(self, what: str = '') -> Any:
    """Draw accuracies or ROC curves; a `matplotlib.figure.Figure`.

    Args:
      what: 'accuracy' or 'roc'; by default the first of them that there is.

    Raises:
      ValueError: there is no such picture of this audit.
    """
    drawn = self._pictures()
    if not drawn or what and what not in drawn:
      there = ', '.join(drawn) or 'none'
      raise ValueError(f'no picture {what!r} of this audit; there are: {there}')
    return drawn[what or next(iter(drawn))][1]()

  def save(self, path: str | os.PathLike) -> pathlib.Path:
    """Write the report: results.csv, results.json, report.html, plots, scores.

    Args:
      path: folder to write; made if it does not exist.

    Raises:
      OSError: it cannot be written.
    """
    from jaxmu.report import html

    folder = pathlib.Path(path).expanduser()
    report = html.Report(
      title=self.title,
      lead=[],
      rows=list(self.rows),
      pictures=[
        html.Picture(name, caption, draw())
        for name, (caption, draw) in self._pictures().items()
      ],
      warnings=list(self.warnings),
      failed=self.failed,
    )
    html.write_report(folder, report)
    for name, arrays in self.scores.items():
      target = folder / 'scores' / f'{name.replace(" ", "_")}.npz'
      target.parent.mkdir(exist_ok=True)
      np.savez(target, **arrays)
    return folder

  def _pictures(self) -> dict[str, tuple[str, Callable[[], Any]]]:
    found: dict[str, tuple[str, Callable[[], Any]]] = {}
    if any(row.metric in _ACCURACIES for row in self.rows):
      found['accuracy'] = ('Accuracy on each set.', self._accuracy_bars)
    if self.curves:
      found['roc'] = (
        'Share of forgotten examples that U-LiRA finds (vertical) at a share '
        'of false alarms (horizontal). The diagonal is guessing.',
        self._roc_curves,
      )
    return found

  def _accuracy_bars(self) -> Any:
    from jaxmu.report import plots

    known = {(r.method, r.metric): r for r in self.rows}
    names = [r.method for r in self.rows if r.metric == 'ra']
    cells = [
      [known.get((m, k), Row(m, k, results.NAN)) for k in _ACCURACIES]
      for m in names
    ]
    values, low, high = (
      [[getattr(cell, end) for cell in line] for line in cells]
      for end in ('value', 'low', 'high')
    )
    return plots.accuracy_bars(names, values, low, high)

  def _roc_curves(self) -> Any:
    from jaxmu.report import plots

    return plots.roc({n: plots.Roc(**c) for n, c in self.curves.items()})


def _headline(rows: Sequence[Row]) -> list[Row]:
  """Return the rows to read first, without metrics that are not available."""
  first = {row.metric for row in tables.headline(rows)}
  shown = {
    row.metric
    for row in rows
    if np.isfinite(row.value) and row.method != results.REFERENCE
  }
  return [
    row
    for row in rows
    if row.metric in shown and (row.metric in first or _is_auc(row.metric))
  ]


def _is_auc(metric: str) -> bool:
  beside = metric.startswith('excess_') or metric.endswith('_retain_auc')
  return metric.endswith('_auc') and not beside


def audit(
  models: Any,
  *,
  against: Models | None = None,
  attacks: Sequence[Any] | None = None,
  fprs: Sequence[float] = roc.FPRS,
) -> Audit:
  """Measure what models remember, and how close they are to retraining.

  Args:
    models: what `unlearn` or `train` returned, or a list of such populations
      with the same design; or the scores of models from any framework: an
      `.npz` file, or arrays by name as in `jaxmu.attacks.scores`.
    against: retrained models, the reference. Without them, numbers that
      compare with retraining are left out.
    attacks: names in `jaxmu.ATTACKS` or plug-ins; by default those that take
      seconds and that these scores allow; () for none.
    fprs: false-positive rates, in (0, 1), at which to give true-positive rates.

  Returns:
    The numbers; `print` shows the ones to read first.

  Raises:
    ValueError: nothing that can be audited, populations that do not belong
      together, an unknown attack, or one that these scores do not allow.

  Example:
    >>> import jaxmu
    >>> data = jaxmu.load_data('digits')
    >>> design = jaxmu.split(data, splits=2, pool=400)
    >>> original = jaxmu.train(data, design, model='tiny', num_epochs=2)
    >>> unlearned = jaxmu.unlearn('ga', original, num_epochs=1)
    >>> found = jaxmu.audit(unlearned, against=jaxmu.retrain(original))
    >>> found['ga', 'ta'].value >= 0
    True
    >>> import numpy as np
    >>> state = np.tile([[1, 2, 2, 1], [2, 1, 1, 2]], (8, 4))
    >>> noise = np.random.default_rng(0).normal(size=state.shape)
    >>> scores = {
    ...   'log_odds': noise + 5 * (state == 1), 'state': state,
    ...   'split': np.arange(16)}
    >>> jaxmu.audit(scores, attacks=['ulira'])['unlearned', 'ulira_auc'].value
    1.0
  """
  for rate in fprs:
    if not 0 < rate < 1:
      raise ValueError(f'fprs has {rate!r}; give rates between 0 and 1')
  if isinstance(models, Models):
    models = [models]
  if isinstance(models, str | os.PathLike):
    return _audit_scores(read_scores(models), attacks, fprs, str(models))
  if isinstance(models, Mapping):
    return _audit_scores(models, attacks, fprs, 'the arrays')
  several = isinstance(models, list | tuple) and models
  if not several or not all(isinstance(one, Models) for one in models):
    raise ValueError(
      f'models is a {type(models).__name__}; give what jaxmu.unlearn returned, '
      'a list of that, an .npz file of scores or arrays by name'
    )
  return _audit_models(models, against, attacks, fprs)


def read_scores(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """Read the arrays of an `.npz` file.

  Raises:
    ValueError: there is no such file, or it is no archive of plain arrays.
  """
  from jaxmu.data import formats

  path = pathlib.Path(path).expanduser()
  if not path.is_file():
    raise ValueError(f'no file {str(path)!r} (looked in {pathlib.Path.cwd()})')
  return formats.read_archive(path, needed=('state', 'split'))


def _audit_scores(
  arrays: Arrays,
  attacks: Sequence[Any] | None,
  fprs: Sequence[float],
  origin: str,
) -> Audit:
  try:
    data = scores_lib.from_arrays(arrays)
  except ValueError as error:
    raise ValueError(f'{origin}: {error}') from error
  found = _run_attacks(data, attacks, fprs)
  numbers = {_KEYS[name]: values for name, values in found.items()}
  return Audit(
    rows=_rows(numbers),
    warnings=list(data.warnings),
    curves={
      _KEYS[k]: v for k, v in _curves(data, attacks, numbers.values()).items()
    },
    scores={'unlearned': dict(arrays)},
    title='Attacks on stored scores',
  )


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluated:
  """One population of P models and N examples as metrics read it.

  Attributes:
    name: key of its rows.
    log_odds: f64[P, N] of the true class.
    correct: bool[P, N].
    state: int8[P, N], see `jaxmu.types`.
    validation: i64[V] columns of the validation examples.
    test: i64[T] columns of the test examples.
    cluster: i64[P], what is independent.
    split: i64[P].
    classes: number of classes.
    failed: bool[P].
    retrained: the retrained population, row by row, or None.
  """

  name: str
  log_odds: np.ndarray
  correct: np.ndarray
  state: np.ndarray
  validation: np.ndarray
  test: np.ndarray
  cluster: np.ndarray
  split: np.ndarray
  classes: int
  failed: np.ndarray
  retrained: Any = None

  # What the evaluation of a job calls some of these.
  @property
  def phi(self) -> np.ndarray:
    """The log-odds."""
    return self.log_odds

  @property
  def design(self) -> Any:
    """The part of a design that is read."""
    return _Columns(val=self.validation)

  @property
  def source(self) -> Any:
    """The part of a data set that is read."""
    return _Columns(num_dev=int(self.state.shape[1] - len(self.test)))


@dataclasses.dataclass(frozen=True)
class _Columns:
  val: Any = None
  num_dev: int = 0


def _audit_models(
  populations: Sequence[Models],
  against: Models | None,
  attacks: Sequence[Any] | None,
  fprs: Sequence[float],
) -> Audit:
  designs = {id(one.design) for one in populations}
  if against is not None:
    if against.name != 'retrain':
      raise ValueError(
        f'against = {against.name!r}; give the models that jaxmu.retrain '
        'returned'
      )
    designs.add(id(against.design))
  if len(designs) > 1:
    raise ValueError(
      'the populations have different designs; audit those that come from '
      'the same jaxmu.train'
    )
  numbers: dict[str, Estimates] = {}
  curves: dict[str, Arrays] = {}
  stored: dict[str, Arrays] = {}
  failed: dict[str, tuple[int, int]] = {}
  warnings: list[str] = []
  for key, members in _by_variant(populations):
    evaluated = _evaluated(key, members, against)
    parts = _with_references(evaluated, members)
    for part in parts.values():
      numbers.setdefault(part.name, _metrics(part))
      bad = int(part.failed.sum())
      if bad:
        failed[part.name] = (bad, len(part.failed))
    stored[key] = _arrays(parts)
    try:
      data = scores_lib.from_arrays(stored[key])
    except ValueError as error:
      if attacks:
        raise
      _note(warnings, f'attacks were not run: {error}')
      continue
    found = _run_attacks(data, attacks, fprs)
    for side, values in found.items():
      known = numbers[parts[side].name]
      known |= {k: v for k, v in values.items() if k not in known}
    for side, curve in _curves(data, attacks, [*found.values()]).items():
      curves.setdefault(parts[side].name, curve)
    for warning in data.warnings:
      _note(warnings, warning)
  names = ', '.join(dict.fromkeys(one.name for one in populations))
  return Audit(
    rows=_rows(numbers),
    warnings=[*map(_failure, failed.items()), *warnings],
    failed=failed,
    curves=curves,
    scores=stored,
    title=f'{names}: {populations[0].setup.describe()}',
  )


def _note(warnings: list[str], text: str) -> None:
  if text not in warnings:
    warnings.append(text)


def _failure(entry: tuple[str, tuple[int, int]]) -> str:
  name, (bad, all_models) = entry
  return f'{name}: {bad} of {all_models} models are no longer finite'


def _by_variant(
  populations: Sequence[Models],
) -> Iterable[tuple[str, Models]]:
  """Divide populations by the values of a sweep; keys are unique."""
  seen: dict[str, int] = {}
  for one in populations:
    for variant in one.variants:
      key = ' '.join(filter(None, [one.name, variant]))
      seen[key] = seen.get(key, 0) + 1
      where = np.array([v == variant for v in one.variant])
      yield (
        key if seen[key] == 1 else f'{key} ({seen[key]})',
        one.select(where) if len(one.variants) > 1 else one,
      )


def _evaluated(key: str, models: Models, against: Models | None) -> Evaluated:
  """Predict, one row per seed and forget set, beside the retrained models."""
  if models.original is None:  # an original serves all sets of its split
    members, index = training._per_forget_set(models)
  else:
    members, index = models.members, np.arange(len(models))
  retrained = None
  if against is not None and against is not models:
    reference = against.select(_match(models, index, members, against))
    retrained = _evaluated(results.REFERENCE, reference, None)
  found = training.predict(models)
  state = splits_lib.membership(models.design, len(models.data.label))
  pair = models.design.pair[members.row]
  one_pair = len(np.unique(models.design.pair)) == 1
  return Evaluated(
    name=key,
    log_odds=found.log_odds[index].astype(np.float64),
    correct=found.correct[index],
    state=state[members.row],
    validation=models.design.val.astype(np.int64),
    test=np.arange(models.data.num_dev, len(models.data.label)),
    cluster=members.seed if one_pair else pair,
    split=members.split,
    classes=models.data.num_classes,
    failed=models.failed[index] >= 0,
    retrained=retrained,
  )


def _match(
  models: Models, index: np.ndarray, members: Any, against: Models
) -> np.ndarray:
  """Return the position of each member's retrained model, i64[P]."""
  swept = len(against.variants) > 1

  def name(seed: int, split: int, forget_set: int, variant: str) -> Any:
    return int(seed), int(split), int(forget_set), variant if swept else ''

  own = against.members
  position = {
    name(own.seed[k], own.split[k], own.forget_set[k], against.variant[k]): k
    for k in range(len(against))
  }
  found = []
  for p, k in enumerate(index.tolist()):
    variant = models.variant[k]
    if models.original is not None and models.source is not None:
      variant = models.original.variant[models.source[k]]
    wanted = name(
      members.seed[p], members.split[p], members.forget_set[p], variant
    )
    if wanted not in position:
      raise ValueError(
        f'no model was retrained for seed {wanted[0]}, split {wanted[1]}, '
        f'forget set {wanted[2]}; give against=jaxmu.retrain(original) of the '
        'same originals'
      )
    found.append(position[wanted])
  return np.array(found)


def _with_references(
  evaluated: Evaluated, models: Models
) -> dict[str, Evaluated]:
  """Return the populations of one audit by their names in attacks."""
  parts = {'unlearned': evaluated}
  retrained = evaluated.retrained
  if retrained is not None:
    parts['retrained'] = dataclasses.replace(retrained, retrained=retrained)
  if models.original is not None and models.source is not None:
    originals = models.original.select(models.source)
    members = dict(zip(models.members._fields, models.members, strict=True))
    # One row per forget set of the unlearned models.
    originals = dataclasses.replace(
      originals, members=type(models.members)(**members), original=originals
    )
    parts['original'] = dataclasses.replace(
      _evaluated(results.ORIGINAL, originals, None), retrained=retrained
    )
  return parts


def _arrays(parts: Mapping[str, Evaluated]) -> dict[str, np.ndarray]:
  """Return what attacks read, as in the files of scores of a job."""
  own = parts['unlearned']
  found = {'state': own.state, 'split': own.split}
  for side, part in parts.items():
    prefix = '' if side == 'unlearned' else f'{side}_'
    found[f'{prefix}log_odds'] = part.log_odds.astype(np.float32)
    if f'{prefix}failed' in scores_lib.KEYS:
      found[f'{prefix}failed'] = part.failed
  return found


def _metrics(part: Evaluated) -> Estimates:
  """Compute all metrics of a population."""
  try:
    from jaxmu import metrics
    from jaxmu.metrics import interface  # type: ignore[attr-defined]
  except ImportError:
    return _metrics_of_jobs(part)
  population = interface.Evaluated(
    **{f.name: getattr(part, f.name) for f in dataclasses.fields(Evaluated)}
  )
  if part.retrained is not None:
    reference = interface.Evaluated(
      **{
        f.name: getattr(part.retrained, f.name)
        for f in dataclasses.fields(Evaluated)
        if f.name != 'retrained'
      }
    )
    population = dataclasses.replace(population, retrained=reference)
  found: Estimates = {}
  for metric in metrics.METRICS.values():  # type: ignore[attr-defined]
    try:
      values = interface.run(metric, population)
    except ValueError:
      continue  # it needs what is not there
    for name, value in values.items():
      if not isinstance(value, intervals.Estimate):
        means = intervals.group_means(value, part.cluster)
        value = intervals.over_splits(means)
      found[name] = value
  return found


def _metrics_of_jobs(part: Evaluated) -> Estimates:
  """Compute the metrics of a job where there is no registry of metrics."""
  from jaxmu.metrics import utility
  from jaxmu.study import evaluate

  sets = {
    'ra': part.state == splits_lib.RETAINED,
    'fa': part.state == splits_lib.FORGOTTEN,
    'va': _mask(part, part.validation),
    'ta': _mask(part, part.test),
  }
  found = {
    name: evaluate.over_clusters(
      utility.accuracy(part.correct, where), part.cluster
    )
    for name, where in sets.items()
    if where.any(axis=1).all()
  }
  if part.retrained is None or len(found) < len(sets):
    return found
  view: Any = part
  try:
    return found | evaluate.utility(view, view, part.retrained)
  except ValueError:  # a ratio to an accuracy of 0
    return found


def _mask(part: Evaluated, columns: np.ndarray) -> np.ndarray:
  where = np.zeros(part.state.shape, bool)
  where[:, columns] = True
  return where


def _run_attacks(
  data: scores_lib.Scores, attacks: Sequence[Any] | None, fprs: Sequence[float]
) -> dict[str, Estimates]:
  """Return the numbers of all attacks by population."""
  if attacks is None:
    attacks = _cheap(data)
  given: dict[str, Estimates] = {name: {} for name in _sides(data)}
  for one in registry.run(data, attacks=attacks, fprs=fprs) if attacks else []:
    # Before attacks reported populations apart, the statistic named them.
    population = getattr(one, 'population', '')
    statistic = getattr(one, 'statistic', '') or getattr(one, 'metric', '')
    excess = getattr(one, 'excess', None)
    if not population:
      population, statistic, is_excess = _divide(statistic)
      if is_excess:
        excess, statistic = one.estimate, statistic
    metric = f'{one.attack}_{statistic}'.replace('@', '_')
    if excess is not one.estimate:
      given[population][metric] = one.estimate
    if excess is not None:
      given[population][f'excess_{metric}'] = excess
  return given


def _cheap(data: scores_lib.Scores) -> tuple[str, ...]:
  possible: Any = registry.possible_attacks
  try:
    return possible(data, costly=False)
  except TypeError:
    costly = ('kde', 'histogram', 'combined', 'per_example')
    return tuple(name for name in possible(data) if name not in costly)


def _sides(data: scores_lib.Scores) -> Mapping[str, Any]:
  return getattr(data, 'populations', None) or data.sides


def _divide(metric: str) -> tuple[str, str, bool]:
  for prefix in ('retrained', 'original'):
    if metric.startswith(f'{prefix}_'):
      return prefix, metric.removeprefix(f'{prefix}_'), False
  excess = metric.startswith('excess_')
  return 'unlearned', metric.removeprefix('excess_'), excess


def _curves(
  data: scores_lib.Scores,
  attacks: Sequence[Any] | None,
  numbers: Iterable[Estimates],
) -> dict[str, dict[str, np.ndarray]]:
  """Return U-LiRA's curves, where it was run."""
  if not any('ulira_auc' in values for values in numbers):
    return {}
  score: Any = getattr(registry, 'score', None)
  ratios = score('ulira', data) if score else registry.ratios(data)
  found = {}
  for side, ratio in ratios.items():
    one = _sides(data)[side]
    state = getattr(one, 'audited_state', None)
    state = data.audited_state if state is None else state
    group = getattr(one, 'group', data.group)
    curve = roc.curves(ratio, state, group, fpr=_FPR_GRID)
    names = ('fpr', 'tpr', 'low', 'high', 'supported')
    found[side] = {name: curve[name] for name in names}
  return found


def _rows(numbers: Mapping[str, Estimates]) -> list[Row]:
  """Return estimates as rows beside those of the retrained models."""
  reference = numbers.get(results.REFERENCE, {})
  found = []
  for method in results.ordered(numbers):
    for metric, estimate in numbers[method].items():
      retrained = results.NAN
      if metric in reference:
        retrained = reference[metric].value
      elif metric.startswith('excess_'):
        retrained = 0.0
      found.append(
        Row(
          method=method,
          metric=metric,
          value=estimate.value,
          low=estimate.low,
          high=estimate.high,
          retrained=retrained,
          gap=estimate.value - retrained,
          n=estimate.n,
        )
      )
  return found
