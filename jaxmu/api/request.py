"""A deletion request: delete training examples from one trained model.

    python -m jaxmu.unlearn --checkpoint=net.safetensors --data=cifar10 \\
      --forget=ids.txt --method=ct --out=unlearned

writes to the folder `unlearned`

  net.safetensors  the unlearned model, in the form of the checkpoint
  settings.json    all settings of the run, and the checks
  report.md        the checks, and what cannot be checked
"""

import dataclasses
import os
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from scipy import stats

from jaxmu import __version__, files
from jaxmu.api import defaults, inputs, printing, training
from jaxmu.api.populations import Models, Predictions
from jaxmu.models import checkpoints
from jaxmu.report import results

_SETS = ('retain', 'forget', 'test')


@dataclasses.dataclass(frozen=True)
class Check:
  """One number before and after unlearning.

  Attributes:
    name: what is measured.
    before: of the original model; NaN if it is not available.
    after: of the unlearned model.
    low: lower end of the 95 % interval of `after`, NaN without one.
    high: upper end.
    low_before: lower end of the interval of `before`.
    high_before: upper end.
  """

  name: str
  before: float
  after: float
  low: float = results.NAN
  high: float = results.NAN
  low_before: float = results.NAN
  high_before: float = results.NAN


@dataclasses.dataclass(frozen=True, repr=False)
class Deletion(printing.Tabular):
  """The result of a deletion request; made by `delete`.

  Attributes:
    models: the unlearned model, a population of one.
    checks: numbers before and after.
    notes: explanations and warnings.
    unchecked: what cannot be checked, and what a check would need.
    settings: all settings of the run.
  """

  models: Models
  checks: Sequence[Check]
  notes: Sequence[str]
  unchecked: Sequence[str]
  settings: Mapping[str, Any]

  def columns(self) -> dict[str, list[Any]]:
    """Return one line per check."""
    return {
      'check': [c.name for c in self.checks],
      'before': [
        _with_interval(c.before, c.low_before, c.high_before)
        for c in self.checks
      ],
      'after': [_with_interval(c.after, c.low, c.high) for c in self.checks],
    }

  def __repr__(self) -> str:
    notes = [f'Note: {note}' for note in self.notes]
    return '\n'.join([self.table(), *notes])

  def markdown(self) -> str:
    """Return the report as Markdown."""
    s = self.settings
    lines = [
      '# Deletion report',
      '',
      f'{s["forget"]["count"]} of {s["data"]["train"]} training examples of '
      f'{s["data"]["name"]} were unlearned from `{s["checkpoint"]["file"]}` '
      f'with {s["method"]["title"]}, in {s["seconds"]:.1f} s.',
      '',
      '## What was checked',
      '',
      '| check | original | unlearned |',
      '| --- | --- | --- |',
    ]
    columns = self.columns()
    lines += [
      f'| {" | ".join(row)} |' for row in zip(*columns.values(), strict=True)
    ]
    lines += ['', 'Brackets hold 95 % intervals.', '']
    lines += [f'- {note}' for note in self.notes]
    lines += ['', '## What could not be checked', '']
    lines += [f'- {text}' for text in self.unchecked]
    lines += ['', '## Settings', '', '```json']
    lines += [_json(self.settings), '```', '']
    return '\n'.join(lines)

  def save(
    self,
    path: str | os.PathLike,
    *,
    like: str | os.PathLike | None = None,
  ) -> pathlib.Path:
    """Write model, settings and report to a folder.

    Args:
      path: the folder; made if it does not exist.
      like: the checkpoint whose name and structure the file copies.

    Raises:
      ValueError: as for `make_folder`.
      OSError: a file cannot be written.
    """
    target = make_folder(path, like)
    folder, name = target.parent, target.name
    checkpoints.write(
      self.models.setup.model, self.models.model(0), target, like
    )
    results.write_json(
      folder / 'settings.json',
      {
        **self.settings,
        'checks': list(self.checks),
        'notes': list(self.notes),
        'unchecked': list(self.unchecked),
        'unlearned': {'file': name, 'sha256': files.sha256(target)},
      },
    )
    files.write_text(folder / 'report.md', self.markdown())
    return folder


