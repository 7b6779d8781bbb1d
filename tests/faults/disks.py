"""Disks that fill up, folders that vanish, and jobs that meet.

After each fault the same command, with room, must give the undisturbed results
and must not redo what was finished.
"""

import pathlib
import random
import shutil
import signal
import subprocess

from tests.faults import forks, judging, tiny_job, trials

DISKS, PROCESSES = 'full disks', 'processes'
SMALL = 'small file system'
INODES = 'file system without inodes'
READ_ONLY = 'read-only file system'
SHIM = 'no space for new files'
VANISHED = 'work directory deleted while in use'
NEED_ROOT = (SMALL, INODES, READ_ONLY)
FULL = (*NEED_ROOT, SHIM)

SAME_FOLDER = 'two jobs in one work directory'
SAME_CACHE = 'two jobs with one empty cache'
READERS = 'readers beside a running job'
INTERRUPTED = 'SIGINT at a random moment'
TERMINATED = 'SIGTERM at a random moment'
SIGNALS = {INTERRUPTED: signal.SIGINT, TERMINATED: signal.SIGTERM}
TOGETHER = (SAME_FOLDER, SAME_CACHE, READERS, *SIGNALS)
KINDS = {
  **dict.fromkeys((*FULL, VANISHED), DISKS),
  **dict.fromkeys(TOGETHER, PROCESSES),
}
_STARTS = (
  ('work',),
  ('work/store/report', 'work/store/*/ft-*'),
  ('work/store/report', 'work/store/scores'),
  ('work/store/report', 'work/*.*', 'work/plots'),
  ('work', 'cache/*'),
)


def can_mount(folder: pathlib.Path) -> bool:
  """Return whether this process may mount a file system."""
  folder.mkdir(parents=True, exist_ok=True)
  if not _mount(folder, 'size=1m'):
    return False
  _unmount(folder)
  return True


def _mount(folder: pathlib.Path, options: str) -> bool:
  words = ['mount', '-t', 'tmpfs', '-o', options, 'tmpfs', str(folder)]
  return not subprocess.run(words, capture_output=True, check=False).returncode


def _unmount(folder: pathlib.Path) -> None:
  subprocess.run(['umount', '-l', str(folder)], check=True)


def plan(kind: str, count: int) -> list[trials.Trial]:
  """Return trials of a kind."""
  return [trials.Trial(KINDS[kind], kind, str(n)) for n in range(count)]


def perform(home: tiny_job.Home, trial: trials.Trial) -> trials.Trial:
  """Disturb a job, run it again with room, and compare."""
  draw = trials.generator(*trial.key)
  if trial.kind in NEED_ROOT:
    return _on_small_disk(home, trial, draw)
  start = draw.choice(_STARTS)
  home.reset(*start)
  if trial.kind in SIGNALS:
    return _interrupt(home, trial, draw, start)
  if trial.kind in TOGETHER:
    return _together(home, trial, draw)
  below = {'below': str(home.trial), 'at': int(200 ** draw.uniform(0, 1))}
  fault = {
    SHIM: {'kind': 'full', **below},
    VANISHED: {'kind': 'delete', **below, 'folder': str(home.work)},
  }[trial.kind]
  stamps = home.finished()
  ended = home.run(fault=fault)
  if trial.kind == VANISHED:
    stamps = {}
  else:
    stamps |= home.finished()
  return _finish(home, trial, ended, stamps, str(fault))


def _finish(
  home: tiny_job.Home,
  trial: trials.Trial,
  ended: forks.Ended,
  stamps: dict[str, str],
  what: str,
) -> trials.Trial:
  """Judge a disturbed job, which may end well, and run it once more."""
  if ended.code:
    result, detail = judging.refusal(ended)
  else:
    result, detail = judging.completion(home, ended)
  if result:
    return judging.ended_as(trial, result, f'{what}: {detail}', ended.seconds)
  return _again(home, trial, stamps, f'{what}: {detail}', ended.seconds)


def _again(
  home: tiny_job.Home,
  trial: trials.Trial,
  stamps: dict[str, str],
  what: str,
  seconds: float,
) -> trials.Trial:
  """Run the job, which must be complete then and redo no finished shard."""
  again = home.run()
  result, detail = judging.completion(home, again)
  now = home.finished()
  redone = [path for path, stamp in stamps.items() if now.get(path) != stamp]
  if not result and redone:
    result, detail = 'lost', f'redone: {redone}; {again.output[-800:]}'
  seconds += again.seconds
  return judging.ended_as(trial, result, f'{what}; {detail}', seconds)


def _on_small_disk(
  home: tiny_job.Home, trial: trials.Trial, draw: random.Random
) -> trials.Trial:
  """Run the job on a file system of its own that is too small or read-only."""
  shutil.rmtree(home.trial, ignore_errors=True)
  home.trial.mkdir(parents=True)
  assert _mount(home.trial, 'size=200m')
  try:
    _copy_whole(home, draw.choice(_STARTS))
    options, what = _restrict(home, trial.kind, draw)
    subprocess.run(
      ['mount', '-o', f'remount,{options}', str(home.trial)], check=True
    )
    stamps = home.finished()
    ended = home.run()
    stamps |= home.finished()
    (home.trial / 'ballast').unlink(
      missing_ok=True
    ) if trial.kind == SMALL else 0
    more = 'remount,rw,size=200m,nr_inodes=100000'
    subprocess.run(['mount', '-o', more, str(home.trial)], check=True)
    return _finish(home, trial, ended, stamps, what)
  finally:
    _unmount(home.trial)


