"""Metrics and attacks on populations of models, or on stored scores.

jaxmu.audit(unlearned, against=jaxmu.retrain(original))
jaxmu.audit('scores.npz', attacks=('ulira', 'rmia'))
"""

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmu.api import audits, training
from jaxmu.api.audits import Arrays, Audit
from jaxmu.api.populations import Models
from jaxmu.attacks import registry, roc
from jaxmu.data import splits as splits_lib
from jaxmu.methods.parts import weights
from jaxmu.metrics import METRICS, Evaluated
from jaxmu.report import results, summary
from jaxmu.report.results import Row
from jaxmu.study import evaluate, publish
from jaxmu.study import job as job_lib


def audit(
  models: Any,
  *,
  against: Models | None = None,
  attacks: Sequence[Any] | None = None,
  fprs: Sequence[float] = roc.FPRS,
) -> Audit:
  """Measure what models remember, and how close they are to retraining.

  The numbers are those of a job, except for run times: `jaxmu.run` measures
  them on one model at a time, which populations do not allow.

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
    return audits.of_scores(
      audits.read_scores(models), str(models), attacks, fprs
    )
  if isinstance(models, Mapping):
    audited = audits.of_scores(models, 'the arrays', attacks, fprs)
    return dataclasses.replace(audited, scores={results.UNLEARNED: models})
  several = isinstance(models, list | tuple) and models
  if not several or not all(isinstance(one, Models) for one in models):
    raise ValueError(
      f'models is a {type(models).__name__}; give what jaxmu.unlearn returned, '
      'a list of that, an .npz file of scores or arrays by name'
    )
  return _audit_models(models, against, attacks, fprs)


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
  measured = _Measured(attacks, fprs)
  references: dict[Any, _Part] = {}
  for key, models in _by_variant(populations):
    measured.add(key, _with_references(key, models, against, references))
  collected = measured.collected
  evaluation = evaluate.Evaluation(
    rows=evaluate.rows(collected, measured.counted),
    curves=measured.attacks.curves,
    scores=measured.log_odds,
    failed=measured.failed,
    warnings=[
      *(
        f'{name}: {bad} of {size} models failed: losses or weights not finite'
        for name, (bad, size) in measured.failed.items()
      ),
      *measured.warnings,
      *measured.attacks.warnings,
      *collected.partial,
      *summary.explain_missing(collected.missing),
    ],
    missing=collected.missing,
    per_cluster={},
  )
  order = results.ordered(collected.estimates)
  rows = sorted(evaluation.rows, key=lambda row: order.index(row.method))
  names = ', '.join(dict.fromkeys(one.name for one in populations))
  return Audit(
    rows=rows,
    warnings=evaluation.warnings,
    failed=evaluation.failed,
    missing=evaluation.missing,
    curves=evaluation.curves,
    scores=measured.stored,
    drawings=publish.drawings(evaluation._replace(rows=rows)),
    title=f'{names}: {populations[0].setup.describe()}',
  )


class _Part(NamedTuple):
  """A population as metrics and attacks read it.

  Attributes:
    evaluated: its predictions, a row per forget set.
    models: its models.
    rows: i64[R], the model of each row.
  """

  evaluated: Evaluated
  models: Models
  rows: np.ndarray

  def params(self) -> Any:
    """Return the weights of the first rows, leaves [K, ...]."""
    first = self.rows[: evaluate.MOST_COMPARED]
    return jax.tree.map(lambda x: x[first], self.models.variables['params'])


class _Measured:
  """Numbers of populations, each measured once.

  Attributes:
    collected: the numbers.
    attacks: runs the attacks.
    counted: counted work.
    failed: (failed models, all models) of populations with failed models.
    log_odds: of forgotten and of never-seen examples.
    stored: what attacks read, as in the files of scores of a job.
    warnings: of the scores.
  """

  def __init__(self, attacks: Sequence[Any] | None, fprs: Sequence[float]):
    self.collected = evaluate.Collected()
    self.attacks = evaluate.Attacks(
      self.collected,
      attacks or (),
      fprs=fprs,
      remedy='Give jaxmu.split more splits, such as splits=16',
    )
    self.counted: dict[str, Row] = {}
    self.failed: dict[str, tuple[int, int]] = {}
    self.log_odds: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    self.stored: dict[str, Arrays] = {}
    self.warnings: list[str] = []
    self._named = attacks

  def add(self, key: str, parts: Mapping[str, _Part]) -> None:
    """Measure a population and its references, where they are new."""
    self.stored[key] = _arrays(parts)
    new = {
      part.evaluated.name: part
      for part in parts.values()
      if part.evaluated.name not in self.collected.estimates
    }
    for name, part in new.items():
      self._measure(part)
      self._attack(part)
      self.log_odds[name] = evaluate.compared_log_odds(part.evaluated)
    self._compare(parts, new)

  def _measure(self, part: _Part) -> None:
    one = part.evaluated
    for metric in METRICS.values():
      if 'retrained' not in metric.card.needs or one.retrained:
        evaluate.measure(one, metric, self.collected)
    if one.failed.any():
      self.failed[one.name] = (int(one.failed.sum()), one.size)

  def _attack(self, part: _Part) -> None:
    if self._named is not None and not self._named:
      return
    data = self.attacks.run(part.evaluated, part.rows)
    if self._named and part.evaluated.name not in (
      results.REFERENCE,
      results.ORIGINAL,
    ):
      registry.choose(data, self._named)
      if self.attacks.warnings:
        raise ValueError(self.attacks.warnings[0])
    self.warnings += [w for w in data.warnings if w not in self.warnings]

  def _compare(
    self, parts: Mapping[str, _Part], new: Mapping[str, _Part]
  ) -> None:
    """Compare weights and counted work with those of the references."""
    original, retrained = (parts.get(n) for n in ('original', 'retrained'))
    one = parts['unlearned']
    first = one.params()
    evaluate.measure_distances(
      ((name, part.params()) for name, part in new.items()),
      self.collected,
      original=original and original.params(),
      retrained=retrained and retrained.params(),
      live=weights.live_weights(
        one.models.setup.task(), evaluate.one_of(first, 0)
      ),
      cluster=one.evaluated.cluster[: evaluate.MOST_COMPARED],
    )
    if retrained is None:
      return
    reference = _work(retrained)
    for name, part in new.items():
      if part.models.method is not None and not part.evaluated.failed.all():
        self.counted[name] = evaluate.counted_row(
          name, reference, _work(part), part.evaluated.size
        )


def _work(part: _Part) -> float:
  """Return the counted work of a model, on average over the rows."""
  models = part.models
  assert models.method is not None
  sizes = job_lib.sizes(models.design, models.data.num_classes)
  return float(
    np.mean(
      [
        job_lib.counted_cost(models.method, models.hparams[k], sizes)
        for k in part.rows
      ]
    )
  )


def _by_variant(
  populations: Sequence[Models],
) -> Iterator[tuple[str, Models]]:
  """Divide populations by the values that were tried; keys are unique."""
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


def _part(
  key: str,
  models: Models,
  rows: np.ndarray,
  members: job_lib.Members,
  retrained: Evaluated | None,
) -> _Part:
  """Return a population, with its models repeated for forget sets.

  Args:
    key: name of the population.
    models: the models, whose predictions are made once.
    rows: i64[R], the model of each row.
    members: seed, split and forget set of each row.
    retrained: the retrained models, row by row.
  """
  design, data = models.design, models.data
  pair = design.pair[members.row]
  one_pair = len(np.unique(design.pair)) == 1
  evaluated = Evaluated(
    name=key,
    log_odds=models.scores.log_odds[rows].astype(np.float64),
    correct=models.scores.correct[rows],
    state=splits_lib.membership(design, len(data.label))[members.row],
    validation=design.val.astype(np.int64),
    test=np.arange(data.num_dev, len(data.label)),
    cluster=members.seed if one_pair else pair,
    split=members.split,
    classes=data.num_classes,
    failed=models.failed[rows] >= 0,
    retrained=retrained,
  )
  if key == results.REFERENCE:  # compared with itself
    evaluated = dataclasses.replace(evaluated, retrained=evaluated)
  return _Part(evaluated, models, rows)


def _forget_sets(models: Models) -> tuple[Any, np.ndarray]:
  """Return members per forget set, and the position of the model of each."""
  if models.name == results.ORIGINAL:  # one model for all sets of its split
    return training.per_forget_set(models)
  return models.members, np.arange(len(models))


def _match(models: Models, against: Models) -> np.ndarray:
  """Return the position of each member's retrained model, i64[P]."""
  members, index = _forget_sets(models)
  several = len(against.variants) > 1
  position = {
    (*name, variant if several else ''): k
    for k, (name, variant) in enumerate(
      zip(against.members.names, against.variant, strict=True)
    )
  }
  positions = []
  for name, k in zip(members.names, index.tolist(), strict=True):
    variant = models.variant[k]
    if models.original is not None and models.source is not None:
      variant = models.original.variant[models.source[k]]
    wanted = (*name, variant if several else '')
    if wanted not in position:
      raise ValueError(
        f'no model was retrained for seed {name[0]}, split {name[1]}, forget '
        f'set {name[2]}; give against=jaxmu.retrain(original) of the same '
        'originals'
      )
    positions.append(position[wanted])
  return np.array(positions)