def make_folder(
  path: str | os.PathLike, like: str | os.PathLike | None = None
) -> pathlib.Path:
  """Make the folder of an answer; return where its checkpoint goes.

  Args:
    path: the folder.
    like: the checkpoint whose name it takes.

  Raises:
    ValueError: the folder cannot be made, or the file is the original itself.
  """
  folder = pathlib.Path(path).expanduser()
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise ValueError(
      f'{folder} cannot be made ({error.strerror}); name a folder that you may '
      'write to'
    ) from error
  original = pathlib.Path(like).expanduser() if like else None
  target = folder / (original.name if original else 'unlearned.safetensors')
  if original and target.exists() and target.samefile(original):
    raise ValueError(
      f'{target} is the original checkpoint, which would be replaced; choose '
      'another folder'
    )
  return target


def delete(
  method: Any,
  checkpoint: Any,
  *,
  data: Any,
  forget: Any,
  model: Any = 'resnet18',
  model_options: Mapping[str, Any] | None = None,
  val: Any = None,
  seed: int = 0,
  progress: bool | None = None,
  **hparams: Any,
) -> Deletion:
  """Unlearn examples from one trained model, and check the result.

  Args:
    method: unlearning method, as for `jaxmu.unlearn`.
    checkpoint: path of the trained model, or `{'params', 'batch_stats'}`.
    data: what it was trained on, as for `load_data`.
    forget: indices int[F] of training examples, or a file with one per line.
    model: the architecture, as for `jaxmu.train`.
    model_options: its options, such as {'width': 16}.
    val: examples of the training part that the model was not trained on: a file
      or indices int[V].
    seed: root of all random draws.
    progress: show progress on the terminal; by default if there is one.
    **hparams: hyper-parameters of the method, single values.

  Returns:
    The unlearned model with its checks.

  Raises:
    ValueError: as for `jaxmu.unlearn`, and for a file of indices that is empty
      or holds something else.

  Example:
    >>> import jaxmu
    >>> from jaxmu.api import request
    >>> data = jaxmu.load_data('digits')
    >>> design = jaxmu.split(data, splits=2, pool=400)
    >>> original = jaxmu.train(data, design, model='tiny', num_epochs=2)
    >>> deletion = request.delete(
    ...   'ga', original.model(0), data=data, forget=[3, 14], model='tiny',
    ...   num_epochs=1)
    >>> deletion.columns()['check'][:3]
    ['accuracy on retain', 'accuracy on forget', 'accuracy on test']
  """
  data = inputs.load_data(data)
  forget, val = (_indices(ids, data) for ids in (forget, val))
  for name, value in hparams.items():
    if isinstance(value, list):
      raise ValueError(f'{name} = {value!r}; give one value for one model')
  begin = time.perf_counter()
  models = training.unlearn(
    method,
    checkpoint,
    data=data,
    forget=forget,
    model=model,
    model_options=model_options,
    val=val,
    seed=seed,
    progress=progress,
    **hparams,
  )
  seconds = time.perf_counter() - begin
  assert models.original is not None
  before, after = map(training.predict, (models.original, models))
  return Deletion(
    models=models,
    checks=_checks(models, before, after),
    notes=_notes(models, before),
    unchecked=_unchecked(models),
    settings=_settings(models, checkpoint, model, seconds),
  )


def _indices(ids: Any, data: inputs.Data) -> Any:
  if isinstance(ids, str | os.PathLike):
    return inputs.read_ids(ids, data.num_dev)
  return ids


def _columns(models: Models) -> dict[str, np.ndarray]:
  data, design = models.data, models.design
  return {
    'retain': design.retain[0],
    'forget': design.forget[0],
    'test': np.arange(data.num_dev, len(data.label)),
  }


