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
from jaxmu.metrics import METRICS, Evaluated
from jaxmu.report import results, summary, tables
from jaxmu.report.results import Row
from jaxmu.study import evaluate

Estimates = dict[str, intervals.Estimate]
Arrays = Mapping[str, Any]  # of NumPy

# Keys of rows for the populations of a file of scores.
_KEYS = {
  'unlearned': 'unlearned',
  'retrained': results.REFERENCE,
  'original': results.ORIGINAL,
}
_ACCURACIES = ('ra', 'fa', 'va', 'ta')


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Audit(printing.Tabular):
  """Numbers with intervals, with those of retrained models; see `audit`.

  Attributes:
    rows: every number: method, metric, value, both ends of its 95 % interval,
      the value of the retrained models, the difference, and the number of
      independent groups behind it. NaN marks what is not available.
    warnings: limitations of the numbers, as sentences.
    failed: (failed models, all models) of methods with failed models.
    missing: why numbers are not available, by (method, metric).
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
  missing: results.Missing = dataclasses.field(default_factory=dict)
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
      everything: show all metrics, not only the main ones that `print` shows.
    """
    chosen = self.rows if everything else _headline(self.rows)
    return tables.table_text(
      list(chosen), width=width, failed=self.failed, missing=self.missing
    )

  def __repr__(self) -> str:
    lines = [f'Note: {warning}' for warning in self.warnings]
    return '\n'.join([self.table(everything=False).rstrip('\n'), *lines])

  def plot(self, what: str = '') -> Any:
    """Draw accuracies or ROC curves; a `matplotlib.figure.Figure`.

    Args:
      what: 'accuracy' or 'roc'; by default the first one available.

    Raises:
      ValueError: this audit has no such picture.
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
      missing=self.missing,
    )
    html.write_report(folder, report)
    for name, arrays in self.scores.items():
      target = folder / 'scores' / f'{name.replace(" ", "_")}.npz'
      target.parent.mkdir(exist_ok=True)
      np.savez(target, **arrays)
    return folder

  def _pictures(self) -> dict[str, tuple[str, Callable[[], Any]]]:
    drawings: dict[str, tuple[str, Callable[[], Any]]] = {}
    if any(row.metric in _ACCURACIES for row in self.rows):
      drawings['accuracy'] = ('Accuracy on each set.', self._accuracy_bars)
    if self.curves:
      drawings['roc'] = (
        'True-positive rate of U-LiRA on forgotten examples (vertical) at each '
        'false-positive rate (horizontal). The diagonal is guessing.',
        self._roc_curves,
      )
    return drawings

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
  """Return the main rows, without metrics that are not available."""
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
  other = metric.startswith('excess_') or metric.endswith('_retain_auc')
  return metric.endswith('_auc') and not other


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
    The numbers; `print` shows the main ones.

  Raises:
    ValueError: `models` cannot be audited, populations do not belong together,
      or an attack is unknown or cannot run on these scores.

  Example:
    >>> import jaxmu
    >>> data = jaxmu.load_data('digits')
    >>> design = jaxmu.split(data, splits=2, pool=400)
    >>> original = jaxmu.train(data, design, model='tiny', num_epochs=2)
    >>> unlearned = jaxmu.unlearn('ga', original, num_epochs=1)
    >>> report = jaxmu.audit(unlearned, against=jaxmu.retrain(original))
    >>> report['ga', 'ta'].value >= 0
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
  if isinstance(attacks, str):
    raise ValueError(
      f'attacks = {attacks!r}; give a list such as [{attacks!r}]'
    )
  if not isinstance(fprs, Sequence | np.ndarray) or isinstance(fprs, str):
    raise ValueError(f'fprs = {fprs!r}; give a list such as [0.01, 0.1]')
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
    ValueError: there is no such file, or it is not an archive of plain arrays.
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
  estimates, curves = _run_attacks(data, attacks, fprs, {})
  return Audit(
    rows=_rows({_KEYS[name]: values for name, values in estimates.items()}),
    warnings=list(data.warnings),
    curves={_KEYS[name]: curve for name, curve in curves.items()},
    scores={'unlearned': dict(arrays)},
    title='Attacks on stored scores',
  )


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
  collected = evaluate.Collected()
  numbers = collected.estimates
  curves: dict[str, Arrays] = {}
  stored: dict[str, Arrays] = {}
  failed: dict[str, tuple[int, int]] = {}
  warnings: list[str] = []
  known: registry.Known = {}
  references: dict[Any, Evaluated] = {}
  read: dict[int, scores_lib.PopulationScores] = {}
  for key, models in _by_variant(populations):
    parts = _with_references(key, models, against, references)
    for part in parts.values():
      if part.name not in numbers:
        numbers[part.name] = {}
        _measure(part, collected)
        if part.failed.any():
          failed[part.name] = (int(part.failed.sum()), len(part.failed))
    stored[key] = _arrays(parts)
    data = _scores(parts, read)
    if isinstance(data, str):
      if attacks:
        raise ValueError(data)
      _note(warnings, f'Attacks were not run: {data}')
      continue
    estimates, drawn = _run_attacks(data, attacks, fprs, known)
    for side, values in estimates.items():
      name = parts[side].name
      for metric, estimate in values.items():
        if metric not in numbers[name]:
          collected.add(name, metric, estimate)
    for side, curve in drawn.items():
      curves.setdefault(parts[side].name, curve)
    for warning in data.warnings if estimates else ():
      _note(warnings, warning)
  names = ', '.join(dict.fromkeys(one.name for one in populations))
  return Audit(
    rows=_rows(numbers),
    warnings=[
      *map(_failure, failed.items()),
      *warnings,
      *collected.partial,
      *summary.explain_missing(collected.missing),
    ],
    failed=failed,
    missing=collected.missing,
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


def _evaluated(
  key: str,
  models: Models,
  rows: np.ndarray,
  members: Any,
  retrained: Evaluated | None,
) -> Evaluated:
  """Return what metrics read of a population.

  Args:
    key: name of the population.
    models: the models, whose predictions are made once.
    rows: i64[R], the model of each row.
    members: seed, split and forget set of each row.
    retrained: the retrained models, row by row.
  """
  state = splits_lib.membership(models.design, len(models.data.label))
  return Evaluated(
    name=key,
    log_odds=models.scores.log_odds[rows].astype(np.float64),
    correct=models.scores.correct[rows],
    state=state[members.row],
    split=members.split,
    failed=models.failed[rows] >= 0,
    retrained=retrained,
    **_design_columns(models, members),
  )


def _design_columns(models: Models, members: Any) -> dict[str, Any]:
  """Return the fields of `Evaluated` that follow from design and data."""
  pair = models.design.pair[members.row]
  one_pair = len(np.unique(models.design.pair)) == 1
  return {
    'validation': models.design.val.astype(np.int64),
    'test': np.arange(models.data.num_dev, len(models.data.label)),
    'cluster': members.seed if one_pair else pair,
    'classes': models.data.num_classes,
  }


def _forget_sets(models: Models) -> tuple[Any, np.ndarray]:
  """Return members per forget set, and the position of the model of each."""
  if models.name == results.ORIGINAL:  # one model for all sets of its split
    return training.per_forget_set(models)
  return models.members, np.arange(len(models))


def _match(models: Models, against: Models) -> np.ndarray:
  """Return the position of each member's retrained model, i64[P]."""
  members, index = _forget_sets(models)
  swept = len(against.variants) > 1

  def name(of: Any, p: int, variant: str) -> Any:
    numbers = (int(field[p]) for field in (of.seed, of.split, of.forget_set))
    return (*numbers, variant if swept else '')

  position = {
    name(against.members, k, against.variant[k]): k for k in range(len(against))
  }
  positions = []
  for p, k in enumerate(index.tolist()):
    variant = models.variant[k]
    if models.original is not None and models.source is not None:
      variant = models.original.variant[models.source[k]]
    wanted = name(members, p, variant)
    if wanted not in position:
      raise ValueError(
        f'no model was retrained for seed {wanted[0]}, split {wanted[1]}, '
        f'forget set {wanted[2]}; give against=jaxmu.retrain(original) of the '
        'same originals'
      )
    positions.append(position[wanted])
  return np.array(positions)