def _with_references(
  key: str,
  models: Models,
  against: Models | None,
  known: dict[Any, _Part],
) -> dict[str, _Part]:
  """Return the populations of one audit by their names in attacks.

  `known` caches retrained and original models that were evaluated before.
  """
  parts: dict[str, _Part] = {}
  members, rows = _forget_sets(models)
  retrained = None
  if against is not None and against is not models:
    index = _match(models, against)
    place = ('retrained', *index.tolist())
    if place not in known:
      known[place] = _part(results.REFERENCE, against, index, members, None)
    parts['retrained'] = known[place]
    retrained = known[place].evaluated
  parts['unlearned'] = _part(key, models, rows, members, retrained)
  original, source = models.original, models.source
  if original is not None and source is not None and key != results.REFERENCE:
    place = ('original', id(original), *source.tolist())
    if place not in known:
      known[place] = _part(
        results.ORIGINAL, original, source, members, retrained
      )
    parts['original'] = known[place]
  return parts


def _arrays(parts: Mapping[str, _Part]) -> dict[str, np.ndarray]:
  """Return what attacks read, as in the files of scores of a job."""
  one = parts['unlearned'].evaluated
  arrays = {'state': one.state, 'split': one.split}
  for side, part in parts.items():
    prefix = '' if side == 'unlearned' else f'{side}_'
    arrays[f'{prefix}log_odds'] = part.evaluated.log_odds.astype(np.float32)
    arrays[f'{prefix}failed'] = part.evaluated.failed
  return arrays
