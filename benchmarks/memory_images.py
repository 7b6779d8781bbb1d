"""Memory of training on a data set of large images.

    python benchmarks/memory_images.py [--devices=1,2]

As many images of 224 pixels as UTKFace has are used to train one model on each
CPU device: the network `tiny`, one epoch, batches of 32. They are in a file
like that of the cache, which all devices read, and their pixels are random.
Each case is a fresh process. `data_gb` is the size of the images and `peak_gb`
the peak memory of the process, with the pages of the file that it has read. The
file takes 3.6 GB in the folder for temporary files. The table is printed and
written to benchmarks/memory_images.csv.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile

import jax
import numpy as np
import table

from jaxmu import hparams as hp
from jaxmu import methods, models, population
from jaxmu.data.catalog import CATALOG
from jaxmu.types import Split, Task

TABLE = pathlib.Path(__file__).with_suffix('.csv')
SET = CATALOG['utkface']
BATCH = 32


def main() -> None:
  """Measure every case, print and store the table."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--devices', default='1,2')
  parser.add_argument('--case', help='DEVICES,FILE, in here')
  options = parser.parse_args()
  if options.case:
    devices, _, file = options.case.partition(',')
    print(json.dumps(measure(int(devices), file)))
    return
  rows = []
  with tempfile.TemporaryDirectory() as folder:
    file = f'{folder}/image.npy'
    write(file)
    for devices in map(int, options.devices.split(',')):
      command = [sys.executable, __file__, f'--case={devices},{file}']
      done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
      rows.append(json.loads(done.stdout.splitlines()[-1]))
  table.save(TABLE, rows)


def write(file: str) -> None:
  """Write random images, u8[N, H, W, 3], a part at a time."""
  count = SET.num_dev + SET.num_test
  shape = count, SET.size, SET.size, 3
  image = np.lib.format.open_memmap(file, 'w+', np.uint8, shape)
  generator = np.random.default_rng(0)
  for begin in range(0, count, 1000):
    part = image[begin : begin + 1000]
    part[:] = generator.integers(0, 256, part.shape, np.uint8)
  image.flush()


def measure(devices: int, file: str) -> dict[str, str | int]:
  """Train a model on each device; return the row. Needs a fresh process."""
  jax.config.update('jax_num_cpu_devices', devices)
  image = np.load(file, mmap_mode='r')
  label = np.arange(len(image), dtype=np.int32) % SET.num_classes
  task = Task(
    population.device_dataset(image, label),
    models.build(
      'tiny', num_classes=SET.num_classes, image_shape=image.shape[1:]
    ),
    SET.transform,
  )
  trainer = population.Trainer(
    methods.get('retrain'), task, population.Layout(devices, 1)
  )
  hparams = hp.from_config(
    trainer.method.Hparams, {'num_epochs': 1, 'batch_size': BATCH}
  )
  keys = jax.random.split(jax.random.key(0), devices)
  order = np.tile(np.arange(len(image), dtype=np.int32), (devices, 1))
  split = Split(order, order[:, :1], order[:, :1])
  starts = population.initial_variables(task, keys)
  trainer.run([hparams] * devices, keys, split, starts)
  return {
    'devices': devices,
    'images': len(image),
    'data_gb': f'{image.nbytes / 1e9:.2f}',
    'peak_gb': f'{_peak() / 1e9:.2f}',
  }


def _peak() -> int:
  """Return the most memory that this process has had, in bytes."""
  text = pathlib.Path('/proc/self/status').read_text()
  found = re.search(r'VmHWM:\s+(\d+) kB', text)
  assert found, '/proc/self/status has no VmHWM'
  return int(found[1]) * 1024


if __name__ == '__main__':
  main()
