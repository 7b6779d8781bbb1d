"""Faults inside a process: at the n-th operation on files below a folder.

Python announces each operation before it is done, as an audit event. The n-th
one kills the process; or, from the n-th on, those that need space fail, as on a
full disk. Writes by C++ (the models of Orbax) are not announced: a small file
system or a limit on the size of files makes those fail.
"""

import dataclasses
import errno
import os
import pathlib
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

from jaxmu import files

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_NEEDS_SPACE = ('open', 'os.mkdir')
_CHANGES = (*_NEEDS_SPACE, 'os.rename', 'os.remove', 'os.rmdir', 'os.chmod')


def install(fault: Mapping[str, Any]) -> None:
  """Prepare a fault in this process.

  Args:
    fault: 'kind' is one of
      kill: the `at`-th operation below the folder `below` kills the process.
      delete: the `at`-th one deletes `folder` before it is done.
      full: from the `at`-th on, those that need space fail with ENOSPC.
      count: writes the number of operations to the file `to` at each of them.
      official: the archives in `folder`/manual are the official ones of the
        data set `name`.
      size: files cannot grow beyond `bytes`.
  """
  kind = fault['kind']
  if kind == 'official':
    _register(fault['name'], pathlib.Path(fault['folder'], 'manual'))
    return
  if kind == 'size':
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (fault['bytes'],) * 2)
    return
  _watch(fault['below'], _ACTIONS[kind](fault), fault.get('also', ''))


def _register(name: str, folder: pathlib.Path) -> None:
  from jaxmu.data import archives

  there = [
    dataclasses.replace(
      remote,
      size=(folder / remote.filename).stat().st_size,
      sha256=files.sha256(folder / remote.filename),
    )
    for remote in archives.REMOTES[name]
    if (folder / remote.filename).is_file()
  ]
  archives.REMOTES = {**archives.REMOTES, name: tuple(there)}


def _kill(fault: Mapping[str, Any]) -> Callable[[int, str, str], None]:
  def act(number: int, event: str, path: str) -> None:
    if number == fault['at']:
      os.write(2, f'killed before {event} {path}\n'.encode())
      os.kill(os.getpid(), signal.SIGKILL)

  return act


def _full(fault: Mapping[str, Any]) -> Callable[[int, str, str], None]:
  def act(number: int, event: str, path: str) -> None:
    if number >= fault['at'] and event in _NEEDS_SPACE:
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

  return act


def _delete(fault: Mapping[str, Any]) -> Callable[[int, str, str], None]:
  def act(number: int, event: str, path: str) -> None:
    if number == fault['at']:
      # By another process: this one would announce the deletions.
      subprocess.run(['rm', '-rf', fault['folder']], check=False)

  return act


def _count(fault: Mapping[str, Any]) -> Callable[[int, str, str], None]:
  file = os.open(fault['to'], os.O_WRONLY | os.O_CREAT)

  def act(number: int, event: str, path: str) -> None:
    os.pwrite(file, f'{number:9d}'.encode(), 0)

  return act


_ACTIONS = {'kill': _kill, 'delete': _delete, 'full': _full, 'count': _count}


def _watch(below: str, act: Callable[[int, str, str], None], also: str) -> None:
  """Call a function with the number, the event and the path of each change.

  Args:
    below: a folder.
    act: the function.
    also: another folder, '' for none.
  """
  number, folders = 0, tuple(filter(None, (below, also)))

  def hook(event: str, arguments: tuple[Any, ...]) -> None:
    nonlocal number
    if event not in _CHANGES:
      return
    if event == 'open' and not (arguments[2] or 0) & _WRITING:
      return
    if not isinstance(arguments[0], str | bytes | os.PathLike):
      return
    path = os.path.abspath(os.fsdecode(arguments[0]))
    if path.startswith(folders):
      number += 1
      act(number, event, path)

  sys.addaudithook(hook)