def _with_references(
  key: str,
  models: Models,
  against: Models | None,
  known: dict[Any, Evaluated],
) -> dict[str, Evaluated]:
  """Return the populations of one audit by their names in attacks.

  `known` caches retrained and original models that were evaluated before.
  """
  parts: dict[str, Evaluated] = {}
  members, rows = _forget_sets(models)
  retrained = None
  if against is not None and against is not models:
    index = _match(models, against)
    place = ('retrained', *index.tolist())
    if place not in known:
      one = _evaluated(results.REFERENCE, against, index, members, None)
      known[place] = dataclasses.replace(one, retrained=one)
    retrained = parts['retrained'] = known[place]
  parts['unlearned'] = _evaluated(key, models, rows, members, retrained)
  original, source = models.original, models.source
  if original is not None and source is not None and key != results.REFERENCE:
    place = ('original', id(original), *source.tolist())
    if place not in known:
      known[place] = _evaluated(
        results.ORIGINAL, original, source, members, retrained
      )
    parts['original'] = known[place]
  return parts


def _once_per_split(part: Evaluated) -> Evaluated:
  """Return each original once, with all its forget sets merged."""
  rows: dict[bytes, list[int]] = {}
  for p, row in enumerate(part.log_odds):
    rows.setdefault(row.tobytes(), []).append(p)
  first = np.array([same[0] for same in rows.values()])
  state = part.state[first].copy()
  for k, same in enumerate(rows.values()):
    forgotten = part.state[same] == splits_lib.FORGOTTEN
    state[k, forgotten.any(axis=0)] = splits_lib.FORGOTTEN
  return dataclasses.replace(
    part,
    log_odds=part.log_odds[first],
    correct=part.correct[first],
    state=state,
    cluster=part.cluster[first],
    split=part.split[first],
    failed=part.failed[first],
    retrained=None,
  )


