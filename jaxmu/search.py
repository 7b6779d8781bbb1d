"""Search hyper-parameters: `python -m jaxmu.search --config=NAME`.

  --config=NAME[:SCALE]              a job, as in python -m jaxmu.main; all of
                                     its methods are searched
  --workdir=DIR                      the folder to write to
  --compare=METHOD,METHOD            further methods to search
  --config.search.trials=100         settings tried per initialisation
  --config.search.initialisations=3  pairs of original and retrained models
  --config.search.sampler=tpe        or random, or reference (NSGA-III as in the
                                     benchmark)
  --config.search.objective=reference    or no_oracle, without retrained models
  --config.search.finalists=20       the best trials, which are judged again
  --config.search.judges=5           on further initialisations; 0: the best
                                     value of any trial wins
  --config.search.generation=25      trials proposed at once; reference has 50
  --config.search.seed=0             of the samplers
  --config.search.space.NAME='log(1e-4, 1e-1)'    or 'uniform(0, 1)', a list, or
                                     a number to hold it fixed
  --config.search.grid.NAME=VALUE,VALUE    all combinations, instead of sampling
  --training                         search the recipe of the original models
                                     instead, which a job reads with
                                     --config.train=tuned; its spaces are
                                     --config.search.space.original.NAME
  --plan                             print trials, models, programs, time and
                                     disk; train nothing

Writes WORKDIR/search/METHOD/settings.json, which a job in this work directory
reads with --config.unlearn.hparams=tuned (--config.compare.METHOD=tuned for a
further method), and trials.csv with every trial. A search that is interrupted
continues when it is started again.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any

from jaxmu import cli
from jaxmu import main as job_command


def _function() -> Callable[..., Any]:
  from jaxmu.api import search

  return search


# `jaxmu.search('msg')` is `jaxmu.api.search` also after `import jaxmu.search`.
cli.make_callable(__name__, _function)


def main(argv: Sequence[str]) -> None:
  """Run the search that the arguments describe.

  Args:
    argv: arguments without the name of the program.

  Raises:
    SystemExit: with a line that says what is wrong and what to do.
  """
  field = '--config.search.training=true'
  given = [field if one == '--training' else one for one in argv]
  job_command.command(given, __doc__ or '', _run)


def _run(chosen: Any, request: Any) -> None:
  # Imported late: the number of devices must be set before JAX starts.
  from jaxmu.study import store
  from jaxmu.tuning import driver
  from jaxmu.tuning import plan as planned

  store.check_workdir(chosen.workdir)
  if request.plan:
    print(planned.text(chosen))
  else:
    driver.run(chosen)


if __name__ == '__main__':
  main(sys.argv[1:])
