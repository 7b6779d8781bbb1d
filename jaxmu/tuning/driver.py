"""Search the hyper-parameters of the methods of a job.

For every method: each initialisation has a study, which proposes a generation
of trials; the trials of all studies are trained as one population
(`jaxmu.tuning.trials`), and each study is told its values. The best trials are
judged again (`jaxmu.tuning.selection`), and the chosen setting is written where
jobs read it (`jaxmu.study.tuned`).

A search has the data, model and training recipe of its job but other random
draws, and, for design 'audit', other splits. Unlike the reference, which
reports on initialisations that it searched, final tables are made on others.

An interrupted search continues with the same trials: studies are replayed from
the outcomes in the store.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxmu import files, methods
from jaxmu import hparams as hp
from jaxmu import population as population_lib
from jaxmu.attacks import single_model
from jaxmu.data import datasets, splits
from jaxmu.report import progress
from jaxmu.study import job as job_lib
from jaxmu.study import planner, stages, store, tuned
from jaxmu.study.settings import Settings, Unlearner
from jaxmu.tuning import (
  objectives,
  page,
  records,
  samplers,
  selection,
  spaces,
)
from jaxmu.tuning.trials import Evaluator, Outcomes, Trial
from jaxmu.types import Problem

Tell = Callable[[str], None]


class Searched(NamedTuple):
  """The search of one method.

  Attributes:
    method: its name.
    rows: all trials, by initialisation and number within each generation.
    choice: the chosen setting.
    judged: mean norms over the judges of the choice, the default setting and
      the unchanged originals, by name; see `selection`.
    space: what was searched.
    programs: training programs compiled in this process.
    path: the settings file.
  """

  method: str
  rows: list[records.TrialRow]
  choice: selection.Choice
  judged: dict[str, float]
  space: spaces.Space
  programs: int
  path: Any


def search_settings(settings: Settings) -> Settings:
  """Return the settings of the job that a search runs in."""
  search = settings.search
  count = search.initialisations + search.judges
  seed = int(files.digest('search', settings.seed, digits=8), 16)
  chosen = dataclasses.replace(settings.splits, seeds=1, seed=seed)
  if settings.splits.design == 'main':
    chosen = dataclasses.replace(settings.splits, seeds=count)
  return dataclasses.replace(
    settings,
    seed=seed,
    splits=chosen,
    unlearners=(),
    retrained=dataclasses.replace(
      settings.retrained, train=search.objective == 'reference'
    ),
  )


def search_design(settings: Settings, source: datasets.Source) -> splits.Design:
  """Return the first forget set of as many splits as are searched and judged.

  Raises:
    ValueError: the design has fewer splits.
  """
  design = job_lib.make_design(settings, source)
  if settings.splits.design == 'main':
    return design
  count = settings.search.initialisations + settings.search.judges
  first = np.flatnonzero(design.forget_set == 0)[:count]
  if len(first) < count:
    raise ValueError(
      f'config.search.initialisations + judges = {count}, but the design has '
      f'{len(first)} splits; set config.splits.num_splits={count} or more, or '
      'search fewer'
    )
  rows = ('retain', 'forget', 'unseen', 'split', 'forget_set', 'pair')
  return dataclasses.replace(
    design, **{name: getattr(design, name)[first] for name in rows}
  )


def run(settings: Settings) -> list[Searched]:
  """Search the hyper-parameters of all methods of a job.

  Args:
    settings: checked settings of the job, with those of the search.

  Returns:
    One result per method.

  Raises:
    ValueError: a space does not fit its method, the data do not fit the
      search, or the work directory is in use; raised before training.
  """
  folder = files.path(settings.workdir)
  plans = [method_space(settings, one) for one in settings.unlearners]
  with store.hold_workdir(folder), progress.Progress() as bars:
    job = open_search(settings, bars.line)
    for name, population in job.populations.items():
      layout = stages.stage_layout(job, f'train {name}')
      trainer = population_lib.Trainer(population.method, job.task, layout)
      stages.train(job, name, trainer, bars)
    return [
      _search_method(job, settings, one, space, bars)
      for one, space in zip(settings.unlearners, plans, strict=True)
    ]


def open_search(settings: Settings, tell: Tell) -> job_lib.Job:
  """Open the job of a search with its layout; trains nothing.

  Raises:
    ValueError: the sets are too small for the objectives.
  """
  job = job_lib.open_job(search_settings(settings), search_design)
  if min(job.sizes.forget, job.sizes.val) < single_model.FOLDS:
    raise ValueError(
      f'the design has {job.sizes.forget} forgotten and {job.sizes.val} '
      f'validation examples; a search needs {single_model.FOLDS} of each for '
      'its population attack: change config.splits'
    )
  return planner.choose_plan(job, planned_work(job, settings), tell)


def method_space(settings: Settings, one: Unlearner) -> spaces.Space:
  """Return the space of one method of a job.

  Raises:
    ValueError: `config.search.space` or `.grid` does not fit the method.
  """
  method = methods.get(one.method)
  classes = {
    methods.get(other.method).name: methods.get(other.method).Hparams
    for other in settings.unlearners
  }
  if settings.search_grid:
    grid = spaces.for_method(
      settings.search_grid, method.name, classes, 'config.search.grid'
    )
    return spaces.of_grid(method.Hparams, one.hparams, grid)
  changes = spaces.for_method(
    settings.search_space, method.name, classes, 'config.search.space'
  )
  return spaces.of_method(
    method.Hparams,
    one.hparams,
    train_epochs=settings.train['num_epochs'],
    changes=changes,
    dead=settings.search.sampler == 'reference',
  )


def planned_work(job: job_lib.Job, settings: Settings) -> float:
  """Return the work of a search in forward passes of one example.

  Each trial counts as the middle of its space would.
  """
  search = settings.search
  work = planner.training_work(planner.plan_steps(job))
  for one in settings.unlearners:
    method = methods.get(one.method)
    most = spaces.most_epochs(settings.train['num_epochs'])
    values = {**hp.defaults(method.Hparams), **one.hparams}
    values = {
      name: (1 + most) / 2
      if isinstance(_declared(method.Hparams, name), hp.EpochBudget)
      else value
      for name, value in values.items()
    }
    trials = search.trials * search.initialisations
    trials += search.finalists * search.judges
    work += trials * job_lib.counted_cost(method, values, job.sizes)
  return work


def _declared(cls: type, name: str) -> Any:
  fields = {field.name: field for field in hp.declared(cls)}
  return hp.meta(fields[name])['search']


def _search_method(
  job: job_lib.Job,
  settings: Settings,
  one: Unlearner,
  space: spaces.Space,
  bars: progress.Progress,
) -> Searched:
  search = settings.search
  evaluator = Evaluator(job, one.method, bars)
  judge = _Judge(evaluator, search.objective)
  name = evaluator.method.name
  folder = tuned.folder(job.folder, name)

  def keep(rows: Sequence[records.TrialRow]) -> None:
    records.write_csv(folder / 'trials.csv', rows)
    records.update_journal(folder.parent / records.JOURNAL, rows, space)

  problem = problem_shapes(job)
  rows: list[records.TrialRow] = []
  for proposed in _generations(settings, space):
    trials = [Trial(a.setting, study) for study, a in proposed.asked]
    title = f'search {name} {proposed.number + 1}/{proposed.total}'
    outcomes = evaluator.evaluate(trials, title)
    values = judge.values(trials, outcomes)
    proposed.tell(values)
    why = [inert(problem, evaluator.method, trial.setting) for trial in trials]
    rows += _rows(name, proposed, trials, outcomes, values, why)
    keep(rows)
    best = min((row.norm for row in rows if row.usable), default=np.inf)
    bars.line(f'{name}: best norm {best:.4f} after {len(rows)} trials')
  return _choose(job, settings, one, space, judge, rows, bars)


class _Judge:
  """Turns outcomes into objectives."""

  def __init__(self, evaluator: Evaluator, objective: str):
    self.evaluator = evaluator
    self.originals = evaluator.originals()
    self.retrained = None
    if objective == 'reference':
      self.retrained = evaluator.retrained()

  def values(self, trials: Sequence[Trial], outcomes: Outcomes) -> np.ndarray:
    """Return the objectives of trials, f64[T, 4]."""
    return self._values(outcomes, np.array([t.initialisation for t in trials]))

  def untouched(self, initialisations: Sequence[int]) -> float:
    """Return the mean norm of the unchanged originals."""
    where = np.asarray(initialisations)
    own = Outcomes(*(field[where] for field in self.originals))
    return float(np.mean(objectives.norm(self._values(own, where))))

  def mean_norms(
    self, chosen: Sequence[selection.Setting], initialisations: Sequence[int]
  ) -> np.ndarray:
    """Return the mean norm of settings over initialisations, f64[S]."""
    trials = [Trial(s, i) for s in chosen for i in initialisations]
    title = f'judge {self.evaluator.method.name}'
    outcomes = self.evaluator.evaluate(trials, title)
    norms = objectives.norm(self.values(trials, outcomes))
    return norms.reshape(len(chosen), len(initialisations)).mean(axis=1)

  def _values(self, outcomes: Outcomes, where: np.ndarray) -> np.ndarray:
    return objectives.values(
      outcomes, where, retrained=self.retrained, originals=self.originals
    )


class _Proposed(NamedTuple):
  """The trials that are evaluated together.

  Attributes:
    number, total: of the generation.
    asked: study and trial of each.
    studies: which are told the values; none for a grid.
  """

  number: int
  total: int
  asked: list[tuple[int, samplers.Asked]]
  studies: list[samplers.Replay]

  def tell(self, values: np.ndarray) -> None:
    """Report f64[T, 4] values to the studies."""
    for index, study in enumerate(self.studies):
      own = [t for t, (owner, _) in enumerate(self.asked) if owner == index]
      study.tell([self.asked[t][1] for t in own], values[own])


def _generations(settings: Settings, space: spaces.Space):
  """Yield the generations of a search; the caller tells each its values."""
  search = settings.search
  count = search.initialisations
  if settings.search_grid:
    grid = enumerate(space.combinations())
    every = [samplers.Asked(number, setting) for number, setting in grid]
    asked = [(k, one) for k in range(count) for one in every]
    yield _Proposed(0, 1, asked, [])
    return
  studies = [
    samplers.Replay(search.sampler, search.seed + k, space, _pruned(settings))
    for k in range(count)
  ]
  sizes = samplers.generations(search.trials, generation_size(settings))
  for number, size in enumerate(sizes):
    asked = [(k, one) for k in range(count) for one in studies[k].ask(size)]
    yield _Proposed(number, len(sizes), asked, studies)


def generation_size(settings: Settings) -> int:
  """Return how many trials a study proposes at once."""
  if settings.search.sampler == 'reference':
    return samplers.POPULATION
  return settings.search.generation or 25


def _pruned(settings: Settings) -> Callable[[dict[str, Any]], bool]:
  """Return which trials the reference prunes: UTKFace with batches of 256."""
  if settings.data.name != 'utkface' or settings.search.sampler != 'reference':
    return lambda setting: False
  return lambda setting: setting.get('batch_size') == 256


def problem_shapes(job: job_lib.Job) -> Problem:
  """Return the data and architecture with the shapes of a model's weights."""
  return Problem(job.task, None, stages.one_model_shapes(job))  # type: ignore[arg-type]


