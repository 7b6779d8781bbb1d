"""A deletion request: delete training examples from one trained model.

    python -m jaxmu.unlearn --checkpoint=net.safetensors --data=cifar10 \\
      --forget=ids.txt --method=ct --out=unlearned

writes to the folder `unlearned`

  net.safetensors  the unlearned model, in the form of the checkpoint
  settings.json    all settings of the run, and the checks
  report.md        the checks, and what cannot be checked
"""

import dataclasses
import json
import os
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from jaxmu import __version__, files, terms
from jaxmu.api import inputs, printing, training
from jaxmu.api import setup as setup_lib
from jaxmu.api.populations import Models, Predictions
from jaxmu.data import splits
from jaxmu.models import checkpoints
from jaxmu.report import results
from jaxmu.study import originals

Interval = tuple[float, float, float]  # a value, and both ends; or NaN
_ABSENT: Interval = (results.NAN, results.NAN, results.NAN)


class Check(NamedTuple):
  """One number before and after unlearning.

  Attributes:
    name: what is measured.
    before: of the original model: the value and both ends of its 95% interval,
      NaN where they are not available.
    after: of the unlearned model.
  """

  name: str
  before: Interval
  after: Interval

  def plain(self) -> dict[str, Any]:
    """Return the check as plain values for JSON."""
    names = ('', 'low', 'high')
    before, after = self.before[1:], self.after[1:]
    return {
      'name': self.name,
      'before': self.before[0],
      'after': self.after[0],
      **dict(zip(names[1:], after, strict=True)),
      **{f'{n}_before': v for n, v in zip(names[1:], before, strict=True)},
    }


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
      'before': [_with_interval(*c.before) for c in self.checks],
      'after': [_with_interval(*c.after) for c in self.checks],
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
    lines += ['', 'Brackets hold 95% intervals.', '']
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
        'checks': [check.plain() for check in self.checks],
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
  """Make the folder of the result; return where its checkpoint goes.

  Args:
    path: the folder.
    like: the checkpoint whose name it takes.

  Raises:
    ValueError: the folder cannot be made, or the file is the original itself.
  """
  folder = files.writable_folder(path, '--out')
  original = files.path(like) if like else None
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
    return splits.read_indices(ids, data.num_dev)
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
  both, columns = (before, after), _columns(models)
  checks = [
    Check(f'accuracy on {name}', *(_share(p.correct[0, index]) for p in both))
    for name, index in columns.items()
  ]
  for name, index in columns.items():
    same = before.label[0, index] == after.label[0, index]
    name = f'same answer as the original on {name}'
    checks.append(Check(name, _ABSENT, _share(same)))
  member, outside = _compared(models)
  aucs = (
    auc_interval(p.log_odds[0, member], p.log_odds[0, outside]) for p in both
  )
  return [*checks, Check('loss attack, forget against test (AUC)', *aucs)]


def _compared(models: Models) -> tuple[np.ndarray, np.ndarray]:
  """Return forgotten examples, and test examples of the same classes."""
  columns, label = _columns(models), models.data.label
  test = columns['test']
  same = np.isin(label[test], label[columns['forget']])
  return columns['forget'], test[same]


def _share(values: np.ndarray) -> Interval:
  """Return a share of independent examples with Wilson's 95% interval."""
  n = len(values)
  if not n:
    return _ABSENT
  z, p = stats.norm.ppf(0.975), float(np.mean(values))
  middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
  half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
  # At 0 and 1 the formula gives these ends only up to rounding.
  low = 0.0 if p == 0 else middle - half
  high = 1.0 if p == 1 else middle + half
  return p, float(max(low, 0.0)), float(min(high, 1.0))


def auc_interval(member: np.ndarray, outside: np.ndarray) -> Interval:
  """Return the AUC of a score with DeLong's 95% interval.

  The AUC is the probability that a member's score is larger than that of an
  example outside, ties counted half. Examples are assumed independent. Source:
  DeLong et al. 1988, Biometrics 44, equations 2 to 5.

  Args:
    member: f[n] scores of members, larger for more member-like.
    outside: f[m] scores of others.

  Returns:
    The AUC and both ends of its interval, within [0, 1]; the ends are NaN with
    fewer than two examples on a side, and all are without one.
  """
  if not min(len(member), len(outside)):
    return _ABSENT
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
  index = columns['retain']
  accuracy, *_ = _share(before.correct[0, index])
  frequent = np.bincount(data.label[index]).max() / len(index)
  notes = []
  if accuracy < 1.5 * frequent:
    notes.append(
      f'The original model is right on {accuracy:.1%} of the retained '
      f'examples, and the most frequent class alone gives {frequent:.1%}. '
      'Check the order of the classes and the normalisation (mean and std) of '
      'the images.'
    )
  assert models.original is not None
  if not originals.all_finite(models.original.variables).all():
    notes.append(
      'The original model has weights that are not finite, so the unlearned '
      'model is of no use; start from another checkpoint.'
    )
  elif models.failed[0] >= 0:
    notes.append(
      f'The unlearned model is not finite from epoch {models.failed[0]} on; do '
      'not use it. A smaller learning_rate may help.'
    )
  notes.append(
    'The loss attack tests whether forgotten examples have higher log-odds '
    'than test examples of the same classes, which were never trained on; AUC '
    '0.5 means no difference. Its interval assumes that examples are '
    'independent and excludes the randomness of training.'
  )
  _, outside = _compared(models)
  if len(outside) < len(columns['test']):
    notes.append(
      f'{len(outside)} of {terms.count(len(columns["test"]), "test example")} '
      'are of the classes to forget; the loss attack compares with these.'
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
      'Accuracy on validation examples: the model is assumed to be trained on '
      'all training examples. Name those that it was not trained on with val.'
    )
  return unchecked


def _settings(
  models: Models, checkpoint: Any, model: Any, seconds: float
) -> dict[str, Any]:
  setup, data, design = models.setup, models.data, models.design
  assert models.method is not None
  where: dict[str, Any] = {'file': 'variables in memory'}
  if isinstance(checkpoint, str | os.PathLike):
    path = files.path(checkpoint)
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
    'small_data_defaults': setup_lib.is_small(data),
    'seconds': round(seconds, 3),
  }


def _with_interval(value: float, low: float, high: float) -> str:
  text = results.format_value(value)
  return f'{text} {results.format_interval(low, high)}'.strip()


def _json(value: Mapping[str, Any]) -> str:
  short = {**value, 'forget': {**value['forget'], 'indices': '...'}}
  return json.dumps(results.to_plain(short), indent=1, ensure_ascii=False)
