"""Learning curves: accuracy while originals and retrained models are trained.

Models are scored between epochs, outside the methods, on the test set and on
the same number of retained examples. A curve is stored with the shard of its
models and does not change their address.
"""

import csv
import io
import pathlib
from collections.abc import Callable

import numpy as np

from jaxmu import files, methods
from jaxmu.population import Predictor, Watch
from jaxmu.study import job as job_lib
from jaxmu.types import Variables

SETS = ('test', 'retain')
FILE = 'curves.csv'
Curves = dict[str, np.ndarray]  # by set, f64[P, E], NaN where not scored


class Recorder:
  """Scores the models of each shard while they are trained."""

  def __init__(self, job: job_lib.Job, population: job_lib.Population):
    self._design = job.design
    self._every = job.settings.curve.every
    self._epochs = int(population.hparams['num_epochs'])
    self._test = np.arange(
      job.source.num_dev, len(job.source.label), dtype=np.int32
    )
    self._predictor = Predictor(job.task, job.layout)
    self._index = np.zeros((0, 0), np.int32)
    self._curves: Curves = {}

  def start(self, members: job_lib.Members) -> Watch:
    """Begin a shard; give the result to `Trainer.train`."""
    retain = evenly(self._design.retain[members.row], len(self._test))
    test = np.tile(self._test, (members.size, 1))
    self._index = np.concatenate([test, retain], axis=1)
    empty = np.full((members.size, self._epochs), np.nan)
    self._curves = {name: empty.copy() for name in SETS}
    return self._watch

  def _watch(self, epoch: int, models: Callable[[], Variables]) -> None:
    done = epoch + 1
    if done % self._every and done < self._epochs:
      return
    correct = self._predictor.run(models(), self._index).correct
    parts = np.split(correct, [len(self._test)], axis=1)
    for name, part in zip(SETS, parts, strict=True):
      self._curves[name][:, epoch] = part.mean(axis=1)

  def narrow(self) -> None:
    """Score in smaller chunks, after memory ran out."""
    self._predictor.narrow()

  def arrays(self) -> dict[str, np.ndarray]:
    """Return the curves of the shard under the names they are stored by."""
    return {_stored(name): curve for name, curve in self._curves.items()}


def recorder(
  job: job_lib.Job, population: job_lib.Population
) -> Recorder | None:
  """Return a recorder where the settings ask for curves, else None."""
  wanted = job.settings.curve.every and population.name in methods.BASELINES
  return Recorder(job, population) if wanted else None


def evenly(index: np.ndarray, count: int) -> np.ndarray:
  """Take `count` of [P, n] columns at even distances, or all if n is less.

  The columns are spread evenly, since examples may be sorted by class.
  """
  size = index.shape[1]
  count = min(count, size)
  return index[:, np.arange(count) * size // count].astype(np.int32)


def recorded_shards(population: job_lib.Population) -> list[int]:
  """Return the shards that hold curves."""
  shards = range(population.models.size)
  return [n for n in shards if population.models.has(n, _stored(SETS[0]))]


def read(population: job_lib.Population) -> Curves | None:
  """Return the curves of all members, NaN for shards without curves.

  Returns:
    The curves by set, or None if no shard has any.
  """
  with_curves = recorded_shards(population)
  if not with_curves:
    return None
  epochs = int(population.hparams['num_epochs'])

  def of(shard: int, name: str) -> np.ndarray:
    if shard in with_curves:
      return population.models.array(shard, _stored(name))
    return np.full((population.count([shard]), epochs), np.nan)

  shards = range(population.models.size)
  return {name: np.concatenate([of(n, name) for n in shards]) for name in SETS}


def warnings(job: job_lib.Job) -> list[str]:
  """Say which models have no curve although the settings ask for them."""
  if not job.settings.curve.every:
    return []
  sentences = []
  for name in methods.BASELINES:
    population = job.populations.get(name)
    if population is None or population.checkpoints:
      continue
    shards = set(range(population.models.size)) - set(
      recorded_shards(population)
    )
    without = population.count(shards)
    if without:
      sentences.append(
        f'{name}: no learning curve of {without} of {population.members.size} '
        'models, which were trained before curves were requested; they are not '
        'trained again (choose another config.workdir to do so)'
      )
  return sentences


def write(job: job_lib.Job) -> list[pathlib.Path]:
  """Write all curves as CSV, one row per member and scored epoch.

  Returns:
    The path, or nothing where no curves are recorded; a file of an earlier job
    is then removed.
  """
  path = job.folder / FILE
  text = _csv(job)
  if text:
    return [files.write_text(path, text)]
  files.remove(path)
  return []


def _csv(job: job_lib.Job) -> str:
  out = io.StringIO()
  writer = csv.writer(out, lineterminator='\n')
  writer.writerow(['method', 'seed', 'split', 'forget_set', 'epoch', *SETS])
  rows = 0
  for name, population in job.populations.items():
    curves = read(population)
    if curves is None:
      continue
    member = population.members
    for p, e in np.argwhere(np.isfinite(curves['test'])):
      names = (member.seed[p], member.split[p], member.forget_set[p])
      values = [f'{curves[k][p, e]:.6g}' for k in SETS]
      writer.writerow([name, *names, e + 1, *values])
      rows += 1
  return out.getvalue() if rows else ''


def _stored(name: str) -> str:
  return f'curve_{name}'