def _checks(
  models: Models, before: Predictions, after: Predictions
) -> list[Check]:
  columns = _columns(models)
  checks = []
  for name in _SETS:
    index = columns[name]
    counts = [p.correct[0, index] for p in (before, after)]
    checks.append(_share(f'accuracy on {name}', *counts))
  for name in _SETS:
    index = columns[name]
    same = before.label[0, index] == after.label[0, index]
    checks.append(
      dataclasses.replace(
        _share(f'same answer as the original on {name}', same, same),
        before=results.NAN,
        low_before=results.NAN,
        high_before=results.NAN,
      )
    )
  member, outside = _compared(models)
  name = 'loss attack, forget against test (AUC)'
  if not len(outside):
    return [*checks, Check(name, results.NAN, results.NAN)]
  attacks = [
    auc_interval(p.log_odds[0, member], p.log_odds[0, outside])
    for p in (before, after)
  ]
  (value_before, *ends_before), (value, *ends) = attacks
  return [*checks, Check(name, value_before, value, *ends, *ends_before)]


def _compared(models: Models) -> tuple[np.ndarray, np.ndarray]:
  """Return forgotten examples, and test examples of the same classes."""
  columns, label = _columns(models), models.data.label
  test = columns['test']
  same = np.isin(label[test], label[columns['forget']])
  return columns['forget'], test[same]


def _share(name: str, before: np.ndarray, after: np.ndarray) -> Check:
  low_before, high_before = _wilson(before)
  low, high = _wilson(after)
  return Check(
    name,
    _mean(before),
    _mean(after),
    low,
    high,
    low_before,
    high_before,
  )


def _mean(values: np.ndarray) -> float:
  return float(np.mean(values)) if len(values) else results.NAN


def _wilson(values: np.ndarray) -> tuple[float, float]:
  """Return Wilson's 95 % interval of a share of independent examples."""
  n = len(values)
  if not n:
    return results.NAN, results.NAN
  z, p = stats.norm.ppf(0.975), float(np.mean(values))
  middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
  half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
  # At 0 and 1 the formula gives these ends only up to rounding.
  low = 0.0 if p == 0 else middle - half
  high = 1.0 if p == 1 else middle + half
  return float(max(low, 0.0)), float(min(high, 1.0))


def auc_interval(
  member: np.ndarray, outside: np.ndarray
) -> tuple[float, float, float]:
  """Return the AUC of a score with DeLong's 95 % interval.

  The AUC is the probability that a member's score is larger than that of an
  example outside, ties counted half. Examples are assumed independent. Source:
  DeLong et al. 1988, Biometrics 44, equations 2 to 5.

  Args:
    member: f[n] scores of members, larger for more member-like.
    outside: f[m] scores of others.

  Returns:
    The AUC and both ends of its interval, within [0, 1]; the ends are NaN with
    fewer than two examples on a side.
  """
  member, outside = (np.asarray(x, np.float64) for x in (member, outside))
  of_member = _placements(member, outside)
  of_outside = 1 - _placements(outside, member)
  auc = float(of_member.mean())
  if min(len(member), len(outside)) < 2:
    return auc, results.NAN, results.NAN
  variance = of_member.var(ddof=1) / len(member)
  variance += of_outside.var(ddof=1) / len(outside)
  half = stats.norm.ppf(0.975) * np.sqrt(variance)
  return auc, float(max(auc - half, 0.0)), float(min(auc + half, 1.0))


