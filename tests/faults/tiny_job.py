"""A job of seconds, its undisturbed result, and copies of it to damage."""

import dataclasses
import hashlib
import json
import pathlib
import shutil
from collections.abc import Iterator

import numpy as np

from tests.faults import forks

ARGUMENTS = (
  '--config=ft_resnet',
  '--config.model.name=tiny',
  '--config.splits.num_splits=4',
  '--config.splits.forget_sets=1',
  '--config.splits.pool=320',
  '--config.train.num_epochs=2',
  '--config.unlearn.hparams.num_epochs=1',
  '--config.curve.every=1',
  '--config.timing.repeats=1',
  '--config.run.shard=2',
  '--config.run.devices=1',
  '--config.run.chunk=2',
)
# The same bits in every run, unlike what holds times or dates.
RESULTS = ('results.csv', 'per_cluster.csv', 'curves.csv')


@dataclasses.dataclass(frozen=True)
class Home:
  """A folder for trials.

  Attributes:
    server: runs commands.
    folder: `whole/` is the undisturbed job, and `trial/` the copy at work, both
      with the work directory `work/`, the cache `cache/` and a set in `data/`.
  """

  server: forks.Server
  folder: pathlib.Path

  @property
  def whole(self) -> pathlib.Path:
    """The undisturbed job."""
    return self.folder / 'whole'

  @property
  def trial(self) -> pathlib.Path:
    """The job that is at work; always the same path."""
    return self.folder / 'trial'

  @property
  def work(self) -> pathlib.Path:
    """The work directory that is at work."""
    return self.trial / 'work'

  @property
  def cache(self) -> pathlib.Path:
    """The cache folder that is at work."""
    return self.trial / 'cache'

  def call(
    self, module: str = 'jaxmu.main', *argv: str, **changes: object
  ) -> forks.Call:
    """Return a command with the folders of the trial."""
    environment = {
      'JAXMU_CACHE_DIR': str(self.cache),
      'JAXMU_DATA_DIR': str(self.trial / 'data'),
      'TMPDIR': str(self.folder),
    }
    return forks.Call(module, argv, environment, **changes)  # type: ignore

  def job(self, *more: str, **changes: object) -> forks.Call:
    """Return the command of the tiny job."""
    argv = (*ARGUMENTS, f'--workdir={self.work}', *more)
    return self.call('jaxmu.main', *argv, **changes)

  def run(self, *more: str, **changes: object) -> forks.Ended:
    """Run the tiny job."""
    return self.server.run(self.job(*more, **changes))[0]

  def reset(self, *without: str, empty: bool = False) -> None:
    """Start a trial from a copy of the undisturbed job.

    Args:
      *without: patterns of files and folders to leave out.
      empty: start with the cache alone.
    """
    shutil.rmtree(self.trial, ignore_errors=True)
    if empty:
      shutil.copytree(self.whole / 'cache', self.cache)
      return
    shutil.copytree(self.whole, self.trial)
    for pattern in without:
      for path in [*self.trial.glob(pattern)]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()

  def make_whole(self) -> None:
    """Run the job undisturbed, unless that was done."""
    if self.whole.exists():
      return
    shutil.rmtree(self.trial, ignore_errors=True)
    self.trial.mkdir(parents=True)
    data = self.trial / 'data' / 'mine'
    data.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, count in (('train', 20), ('test', 10)):
      image = rng.integers(0, 256, (count, 8, 8, 3), np.uint8)
      np.savez(data / part, image=image, label=np.arange(count) % 2)
    ended = self.server.run(self.call('jaxmu.prepare', 'mine'))[0]
    assert ended.code == 0, ended.output
    for more in ((), ('--plan',), ()):
      ended = self.run(*more)
      assert ended.code == 0, ended.output
    assert 'nothing redone' in ended.output, ended.output
    self.trial.rename(self.whole)

  def differences(self) -> list[str]:
    """Return the results that are not those of the undisturbed job."""
    whole, found = self.whole / 'work', []
    for name in RESULTS:
      if _bytes(self.work / name) != _bytes(whole / name):
        found.append(name)
    for path in sorted(whole.glob('scores/*.npz')):
      name = str(path.relative_to(whole))
      if arrays_digest(self.work / name) != arrays_digest(path):
        found.append(name)
    for path in sorted(whole.glob('store/*/*/shard_*/*.npy')):
      name = str(path.relative_to(whole))
      if 'timing' not in name and _bytes(self.work / name) != _bytes(path):
        found.append(name)
    return found

  def cache_is_whole(self) -> bool:
    """Return whether the cached set is that of the undisturbed job."""
    names = [
      path.relative_to(self.whole)
      for path in self.whole.glob('cache/mine-*/*.npy')
    ]
    return all(
      _bytes(self.trial / name) == _bytes(self.whole / name) for name in names
    )

  def leftovers(self) -> list[str]:
    """Return temporary files and drafts in the work directory."""
    return [
      str(path.relative_to(self.work))
      for path in self.work.rglob('.*')
      if path.name.startswith('.draft') or path.suffix == '.tmp'
    ]

  def finished(self) -> dict[str, str]:
    """Return the record of each shard, with its time."""
    return {
      str(path.relative_to(self.work)): f'{path.stat().st_mtime_ns}'
      for path in self.work.glob('store/*/*/shard_*/record.json')
    }


def arrays_digest(path: pathlib.Path) -> str:
  """Return a digest of the arrays of a file, '' if they cannot be read."""
  try:
    with np.load(path) as arrays:
      content = {n: hashlib.sha256(a.tobytes()) for n, a in arrays.items()}
  except (OSError, ValueError, EOFError):
    return ''
  return json.dumps({n: h.hexdigest() for n, h in sorted(content.items())})


def _bytes(path: pathlib.Path) -> bytes:
  return path.read_bytes() if path.is_file() else b''


def homes(folder: pathlib.Path) -> Iterator[Home]:
  """Give a home with a running server and an undisturbed job."""
  environment = {
    'JAX_PLATFORMS': 'cpu',
    'XLA_FLAGS': '--xla_backend_optimization_level=1',
    'MPLBACKEND': 'agg',
  }
  with forks.serve(folder, environment) as server:
    home = Home(server, folder)
    home.make_whole()
    yield home
