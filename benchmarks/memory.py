"""Memory of a population in training: predicted and measured.

    python benchmarks/memory.py

ResNet-18 at 32x32 on one CPU device, each case in a fresh process. `predicted`
is the estimate of `--plan` for a shard, from the probe of two chunks; `account`
is XLA's own sum for the shard's compiled program; `measured` is the peak growth
of the process while it loaded and trained the shard, which was compiled before;
the C library returns freed blocks at once, because blocks that it keeps would
be counted. All numbers exclude the data set and are in MB. The table is printed
and written to benchmarks/memory.csv.
"""

import argparse
import ctypes
import gc
import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import table

from jaxmu import hparams as hp
from jaxmu import methods, models, population
from jaxmu.draws import derive
from jaxmu.study import execution
from jaxmu.types import Dataset, Split, Task, Transform

TABLE = pathlib.Path(__file__).with_suffix('.csv')
# Width, batch, chunk, members of the shard.
CASES = (
  (8, 64, 1, 8),
  (16, 128, 1, 8),
  (16, 128, 4, 16),
  (16, 256, 2, 8),
  (64, 64, 1, 4),
)
# glibc raises these thresholds by itself as soon as a large block is freed.
ALLOCATOR = {
  'MALLOC_MMAP_THRESHOLD_': str(2**17),
  'MALLOC_TRIM_THRESHOLD_': str(2**17),
}
STEPS = 4  # of an epoch
EPOCHS = 2
EXAMPLES = 2000


def main() -> None:
  """Measure every case, print and store the table."""
  parser = argparse.ArgumentParser()
  parser.add_argument('--case', help='WIDTH,BATCH,CHUNK,MEMBERS, in here')
  case = parser.parse_args().case
  if case:
    print(json.dumps(measure(*map(int, case.split(',')))))
    return
  rows = []
  for numbers in CASES:
    text = ','.join(map(str, numbers))
    command = [sys.executable, __file__, f'--case={text}']
    done = subprocess.run(
      command, check=True, stdout=subprocess.PIPE, env=os.environ | ALLOCATOR
    )
    found = json.loads(done.stdout.splitlines()[-1])
    named = dict(
      zip(('width', 'batch', 'chunk', 'members'), numbers, strict=True)
    )
    rows.append({**named, **found})
    print('  '.join(f'{k} {v}' for k, v in rows[-1].items()), flush=True)
    # Stored now, in case a later case fails.
    table.write(TABLE, [{**row, **table.made(TABLE)} for row in rows])


def measure(width: int, batch: int, chunk: int, members: int) -> dict:
  """Return predicted and measured MB of one case; needs a fresh process."""
  task = _task(width)
  trainer = population.Trainer(
    methods.get('retrain'), task, population.Layout(1, chunk)
  )
  probe = min(2 * chunk, members)
  loaded = _load(trainer, probe, batch)
  resident = execution.bytes_of(loaded.members)
  need = execution.estimate_memory(loaded.epoch, resident, probe, chunk)
  loaded = _load(trainer, members, batch)
  account = execution.total_bytes(
    loaded.epoch, execution.bytes_of(loaded.members), 0
  )
  trainer.train(loaded)  # compiles what is compiled on first use
  del loaded
  before = _settled()
  loaded = _load(trainer, members, batch)
  trainer.train(loaded)
  measured = _status('VmHWM') - before
  predicted = need.total(members, chunk, 0)
  return {
    'model_mb': round(_model_bytes(task) / 1e6, 2),
    'predicted_mb': round(predicted / 1e6, 1),
    'account_mb': round(account / 1e6, 1),
    'measured_mb': round(measured / 1e6, 1),
    'predicted_over_measured': round(predicted / measured, 3),
  }


def _task(width: int) -> Task:
  return Task(
    Dataset(
      jnp.zeros((EXAMPLES, 32, 32, 3), jnp.uint8),
      jnp.zeros(EXAMPLES, jnp.int32),
    ),
    models.build('resnet18', num_classes=10, options={'width': width}),
    Transform((0.5,) * 3, (0.3,) * 3, flip=True, crop_padding=4),
  )


def _model_bytes(task: Task) -> int:
  keys = jax.random.key(0)[None]
  return execution.bytes_of(population.initial_variables(task, keys))


def _load(
  trainer: population.Trainer, size: int, batch: int
) -> population.Loaded:
  root = jax.random.key(0)
  keys = jax.vmap(lambda p: derive(root, 'member', p))(np.arange(size))
  index = np.resize(np.arange(EXAMPLES, dtype=np.int32), STEPS * batch)
  one = np.zeros((size, 1), np.int32)
  hparams = hp.from_config(
    trainer.method.Hparams, {'num_epochs': EPOCHS, 'batch_size': batch}
  )
  return trainer.load(
    [hparams] * size,
    keys,
    Split(np.tile(index, (size, 1)), one, one),
    population.initial_variables(trainer.task, keys),
  )


def _settled() -> int:
  """Release free memory, reset the peak, return the bytes in use."""
  gc.collect()
  ctypes.CDLL('libc.so.6').malloc_trim(0)
  pathlib.Path('/proc/self/clear_refs').write_text('5')
  return _status('VmRSS')


def _status(name: str) -> int:
  text = pathlib.Path('/proc/self/status').read_text()
  found = re.search(rf'{name}:\s+(\d+) kB', text)
  assert found, f'/proc/self/status has no {name}'
  return int(found[1]) * 1024


if __name__ == '__main__':
  main()
