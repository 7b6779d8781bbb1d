"""Plans the default job for TPUs that are not there.

    JAX_PLATFORMS=cpu python benchmarks/aot_plan.py [--machines=v5e,v6e]

runs `python -m jaxmu.main --plan --for=MACHINE` and stores the table that it
prints; see docs/performance.md for its columns. It needs
`pip install 'jaxmu[aot]'`. Nothing is trained. Rows are printed and written to
benchmarks/aot_plan.csv.
"""

import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

import table

TABLE = pathlib.Path(__file__).with_suffix('.csv')
COLUMNS = {
  'stage': r'\w+ \w+',
  'models': r'[\d,]+',
  'chunk': r'\d+',
  'memory': r'\S+ \w*B',
  'flops': r'\S+',
  'bytes': r'\S+ \w*B',
  'gcycles': r'\S+',
  'images_per_s': r'\S+',
  'models_per_h': r'\S+',
  'device_hours': r'\S+',
}
ROW = re.compile(r'\s+'.join(f'({one})' for one in COLUMNS.values()) + '$')


def plan(machine: str, config: str) -> list[dict[str, str]]:
  """Return the rows of the plan of a configuration for a machine."""
  command = [sys.executable, '-m', 'jaxmu.main', f'--config={config}', '--plan']
  with tempfile.TemporaryDirectory() as folder:
    done = subprocess.run(
      [*command, f'--for={machine}', f'--workdir={folder}/job'],
      stdout=subprocess.PIPE,
      text=True,
      check=True,
    )
  print(done.stdout, flush=True)
  found = filter(None, map(ROW.match, done.stdout.splitlines()))
  return [
    {'machine': machine, 'config': config}
    | dict(zip(COLUMNS, match.groups(), strict=True))
    for match in found
  ]


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--config', default='msg_resnet')
  parser.add_argument('--machines', default='v5e,v6e')
  options = parser.parse_args()
  machines = options.machines.split(',')
  rows = [row for name in machines for row in plan(name, options.config)]
  table.save(TABLE, rows, '1 x TPU, compiled, not run')


if __name__ == '__main__':
  main()
