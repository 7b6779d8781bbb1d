"""Shares: processes that divide the parts of a sweep between them.

`--share=2/4` starts the second of four processes. Each process prefers parts of
its own, given by the position of their unit and their number. It performs parts
of others only when none of its own is ready, so that a process that never
starts, or is killed, does not stop the rest. Which process performs a part does
not change the part.
"""

import os
import re
from collections.abc import Mapping
from typing import NamedTuple

AUTO = 'auto'

# Variables with the index from 0 and the number of processes; the second of
# JobSet is set in launch/jobset.yaml.
_SLURM = ('SLURM_ARRAY_TASK_ID', 'SLURM_ARRAY_TASK_MIN', 'SLURM_ARRAY_TASK_MAX')
_JOBSET = ('JOB_COMPLETION_INDEX', 'JOB_COMPLETIONS')
_TPU = ('TPU_WORKER_ID', 'TPU_WORKER_HOSTNAMES')


class Share(NamedTuple):
  """One of several processes.

  Attributes:
    number: which one, from 0.
    total: how many there are.
  """

  number: int
  total: int

  def owns(self, position: int, part: int) -> bool:
    """Return whether a part of the unit at a position of the graph is its own.

    Example:
      >>> [Share(1, 3).owns(5, part) for part in range(4)]
      [False, False, True, False]
    """
    return (position + part) % self.total == self.number

  def __str__(self) -> str:
    return f'{self.number + 1}/{self.total}'


def parse(text: str, environment: Mapping[str, str] = os.environ) -> Share:
  """Return the share that a flag names.

  Args:
    text: INDEX/COUNT from 1, or 'auto' for that of a task of a Slurm array, of
      a pod of an indexed Kubernetes job, or of a host of a TPU slice.
    environment: variables of the process.

  Raises:
    ValueError: it names no share, or the process is none of these.

  Example:
    >>> parse('2/4')
    Share(number=1, total=4)
    >>> parse('auto', {'TPU_WORKER_ID': '0', 'TPU_WORKER_HOSTNAMES': 'a,b'})
    Share(number=0, total=2)
  """
  if text == AUTO:
    return _detect(environment)
  found = re.fullmatch(r'(\d{1,6})/(\d{1,6})', text)
  index, count = map(int, found.groups()) if found else (0, 0)
  if not 1 <= index <= count:
    raise ValueError(
      f'--share={text}: give INDEX/COUNT, such as --share=1/4 to --share=4/4 '
      f'for four processes, or --share={AUTO}'
    )
  return Share(index - 1, count)


def _detect(environment: Mapping[str, str]) -> Share:
  def number(name: str) -> int:
    try:
      return int(environment[name])
    except ValueError:
      raise ValueError(
        f'--share={AUTO}: {name}={environment[name]!r} is no number; give '
        'INDEX/COUNT'
      ) from None

  if all(name in environment for name in _SLURM):
    index, first, last = map(number, _SLURM)
    step = environment.get('SLURM_ARRAY_TASK_STEP', '1')
    if step != '1':
      raise ValueError(
        f'--share={AUTO}: the array has steps of {step}; submit it with '
        '--array=0-3 for four processes'
      )
    return Share(index - first, last - first + 1)
  if all(name in environment for name in _JOBSET):
    index, count = map(number, _JOBSET)
  elif all(name in environment for name in _TPU):
    index = number(_TPU[0])
    count = len(environment[_TPU[1]].split(','))
  else:
    raise ValueError(
      f'--share={AUTO}: this process is no task of a Slurm array '
      f'({_SLURM[0]}), pod of an indexed job ({" and ".join(_JOBSET)}) or host '
      f'of a TPU slice ({_TPU[0]}); give INDEX/COUNT, such as --share=1/4'
    )
  if not 0 <= index < count:
    raise ValueError(
      f'--share={AUTO}: process {index} of {count}, counted from 0; give '
      'INDEX/COUNT, such as --share=1/4'
    )
  return Share(index, count)
