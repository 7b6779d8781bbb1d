"""Describe a sweep before it runs: models, work, device hours and disk.

Nothing is trained. Sizes of data sets are those of the catalogue; data sets of
the user's own are opened. A speed is known where `python -m jaxmu.main --plan`
or a job has measured it on this machine. What is already stored is not
subtracted.
"""

import dataclasses
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import jax
import numpy as np

from jaxmu import files, methods, models, terms
from jaxmu.data import catalog, datasets
from jaxmu.method import Sizes
from jaxmu.study import execution, planner, stages
from jaxmu.study import job as job_lib
from jaxmu.study.settings import Settings
from jaxmu.sweeps import graph as graph_lib
from jaxmu.sweeps.design import BASE, Study, Sweep
from jaxmu.sweeps.graph import BASELINES, Graph, Unit
from jaxmu.tuning import opening

# Lines of the plan, by study and by whether the models are unlearned.
STAGES = {
  ('search', True): 'search',
  ('main', True): 'unlearned',
  ('main', False): 'originals and retrained',
  ('ulira_search', True): 'U-LiRA search',
  ('ulira', True): 'U-LiRA unlearned',
  ('ulira', False): 'U-LiRA originals and retrained',
}


class Cost(NamedTuple):
  """What units cost.

  Attributes:
    models: models that are trained.
    work: forward passes of one example.
    disk: bytes of models and predictions.
    hours: hours of one device; NaN where no speed is known.
  """

  models: int = 0
  work: float = 0.0
  disk: float = 0.0
  hours: float = 0.0

  def __add__(self, other: Any) -> 'Cost':
    return Cost(*(a + b for a, b in zip(self, other, strict=True)))


def total(costs: Iterable[Cost]) -> Cost:
  """Return the sum of costs."""
  return sum(costs, Cost())


def stage(unit: Unit) -> str:
  """Return the line of the plan that counts a unit; '' if none does."""
  if not unit.models:
    return ''
  baseline = unit.kind in BASELINES or unit.label in BASELINES.values()
  return STAGES[unit.study, unit.study in BASE or not baseline]


def benchmark_models(study: Study) -> dict[str, int]:
  """Return how many models the benchmark trains where the sweep has a study.

  Its rules: a search uses the models of its table and trains the trials alone,
  and every forget set has an original of its own (arXiv 2410.01276).
  """
  settings = study.settings
  if study.searches:
    trials = sum(
      opening.budget(settings, opening.method_space(settings, one)).trials
      for one in settings.unlearners
    )
    return {STAGES[study.kind, True]: trials}
  _, each = graph_lib.members(settings)
  return {
    STAGES[study.kind, True]: len(settings.unlearners) * each,
    STAGES[study.kind, False]: 2 * each,
  }


class _Scale(NamedTuple):
  """Sizes of one study, and its speed.

  Attributes:
    sizes: of the sets of one member.
    examples: development and test part together.
    model: bytes of one model.
    hours: hours of one device per forward pass; NaN if not known.
  """

  sizes: Sizes
  examples: int
  model: int
  hours: float


def _entry(settings: Settings) -> catalog.Entry:
  return datasets.entry(settings.data.name, settings.data.folder or None)


def set_sizes(settings: Settings) -> Sizes:
  """Return the sizes of the sets of one member, without opening the job.

  The forget set of a class or of a file counts as `forget_fraction`.
  """
  entry = _entry(settings)
  chosen = settings.splits
  few = dataclasses.replace(
    chosen, num_splits=min(2, chosen.num_splits), forget='random'
  )
  labels = np.zeros(entry.num_dev + entry.num_test, np.int32)
  source = types.SimpleNamespace(label=labels, num_dev=entry.num_dev)
  design = job_lib.make_design(
    dataclasses.replace(settings, splits=few), cast(Any, source)
  )
  return job_lib.sizes(design, entry.num_classes)


def _scale(settings: Settings) -> _Scale:
  entry = _entry(settings)
  shape = (entry.size, entry.size, 3)
  return _Scale(
    set_sizes(settings),
    entry.num_dev + entry.num_test,
    _bytes_per_model(settings, entry.num_classes, shape),
    _hours(settings, entry, shape),
  )


