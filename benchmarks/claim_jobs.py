"""Run the small additional jobs that some claims need, beside a sweep.

  python benchmarks/claim_jobs.py --config=deep_unlearn:laptop [--only=NAME]
  python benchmarks/claim_jobs.py --config=deep_unlearn:laptop --list

Takes the arguments of `python -m jaxmu.sweep`; its searches and tables must be
finished. A job is written to WORKDIR/CELL/JOB, takes originals and retrained
models from the study beside it, and is not run again. `--only` is a cell, a job
or CELL/JOB. Every cell that has the study of a job gets the job, except where
it cannot differ from the study.

  default       main, claim 5: all methods at their default settings, moved to
                the nearest value that the search allows
  ft_augmented  main, claim 15: FT on augmented images, beside FT; for data sets
                with augmentation
  kde_disjoint  main, claim 20: the warm-up of KDE has half of the validation
                images; their other half is evaluated
  large_rate    ulira, claim 11: GA and NG+ at ten times the searched learning
                rate

The claims 6, 8 and 10 need no further job: they read the scores of the study of
U-LiRA.
"""

import copy
import pathlib
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jaxmu.sweep as sweep_command
from jaxmu import files, methods
from jaxmu import hparams as hp
from jaxmu import main as command
from jaxmu.claims import accuracy
from jaxmu.study import run as run_lib
from jaxmu.study import settings as settings_lib
from jaxmu.study import tuned
from jaxmu.study.settings import Settings
from jaxmu.sweeps import design
from jaxmu.sweeps.design import Study, Sweep
from jaxmu.tuning import opening

VARIANTS = 'jaxmu.claims.variants'
LARGER = 10.0
# By the name of a method or plug-in.
Hparams = dict[str, dict[str, Any]]


class Extra(NamedTuple):
  """A small job beside a study.

  Attributes:
    name: of its folder.
    study: the study that it changes, 'main' or 'ulira'.
    claim: the claim that needs it.
    methods: its methods with their settings, from the studies of the cell by
      kind; empty where the job would not differ.
    metrics: further metrics.
  """

  name: str
  study: str
  claim: int
  methods: Callable[[Mapping[str, Study]], Hparams]
  metrics: tuple[str, ...] = ()


def searched(
  studies: Mapping[str, Study], kind: str, method: str
) -> dict[str, Any]:
  """Return the setting of a method in the tables of a study of a cell.

  That of the search for the study if it has the method, or else that of another
  search of the cell.

  Raises:
    ValueError: no search of the cell has finished the method.
  """
  study = studies[kind]
  for one in (study, *studies.values()):
    if one.searches or method not in one.methods:
      continue
    path = one.settings_file(method)
    if one is study or path and path.is_file():
      return dict(one.ready([method]).unlearners[0].hparams)
  places = [
    tuned.folder(files.workdir(study.settings.workdir).parent / kind, method)
    / tuned.NAME
    for kind in design.BASE
  ]
  found = [place for place in places if place.is_file()]
  if not found:
    raise ValueError(
      f'{study.name}: no search has a setting of {method}; add it to '
      '--config.methods and run the search'
    )
  return dict(tuned.read(found[0], method)['hparams'])


def _default(studies: Mapping[str, Study]) -> Hparams:
  space = studies.get('search', studies['main']).settings
  return {
    one.method: opening.method_space(space, one).nearest(
      hp.defaults(methods.get(one.method).Hparams)
    )
    for one in space.unlearners
  }


def _ft_augmented(studies: Mapping[str, Study]) -> Hparams:
  study = studies['main']
  if not accuracy.is_augmented(study.cell.data):
    return {}
  setting = searched(studies, 'main', 'ft')
  return {'ft': setting, f'{VARIANTS}.ft_augmented': dict(setting)}


def _kde_disjoint(studies: Mapping[str, Study]) -> Hparams:
  setting = searched(studies, 'main', 'kde')
  return {'kde': setting, f'{VARIANTS}.kde_disjoint': dict(setting)}


def _large_rate(studies: Mapping[str, Study]) -> Hparams:
  found = {}
  for method in ('ga', 'neggrad_plus'):
    setting = searched(studies, 'ulira', method)
    setting['learning_rate'] = LARGER * setting['learning_rate']
    found[method] = setting
  return found


JOBS = (
  Extra('default', 'main', 5, _default),
  Extra('ft_augmented', 'main', 15, _ft_augmented),
  Extra(
    'kde_disjoint', 'main', 20, _kde_disjoint, (f'{VARIANTS}.held_validation',)
  ),
  Extra('large_rate', 'ulira', 11, _large_rate),
)


def jobs(sweep: Sweep, only: str = '') -> list[tuple[Extra, Settings]]:
  """Return the jobs of all cells.

  Args:
    sweep: with finished searches.
    only: a cell, a job, or CELL/JOB; '' for all.

  Raises:
    ValueError: a setting is missing, or `only` names no job.
  """
  found = []
  for cell in sweep.cells:
    studies = {s.kind: s for s in sweep.studies if s.cell == cell}
    for extra in JOBS:
      names = ('', cell.name, extra.name, f'{cell.name}/{extra.name}')
      if only not in names or extra.study not in studies:
        continue
      chosen = extra.methods(studies)
      if chosen:
        found.append((extra, settings(studies[extra.study], extra, chosen)))
  if not found:
    raise ValueError(
      f'there is no job {only!r}; --list shows those of this sweep'
    )
  return found


def settings(study: Study, extra: Extra, chosen: Hparams) -> Settings:
  """Return the settings of a job: those of its study with other methods."""
  config = copy.deepcopy(study.config)
  (method, hparams), *others = chosen.items()
  folder = files.workdir(study.settings.workdir).parent / extra.name
  config['workdir'] = str(folder)
  config['unlearn'] = {'method': method, 'hparams': hparams}
  config['compare'] = dict(others)
  config['metrics'] = extra.metrics
  config['search'] = {**config['search'], 'space': {}}
  config['curve'] = {**config['curve'], 'every': 0}
  return settings_lib.from_config(config)


def main(argv: Sequence[str]) -> None:
  """Run the jobs, or list them."""
  listed = '--list' in argv
  request = sweep_command.read([one for one in argv if one != '--list'])
  sweep = design.from_config(request.config)
  command.set_up_jax(sweep.studies[0].config)
  for extra, chosen in jobs(sweep, request.only):
    folder = pathlib.Path(chosen.workdir)
    print(f'{folder.parent.name}/{extra.name}: claim {extra.claim}', flush=True)
    if not listed:
      line = shlex.join(['python', 'benchmarks/claim_jobs.py', *argv])
      run_lib.run(chosen, command=line)


if __name__ == '__main__':
  main(sys.argv[1:])
