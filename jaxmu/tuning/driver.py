"""Search the hyper-parameters of the methods of a job, or of its training.

For every method: each initialisation has a study, which proposes a generation
of trials; the trials of all studies are trained as one population
(`jaxmu.tuning.trials`), and each study is told its values. The best trials are
judged again (`jaxmu.tuning.judging`), and the chosen setting is written where
jobs read it (`jaxmu.study.tuned`).

An interrupted search continues with the same trials: studies are replayed from
the outcomes in the store.
"""

import dataclasses
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxmu import files, methods
from jaxmu import hparams as hp
from jaxmu.method import Method
from jaxmu.report import progress
from jaxmu.study import job as job_lib
from jaxmu.study import sharing, stages, store, tuned
from jaxmu.study.settings import Settings, Unlearner
from jaxmu.tuning import (
  judging,
  opening,
  page,
  plan,
  records,
  samplers,
  spaces,
)
from jaxmu.tuning.trials import Evaluator, Outcomes, Trial
from jaxmu.types import Problem


class Searched(NamedTuple):
  """The search of one method.

  Attributes:
    method: its name.
    rows: all trials, by initialisation and number within each generation.
    choice: the chosen setting.
    judged: mean norms over the judges of the choice, the default setting and
      the unchanged originals, by name; see `judging`.
    space: what was searched.
    programs: training programs compiled in this process.
    content: of the settings file.
    folder: where its files are.
  """

  method: str
  rows: list[records.TrialRow]
  choice: judging.Choice
  judged: dict[str, float]
  space: spaces.Space
  programs: int
  content: dict[str, Any]
  folder: pathlib.Path

  @property
  def path(self) -> pathlib.Path:
    """The settings file."""
    return self.folder / tuned.NAME

  def write(self, folder: pathlib.Path) -> None:
    """Write the trials, the settings file, the report and its pictures."""
    records.write_csv(folder / records.TABLE, self.rows)
    tuned.write(folder / tuned.NAME, self.content)
    page.write(
      *(folder, self.rows, self.choice, self.space, self.judged, self.content)
    )

  def _regret(self) -> str:
    lost = self.content.get('regret')
    return f'; regret {lost["regret"]:.4f}' if lost else ''

  def sentence(self) -> str:
    """Return the result as one line."""
    whose = {
      'chosen': 'the chosen setting',
      'default': 'the default',
      'original': 'the original models',
    }
    values = ', '.join(
      f'{value:.4f} of {whose[name]}' for name, value in self.judged.items()
    )
    what = records.title(len(self.rows[0].objectives))
    return (
      f'{self.method}: {what} {values}{self._regret()}; written to '
      f'{files.shown(self.path)}'
    )


def run(settings: Settings) -> list[Searched]:
  """Search the hyper-parameters of all methods of a job.

  Args:
    settings: checked settings of the job, with those of the search.

  Returns:
    One result per method.

  Raises:
    ValueError: a space does not fit its method, the data do not fit the
      search, or the work directory is in use; raised before training. Or a
      method has no setting to choose; raised after all others are searched.
  """
  with (
    store.hold_workdir(files.workdir(settings.workdir)),
    progress.Progress(interval=plan.INTERVAL) as bars,
  ):
    opened = opening.open_search(settings, bars.line)
    if opened.steps:
      sharing.adopt(opened.job, bars.line, methods.BASELINES)
    for name in opened.job.populations if opened.steps else ():
      train_baseline(opened.job, name, bars)
    return search_methods(settings, opened, bars)


def train_baseline(
  job: job_lib.Job,
  name: str,
  bars: progress.Progress,
  shards: Collection[int] | None = None,
) -> None:
  """Train the original or the retrained models of a search.

  Args:
    job: of the search; its work directory must be held.
    name: 'original' or 'retrain'.
    bars: where to show progress.
    shards: which of the missing shards; None for all.
  """
  stages.train(job, name, stages.trainer(job, name), bars, shards)


