"""Arguments of a job: values of every field, misspelt names, odd files."""

import functools
import itertools
import math
import pathlib
from collections.abc import Iterator
from typing import Any

from jaxmu import cli
from jaxmu.cli import arguments
from tests.faults import forks, inputs, tiny_job, trials

KIND = 'overrides'
_PLAN = {'jaxmu.study.planner:plan_text': 'the plan'}
_MOST = 10_000_000
TEXTS = (
  *('abc', '', ' ', '0', '1', '2', '3', '7', '-1', '1e3', '0.5', '1.0', '-0.5'),
  *('2.5', '1e-300', '1e39', '1e300', '-1e300', '1000000', '1000000000000'),
  *('2147483648', '4294967296', '9223372036854775808', '18446744073709551615'),
  *('1' + '0' * 30, '-1' + '0' * 30, 'nan', 'inf', '-inf', 'None', 'True'),
  *('False', 'yes', '[]', '[1]', '(1, 2)', '{}', '{"a": 1}', '{"name": "x"}'),
  *('../../etc/passwd', 'a' * 5000, 'é😀', '\x01', "b'x'", '1+2j', '1_0'),
  *('0x10', '٣', '1,5', 'digits', 'mnist', 'class:3', 'class:99', 'class:'),
  *('file:/none', 'most:/dev/null', 'main', 'reference', 'audit', 'resnet18'),
  *('vit11m', 'msg', 'original', 'tuned', '__import__("os").mkdir("EVIL")'),
  *('9' * 5000, '(' * 1000, '[' * 3000, '-' * 3000 + '1', '{[', "'", '\\'),
)
# Whole command lines; each ends in one line.
LINES = (
  '',
  '--config',
  '--config=',
  '--config=/none.py',
  '--config=/dev/null',
  '--config=/etc/passwd',
  '--config=none',
  '--config=ft_resnet:zzz',
  '--config=ft_resnet:cifar10,papr',
  '--config=ft_resnet:' + 'x' * 5000,
  '--config=ft_resnet --config=msg_resnet',
  '--config=unlearn:',
  '--config=unlearn:ft,ft',
  '--config=unlearn:/none.py,tiny',
  '--config=ft_resnet --plann',
  '--config=ft_resnet --plan=maybe',
  '--config=ft_resnet extra',
  '--config=ft_resnet --for=v5e:2x2',
  '--config=ft_resnet --plan --for=nothing',
  '--config=ft_resnet --workdir=',
  '--config=ft_resnet --workdir=/dev/null --plan',
  '--config=ft_resnet --workdir=/dev/null/x --plan',
  '--config=ft_resnet --workdir=/proc/x --plan',
  '--config=ft_resnet --workdir=none://x/y --plan',
  '--config=ft_resnet --compare=ft',
  '--config=ft_resnet --compare=nothing',
  '--config=ft_resnet --compare=,',
  '--config=ft_resnet --config.trian.learning_rate=1',
  '--config=ft_resnet --config.train=3',
  '--config=ft_resnet --config.splits=[]',
  '--config=ft_resnet --config.run=None',
  '--config=ft_resnet --config.data=3',
  '--config=ft_resnet --config.model=None',
  '--config=ft_resnet --config.unlearn=None',
  '--config=ft_resnet --config.unlearn.hparams=3',
  '--config=ft_resnet --config.compare=abc',
  '--config=ft_resnet --config.compare={"msg":3}',
  '--config=ft_resnet --config.compare.msg.num_epochs=3',
  '--config=ft_resnet --config.lock=3',
  '--config=ft_resnet --config.__class__=3',
  '--config=ft_resnet --config.splits.__init__=3',
  '--config=ft_resnet --config..=3',
  '--config=ft_resnet --config.=3',
  '--config=ft_resnet --cofnig.seed=3',
)
# What is refused together, though each field is in range.
TOGETHER = (
  'splits.num_splits=10000 splits.forget_sets=10000',
  'splits.design=main splits.num_splits=1 splits.forget=class:99',
  'splits.design=main splits.num_splits=1 splits.forget=file:/dev/null',
  'splits.design=main splits.num_splits=1 splits.forget=file:/etc/passwd',
  'splits.design=main splits.num_splits=1 splits.forget=file:/tmp',
  'splits.design=main splits.num_splits=1 splits.forget=most:/etc/passwd',
  'splits.design=main splits.num_splits=1 splits.forget=class:0,1,2,3,4,5,6,7,8,9',  # noqa: E501
  'splits.forget=class:3',
  'splits.design=audit splits.num_splits=7',
  'splits.pool=100000',
  'splits.pool=3',
  'splits.forget_fraction=1e-9',
  'attack.which=nothing',
  'attack.mode=logo attack.leave_out=nothing',
  'originals.checkpoints=/none.pth',
  'metrics=nothing',
  'run.devices=1000000000000',
  'timing.repeats=1000000000000',
  'model.options={"width":-4}',
  'model.options={"width":1e30}',
  'model.options={"width":2147483648}',
  'model.options={"dtype":"x"}',
  'model.options={"dtype":3}',
  'model.options={"conv":"x"}',
  'model.options={"width":true}',
  *(
    f'model.name=vit11m model.options={{"{name}":{value}}}'
    for name in ('widths', 'depths', 'conv', 'padfree_attention')
    for value in ('3', '[]', '[1,2,3]', '[0,2,6,2]', '"x"', 'None', '{}')
  ),
)


