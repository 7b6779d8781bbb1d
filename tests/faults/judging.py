"""Decide how a trial ended, from the output and the files it left."""

import dataclasses

from tests.faults import forks, tiny_job, trials

_GIGABYTES = 4.0  # more is a fault, for inputs of kilobytes


def crash(ended: forks.Ended) -> tuple[str, str]:
  """Return a hang, or a crash or traceback, and what was seen; '' if none."""
  if ended.hung or ended.gigabytes > _GIGABYTES:
    return 'hang', f'{ended.seconds:.0f} s, {ended.gigabytes:.1f} GB'
  if 'Traceback' in ended.output or (ended.code < 0 and not ended.killed):
    return 'traceback', f'code {ended.code}: {ended.output[-1500:]}'
  return '', ''


def refusal(ended: forks.Ended) -> tuple[str, str]:
  """Judge a command that should have ended with one line; '' if it did."""
  result, detail = crash(ended)
  if result:
    return result, detail
  if ended.code not in (1, 2) or len(trials.errors(ended.output)) != 1:
    return 'traceback', f'code {ended.code}: {ended.output[-1500:]}'
  return '', ended.last


def completion(home: tiny_job.Home, ended: forks.Ended) -> tuple[str, str]:
  """Judge a job that should have ended with the undisturbed results."""
  result, detail = crash(ended)
  if result:
    return result, detail
  if ended.code:
    return 'lost', f'code {ended.code}: {ended.output[-1500:]}'
  differences = home.differences()
  if differences:
    return 'lost', f'differ: {differences}; {ended.output[-800:]}'
  left = home.leftovers()
  return ('lost', f'left: {left}') if left else ('', '')


def ended_as(
  trial: trials.Trial, result: str, detail: str, seconds: float = 0.0
) -> trials.Trial:
  """Return a trial with its result; '' stands for survived."""
  return dataclasses.replace(
    trial,
    result=result or 'survived',
    detail=detail[-2000:],
    seconds=round(seconds, 2),
  )
