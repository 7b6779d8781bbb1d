"""Search hyper-parameters: `python -m jaxmu.search --config=NAME`.

  --config=NAME[:SCALE]              a job, as in python -m jaxmu.main; all of
                                     its methods are searched
  --config.search.trials=100         settings tried per initialisation
  --config.search.initialisations=3  pairs of original and retrained models
  --config.search.sampler=tpe        or random, or reference (NSGA-III as in the
                                     benchmark)
  --config.search.objective=reference    or no_oracle, without retrained models
  --config.search.space.NAME='log(1e-4, 1e-1)'    or 'uniform(0, 1)', a list, or
                                     a number to hold it fixed
  --config.search.grid.NAME=VALUE,VALUE    all combinations, instead of sampling
  --plan                             print trials, models, programs, time and
                                     disk; train nothing

Writes WORKDIR/search/METHOD/settings.json, which a job in this work directory
reads with --config.unlearn.hparams=tuned, and trials.csv with every trial. A
search that is interrupted continues when it is started again.

The module is callable, so that `jaxmu.search('msg')` is the function
`jaxmu.api.search` also after `import jaxmu.search`.
"""

import inspect
import sys
import types
from collections.abc import Sequence
from typing import Any


class _Callable(types.ModuleType):
  """This module, callable as the function of the same name."""

  def __call__(self, *args: Any, **kwargs: Any) -> Any:
    from jaxmu.api import search

    return search(*args, **kwargs)

  @property
  def __signature__(self) -> inspect.Signature:
    from jaxmu.api import search

    return inspect.signature(search)


sys.modules[__name__].__class__ = _Callable


def main(argv: Sequence[str]) -> None:
  """Run the search that the arguments describe.

  Args:
    argv: arguments without the name of the program.

  Raises:
    SystemExit: with a line that says what is wrong and what to do.
  """
  if {'-h', '--help', '--helpfull'} & set(argv):
    print(__doc__)
    return
  from jaxmu import cli
  from jaxmu import main as job_command

  with cli.one_line_errors():
    chosen, plan = job_command.start(argv)
    # Imported late: the number of devices must be set before JAX starts.
    from jaxmu.study import store
    from jaxmu.tuning import driver
    from jaxmu.tuning import plan as planned

    store.check_workdir(chosen.workdir)
    if plan:
      print(planned.text(chosen))
    else:
      driver.run(chosen)


if __name__ == '__main__':
  main(sys.argv[1:])