def _placements(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
  """Return the share of `others` below each score, ties counted half."""
  ascending = np.sort(others)
  below = np.searchsorted(ascending, scores, side='left')
  up_to = np.searchsorted(ascending, scores, side='right')
  return (below + up_to) / (2 * len(others))


def _notes(models: Models, before: Predictions) -> list[str]:
  columns, data = _columns(models), models.data
  notes = [
    'The loss attack tests whether forgotten examples have higher log-odds '
    'than test examples of the same classes, which were never trained on; AUC '
    '0.5 means no difference. Its interval assumes that examples are '
    'independent and excludes the randomness of training.',
  ]
  assert models.original is not None
  leaves = jax.tree.leaves(models.original.variables)
  if not all(np.isfinite(leaf).all() for leaf in leaves):
    notes.insert(
      0,
      'The original model has weights that are not finite, so the unlearned '
      'model is of no use; start from another checkpoint.',
    )
  elif models.failed[0] >= 0:
    notes.insert(
      0,
      f'The unlearned model is not finite from epoch {models.failed[0]} on; do '
      'not use it. A smaller learning_rate may help.',
    )
  index = columns['retain']
  accuracy = _mean(before.correct[0, index])
  frequent = np.bincount(data.label[index]).max() / len(index)
  if accuracy < 1.5 * frequent:
    notes.insert(
      0,
      f'The original model is right on {accuracy:.1%} of the retained '
      f'examples, and the most frequent class alone gives {frequent:.1%}. '
      'Check the order of the classes and the normalisation (mean and std) of '
      'the images.',
    )
  _, outside = _compared(models)
  if len(outside) < len(columns['test']):
    notes.append(
      f'{len(outside)} of {len(columns["test"])} test examples are of the '
      'classes to forget; the loss attack compares with these.'
    )
  return notes


def _unchecked(models: Models) -> list[str]:
  unchecked = [
    'Whether the model behaves like one that was retrained without these '
    'examples. This needs retrained models: jaxmu.retrain, and jaxmu.audit '
    'with against=.',
    'Whether single examples can still be recognised. The strongest attacks '
    '(U-LiRA, RMIA) compare many models that were trained with and without '
    'each example: python -m jaxmu.main runs them on the same method and data.',
    'Whether the examples were in the training set of the checkpoint, and '
    'whether copies or near-copies of them remain in the data.',
    'Which other artefacts contain the examples: other checkpoints, optimiser '
    'states, backups, and models that were distilled or fine-tuned from this '
    'one.',
  ]
  if not len(models.design.val):
    unchecked.append(
      'Accuracy on validation examples: all training examples were assumed to '
      'be trained on. Name the others with val.'
    )
  return unchecked


def _settings(
  models: Models, checkpoint: Any, model: Any, seconds: float
) -> dict[str, Any]:
  setup, data, design = models.setup, models.data, models.design
  assert models.method is not None
  where: dict[str, Any] = {'file': 'variables in memory'}
  if isinstance(checkpoint, str | os.PathLike):
    path = pathlib.Path(checkpoint).expanduser()
    where = {'file': path.name, 'sha256': files.sha256(path)}
  forget = design.forget[0].astype('<i8')
  return {
    'jaxmu': __version__,
    'checkpoint': where,
    'model': setup.model_name or repr(model),
    'model_options': dict(setup.model_options),
    'method': {
      'name': models.method.name,
      'title': models.method.card.title,
      'citation': models.method.card.citation,
      'hparams': dict(models.hparams[0]),
    },
    'data': {
      'name': data.name,
      'fingerprint': data.fingerprint,
      'train': design.retain.shape[1] + design.forget.shape[1],
      'mean': data.transform.mean,
      'std': data.transform.std,
    },
    'forget': {
      'count': len(forget),
      'indices': forget.tolist(),
      'sha256': files.sha256_of(forget),
    },
    'seed': setup.seed,
    'small_data_defaults': defaults.is_small(data),
    'seconds': round(seconds, 3),
  }


def _with_interval(value: float, low: float, high: float) -> str:
  text = results.format_value(value)
  return f'{text} {results.format_interval(low, high)}'.strip()


def _json(value: Mapping[str, Any]) -> str:
  import json

  short = {**value, 'forget': {**value['forget'], 'indices': '...'}}
  return json.dumps(results.to_plain(short), indent=1, ensure_ascii=False)