def search_methods(
  settings: Settings,
  opened: opening.Opened,
  bars: progress.Progress,
  chosen: Collection[str] | None = None,
) -> list[Searched]:
  """Search the hyper-parameters of methods with trained originals.

  Args:
    settings: checked settings of the job, with those of the search.
    opened: the search; its work directory must be held.
    bars: where to show progress.
    chosen: names of the methods; None for all.

  Returns:
    One result per method.

  Raises:
    ValueError: a method has no setting to choose; raised after all others are
      searched.
  """
  samplers.silence()
  named = {
    methods.get(one.method).name: (one, space)
    for one, space in zip(opening.targets(settings), opened.spaces, strict=True)
    if chosen is None or methods.get(one.method).name in chosen
  }
  sizes = {
    name: opening.budget(settings, space).models
    for name, (_, space) in named.items()
  }
  what = records.title(1 if settings.search.training else 4)
  pace = plan.Pace(bars, sizes, what)
  found: list[Searched] = []
  without: list[str] = []
  for name, (one, space) in named.items():
    try:
      with pace.method(name):
        found.append(
          _search_method(opened.job, settings, one, space, bars, pace)
        )
      bars.line(found[-1].sentence())
    except spaces.NoSetting as error:
      without.append(f'search of {name}: {error}')
  if without:  # after all other methods
    raise ValueError('; '.join(without))
  return found


def _search_method(
  job: job_lib.Job,
  settings: Settings,
  one: Unlearner,
  space: spaces.Space,
  bars: progress.Progress,
  pace: plan.Pace,
) -> Searched:
  search = settings.search
  evaluator = Evaluator(job, one.method, bars)
  judge = judging.Judge(evaluator, search, pace)
  name = evaluator.method.name
  folder = tuned.folder(job.folder, name)

  def keep(rows: Sequence[records.TrialRow]) -> None:
    records.write_csv(folder / records.TABLE, rows)
    records.update_journal(folder.parent / records.JOURNAL, rows, space)

  problem = problem_shapes(job)
  rows: list[records.TrialRow] = []
  pruned = _pruned(settings, problem, evaluator.method)
  for proposed in _generations(settings, space, pruned):
    trials = [Trial(a.setting, study) for study, a in proposed.asked]
    why = [inert(problem, evaluator.method, trial.setting) for trial in trials]
    outcomes, values = judge.evaluate(trials, [not reason for reason in why])
    proposed.tell(values)
    reference = judge.reference_norms(trials, outcomes)
    rows += _rows(name, proposed, trials, outcomes, values, reference, why)
    keep(rows)
  return _choose(job, settings, one, space, problem, judge, rows)


class _Proposed(NamedTuple):
  """The trials that are evaluated together.

  Attributes:
    number: of the generation.
    asked: study and trial of each.
    studies: which are told the values; none for a grid.
  """

  number: int
  asked: list[tuple[int, samplers.Asked]]
  studies: list[samplers.Replay]

  def tell(self, values: np.ndarray) -> None:
    """Report f64[T, K] values to the studies."""
    for index, study in enumerate(self.studies):
      own = [t for t, (owner, _) in enumerate(self.asked) if owner == index]
      study.tell([self.asked[t][1] for t in own], values[own])


def _generations(
  settings: Settings, space: spaces.Space, pruned: samplers.Pruned
):
  """Yield the generations of a search; the caller tells each its values."""
  search = settings.search
  count = search.initialisations
  if space.is_grid:
    grid = enumerate(space.combinations())
    every = [samplers.Asked(number, setting) for number, setting in grid]
    asked = [(k, one) for k in range(count) for one in every]
    yield _Proposed(0, asked, [])
    return
  studies = [
    samplers.Replay(
      *(search.sampler, search.seed + k, space, pruned),
      objectives=len(
        records.OF_RECIPE if search.training else records.COMPONENTS
      ),
    )
    for k in range(count)
  ]
  sizes = samplers.generations(search.trials, generation_size(settings))
  for number, size in enumerate(sizes):
    asked = [(k, one) for k in range(count) for one in studies[k].ask(size)]
    yield _Proposed(number, asked, studies)