def _bytes_per_model(
  settings: Settings, classes: int, shape: tuple[int, int, int]
) -> int:
  model = models.build(
    settings.model,
    num_classes=classes,
    image_shape=shape,
    options=settings.all_model_options,
  )
  key = jax.random.key(0)
  return execution.bytes_of(
    jax.eval_shape(lambda key: models.init(model, key, shape), key)
  )


def _hours(
  settings: Settings, entry: catalog.Entry, shape: tuple[int, int, int]
) -> float:
  known = stages.open_measurements(
    settings,
    classes=entry.num_classes,
    image=shape,
    transform=entry.transform.augmented(settings.data.augment),
  ).read()
  run = settings.run
  measured = [
    one
    for one in known.measured
    if one.images > 0
    and run.devices in (0, one.plan.devices)
    and run.chunk in (0, one.plan.chunk)
  ]
  if not measured:
    return float('nan')
  best = max(measured, key=lambda one: one.images)
  return best.plan.devices / (planner.FORWARDS * best.images * 3600)


def costs(sweep: Sweep, graph: Graph) -> dict[str, Cost]:
  """Return the cost of each unit by its name.

  Raises:
    ValueError: a model does not fit the images, or a design the data.
  """
  studies = {study.name: study for study in sweep.studies}
  scales: dict[str, _Scale] = {}
  known: dict[str, _Scale] = {}
  for name, study in studies.items():
    # Studies of one cell share most of this, and tracing takes seconds.
    chosen = study.settings
    key = repr((study.cell, chosen.splits, chosen.run, chosen.train))
    if key not in known:
      known[key] = _scale(chosen)
    scales[name] = known[key]
  out = {}
  for unit in graph:
    if not unit.models:
      out[unit.name] = Cost()
      continue
    scale = scales[unit.owner]
    done = _work(studies[unit.owner], unit, scale.sizes, scale.examples)
    trained = 0 if unit.kind == 'predictions' else unit.models
    disk = _disk(unit, scale)
    out[unit.name] = Cost(trained, done, disk, done * scale.hours)
  return out


def work(sweep: Sweep, graph: Graph) -> dict[str, float]:
  """Return the forward passes of one example of each unit, by its name.

  Raises:
    ValueError: a design does not fit the data.
  """
  studies = {study.name: study for study in sweep.studies}
  known: dict[str, tuple[Sizes, int]] = {}
  out = dict.fromkeys(graph.units, 0.0)
  for unit in graph:
    if unit.models:
      study = studies[unit.owner]
      if study.name not in known:
        entry = _entry(study.settings)
        examples = entry.num_dev + entry.num_test
        known[study.name] = set_sizes(study.settings), examples
      out[unit.name] = _work(study, unit, *known[study.name])
  return out


def _disk(unit: Unit, scale: _Scale) -> float:
  """Return the bytes that a unit writes."""
  if unit.kind == 'predictions':
    return float(unit.models * scale.examples * planner.SCORE_BYTES)
  return 0.0 if unit.kind == 'search' else float(unit.models * scale.model)


def _work(study: Study, unit: Unit, sizes: Sizes, examples: int) -> float:
  """Return the forward passes of a unit."""
  settings = study.settings
  if unit.kind == 'predictions':
    return float(unit.models * examples)
  if unit.kind == 'search':
    one = study.unlearner(unit.label)
    space = opening.method_space(settings, one)
    return opening.planned_work(sizes, settings, one, space)
  if unit.kind == 'unlearned':
    one = study.unlearner(unit.label)
    method, hparams = methods.get(one.method), one.hparams
    if unit.label in study.earlier:
      hparams = study.earlier[unit.label].hparams
    elif study.search is not None:
      space = opening.method_space(settings, one)
      hparams = opening.typical(method, one.hparams, space)
  else:
    method, hparams = methods.get(BASELINES[unit.kind]), settings.train
  runs = unit.models
  if not study.searches:
    runs += settings.timing.repeats + 1
  return runs * job_lib.counted_cost(method, hparams, sizes)


