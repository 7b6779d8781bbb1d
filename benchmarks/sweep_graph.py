"""Measures how long a large sweep takes to plan and to resume.

    python benchmarks/sweep_graph.py [--seeds=250]

The sweep is the benchmark (5 data sets, 2 models, 18 methods) with shards of
one model and more initialisations, so that it has about 100,000 parts. Each
part has a record of its state, as if processes had made it, and the last unit
is missing. `resume` is the time until a process has found that unit. The table
is printed and written to benchmarks/sweep_graph.csv.
"""

import argparse
import pathlib
import resource
import tempfile
import time

import table

from jaxmu.sweeps import design, engine, graph, plan, status

TABLE = pathlib.Path(__file__).with_suffix('.csv')


class Found(BaseException):
  """A unit is missing."""


class Work:
  """Performs nothing; knows the states of a sweep."""

  def __init__(self, sweep: design.Sweep, units: graph.Graph):
    self._sweep, self._units = sweep, units

  def __call__(self, unit, parts=None):
    raise Found

  def claimed(self, unit, parts):
    return status.claimed(self._sweep.workdir, unit, parts)

  def survey(self):
    keys = status.Keys(self._sweep)
    return status.survey(self._sweep, self._units, keys)

  def tell(self, line):
    print(line)


def timed(function, *args):
  begin = time.perf_counter()
  result = function(*args)
  return round(time.perf_counter() - begin, 2), result


def resume(sweep: design.Sweep, units: graph.Graph) -> None:
  try:
    engine.Shared(engine.Share(0, 1))(units, Work(sweep, units))
  except Found:
    return
  raise AssertionError('nothing was missing')


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--seeds', type=int, default=250)
  seeds = parser.parse_args().seeds
  with tempfile.TemporaryDirectory() as folder:
    config = design.deep_unlearn('paper')
    config['main'] = {'splits.seeds': seeds, 'run.shard': 1}
    config['workdir'] = folder

    def build():
      sweep = design.from_config(config)
      return sweep, graph.build(sweep)

    built, (sweep, units) = timed(build)
    planned, _ = timed(plan.text, sweep, units)
    keys = status.Keys(sweep)
    *others, last = units
    for unit in others:
      record = status.Record('done', keys(unit), seconds=1.0)
      for part in range(unit.parts):
        status.write(sweep.workdir, unit, record, part)
    resumed, _ = timed(resume, sweep, units)
    shown, _ = timed(status.text, sweep, units)
  memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
  rows = [
    {
      'units': len(units),
      'parts': units.parts,
      'build': built,
      'plan': planned,
      'resume': resumed,
      'status': shown,
      'memory_gib': round(memory, 2),
    }
  ]
  table.save(TABLE, rows)


if __name__ == '__main__':
  main()