def inert(problem: Problem, method: Any, setting: Mapping[str, Any]) -> str:
  """Say why a setting leaves out what its method is named after; '' if not."""
  return method.card.inert(setting, problem) if method.card.inert else ''


def _rows(
  name: str,
  proposed: _Proposed,
  trials: Sequence[Trial],
  outcomes: Outcomes,
  values: np.ndarray,
  why: Sequence[str],
) -> list[records.TrialRow]:
  norms = objectives.norm(values)
  rows = []
  for t, ((study, one), trial) in enumerate(
    zip(proposed.asked, trials, strict=True)
  ):
    state = why[t] or 'complete'
    if not np.isfinite(norms[t]):
      epoch = int(outcomes.failed[t])
      state = f'failed at epoch {epoch}' if epoch >= 0 else 'no attack'
    rows.append(
      records.TrialRow(
        name,
        study,
        one.number,
        proposed.number,
        dict(trial.setting),
        *(float(field[t]) for field in outcomes[:4]),
        objectives=tuple(map(float, values[t])),
        norm=float(norms[t]),
        state=state,
        seconds=float(outcomes.seconds[t]),
      )
    )
  return rows


def _choose(
  job: job_lib.Job,
  settings: Settings,
  one: Unlearner,
  space: spaces.Space,
  judge: _Judge,
  rows: list[records.TrialRow],
  bars: progress.Progress,
) -> Searched:
  search, method = settings.search, judge.evaluator.method
  norms = np.array([row.norm for row in rows])
  initialisation = np.array([row.initialisation for row in rows])
  order = selection.ranked(
    norms,
    initialisation,
    np.array([row.number for row in rows]),
    np.array([row.usable for row in rows]),
  )
  judges = range(search.initialisations, search.initialisations + search.judges)
  on_judges = lambda chosen: judge.mean_norms(chosen, judges)  # noqa: E731
  default = space.nearest(hp.defaults(method.Hparams))
  choice = selection.choose(
    order,
    norms,
    [row.setting for row in rows],
    initialisation=initialisation,
    default=default,
    default_may_win=not inert(
      problem_shapes(job), judge.evaluator.method, default
    ),
    finalists=search.finalists,
    judge=on_judges if judges else None,
  )
  everyone = judges or range(search.initialisations)
  usual = choice.means[-1:] if judges else judge.mean_norms([default], everyone)
  judged = {
    'chosen': choice.norm,
    'default': float(usual[0]),
    'original': judge.untouched(everyone),
  }
  content = settings_file(job, settings, one, choice, judged, rows)
  folder = tuned.folder(job.folder, method.name)
  path = tuned.write(folder / tuned.NAME, content)
  page.write(folder, rows, choice, space, judged, content)
  bars.line(
    f'{method.name}: norm {choice.norm:.4f} of the chosen setting, '
    f'{judged["default"]:.4f} of the default, {judged["original"]:.4f} of the '
    f'original models; written to {path}'
  )
  return Searched(
    method.name,
    rows,
    choice,
    judged,
    space,
    judge.evaluator.programs,
    path,
  )


