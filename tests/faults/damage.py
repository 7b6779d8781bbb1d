"""Damage one file of the finished job, start the job again, and compare.

The damage must be named, or the file must be made again; the results must be
those of the undisturbed job.
"""

import pathlib
import random
import shutil
from collections.abc import Callable, Mapping
from typing import NamedTuple

from tests.faults import forks, judging, tiny_job, trials

GROUP = 'damaged files'


class Target(NamedTuple):
  """Files to damage.

  Attributes:
    files: pattern below the trial.
    without: what is missing when the job starts, so that the file is read.
    reader: more arguments of the job that reads it; or another command.
  """

  files: str
  without: tuple[str, ...] = ()
  reader: tuple[str, ...] = ()


_AGAIN = ('work/store/report',)
_MINE, _RANK = ('jaxmu.prepare', 'mine'), ('jaxmu.rank',)
_COPY = ('cache/mine-*',)  # it belongs to the undisturbed set, not to the copy
TARGETS = {
  'weights of models': Target('work/store/models/*/shard_*/models/**/d/*'),
  'metadata of models': Target('work/store/models/*/shard_*/models/*[a-zA-Z]'),
  'arrays of models': Target('work/store/models/*/shard_*/*.npy'),
  'records of models': Target('work/store/models/*/shard_*/record.json'),
  'predictions': Target('work/store/scores/*/shard_*/*.npy', _AGAIN),
  'records of predictions': Target('work/store/scores/*/shard_*/record.json'),
  'records of run times': Target('work/store/timing/*/shard_*/record.json'),
  'record of the report': Target('work/store/report/*/shard_*/record.json'),
  'tables': Target('work/*.csv'),
  'facts of the report': Target('work/results.json'),
  'page of the report': Target('work/report.html'),
  'pictures': Target('work/plots/*.png'),
  'exported scores': Target('work/scores/*.npz'),
  'text tables': Target('work/*.md'),
  'arrays of the data cache': Target('cache/mine-*/*.npy', _COPY, _MINE),
  'record of the data cache': Target('cache/mine-*/*.json', _COPY, _MINE),
  'compiled programs': Target('cache/programs/*-cache', ('work',)),
  'ranked numbers': Target('work/per_cluster.csv', (), _RANK),
  'ranked run times': Target('work/timing.csv', (), _RANK),
  'ranked facts': Target('work/results.json', (), _RANK),
  'checksums of the report': Target('work/SHA256SUMS'),
  'measurements of plans': Target('cache/plans/*.json', (), ('--plan',)),
}

Draw = random.Random


def _flip(path: pathlib.Path, draw: Draw, *_: object) -> str:
  content = bytearray(path.read_bytes())
  place = draw.randrange(len(content))
  content[place] ^= 1 << draw.randrange(8)
  path.write_bytes(bytes(content))
  return f'byte {place} of {len(content)}'


def _cut(path: pathlib.Path, draw: Draw, *_: object) -> str:
  content = path.read_bytes()
  size = draw.randrange(len(content))
  path.write_bytes(content[:size])
  return f'{size} of {len(content)} bytes'


def _empty(path: pathlib.Path, draw: Draw, *_: object) -> str:
  path.write_bytes(b'')
  return 'empty'


def _zeros(path: pathlib.Path, draw: Draw, *_: object) -> str:
  path.write_bytes(bytes(path.stat().st_size))
  return 'zeros'


def _remove(path: pathlib.Path, draw: Draw, *_: object) -> str:
  path.unlink()
  return 'removed'


_SWAPPED = 'swapped with'


def swap(path: pathlib.Path, draw: Draw, within: pathlib.Path) -> str:
  """Exchange a file with another one like it, which is below a folder too."""
  others = [
    other
    for pattern in (f'*/{path.name}', f'*/*/{path.name}', f'*{path.suffix}')
    for up in path.parents[:4]
    if up.is_relative_to(within)
    for other in up.glob(pattern)
    if other != path and other.is_file()
    if other.read_bytes() != path.read_bytes()
  ]
  if not others:
    return _other_json(path, draw)
  other = draw.choice(sorted(set(others)))
  here, there = path.read_bytes(), other.read_bytes()
  path.write_bytes(there)
  other.write_bytes(here)
  return f'{_SWAPPED} {other}'


def _other_json(path: pathlib.Path, draw: Draw, *_: object) -> str:
  texts = ('[]', 'null', '{}', '3', '"x"', 'NaN', '[' * 100_000, '\ufeff{}')
  text = draw.choice(texts)
  path.write_text(text)
  return f'holds {text[:9]}'


