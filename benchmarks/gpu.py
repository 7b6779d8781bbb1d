"""Times training on one NVIDIA GPU, against PyTorch and against its ceiling.

    pip install -e '.[torch]' 'jax[cuda13]'   # or torch without a GPU
    python benchmarks/gpu.py                  # on the GPU, about 20 minutes
    python benchmarks/gpu.py --small          # anywhere, to see that it works

NOT YET RUN ON A GPU: no figure of one has been published here. Those of
`--small` on a CPU mean nothing.

Four steps, each with rows of its own in the table:

  check    losses of a few steps in float32, TF32 and bfloat16 against those of
           a CPU in float32; refused if they are further apart than rounding
  ceiling  a large matrix product, TFLOP/s
  jaxmu    32 ResNet-18 (width 64) at batch 256, by precision and chunk (models
           that run as one vmapped batch): images/s, memory per model, share of
           the ceiling (counting kernel taps that meet a pixel)
  torch    one such model, eager and compiled, TF32 and bfloat16 autocast,
           channels_last, data on the device, no host synchronisation in between

`models_per_hour` is for the paper's CIFAR-10 recipe (182 epochs of 38,250
images); `study_hours` for the whole U-LiRA study as the scale `cifar10-ulira`
of the configurations has it: 91 epochs of 23,750 images for 64 originals and of
21,375 for 640 retrained models, and 6 methods on 640 models, counted as five
epochs of 21,375 each. Both are images over images/s, nothing else. The table is
printed and written to benchmarks/gpu.csv (gpu_small.csv with --small).
"""

import argparse
import dataclasses
import pathlib
import tempfile
from typing import Any

import duel
import gpu_sides
import match
import numpy as np
import table
from workload import RATE, Workload

HERE = pathlib.Path(__file__).parent
PRECISIONS = ('float32', 'tf32', 'bfloat16')
# Relative to the losses of a CPU in float32, over the first two epochs.
TOLERANCE = {'float32': 5e-3, 'tf32': 3e-2, 'bfloat16': 1e-1}
PEERS = (
  ('eager', 'tf32'),
  ('eager', 'bfloat16'),
  ('compile', 'tf32'),
  ('compile', 'bfloat16'),
)
RECIPE = 182 * 38_250
STUDY = 64 * 91 * 23_750 + 640 * (91 + 6 * 5) * 21_375


@dataclasses.dataclass(frozen=True)
class Scale:
  """How large everything is."""

  width: int = 64
  batch: int = 256
  members: int = 32
  steps: int = 8
  chunks: tuple[int, ...] = (1, 4, 8, 16, 32)
  peer_steps: int = 60
  product: int = 8192  # side of the matrices that find the ceiling
  rounds: int = 5


SMALL = Scale(4, 16, 4, 2, (1, 2), 4, 256, 2)


def probe(scale: Scale, folder: str) -> tuple[str, str, dict[str, float]]:
  """Look at the machine; write the member that PyTorch trains.

  Returns:
    'cuda' or 'cpu', the device's name, and TFLOP/s of a matrix product by
    precision.
  """
  shared = {'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'}
  with duel.Side('probe', gpu_sides.Probe, [{}], shared) as side:
    (platform,), (device,) = side.call('platform'), side.call('device')
    limits = {p: side.call('ceiling', scale.product, p)[0] for p in PRECISIONS}
    side.call('record', alone(scale, 'float32'), folder)
  return platform, device, limits


def alone(scale: Scale, precision: str) -> Workload:
  """Return the single model that PyTorch trains."""
  workload = population(scale, precision, 1)
  return dataclasses.replace(workload, retain=scale.peer_steps * scale.batch)


def population(scale: Scale, precision: str, members: int = 0) -> Workload:
  """Return the population to be trained."""
  return Workload(
    'resnet18',
    {'width': scale.width},
    members or scale.members,
    scale.batch,
    scale.steps * scale.batch,
    hparams={'learning_rate': RATE},
    precision=precision,
  )


def check(scale: Scale, platform: str) -> list[dict[str, Any]]:
  """Compare losses with those of a CPU.

  Raises:
    RuntimeError: they are further apart than rounding explains.
  """

  def losses(precision: str, on: str) -> np.ndarray:
    workload = population(scale, precision, 2)
    options = [{'workload': workload, 'chunk': 2 if on != 'cpu' else 1}]
    with duel.Side(on, gpu_sides.JaxGpu, options, environment(on)) as side:
      return side.call('losses', 2)[0]

  expected, rows = losses('float32', 'cpu'), []
  for precision in PRECISIONS:
    found = losses(precision, platform)
    apart = float(np.max(np.abs(found / expected - 1)))
    if not apart < TOLERANCE[precision]:
      raise RuntimeError(
        f'{precision}: losses differ from a CPU by {apart:.1e}, more than '
        f'{TOLERANCE[precision]}'
      )
    rows.append(row('check', precision, losses_apart=f'{apart:.0e}'))
  return rows


