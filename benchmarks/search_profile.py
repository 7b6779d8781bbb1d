"""Measures where the time of a search goes: CPU seconds of a turn, by part.

    pip install -e '.[benchmarks]'
    python benchmarks/search_profile.py [--method=msg --trials=50]

The trials are those of `search_speed.py`, in shards of a population and one at
a time; the first shard, which compiles, is not counted. CPU seconds of the
process are hardly changed by other load on the machine, but do not show when a
core waits. `host` is all work between the programs: reading and laying out
members, the population attack, the store. The table is printed and written to
benchmarks/search_profile.csv.
"""

import argparse
import collections
import pathlib
import tempfile
import time
from collections.abc import Callable
from typing import Any

import compare
import jax
import table
import take_turns
from search_backends import JaxSearch

TABLE = pathlib.Path(__file__).with_suffix('.csv')
PARTS = ('init', 'epochs', 'prediction')


class Profiled(JaxSearch):
  """Trials in jaxmu, whose programs are timed."""

  def profile(self, method: str, count: int) -> dict[str, float]:
    """Evaluate trials; return CPU seconds by part, and of all."""
    drawn = self.draw(method, count)
    self.load(method, drawn[: self.job.settings.run.shard])
    self.run()  # compiles
    self.load(method, drawn)
    self.spent = collections.Counter()
    evaluator = self.evaluators[method]
    trainer, predictor = evaluator._trainer, evaluator._predictor
    kept = dict(trainer._programs), predictor.run
    for kind, (init, epoch) in kept[0].items():
      timed = self._timed('init', init), self._timed('epochs', epoch)
      trainer._programs[kind] = timed
    predictor.run = self._timed('prediction', predictor.run)
    begin = time.process_time()
    self.run()
    whole = time.process_time() - begin
    trainer._programs, predictor.run = kept
    return {**self.spent, 'all': whole}

  def _timed(self, part: str, program: Callable[..., Any]) -> Callable:
    def run(*args: Any) -> Any:
      begin = time.process_time()
      result = jax.block_until_ready(program(*args))
      self.spent[part] += time.process_time() - begin
      return result

    return run


def run(method: str, count: int, turns: int) -> list[dict[str, Any]]:
  """Profile both kinds of search in turn; rows of the table."""
  rows = []
  with tempfile.TemporaryDirectory() as folder:
    for name, devices, shard in (
      ('jaxmu', compare.cores(), 0),
      ('jaxmu, one at a time', 1, 1),
    ):
      options = {
        'folder': folder,
        'name': f'shards_{shard}',
        'devices': devices,
        'shard': shard,
      }
      with take_turns.Backend(name, Profiled, [options]) as backend:
        found = [
          backend.call('profile', method, count)[0] for _ in range(turns)
        ]
      spent = min(found, key=lambda one: one['all'])
      host = spent['all'] - sum(spent[part] for part in PARTS)
      rows.append(
        {
          'method': method,
          'backend': name,
          'trials': count,
          'turns': turns,
          'cpu_s_per_trial': f'{spent["all"] / count:.3f}',
          **{p: f'{spent[p] / spent["all"]:.3f}' for p in PARTS},
          'host': f'{host / spent["all"]:.3f}',
        }
      )
  return rows


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--method', default='msg')
  parser.add_argument('--trials', type=int, default=50)
  parser.add_argument('--turns', type=int, default=2)
  options = parser.parse_args()
  table.save(TABLE, run(options.method, options.trials, options.turns))


if __name__ == '__main__':
  main()