def generation_size(settings: Settings) -> int:
  """Return how many trials a study proposes at once."""
  if settings.search.sampler == 'reference':
    return samplers.POPULATION
  return settings.search.generation or 25


def _pruned(
  settings: Settings, problem: Problem, method: Method
) -> samplers.Pruned:
  """Return which proposed settings are no trials, and why.

  The reference prunes UTKFace with batches of 256. The other samplers propose
  again where the method would not act as its name says, so that all methods
  have equally many trials at which they do.
  """
  if settings.search.sampler != 'reference':
    return lambda setting: inert(problem, method, setting)
  if settings.data.name != 'utkface':
    return lambda setting: ''
  too_large = 'batches of 256 are pruned'
  return lambda setting: too_large * (setting.get('batch_size') == 256)


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
  reference: np.ndarray,
  why: Sequence[str],
) -> list[records.TrialRow]:
  norms = judging.norm(values)
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
        reference_norm=float(reference[t]),
      )
    )
  return rows


def _choose(
  job: job_lib.Job,
  settings: Settings,
  one: Unlearner,
  space: spaces.Space,
  problem: Problem,
  judge: judging.Judge,
  rows: list[records.TrialRow],
) -> Searched:
  search, method = settings.search, judge.evaluator.method
  norms = np.array([row.norm for row in rows])
  judges = range(search.initialisations, search.initialisations + search.judges)
  on_judges = lambda chosen: judge.mean_norms(chosen, judges)  # noqa: E731
  # The declared default, since a job on digits has searched values; that of a
  # recipe is the recipe of the job.
  usual = one.hparams if search.training else hp.defaults(method.Hparams)
  default = space.nearest(usual)
  acts = not inert(problem, method, default)
  choice = judging.choose(
    judging.ranked_rows(rows, norms),
    norms,
    [row.setting for row in rows],
    initialisation=np.array([row.initialisation for row in rows]),
    default=default,
    default_may_win=acts,
    count=search.finalists,
    judge=on_judges if judges else None,
  )
  everyone = judges or range(search.initialisations)
  means = choice.means[-1:] if judges else judge.mean_norms([default], everyone)
  judged = {'chosen': choice.norm, 'default': float(means[0])}
  if not search.training:
    judged['original'] = judge.untouched(everyone)
  lost = judging.regret(
    judge,
    rows,
    choice,
    default=default if acts else None,
    count=search.finalists,
    judges=judges,
  )
  content = settings_file(job, settings, one, choice, judged, lost, rows)
  found = Searched(
    method.name,
    rows,
    choice,
    judged,
    space,
    judge.evaluator.programs,
    content,
    tuned.folder(job.folder, method.name),
  )
  found.write(found.folder)
  return found


def _originals(job: job_lib.Job) -> dict[str, str]:
  return {'originals': job.populations['original'].digest}


def _facts(lost: judging.Regret) -> dict[str, float]:
  return {**lost._asdict(), 'regret': lost.value}


def settings_file(
  job: job_lib.Job,
  settings: Settings,
  one: Unlearner,
  choice: judging.Choice,
  judged: Mapping[str, float],
  lost: judging.Regret | None,
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
    **({'regret': _facts(lost)} if lost else {}),
    'search': {
      **dataclasses.asdict(settings.search),
      'space': {k: str(v) for k, v in settings.search_space.items()},
      'grid': dict(settings.search_grid),
      'failed': sum(row.failed for row in rows),
      'cannot_win': sum(not row.failed and not row.usable for row in rows),
      'seconds': round(sum(row.seconds for row in rows), 1),
    },
    **({} if settings.search.training else _originals(job)),
    'model_options': dict(settings.model_options),
    'train': dict(settings.train),
    'versions': job_lib.versions(),
    'hardware': job_lib.hardware_facts(),
  }