def environment(platform: str) -> dict[str, str]:
  """Return what a process needs to use a platform and share its memory."""
  return {
    'JAX_PLATFORMS': 'cpu' if platform == 'cpu' else 'cuda',
    'XLA_PYTHON_CLIENT_PREALLOCATE': 'false',
  }


def row(side: str, precision: str, **values: Any) -> dict[str, Any]:
  """Make a row; columns that a step does not know stay empty."""
  columns = (
    'chunk',
    'images_per_s',
    'low',
    'high',
    'tflops_live',
    'tflops_ceiling',
    'share_of_ceiling',
    'mb_per_model',
    'models_per_hour',
    'study_hours',
    'compile_s',
    'losses_apart',
    'note',
  )
  found = {'side': side, 'precision': precision}
  return {**found, **dict.fromkeys(columns, ''), **values}


def speeds(images: int, spent: list[float]) -> dict[str, str]:
  """Turn seconds of turns into the columns about speed."""
  speed = duel.spread([images / s for s in spent])
  return {
    'images_per_s': f'{speed.median:.0f}',
    'low': f'{speed.low:.0f}',
    'high': f'{speed.high:.0f}',
    'models_per_hour': f'{3600 * speed.median / RECIPE:.1f}',
    'study_hours': f'{STUDY / speed.median / 3600:.1f}',
  }


def ours(
  scale: Scale, platform: str, precision: str, chunk: int, limit: float
) -> dict[str, Any]:
  """Time one way to lay the population out; a row."""
  workload = population(scale, precision)
  options = [{'workload': workload, 'chunk': chunk}]
  # A layout that needs more memory than there is leaves a row that says so.
  try:
    with duel.Side(
      'jaxmu', gpu_sides.JaxGpu, options, environment(platform)
    ) as side:
      spent = duel.rounds([side], 'run', scale.rounds)['jaxmu']
      (facts,) = side.call('facts')
  except RuntimeError as error:
    last = str(error).strip().splitlines()[-1]
    return row('jaxmu', precision, chunk=chunk, note=last[:200])
  images = workload.members * workload.retain
  found = speeds(images, spent)
  live = facts['live_flops'] * float(found['images_per_s']) / 1e12
  return row(
    'jaxmu',
    precision,
    chunk=chunk,
    **found,
    tflops_live=f'{live:.3g}',
    share_of_ceiling=f'{live / limit:.3f}',
    mb_per_model=f'{facts["bytes_per_member"] / 1e6:.0f}',
    compile_s=f'{facts["compile_seconds"]:.1f}',
  )


def theirs(
  scale: Scale, platform: str, how: str, precision: str, folder: str
) -> dict[str, Any]:
  """Time PyTorch on one model; a row."""
  workload = alone(scale, precision)
  options = {
    'workload': workload,
    'folder': folder,
    'hparams': match.settings(workload),
    'device': platform,
    'compiled': how == 'compile',
  }
  side = f'torch {how}'
  try:
    with duel.Side(side, gpu_sides.TorchGpu, [options]) as peer:
      spent = duel.rounds([peer], 'run', scale.rounds)[side]
  except RuntimeError as error:
    last = str(error).strip().splitlines()[-1]
    return row(side, precision, note=last[:200])
  return row(side, precision, **speeds(workload.retain, spent))


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--small', action='store_true')
  parser.add_argument('--precisions', default=','.join(PRECISIONS))
  parser.add_argument('--chunks', default='')
  options = parser.parse_args()
  scale = SMALL if options.small else Scale()
  if options.chunks:
    chunks = tuple(map(int, options.chunks.split(',')))
    scale = dataclasses.replace(scale, chunks=chunks)
  with tempfile.TemporaryDirectory() as folder:
    platform, device, limits = probe(scale, folder)
    rows = check(scale, platform)
    rows += [
      row('ceiling', p, tflops_ceiling=f'{limits[p]:.3g}') for p in PRECISIONS
    ]
    table.show(rows)
    for precision in options.precisions.split(','):
      for chunk in scale.chunks:
        rows.append(ours(scale, platform, precision, chunk, limits[precision]))
        table.show(rows[-1:])
    for how, precision in PEERS:
      rows.append(theirs(scale, platform, how, precision, folder))
      table.show(rows[-1:])
  name = 'gpu_small.csv' if options.small else 'gpu.csv'
  table.save(HERE / name, rows, device)


if __name__ == '__main__':
  main()
