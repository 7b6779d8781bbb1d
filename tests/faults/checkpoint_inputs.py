"""Checkpoints of original models, and lists of examples to forget."""

import functools
import pathlib
import pickle
import tempfile
from collections.abc import Iterator

import numpy as np

from tests.faults import forks, inputs, tiny_job
from tests.models import test_checkpoints as known

KIND, LISTS = 'checkpoints', 'lists of examples'
_FORMS = ('safetensors', 'pth', 'msgpack', 'npz')
_PLAN = {'jaxmu.study.planner:plan_text': 'the plan'}


@functools.cache
def _whole(form: str) -> bytes:
  from jaxmu import models
  from jaxmu.models import checkpoints

  model = models.build('tiny', num_classes=10)
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder, f'a.{form}')
    checkpoints.write(model, known._variables(model), path)
    return path.read_bytes()


def _files() -> Iterator[tuple[str, bytes]]:
  for number, (content, _) in enumerate(known.NO_CHECKPOINTS):
    yield f'no checkpoint {number}', content
  with tempfile.TemporaryDirectory() as folder:
    for number, (tree, _) in enumerate(known.REFUSED):
      path = known._put(pathlib.Path(folder, 'a.pth'), 'torch', tree)
      yield f'other weights {number}', path.read_bytes()
  for protocol in range(6):
    content = pickle.dumps({'a': inputs.Evil()}, protocol)
    yield f'code, protocol {protocol}', content
  yield 'a deep pickle', b'(' * 100_000 + b'.'
  yield 'a large header', (2**60).to_bytes(8, 'little') + b'{}'
  yield 'deep JSON', (10**6).to_bytes(8, 'little') + b'[' * 10**6
  wrong = {'x': np.full(3, np.nan, np.float32)}
  path = pathlib.Path(tempfile.mkdtemp(), 'a.pth')
  yield 'nan', known._put(path, 'torch', wrong).read_bytes()


# Fields that name a file.
_MODELS = 'originals.checkpoints='
_FORGET = 'splits.forget=file:'


def _call(content: bytes, name: str, field: str):
  """Return a job on a file with this content, which a field names."""

  def call(home: tiny_job.Home, folder: pathlib.Path) -> forks.Call:
    path = folder / name
    path.write_bytes(content)
    argv = (
      *tiny_job.ARGUMENTS,
      '--config.splits.design=main',
      '--config.splits.num_splits=1',
      f'--config.{field}{path}',
      f'--workdir={folder / "work"}',
      '--plan',
    )
    return home.call(
      'jaxmu.main', *argv, cwd=str(folder), patches=_PLAN, seconds=120
    )

  return call


LINES = (
  *(b'', b'x', b'-1', b'1000000', b'1.5', b'1_0', b'nan', b'1,2', b'1 2'),
  *(b'1\n1', b'\xff\xfe', b'\xef\xbb\xbf1', b'0x1', '٣'.encode(), b'9' * 5000),
  *(b'0', b'1\n2\n', b'1\r\n2\r\n', b'1e0', b'\0', b'[1]', b'1\n\n2', b'#1'),
)


def cases(count: int) -> list[inputs.Case]:
  """Return crafted files, lists, and as many damaged files as are left."""
  found = [
    inputs.Case(KIND, name, _call(content, 'a.pth', _MODELS), inputs.REFUSED)
    for name, content in _files()
  ]
  found += [
    inputs.Case(LISTS, repr(line[:20]), _call(line, 'ids.txt', _FORGET))
    for line in LINES
  ]
  for number in range(count - len(found)):
    form = _FORMS[number % len(_FORMS)]
    short = number // len(_FORMS) % 4 == 3
    damage = inputs.cut if short else inputs.flipped
    content = damage(_whole(form), KIND, number)
    expected = inputs.REFUSED if short else inputs.EITHER
    call = _call(content, f'a.{form}', _MODELS)
    found.append(inputs.Case(KIND, f'damaged {number}', call, expected))
  return found[:count]
