"""Measures what a search without retrained models loses.

    python benchmarks/search_no_oracle.py [--workdir=workdir/benchmark_digits]

Every method is searched at the digits scale with `objective=no_oracle`, which
sees no retrained model. Its chosen setting is compared with the best one that
the same trials give if they are chosen by the reference objectives. All norms
are those of the reference objectives, means over initialisations that were not
searched. `regret` is the norm of the choice (`chosen`) less that of the best
setting that was judged (`best`); it cannot be negative. `seeds` are those of
the samplers, one per initialisation.

Trials that are in the store of the work directory are not trained again. The
table is printed and written to benchmarks/search_no_oracle.csv.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import search_samplers
import table

from jaxmu import main as command
from jaxmu.tuning import driver

TABLE = pathlib.Path(__file__).with_suffix('.csv')
METHODS = ('msg', 'ct', 'scrub', 'ft', 'salun', 'neggrad_plus')
SAMPLER = 'tpe'


def run(
  workdir: str, methods: Sequence[str], **search: Any
) -> list[dict[str, Any]]:
  """Search methods without retrained models; a row per method.

  Args:
    workdir: the work directory.
    methods: their names.
    **search: further fields of `config.search`.
  """
  settings = search_samplers.make_settings(
    workdir, methods, SAMPLER, objective='no_oracle', **search
  )
  return [row(one.content) for one in driver.run(settings)]


def row(content: dict[str, Any]) -> dict[str, Any]:
  """Return the row of a method from the content of its settings file."""
  search, lost = content['search'], content['regret']
  count = search['initialisations']
  return {
    'method': content['method'],
    'seeds': f'{search["seed"]} to {search["seed"] + count - 1}',
    'trials': search['trials'] * count,
    'finalists': search['finalists'],
    **{name: f'{lost[name]:.6g}' for name in ('chosen', 'best', 'regret')},
  }


def main() -> None:
  one = search_samplers.parser(__doc__, METHODS, trials=50, finalists=10)
  options = vars(one.parse_args())
  command.set_up_jax({})
  rows = run(**options)
  table.save(TABLE, rows)


if __name__ == '__main__':
  main()
