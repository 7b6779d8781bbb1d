"""Compiles the reading of images for TPUs that are not there.

    JAX_PLATFORMS=cpu python benchmarks/aot_images.py

needs `pip install 'jaxmu[aot]'`. Nothing runs. A program reads all images of a
data set in batches and scales them. They are stored in one of three ways:

  images  u8[N, H, W, 3]
  flat    u8[N, H W 3]
  packed  u8[N, rows, 128], see `jaxmu.types.Dataset.packed`

Columns:

  data_mb     the images
  working_mb  working memory of the program; as much as `data_mb` or more if
              the program makes a copy of all images
  kilocycles  for one batch, by the compiler's cost model; a copy of all images
              is included, divided by the number of batches

Rows are printed and written to benchmarks/aot_images.csv; rows that it has are
kept, so delete it to compile all of them again.
"""

import argparse
import itertools
import pathlib

import jax
import jax.numpy as jnp
import table

from jaxmu import platforms, population
from jaxmu.data import batches
from jaxmu.data.catalog import CATALOG
from jaxmu.study import compiled
from jaxmu.types import Array, Dataset, Transform

TABLE = pathlib.Path(__file__).with_suffix('.csv')
MACHINE = 'v5e'
# Data set, batch.
CASES = (('cifar10', 256), ('utkface', 32))
LAYOUTS = ('images', 'flat', 'packed')


def stored(name: str, layout: str) -> Dataset:
  """Return the shapes of a data set in a layout."""
  entry = CATALOG[name]
  count, shape = entry.num_dev + entry.num_test, (entry.size, entry.size, 3)
  image = jax.ShapeDtypeStruct((count, *shape), jnp.uint8)
  label = jax.ShapeDtypeStruct((count,), jnp.int32)
  if layout == 'images':
    return Dataset(image, label)
  if layout == 'packed':
    return Dataset(image, label).packed()
  flat = jax.ShapeDtypeStruct((count, entry.size**2 * 3), jnp.uint8)
  return Dataset(flat, label, shape)


def read(transform: Transform, dataset: Dataset, index: Array) -> Array:
  """Read the batches i32[S, B] one after another; each replaces the last."""

  def one(_, row):
    image = dataset.look_up(row)
    return batches.normalise(transform, image, jnp.bfloat16), None

  shape = index.shape[1:] + dataset.image_shape
  return jax.lax.scan(one, jnp.zeros(shape, jnp.bfloat16), index)[0]


def estimate(name: str, batch: int, layout: str) -> dict[str, str]:
  """Compile the reading of a data set and return its numbers."""
  machine = platforms.machine(MACHINE)
  one = population.Layout(1, 1, machine.devices)
  dataset = population.replicate(stored(name, layout), one)
  steps = dataset.label.shape[0] // batch
  index = jax.ShapeDtypeStruct((steps, batch), jnp.int32)
  with one.tracing():
    lowered = jax.jit(read, static_argnums=0).lower(
      CATALOG[name].transform, dataset, population.replicate(index, one)
    )
  program = lowered.compile()
  working = program.memory_analysis().temp_size_in_bytes
  data = dataset.image.size * dataset.image.dtype.itemsize
  cycles = compiled.cycles(program.as_text()) / steps
  return {
    'data_mb': f'{data / 1e6:.1f}',
    'working_mb': f'{working / 1e6:.1f}',
    'kilocycles': f'{cycles / 1e3:.1f}',
  }


def main() -> None:
  argparse.ArgumentParser(description=__doc__).parse_args()
  # The compiler of a TPU cannot read the programs that JAX stores.
  jax.config.update('jax_enable_compilation_cache', False)
  rows = table.read(TABLE)
  for (name, batch), layout in itertools.product(CASES, LAYOUTS):
    row = {
      'machine': MACHINE,
      'set': name,
      'batch': str(batch),
      'layout': layout,
    }
    if table.has(rows, row):
      continue
    row |= estimate(name, batch, layout)
    table.append(TABLE, rows, row, f'1 x TPU {MACHINE}, compiled, not run')
  table.show(rows)


if __name__ == '__main__':
  main()