def settings_file(
  job: job_lib.Job,
  settings: Settings,
  one: Unlearner,
  choice: selection.Choice,
  judged: Mapping[str, float],
  rows: Sequence[records.TrialRow],
) -> dict[str, Any]:
  """Return the content of a settings file; see `tuned`."""
  method = methods.get(one.method)
  return {
    'method': method.name,
    'data': settings.data.name,
    'model': settings.model,
    'hparams': dict(choice.setting),
    'norms': dict(judged),
    'search': {
      **dataclasses.asdict(settings.search),
      'space': {k: str(v) for k, v in settings.search_space.items()},
      'grid': {
        k: list(v) if isinstance(v, list | tuple) else [v]
        for k, v in settings.search_grid.items()
      },
      'failed': sum(row.failed for row in rows),
      'cannot_win': sum(not row.failed and not row.usable for row in rows),
      'seconds': round(sum(row.seconds for row in rows), 1),
    },
    'originals': job.populations['original'].digest,
    'model_options': dict(settings.model_options),
    'train': dict(settings.train),
    'versions': job_lib.versions(),
    'hardware': job_lib.hardware_facts(),
  }


def plan_text(settings: Settings) -> str:
  """Describe a search: trials, models, programs, time and disk.

  Raises:
    ValueError: the search cannot be made.
  """
  plans = [method_space(settings, one) for one in settings.unlearners]
  lines: list[str] = []
  job = open_search(settings, lines.append)
  search = settings.search
  count = search.initialisations + search.judges
  trained = sum(step.missing for step in planner.plan_steps(job))
  lines.append(
    f'baselines      {count} original'
    + (' and as many retrained models' if 'retrain' in job.populations else '')
    + f', {trained} models still to train'
  )
  for one, space in zip(settings.unlearners, plans, strict=True):
    lines += _plan_lines(settings, one, space)
  work = planned_work(job, settings)
  speed = planner.images_per_second(job)
  lines.append(f'work           {work:.3g} forward passes of one image')
  if speed:
    lines.append(
      f'time           about {planner.duration(work / (3 * speed))} at the '
      f'{speed:,.0f} images/s measured on this machine, without compilation'
    )
  else:
    lines.append(
      'time           not known: python -m jaxmu.main --plan with the same '
      'configuration measures the speed of this machine'
    )
  lines.append(
    f'disk           {planner.bytes_to_write(planner.plan_steps(job)):,} bytes '
    f'of models and a few kB per generation in {job.folder}'
  )
  return '\n'.join(lines)


