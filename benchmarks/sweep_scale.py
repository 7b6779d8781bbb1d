"""Runs a sweep over two data sets and two models on this machine, cold.

    python benchmarks/sweep_scale.py [--workdir=DIR]

The data sets need no download: `digits`, and `photographs`, small patches of
the two photographs that come with scikit-learn. Six methods have a search of 20
trials and a table of 4 initialisations; the study of U-LiRA has 16 splits of
`digits`. The sweep compiles all of its programs. The seconds of every study and
of the whole command are printed and written to benchmarks/sweep_scale.csv. A
sweep that was interrupted continues with the same --workdir; its table says so.
"""

import argparse
import collections
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
import table

from jaxmu.data import datasets

TABLE = pathlib.Path(__file__).with_suffix('.csv')
NAME = 'photographs'
IMAGES = 1797  # as in digits
SIZE = 16
CHANGES = (
  f'--config.data=digits,{NAME}',
  '--config.ulira_data=digits',
  '--config.search.search.initialisations=1',
  '--config.ulira_search.search.initialisations=1',
  '--config.main.splits.seeds=4',
  '--config.main.run.shard=4',
)


def patches() -> tuple[np.ndarray, np.ndarray]:
  """Return patches u8[N, 16, 16, 3] of two photographs, and labels i64[N].

  The patches do not overlap. A label is the photograph and the quarter of it.
  """
  from sklearn import datasets as sets

  images, labels = [], []
  for number, photograph in enumerate(sets.load_sample_images().images):
    height, width = (length // SIZE for length in photograph.shape[:2])
    for row in range(height):
      for column in range(width):
        top, left = row * SIZE, column * SIZE
        images.append(photograph[top : top + SIZE, left : left + SIZE])
        quarter = 2 * (2 * row >= height) + (2 * column >= width)
        labels.append(4 * number + quarter)
  order = np.random.default_rng(0).permutation(len(images))
  return np.stack(images)[order], np.asarray(labels)[order]


def prepare(folder: pathlib.Path) -> None:
  """Prepare the patches as a data set, unless it exists already."""
  try:
    datasets.load(NAME, data_dir=folder)
    return
  except ValueError:
    folder.mkdir(parents=True, exist_ok=True)
  files = [folder / 'images.npy', folder / 'labels.npy']
  for path, array in zip(files, patches(), strict=True):
    np.save(path, array[:IMAGES])
  command = [sys.executable, '-m', 'jaxmu.prepare', NAME, '--from_arrays']
  options = [f'--data_dir={folder}', f'--image_size={2 * SIZE}']
  subprocess.run([*command, *map(str, files), *options], check=True)


def seconds(workdir: pathlib.Path) -> dict[str, tuple[int, float]]:
  """Return how many units each study has, and how long they took."""
  found: dict[str, tuple[int, float]] = collections.defaultdict(lambda: (0, 0))
  for path in sorted((workdir / 'state').rglob('*.json')):
    record = json.loads(path.read_text())
    parts = path.relative_to(workdir / 'state').parts
    name = '/'.join(parts[:2]) if len(parts) > 1 else 'leaderboard'
    units, spent = found[name]
    found[name] = units + 1, spent + record['seconds']
  return found


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--workdir', type=pathlib.Path)
  given = parser.parse_args().workdir
  with tempfile.TemporaryDirectory() as temporary:
    folder = pathlib.Path(given or temporary).absolute()
    prepare(folder / 'data')
    resumed = (folder / 'sweep').exists()
    environment = {
      **os.environ,
      'JAXMU_DATA_DIR': str(folder / 'data'),
      'JAXMU_CACHE_DIR': str(folder / 'cache'),
      'JAX_COMPILATION_CACHE_DIR': str(folder / 'jax'),
    }
    argv = ['--config=deep_unlearn', f'--workdir={folder / "sweep"}', *CHANGES]
    begin = time.perf_counter()
    subprocess.run(
      [sys.executable, '-m', 'jaxmu.sweep', *argv], env=environment, check=True
    )
    whole = time.perf_counter() - begin
    parts = seconds(folder / 'sweep')
    total = sum(spent for _, spent in parts.values())
    units = sum(count for count, _ in parts.values())
  rows = [
    {'study': name, 'units': count, 'seconds': round(spent, 1)}
    for name, (count, spent) in parts.items()
  ]
  rows.append({'study': 'all units', 'units': units, 'seconds': round(total)})
  name = 'command, resumed' if resumed else 'command, cold'
  rows.append({'study': name, 'units': units, 'seconds': round(whole)})
  table.save(TABLE, rows)


if __name__ == '__main__':
  main()
