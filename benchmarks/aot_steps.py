"""Compiles whole trainings for TPUs that are not there.

    JAX_PLATFORMS=cpu python benchmarks/aot_steps.py

needs `pip install 'jaxmu[aot]'`. Nothing runs. Data and sets have the sizes of
the benchmark's split of CIFAR-10, batches are of 256 images. `megacycles` is
the estimate of the compiler's cost model per model and step, where a step is
what training on a batch costs: three forward passes of 256 images. All programs
of a training count, for the method's default number of epochs, with its own
count of forward passes. `working_mb` is the working memory of an epoch,
`model_mb` what each model adds. benchmarks/aot_steps.csv is written row by row;
rows that it has are kept, so delete it to compile all of them again.
"""

import argparse
import csv
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import table

from jaxmu import hparams as hp
from jaxmu import methods, models, platforms, population, precision
from jaxmu.method import Sizes
from jaxmu.study import compiled, execution
from jaxmu.types import Dataset, Split, Task, Transform

TABLE = pathlib.Path(__file__).with_suffix('.csv')
IMAGES, SIDE, CLASSES, BATCH = 60_000, 32, 10, 256
SIZES = Sizes(38_250, 4_250, 7_500, CLASSES)
UNLEARNING = ('msg', 'ct', 'scrub', 'salun', 'neggrad_plus')
# Machine, model, method, precision, chunk, formulation, models.
CASES = (
  ('v5e', 'resnet18 64', 'original', 'bfloat16', 1, 'auto', 150),
  *(
    ('v5e', 'resnet18 64', method, 'bfloat16', 1, 'auto', 8)
    for method in UNLEARNING
  ),
  ('v5e', 'resnet18 16', 'original', 'bfloat16', 1, 'auto', 8),
  ('v5e', 'resnet18 16', 'original', 'bfloat16', 8, 'auto', 8),
  ('v5e', 'vit11m', 'original', 'bfloat16', 1, 'auto', 8),
  ('v6e', 'resnet18 64', 'original', 'bfloat16', 1, 'auto', 8),
  ('v6e', 'vit11m', 'original', 'bfloat16', 1, 'auto', 8),
  ('v5e', 'resnet18 64', 'original', 'bfloat16', 8, 'auto', 8),
  ('v5e', 'resnet18 64', 'original', 'float32', 1, 'auto', 8),
)
COLUMNS = ('machine', 'model', 'method', 'precision', 'chunk', 'conv', 'models')


def lowered(
  machine: platforms.Machine, row: dict[str, Any]
) -> tuple[population.Loaded, float]:
  """Return the programs of a case and its forward passes of one image."""
  name, *width = row['model'].split()
  options = {'conv': row['conv'], **precision.model_options(row['precision'])}
  if width:
    options['width'] = int(*width)
  shape = SIDE, SIDE, 3
  model = models.build(
    name, num_classes=CLASSES, image_shape=shape, options=options
  )
  array = jax.ShapeDtypeStruct
  task = Task(
    Dataset(array((IMAGES, *shape), jnp.uint8), array((IMAGES,), jnp.int32)),
    model,
    Transform((0.5,) * 3, (0.3,) * 3, flip=True, crop_padding=4),
    row['precision'],
  )
  method, size = methods.get(row['method']), int(row['models'])
  values = hp.defaults(method.Hparams)
  values.update({key: BATCH for key in values if 'batch_size' in key})
  start = jax.eval_shape(
    lambda key: models.init(model, key, shape), jax.random.key(0)
  )
  layout = population.Layout(1, int(row['chunk']), machine.devices)
  programs = population.Trainer(method, task, layout).lower(
    [hp.from_config(method.Hparams, values)] * size,
    jax.eval_shape(lambda: jax.random.split(jax.random.key(0), size)),
    Split(
      *(
        array((size, length), jnp.int32)
        for length in (SIZES.retain, SIZES.forget, SIZES.val)
      )
    ),
    jax.tree.map(lambda x: array((size, *x.shape), x.dtype), start),
  )
  return programs, method.card.cost(values, SIZES)


def estimate(row: dict[str, Any]) -> dict[str, str]:
  """Compile the programs of a case and return their numbers."""
  machine = platforms.machine(row['machine'])
  loaded, passes = lowered(machine, row)
  size = int(row['models'])
  made = [program.compile() for program in loaded.programs]
  rounds = [1, int(max(loaded.epochs))][: len(made)]
  cycles = sum(
    count * compiled.cost(one).cycles
    for count, one in zip(rounds, made, strict=True)
  )
  step = 3 * BATCH * cycles / size / passes
  account = made[-1].memory_analysis()
  resident = execution.bytes_of(loaded.members) + account.output_size_in_bytes
  return {
    'megacycles': f'{step / 1e6:.3f}',
    'images_per_s': f'{BATCH * machine.clock / step:.0f}',
    'working_mb': f'{account.temp_size_in_bytes / 1e6:.1f}',
    'model_mb': f'{resident / size / 1e6:.1f}',
  }


def main() -> None:
  argparse.ArgumentParser(description=__doc__).parse_args()
  # The compiler of a TPU cannot read the programs that JAX stores.
  jax.config.update('jax_enable_compilation_cache', False)
  rows = []
  if TABLE.exists():
    with TABLE.open(newline='') as file:
      rows = list(csv.DictReader(file))
  for case in CASES:
    row = {key: str(one) for key, one in zip(COLUMNS, case, strict=True)}
    if any(row.items() <= one.items() for one in rows):
      continue
    row.update(estimate(row))
    print(*row.values(), flush=True)
    hardware = f'1 x TPU {row["machine"]}, compiled, not run'
    rows.append({**row, **table.made(TABLE, hardware)})
    table.write(TABLE, rows)
  table.show(rows)


if __name__ == '__main__':
  main()
