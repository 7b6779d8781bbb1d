"""Runs the same units of a sweep by the engines on this machine, in turn.

    python benchmarks/sweep_engines.py [--rounds=3] [--folder=DIR]

The units are those of the main study and of the study of U-LiRA of a sweep on
digits, with one network, six methods and default hyper-parameters. `local` uses
all cores in one process, `ray` in one process that Ray starts. A first run of
`local`, which is not counted, compiles the programs. The overhead is the time
of the command over that of `local` in the same round, less 1; it holds the
start of Ray and of its processes. With `--folder`, compiled programs are kept
for a later call. The table is printed and written to
benchmarks/sweep_engines.csv.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import table

from jaxmu.study import execution

TABLE = pathlib.Path(__file__).with_suffix('.csv')
ARGUMENTS = (
  '--config=deep_unlearn',
  '--config.models=resnet18',
  '--config.studies=main,ulira',
  '--config.methods=ft,ct,msg,salun,scrub,neggrad_plus',
)
ENGINES = {
  'local': (),
  'ray': ('--engine=ray', f'--resources=cpu={execution.cores()}'),
}


def run(home: pathlib.Path, folder: pathlib.Path, engine: str) -> float:
  """Run the sweep in a new folder; return the seconds of the command."""
  argv = [*ARGUMENTS, f'--workdir={folder}', *ENGINES[engine]]
  environment = {
    **os.environ,
    'JAXMU_CACHE_DIR': str(home / 'cache'),
    'JAX_COMPILATION_CACHE_DIR': str(home / 'programs'),
  }
  begin = time.perf_counter()
  subprocess.run(
    [sys.executable, '-m', 'jaxmu.sweep', *argv],
    env=environment,
    stdout=subprocess.DEVNULL,
    check=True,
  )
  return time.perf_counter() - begin


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--rounds', type=int, default=3)
  parser.add_argument('--folder', type=pathlib.Path)
  chosen = parser.parse_args()
  rounds = chosen.rounds
  spent: dict[str, list[float]] = {engine: [] for engine in ENGINES}
  with tempfile.TemporaryDirectory(dir=chosen.folder) as temporary:
    home = chosen.folder or pathlib.Path(temporary)
    for number in range(rounds + 1):
      for position, engine in enumerate(ENGINES if number else ['local']):
        name = f'{number}_{position}'
        seconds = run(home, pathlib.Path(temporary, name), engine)
        print(f'round {number}: {engine}: {seconds:.1f} s', flush=True)
        if number:
          spent[engine].append(seconds)
  rows = []
  for engine, seconds in spent.items():
    ratios = [
      100 * (mine / local - 1)
      for mine, local in zip(seconds, spent['local'], strict=True)
    ]
    rows.append(
      {
        'engine': engine,
        'rounds': rounds,
        'seconds': round(statistics.median(seconds), 1),
        'overhead_percent': round(statistics.median(ratios), 1),
        'lowest': round(min(ratios), 1),
        'highest': round(max(ratios), 1),
      }
    )
  table.save(TABLE, rows)


if __name__ == '__main__':
  main()