def _folder(path: pathlib.Path, draw: Draw, *_: object) -> str:
  path.unlink()
  path.mkdir()
  return 'a folder'


def _link(path: pathlib.Path, draw: Draw, *_: object) -> str:
  path.unlink()
  path.symlink_to(draw.choice((path.name, '/no/such/file')))
  return 'a link to nothing'


def _parent(path: pathlib.Path, draw: Draw, *_: object) -> str:
  """Put a file in the place of the folder of the file."""
  shutil.rmtree(path.parent)
  path.parent.write_text('x')
  return 'a file in place of its folder'


Action = Callable[[pathlib.Path, Draw, pathlib.Path], str]
ACTIONS: Mapping[str, Action] = {
  'flipped bit': _flip,
  'cut': _cut,
  'emptied': _empty,
  'zeros': _zeros,
  'missing': _remove,
  'swapped': swap,
  'other content': _other_json,
  'folder in its place': _folder,
  'link in its place': _link,
  'file in place of its folder': _parent,
}


def plan(count: int) -> list[trials.Trial]:
  """Return trials: all pairs of an action and files, in turn."""
  pairs = [(action, target) for target in TARGETS for action in ACTIONS]
  trials.generator('damage').shuffle(pairs)
  return [
    trials.Trial(GROUP, action, f'{target} {number // len(pairs)}')
    for number, (action, target) in (
      (number, pairs[number % len(pairs)]) for number in range(count)
    )
  ]


def perform(home: tiny_job.Home, trial: trials.Trial) -> trials.Trial:
  """Damage a file and start the job again."""
  target = TARGETS[trial.name.rpartition(' ')[0]]
  draw = trials.generator(*trial.key)
  home.reset(*target.without)
  if target.reader == _MINE:
    home.server.run(home.prepare())
  cached = home.cached()
  paths = sorted(p for p in home.trial.glob(target.files) if p.is_file())
  path = draw.choice([p for p in paths if p.stat().st_size] or paths)
  what = ACTIONS[trial.kind](path, draw, home.trial)
  before = _content(path)
  call = _reader(home, target, path)
  ended = home.server.run(call)[0]
  shown = f'{path.relative_to(home.trial)}: {what}; '
  swapped = what.partition(f'{_SWAPPED} ')[2]
  result, detail = _judge(home, ended, path, before, pathlib.Path(swapped).name)
  if not result and not ended.code and home.cached() != cached:
    result, detail = 'lost', 'the cached arrays differ'
  if result == 'silent' and call.fault and not _marker(home).exists():
    result, detail = '', 'not read'
  return judging.ended_as(trial, result, shown + detail, ended.seconds)


def _marker(home: tiny_job.Home) -> pathlib.Path:
  return home.trial / 'opened'


def _reader(
  home: tiny_job.Home, target: Target, path: pathlib.Path
) -> forks.Call:
  """Return the command that reads the damaged file."""
  if target.reader == _RANK:
    return home.call(*_RANK, str(home.work), str(home.whole / 'work'))
  if target.reader == _MINE:
    return home.prepare()
  fault = {}
  if path.parent == home.cache / 'programs':  # a job may not need each of them
    fault = {'kind': 'opened', 'path': str(path), 'to': str(_marker(home))}
  return home.job(*target.reader, fault=fault)


def _content(path: pathlib.Path) -> object:
  if path.is_file():
    return path.read_bytes()
  return path.is_symlink(), path.is_dir(), path.parent.is_dir()


def _judge(
  home: tiny_job.Home,
  ended: forks.Ended,
  path: pathlib.Path,
  before: object,
  swapped: str,
) -> tuple[str, str]:
  """Judge how the job ended.

  Args:
    home: where it ran.
    ended: how it ended.
    path: the damaged file.
    before: its content when the job started.
    swapped: the name of the file that it was exchanged with; a job that refuses
      both names one.
  """
  gone = [] if path.parent.is_dir() else [str(path.parent)]
  names = (path.name, *_shard(path), *gone)
  named = any(name in ended.output for name in names)
  if ended.code:
    result, detail = judging.refusal(ended)
    if not result and not named and not (swapped and swapped in ended.output):
      return 'traceback', f'does not name the file: {detail}'
    return result, detail
  result, detail = judging.completion(home, ended)
  if result:
    return result, detail
  if _content(path) == before and not named:
    return 'silent', ended.output[-800:]
  return '', 'named' if named else 'made again'


def _shard(path: pathlib.Path) -> list[str]:
  """Return how the folder of the shard of a file is shown."""
  parts = path.parts
  return [
    '/'.join(parts[k - 1 : k + 1])
    for k, part in enumerate(parts)
    if part.startswith('shard_')
  ]
