"""Peak memory of a job on a data set of UTKFace's size.

    python benchmarks/memory_images.py [--only=MODEL] [--batch=64]

makes 23,708 random images of 224x224 pixels (3.6 GB, in a temporary folder,
which needs twice as much) and runs a job on them in a process of its own: an
original, a retrained and a fine-tuned model for each device. Only 200 images
are trained on and 100 are for testing, but all devices have the whole set, and
all images are predicted. Columns:

  devices   that share the members
  batch     images of a step
  data_gb   all images; they are mapped from a file
  own_gb    the most that the process needs besides mapped files, looked up
            every .2 s
  peak_gb   the most with the pages of mapped files, which the system can drop
  seconds   of the job, compilation included

The data set is in the cache before. Rows are printed and written to
benchmarks/memory_images.csv.
"""

import argparse
import json
import pathlib
import re
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np
import table

TABLE = pathlib.Path(__file__).with_suffix('.csv')
IMAGES, TEST, SIDE, CLASSES = 23_708, 100, 224, 5
DEVICES = {'tiny': 2, 'resnet18': 1, 'vit11m': 1}
FIELDS = {
  'data.name': 'faces',
  'train.num_epochs': 1,
  'splits.pool': 200,
  'run.chunk': 1,
  'timing.repeats': 1,
}


def make(folder: pathlib.Path, images: int) -> None:
  """Write random images as a plain data set."""
  rng = np.random.default_rng(0)
  (folder / 'faces').mkdir(parents=True)
  for part, count in (('train', images - TEST), ('test', TEST)):
    image = np.empty((count, SIDE, SIDE, 3), np.uint8)
    for one in image:
      one[:] = rng.integers(0, 256, one.shape, np.uint8)
    label = rng.integers(0, CLASSES, count)
    np.savez(folder / 'faces' / f'{part}.npz', image=image, label=label)
  meta = json.dumps({'size': SIDE})
  (folder / 'faces' / 'meta.json').write_text(meta)


def run(
  model: str, batch: int, folder: pathlib.Path, images: int
) -> dict[str, str]:
  """Run the job of a model; return its peak memory and its time."""
  devices = DEVICES[model]
  fields = {
    **FIELDS,
    'data.folder': folder,
    'run.devices': devices,
    'splits.seeds': devices,
    'train.batch_size': batch,
    'unlearn.hparams.batch_size': batch,
  }
  command = [
    *(sys.executable, '-m', 'jaxmu.main'),
    f'--config=unlearn:ft,{model},utkface',
    f'--workdir={folder / model}',
    *(f'--config.{name}={value}' for name, value in fields.items()),
  ]
  start, own = time.perf_counter(), 0
  with subprocess.Popen(command) as job:
    while job.poll() is None:
      own = max(own, _own_bytes(job.pid))
      time.sleep(0.2)
  if job.returncode:
    sys.exit(job.returncode)
  seconds = time.perf_counter() - start
  peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
  return {
    'model': model,
    'devices': str(devices),
    'batch': str(batch),
    'images': str(images),
    'data_gb': f'{images * SIDE**2 * 3 / 1e9:.2f}',
    'own_gb': f'{own / 1e9:.2f}',
    'peak_gb': f'{peak / 1e9:.2f}',
    'seconds': f'{seconds:.0f}',
  }


def _own_bytes(process: int) -> int:
  """Return the resident bytes of a process that belong to no file."""
  try:
    text = pathlib.Path(f'/proc/{process}/status').read_text()
  except OSError:  # it has ended
    return 0
  found = re.search(r'^RssAnon:\s+(\d+) kB', text, re.M)
  return int(found[1]) * 1024 if found else 0


def main() -> None:
  """Measure each model in a process of its own."""
  parser = argparse.ArgumentParser()
  parser.add_argument('--only', choices=DEVICES, help='measure one network')
  parser.add_argument('--case', choices=DEVICES, help=argparse.SUPPRESS)
  parser.add_argument('--batch', type=int, default=128, help='of the benchmark')
  parser.add_argument('--folder', type=pathlib.Path, help='of the data')
  parser.add_argument('--images', type=int, default=IMAGES)
  given = parser.parse_args()
  least = TEST + 2 * FIELDS['splits.pool']
  if given.batch < 1:
    parser.error(f'--batch={given.batch}: choose at least 1')
  if given.images < least:
    parser.error(f'--images={given.images}: choose at least {least}')
  if given.case:
    print(json.dumps(run(given.case, given.batch, given.folder, given.images)))
    return
  with tempfile.TemporaryDirectory() as temporary:
    folder = pathlib.Path(temporary)
    make(folder, given.images)
    code = f'import jaxmu; jaxmu.load_data("faces", data_dir={str(folder)!r})'
    subprocess.run([sys.executable, '-c', code], check=True)
    for model in [given.only] if given.only else DEVICES:
      done = subprocess.run(
        [
          *(sys.executable, __file__, f'--case={model}'),
          *(f'--batch={given.batch}', f'--folder={folder}'),
          f'--images={given.images}',
        ],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
      )
      row = json.loads(done.stdout.splitlines()[-1])
      table.replace(TABLE, [{**row, **table.made(TABLE)}], ['model', 'batch'])
  table.show(table.read(TABLE))


if __name__ == '__main__':
  main()