def text(sweep: Sweep, graph: Graph) -> str:
  """Describe a sweep; trains nothing.

  Raises:
    ValueError: the sweep cannot be made.
  """
  every = costs(sweep, graph)
  benchmark: dict[str, int] = {}
  for study in sweep.studies:
    for line, count in benchmark_models(study).items():
      benchmark[line] = benchmark.get(line, 0) + count
  lines = _table(
    'stage',
    [line for line in STAGES.values() if line in benchmark],
    lambda line: [every[u.name] for u in graph if stage(u) == line],
    benchmark,
  )
  lines += ['', *_differences(sweep, graph, benchmark), '']
  lines += _table(
    'cell and study',
    [study.name for study in sweep.studies],
    lambda name: [every[u.name] for u in graph if u.owner == name],
  )
  summed = total(every.values())
  return '\n'.join(
    [
      *lines,
      '',
      f'units   {len(graph):,}, in {graph.parts:,} parts',
      f'work    {summed.work:.3g} forward passes of one image',
      f'time    {_time(every)}; without compilation',
      f'disk    {terms.readable_bytes(summed.disk)} of models and '
      f'predictions in {files.shown(sweep.workdir)}',
      *_found(sweep),
    ]
  )


def _found(sweep: Sweep) -> list[str]:
  """Say how many settings of the tables an earlier search has found."""
  tables = [study for study in sweep.studies if not study.searches]
  found = sum(len(study.earlier) for study in tables)
  if not found:
    return []
  every = sum(len(study.methods) for study in tables)
  rest = '; the others are searched' if found < every else ''
  return [f'found   {found:,} of {every:,} settings in config.settings{rest}']


def _time(every: Mapping[str, Cost]) -> str:
  known = sum(cost.hours for cost in every.values() if cost.hours > 0)
  text = f'{known:,.2f} device hours at the speeds measured on this machine'
  unknown = sorted(
    {
      '/'.join(name.split('/')[:2])
      for name, c in every.items()
      if np.isnan(c.hours)
    }
  )
  if not unknown:
    return f'about {text}'
  where = f'{len(unknown)} studies' if len(unknown) > 3 else ', '.join(unknown)
  return (
    (f'{text}, and ' if known else '')
    + f'an unknown time for {where}: python -m jaxmu.main --plan with their '
    'data and model measures the speed'
  )


def _table(
  title: str,
  names: Sequence[str],
  costs_of: Callable[[str], list[Cost]],
  benchmark: dict[str, int] | None = None,
) -> list[str]:
  width = max(len(name) for name in (title, *names)) + 2
  head = f'{"benchmark":>11}' if benchmark else ''
  lines = [
    f'{title:<{width}}{head}{"models":>11}{"work":>10}{"device hours":>14}'
    f'{"disk":>10}'
  ]
  sums = []
  for name in names:
    sums.append(total(costs_of(name)))
    number = f'{benchmark[name]:>11,}' if benchmark else ''
    lines.append(f'{name:<{width}}{number}{_numbers(sums[-1])}')
  number = f'{sum(benchmark.values()):>11,}' if benchmark else ''
  return [*lines, f'{"total":<{width}}{number}{_numbers(total(sums))}']


def _numbers(cost: Cost) -> str:
  hours = 'unknown' if np.isnan(cost.hours) else f'{cost.hours:,.2f}'
  disk = terms.readable_bytes(cost.disk)
  return f'{cost.models:>11,}{cost.work:>10.2g}{hours:>14}{disk:>10}'


def _differences(
  sweep: Sweep, graph: Graph, benchmark: dict[str, int]
) -> list[str]:
  """Say why the sweep trains more or fewer models than the benchmark."""
  own = sum(u.models for u in graph if u.kind in BASELINES and u.study in BASE)
  judged = sum(
    opening.budget(
      study.settings, opening.method_space(study.settings, one)
    ).judged
    for study in sweep.studies
    if study.searches
    for one in study.settings.unlearners
  )
  tables = [study for study in sweep.studies if not study.searches]
  shared = absent = 0
  for study in tables:
    originals, each = graph_lib.members(study.settings)
    shared += each - originals
    absent += 0 if study.settings.retrained.train else each
  reasons = {
    'originals and retrained models of the searches, which use no '
    'initialisation of a table': own,
    'the default setting, and the best trials judged again': judged,
    'one original serves all forget sets of its split': -shared,
    'no retrained models': -absent,
  }
  lines = [f'{n:>+11,}  {why}' for why, n in reasons.items() if n]
  trained = sum(u.models for u in graph if u.kind in graph_lib.TRAINS)
  count = sum(benchmark.values())
  if not lines:
    return [f'The benchmark trains the same {count:,} models.']
  return [
    f'The benchmark trains {count:,} models for this, and the sweep '
    f'{trained:,}:',
    *lines,
  ]
