"""Describe a search before it trains: models, programs, time and disk."""

from typing import Any

from jaxmu import files, methods
from jaxmu import hparams as hp
from jaxmu.study import planner
from jaxmu.study.settings import Settings, Unlearner
from jaxmu.tuning import opening, spaces


def text(settings: Settings) -> str:
  """Describe a search; trains nothing.

  Raises:
    ValueError: the search cannot be made.
  """
  lines: list[str] = []
  opened = opening.open_search(settings, lines.append)
  lines += _baselines(opened) if opened.steps else []
  wanted = opening.targets(settings)
  for one, space in zip(wanted, opened.spaces, strict=True):
    lines += _method(settings, one, space)
  lines.append(f'work           {opened.work:.3g} forward passes of one image')
  speed = planner.FORWARDS * planner.images_per_second(opened.job)
  if speed:
    seconds = opened.work / speed
    lines.append(
      f'time           about {planner.duration(seconds)} at '
      f'{speed:,.0f} forward passes/s, measured in training on this '
      'machine; without compilation'
    )
  else:
    lines.append(
      'time           not known: python -m jaxmu.main --plan with the same '
      'configuration measures the speed of this machine'
    )
  lines.append(
    f'disk           {planner.bytes_to_write(opened.steps):,} bytes of models '
    f'and a few kB per generation in {files.shown(opened.job.folder)}'
  )
  return '\n'.join(lines)


def _baselines(opened: opening.Opened) -> list[str]:
  counts = [f'{s.models} {s.stage.split()[-1]}' for s in opened.steps]
  left = sum(step.missing for step in opened.steps)
  return [f'baselines      {", ".join(counts)}; {left} still to train']


def _method(
  settings: Settings, one: Unlearner, space: spaces.Space
) -> list[str]:
  search, planned = settings.search, opening.budget(settings, space)
  how = 'all of a grid' if space.is_grid else search.sampler
  judged = (
    f'the best {planned.finalists} judged on {search.judges} others'
    if search.judges
    else 'the best value wins'
  )
  count = min(programs(one, space), planned.models)
  return [
    f'{methods.get(one.method).name:<15}{planned.trials} trials: '
    f'{planned.per_study} for each of {search.initialisations} '
    f'initialisations, {how}; {judged}: {planned.models} models, '
    f'{count} program{"s" * (count != 1)}',
    *(f'{"":<15}  {n} in {_words(kind)}' for n, kind in space.searched.items()),
  ]


def programs(one: Unlearner, space: spaces.Space) -> int:
  """Return how many programs a search compiles: one per static choice."""
  count = 1
  for field in hp.declared(methods.get(one.method).Hparams):
    kind = space.searched.get(field.name)
    if hp.is_static(field) and kind is not None:
      count *= spaces.num_values(kind)
  return count


def _words(kind: Any) -> str:
  if hasattr(kind, 'choices'):
    return f'{list(kind.choices)}'
  return f'[{kind.low:g}, {kind.high:g}]' + (
    ', logarithmic' if kind.log else ''
  )