@functools.cache
def fields() -> dict[str, Any]:
  """Return the fields of a job by their dotted names, with their defaults."""

  def leaves(section: dict[str, Any], where: str) -> Iterator[tuple[str, Any]]:
    for name, value in section.items():
      if isinstance(value, dict) and value:
        yield from leaves(value, f'{where}{name}.')
      else:
        yield f'{where}{name}', value

  config = arguments.read(tiny_job.ARGUMENTS).config
  return dict(leaves(config, ''))


def expected(default: Any, name: str, text: str) -> str:
  """Return what must happen to a value, from the type of its field alone."""
  value = cli.literal(text)
  if isinstance(default, bool):
    truth = ('true', 'false', '0', '1', 'yes', 'no')
    return inputs.EITHER if text.lower() in truth else inputs.REFUSED
  if not isinstance(default, int | float) or name.startswith('search.'):
    return inputs.EITHER  # a job ignores what a search would do
  if '_' in text or not text.isascii():  # float() takes these
    return inputs.REFUSED
  if isinstance(value, str):  # float() takes more than a literal
    try:
      value = float(value)
    except ValueError:
      return inputs.REFUSED
  if isinstance(value, bool) or not isinstance(value, int | float):
    return inputs.REFUSED
  if not math.isfinite(value) or value < 0:
    return inputs.REFUSED
  most = 2**32 - 1 if name.endswith('seed') else _MOST
  if isinstance(default, int) and (value > most or value != int(value)):
    return inputs.REFUSED
  return inputs.REFUSED if value > 1e38 else inputs.EITHER


def _call(words: tuple[str, ...]):
  def call(home: tiny_job.Home, folder: pathlib.Path) -> forks.Call:
    return home.call(
      'jaxmu.main', *words, cwd=str(folder), patches=_PLAN, seconds=120
    )

  return call


def _check(name: str, text: str, default: Any):
  """Return a check that a field has the value that was given."""

  def check(ended: forks.Ended, folder: pathlib.Path) -> str:
    if 'the plan' not in ended.output:
      return 'no plan'
    argv = (*tiny_job.ARGUMENTS, f'--config.{name}={text}')
    got: Any = arguments.read(argv).config
    for key in name.split('.'):
      got = got[key]
    if isinstance(default, bool):
      return '' if got == (text.lower() in ('true', '1', 'yes')) else str(got)
    if isinstance(default, str):
      return '' if got == text else f'{got!r}'
    if isinstance(default, int | float) and isinstance(got, int | float):
      return '' if got == float(text) else f'{got!r}'
    return '' if got in (cli.literal(text), text) else f'{got!r}'

  return check


def cases(count: int) -> list[inputs.Case]:
  """Return the first cases: lines, then fields and values in random order."""
  lines = [
    inputs.Case(
      'command lines', line[:80], _call(tuple(line.split(' '))), inputs.REFUSED
    )
    for line in LINES
  ]
  plan = (*tiny_job.ARGUMENTS, '--plan')
  lines += [
    inputs.Case(
      'command lines',
      text[:80],
      _call((*plan, *(f'--config.{word}' for word in text.split(' ')))),
      inputs.REFUSED,
    )
    for text in TOGETHER
  ]
  found = []
  for name in fields():
    words = (*plan, f'--config.{name}x=1')
    refuse = (
      inputs.EITHER if 'options' in name or '.space' in name else inputs.REFUSED
    )
    found.append(inputs.Case(KIND, f'{name}x', _call(words), refuse))
  for (name, default), text in itertools.product(fields().items(), TEXTS):
    words = (*plan, f'--config.{name}={text}')
    found.append(
      inputs.Case(
        KIND,
        f'{name}={text[:40]!r}',
        _call(words),
        expected(default, name, text),
        _check(name, text, default),
      )
    )
  trials.generator(KIND).shuffle(found)
  return (lines + found)[:count]
