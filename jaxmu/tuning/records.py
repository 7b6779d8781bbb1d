"""The outputs of a search: a table of trials and an Optuna storage.

`trials.csv` has one row per trial. `search/optuna.journal` holds the same
trials as studies of Optuna, one per method and initialisation, for its
dashboard and plots:

    optuna-dashboard workdir/msg_resnet_digits/search/optuna.journal

Both are written from the shards in the store after every generation. They are
outputs only: a search never reads them.
"""

import csv
import dataclasses
import io
import pathlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.storages import journal

from jaxmu import files
from jaxmu.tuning.spaces import Space

JOURNAL = 'optuna.journal'
TABLE = 'trials.csv'
COMPLETE = 'complete'  # the state of a trial whose setting may win
# Names of the numbers that are minimised: of a method and of a recipe.
COMPONENTS = ('retain', 'forget', 'val', 'indisc')
OF_RECIPE = ('error',)


@dataclasses.dataclass(frozen=True)
class TrialRow:
  """One trial of a search.

  Attributes:
    method: name of the method.
    initialisation: position of the original model, from 0.
    number: of the trial among those of its initialisation, from 0.
    generation: of the study in which it was proposed, from 0.
    setting: all hyper-parameters.
    retain, forget, val: accuracies of the unlearned model.
    indisc: 1 - |2 MIA - 1| on validation images; NaN if not available.
    objectives: the numbers that are minimised; infinite if it failed.
    norm: their Euclidean norm.
    state: 'complete', 'failed at epoch N', or why the setting cannot win.
    seconds: share of the time of its shard.
    reference_norm: norm of the reference objectives, if the search has others
      and there are retrained models; else NaN.
  """

  method: str
  initialisation: int
  number: int
  generation: int
  setting: Mapping[str, Any]
  retain: float
  forget: float
  val: float
  indisc: float
  objectives: tuple[float, ...]
  norm: float
  state: str
  seconds: float
  reference_norm: float = float('nan')

  @property
  def failed(self) -> bool:
    """Whether the model failed."""
    return not np.isfinite(self.norm)

  @property
  def usable(self) -> bool:
    """Whether the setting may win."""
    return self.state == COMPLETE


_FACTS = (
  *('method', 'initialisation', 'number', 'generation', 'state', 'norm'),
  *('retain', 'forget', 'val', 'indisc'),
)


def write_csv(path: files.Path, rows: Sequence[TrialRow]) -> pathlib.Path:
  """Write trials, one per line; hyper-parameters are the last columns."""
  names = list(dict.fromkeys(name for row in rows for name in row.setting))
  text = io.StringIO()
  writer = csv.writer(text, lineterminator='\n')
  gaps = [f'objective_{name}' for name in _minimised(rows)]
  known = any(not np.isnan(row.reference_norm) for row in rows)
  named = [*_FACTS, *(['reference_norm'] if known else [])]
  writer.writerow([*named, *gaps, 'seconds', *names])
  for row in rows:
    facts = [getattr(row, name) for name in named]
    values = [row.setting.get(name, '') for name in names]
    seconds = f'{row.seconds:.3f}'
    writer.writerow([*facts, *row.objectives, seconds, *values])
  return files.write_text(path, text.getvalue())


def _recover(path: pathlib.Path) -> None:
  """Remove what a killed search left of a journal: half a line, and a lock.

  Optuna would wait for the lock, in a relative folder forever.
  """
  path.with_name(f'{path.name}.lock').unlink(missing_ok=True)
  if path.exists():
    content = path.read_bytes()
    end = content.rfind(b'\n') + 1
    if end != len(content):
      files.write_bytes(path, content[:end])


def update_journal(
  path: pathlib.Path, rows: Sequence[TrialRow], space: Space
) -> None:
  """Bring the studies of a method in an Optuna journal up to date.

  A study that holds other trials is replaced; a damaged journal is made again.

  Args:
    path: of the journal.
    rows: all trials of one method so far.
    space: the space they were drawn from.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  # Processes that share a sweep search several methods of a study at once.
  with files.lock(path.with_name(f'.{path.name}.lock')):
    _recover(path)
    try:
      _append(path, rows, space)
    except Exception:  # whatever a damaged journal makes Optuna raise
      path.unlink(missing_ok=True)
      _append(path, rows, space)
  files.upload(path)


def _append(path: pathlib.Path, rows: Sequence[TrialRow], space: Space) -> None:
  minimised = _minimised(rows)
  storage = optuna.storages.JournalStorage(
    journal.JournalFileBackend(str(path))
  )
  for initialisation in sorted({row.initialisation for row in rows}):
    own = [row for row in rows if row.initialisation == initialisation]
    study = optuna.create_study(
      storage=storage,
      study_name=f'{own[0].method}-{initialisation}',
      directions=[optuna.study.StudyDirection.MINIMIZE] * len(minimised),
      load_if_exists=True,
    )
    if study.metric_names != minimised:
      _name_metrics(study, minimised)
    known = study.get_trials(deepcopy=False)
    for row, trial in zip(own, known, strict=False):
      if (trial.user_attrs.get('setting'), trial.values) != (
        dict(row.setting),
        list(row.objectives),
      ):
        optuna.delete_study(study_name=study.study_name, storage=storage)
        return _append(path, rows, space)
    study.add_trials([_frozen(row, space) for row in own[len(known) :]])
  return None


def title(count: int) -> str:
  """Return what the norm of four objectives or of one is called."""
  return 'validation error' if count == len(OF_RECIPE) else 'norm'


def _minimised(rows: Sequence[TrialRow]) -> list[str]:
  """Return the names of the objectives of some trials."""
  return list(OF_RECIPE if len(rows[0].objectives) == 1 else COMPONENTS)


def _name_metrics(study: optuna.Study, names: list[str]) -> None:
  with warnings.catch_warnings():
    warnings.filterwarnings(
      'ignore',
      '.*set_metric_names is experimental',
      optuna.exceptions.ExperimentalWarning,
    )
    study.set_metric_names(names)


def _frozen(row: TrialRow, space: Space) -> optuna.trial.FrozenTrial:
  searched = {n: d for n, d in space.searched.items() if n in row.setting}
  return optuna.trial.create_trial(
    params={name: row.setting[name] for name in searched},
    distributions=searched,
    values=list(row.objectives),
    user_attrs={
      'setting': dict(row.setting),
      'norm': row.norm,
      'state': row.state,
      'generation': row.generation,
    },
  )