def _copy_whole(home: tiny_job.Home, without: tuple[str, ...]) -> None:
  for part in ('work', 'cache', 'data'):
    shutil.copytree(home.whole / part, home.trial / part)
  for pattern in without:
    for path in [*home.trial.glob(pattern)]:
      shutil.rmtree(path) if path.is_dir() else path.unlink()


def _restrict(
  home: tiny_job.Home, kind: str, draw: random.Random
) -> tuple[str, str]:
  """Return options of a mount, and what they mean."""
  if kind == READ_ONLY:
    return 'ro', 'read-only'
  if kind == INODES:
    used = 2 + sum(1 for _ in home.trial.rglob('*'))
    left = draw.randrange(80)
    return f'nr_inodes={used + left}', f'{left} inodes left'
  left = int(750 ** draw.uniform(0, 1)) * 4096
  with (home.trial / 'ballast').open('wb') as file:
    size = shutil.disk_usage(home.trial).free - left
    block = bytes(1 << 20)
    while size > 0:
      size -= file.write(block[: min(size, len(block))])
  return 'size=200m', f'{left} bytes left'


def _together(
  home: tiny_job.Home, trial: trials.Trial, draw: random.Random
) -> trials.Trial:
  """Run commands at the same time."""
  stamps = home.finished()
  delay = draw.uniform(0, 3)
  if trial.kind == READERS:
    return _beside_readers(home, trial, stamps, delay)
  if trial.kind == SAME_CACHE:
    return _one_cache(home, trial, delay)
  both = home.server.run(home.job(), home.job(delay=delay))
  for ended in both:
    result, detail = judging.crash(ended)
    if not result and ended.code:
      result, detail = judging.refusal(ended)
      if not result and 'in use by another run' not in detail:
        result = 'lost'
    if result:
      return judging.ended_as(trial, result, detail)
  if all(ended.code for ended in both):
    return judging.ended_as(trial, 'lost', 'neither ran')
  return _finish(home, trial, both[0], stamps, f'{delay:.2f} s apart')


def _interrupt(
  home: tiny_job.Home,
  trial: trials.Trial,
  draw: random.Random,
  start: tuple[str, ...],
) -> trials.Trial:
  """Send a signal, earlier if the job has ended before."""
  number = SIGNALS[trial.kind]
  after, stamps = draw.uniform(0.05, 6), home.finished()
  ended = home.run(kill_after=after, signal=int(number))
  while not ended.killed and not ended.code and after > 0.05:
    home.reset(*start)
    after *= draw.uniform(0.3, 0.8)
    ended = home.run(kill_after=after, signal=int(number))
  result, detail = _stopped(ended, number)
  detail = f'{after:.2f} s: {detail}'
  if result:
    return judging.ended_as(trial, result, detail, ended.seconds)
  stamps |= home.finished()
  return _again(home, trial, stamps, detail, ended.seconds)


def _stopped(ended: forks.Ended, number: int) -> tuple[str, str]:
  """Judge a command that got a signal: one line and the exit code for it."""
  result, detail = judging.crash(ended)
  if result:
    return result, detail
  if not ended.code:
    return '', 'ended before'
  first = 'interrupted' if number == signal.SIGINT else 'stopped by SIGTERM'
  line = f'{first}; finished models are kept; continue with: python -m jaxmu.'
  said = [one for one in ended.output.splitlines() if first in one]
  wrong = ended.code != 128 + number or 'error:' in ended.output
  if wrong or len(said) != 1 or not ended.last.startswith(line):
    return 'traceback', f'code {ended.code}: {ended.output[-1000:]}'
  return '', ended.last


# What a reader may say of a job that has stored nothing yet.
_NOTHING_YET = ('holds no stored work', 'is not a folder')


def _beside_readers(
  home: tiny_job.Home,
  trial: trials.Trial,
  stamps: dict[str, str],
  delay: float,
) -> trials.Trial:
  plan = {'jaxmu.study.planner:plan_text': 'the plan'}
  work = str(home.work)
  ended, *readers = home.server.run(
    home.job(),
    home.job('--plan', delay=delay, patches=plan),
    home.call('jaxmu.store', 'check', work, delay=delay),
    home.call('jaxmu.store', 'list', work, delay=delay),
  )
  for reader in readers:
    result, detail = judging.crash(reader)
    if not result and reader.code:
      result, detail = judging.refusal(reader)
      if not result and not any(text in detail for text in _NOTHING_YET):
        result = 'lost'
    if result:
      return judging.ended_as(trial, result, detail)
  return _finish(home, trial, ended, stamps, f'after {delay:.2f} s')


def _one_cache(
  home: tiny_job.Home, trial: trials.Trial, delay: float
) -> trials.Trial:
  """Two jobs fill one empty cache, each in its own work directory."""
  home.reset('work', 'cache/*')
  other = home.trial / 'other'
  argv = (*tiny_job.ARGUMENTS, f'--workdir={other}')
  both = home.server.run(
    home.job(), home.call('jaxmu.main', *argv, delay=delay)
  )
  for ended in both:
    result, detail = judging.completion(home, ended)
    if result:
      return judging.ended_as(trial, result, detail)
    shutil.rmtree(home.work, ignore_errors=True)
    if other.exists():
      other.rename(home.work)
  return judging.ended_as(trial, '', f'{delay:.2f} s apart', ended.seconds)