def _scores(
  parts: Mapping[str, Evaluated],
  known: dict[int, scores_lib.PopulationScores],
) -> scores_lib.Scores | str:
  """Return what attacks read, or why they cannot be run.

  Args:
    parts: populations by their names in attacks.
    known: cache of the scores of retrained and original models, by the id of
      the population.
  """
  one = parts['unlearned']
  groups = len(np.unique(one.cluster)) if len(np.unique(one.split)) > 1 else 1
  if groups < evaluate.MIN_CLUSTERS:
    return (
      f'they need {evaluate.MIN_CLUSTERS} independent groups of splits, and '
      f'this design has {groups}; give jaxmu.split more splits, such as '
      'splits=16'
    )
  scores: dict[str, Any] = {}
  for side, part in parts.items():
    scores[side] = known.get(id(part))
    if scores[side] is None:
      one = _once_per_split(part) if side == 'original' else part
      scores[side] = scores_lib.population(
        one.log_odds, one.state, one.split, one.cluster, failed=one.failed
      )
    if side != 'unlearned':  # its id may be reused by a later population
      known[id(part)] = scores[side]
  return scores_lib.from_populations(**scores)


def _arrays(parts: Mapping[str, Evaluated]) -> dict[str, np.ndarray]:
  """Return what attacks read, as in the files of scores of a job."""
  one = parts['unlearned']
  arrays = {'state': one.state, 'split': one.split}
  for side, part in parts.items():
    prefix = '' if side == 'unlearned' else f'{side}_'
    arrays[f'{prefix}log_odds'] = part.log_odds.astype(np.float32)
    arrays[f'{prefix}failed'] = part.failed
  return arrays


def _measure(part: Evaluated, collected: evaluate.Collected) -> None:
  """Compute all metrics of a population."""
  for metric in METRICS.values():
    lacks_reference = 'retrained' in metric.card.needs and not part.retrained
    if not lacks_reference:
      evaluate.measure(part, metric, collected)


def _run_attacks(
  data: scores_lib.Scores,
  attacks: Sequence[Any] | None,
  fprs: Sequence[float],
  known: registry.Known,
) -> tuple[dict[str, Estimates], dict[str, Arrays]]:
  """Return the numbers of all attacks, and U-LiRA's curves, by population."""
  if attacks is None:
    attacks = registry.possible_attacks(data, costly=False)
  if not attacks:
    return {}, {}
  estimates: dict[str, Estimates] = {name: {} for name in data.populations}
  for one in registry.run(data, attacks=attacks, fprs=fprs, known=known):
    estimates[one.population][one.metric] = one.estimate
    if one.excess is not None:
      estimates[one.population][f'excess_{one.metric}'] = one.excess
  curves: dict[str, Arrays] = {}
  if any('ulira_auc' in values for values in estimates.values()):
    for side, ratio in registry.score('ulira', data).items():
      part = data.populations[side]
      curve = roc.curves(
        ratio, part.audited_state, part.group, fpr=roc.FPR_GRID
      )
      names = ('fpr', 'tpr', 'low', 'high', 'supported')
      curves[side] = {name: curve[name] for name in names}
  return estimates, curves


def _rows(numbers: Mapping[str, Estimates]) -> list[Row]:
  """Return estimates as rows, with the values of the retrained models."""
  return results.rows({m: numbers[m] for m in results.ordered(numbers)})