def _plan_lines(
  settings: Settings, one: Unlearner, space: spaces.Space
) -> list[str]:
  search = settings.search
  name = methods.get(one.method).name
  per_study = search.trials
  if settings.search_grid:
    per_study = len(space.combinations())
  trials = per_study * search.initialisations
  judged = search.finalists * search.judges
  return [
    f'{name:<15}{trials} trials: {per_study} for each of '
    f'{search.initialisations} initialisations, '
    f'{"all of a grid" if settings.search_grid else search.sampler}; '
    f'the best {search.finalists} judged on {search.judges} others: '
    f'{trials + judged + search.judges} models, '
    f'{programs(one, space)} programs',
    *(f'{"":<15}  {n} in {_words(kind)}' for n, kind in space.searched.items()),
  ]


def programs(one: Unlearner, space: spaces.Space) -> int:
  """Return how many programs a search compiles: one per static choice."""
  count = 1
  for field in hp.declared(methods.get(one.method).Hparams):
    kind = space.searched.get(field.name)
    if hp.is_static(field) and isinstance(kind, spaces.Categorical):
      count *= len(kind.choices)
  return count


def _words(kind: Any) -> str:
  if hasattr(kind, 'choices'):
    return f'{list(kind.choices)}'
  return f'[{kind.low:g}, {kind.high:g}]' + (
    ', logarithmic' if kind.log else ''
  )
