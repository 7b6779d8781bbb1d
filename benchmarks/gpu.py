"""Times training on one NVIDIA GPU, against PyTorch and against its ceiling.

    pip install -e '.[benchmarks]' 'jax[cuda13]'   # or torch without a GPU
    python benchmarks/gpu.py --seconds=420    # on the GPU, again until done
    python benchmarks/gpu.py --small          # anywhere, to check that it works

NOT YET RUN ON A GPU: no GPU results have been published here. Results of
`--small` on a CPU are meaningless.

Works from a checkout: jaxmu need not be installed; jax, flax, optax and torch
must be. Every row is printed and stored at once in benchmarks/gpu.csv
(gpu_small.csv with --small, or --out). A second call keeps the existing rows
and measures the others; delete the file to start again. No row is started after
--seconds, and one takes a minute or two. JAX_COMPILATION_CACHE_DIR, if set,
keeps compiled programs from call to call.

Steps, bfloat16 first, then TF32 and float32:

  ceiling    a large matrix product, TFLOP/s
  check      losses of an epoch at a small rate against those of a CPU in
             float32; if they are further apart than rounding, this formulation
             in this precision is refused and nothing of it is timed
  jaxmu      32 ResNet-18 (width 64) at batch 256, by formulation of the
             convolutions (`config.model.options.conv`) and by chunk (models
             that run as one vmapped batch), small chunks first: images/s,
             memory per model by XLA's account, the process's peak, share of
             the ceiling (counting kernel taps that meet a pixel). `auto`
             chooses a formulation for each layer
  match      the fastest formulation and chunk and PyTorch in turn; `speed_up`
             is the median over rounds of PyTorch's time per image divided by
             jaxmu's. PyTorch's losses are checked as above, `losses_apart`:
             eager, `torch.compile`, the same with CUDA graphs (mode
             reduce-overhead), four processes that share the GPU, each eager
             with one model, and several models fused into one program with
             grouped convolutions, as HFTA does (arXiv 2102.02344), eager and
             compiled; their chunk is the number of fused models
  augmented  the fastest with the recipe's random crops and flips, which none of
             the rows above has
  flags      the fastest without CUDA graphs, and with whole loops in them
  profile    share of the time by kind of kernel, and the longest kernels

At the end, a line for each precision names the fastest formulation and chunk,
with the settings for a job.

PyTorch has channels_last, TF32 or bfloat16 autocast, a fused optimiser,
cuDNN's search for the best kernels, normalised images on the device, and no
wait for the device within a turn. A turn of both backends starts from the given
weights and takes the same number of steps for each model; PyTorch repeats it
for one model, jaxmu takes it for all. Both are warmed up by a whole turn, so
compilation is not counted; `compile_s` is jaxmu's, and rows after the first
find kernels tuned in the cache of compiled programs.

`models_per_hour` is for the paper's CIFAR-10 recipe (182 epochs of 38,250
images); `study_hours` for the whole U-LiRA study as the scale `cifar10-ulira`
of the configurations has it: 91 epochs of 23,750 images for 64 originals and of
21,375 for 640 retrained models, and 6 methods on 640 models, counted as five
epochs of 21,375 each. Both are images over images/s, nothing else; the row to
quote is `augmented`.
"""

import argparse
import dataclasses
import functools
import os
import pathlib
import sys
import tempfile
import time
from typing import Any, NamedTuple

import numpy as np
import take_turns
from gpu_rows import Rows
from workload import RATE, Workload

HERE = pathlib.Path(__file__).parent
PRECISIONS = ('bfloat16', 'tf32', 'float32')
# Of the losses, relative to those of a CPU in float32. bfloat16 on a CPU is
# 1e-3 away at width 64 and 7e-3 in the smallest case.
TOLERANCE = {'float32': 1e-3, 'tf32': 3e-3, 'bfloat16': 1e-2}
RECIPE = 182 * 38_250
STUDY = 64 * 91 * 23_750 + 640 * (91 + 6 * 5) * 21_375
FORMULATIONS = ('library', 'patches', 'auto')
# XLA's flags beside its own choice.
FLAGS = {
  'no CUDA graphs': '--xla_gpu_enable_command_buffer=',
  'loops in CUDA graphs': '--xla_gpu_enable_command_buffer=+WHILE,+CONDITIONAL',
}
WRITTEN = 2  # members whose losses are known from a CPU


class Peer(NamedTuple):
  """A way to run PyTorch.

  Attributes:
    name: in the table.
    mode: of `torch.compile`; '' to run eagerly.
    processes: that share the GPU.
    models: fused into one; 0 for one model after another.
  """

  name: str
  mode: str = ''
  processes: int = 1
  models: int = 0


PEERS = (
  Peer('torch eager'),
  Peer('torch compile', 'default'),
  Peer('torch compile, graphs', 'reduce-overhead'),
  Peer('torch eager, 4 processes', processes=4),
)


class Way(NamedTuple):
  """A way to run jaxmu: a formulation of convolutions, and a chunk."""

  conv: str
  chunk: int

  @property
  def name(self) -> str:
    """Name of its rows."""
    return f'jaxmu {self.conv}'


@dataclasses.dataclass(frozen=True)
class Scale:
  """Sizes of all steps."""

  width: int = 64
  batch: int = 256
  members: int = 32
  steps: int = 16
  chunks: tuple[int, ...] = (1, 2, 4, 8, 16)
  fused: tuple[int, ...] = (8, 32)  # models in one PyTorch program
  repeats: int = 4  # turns of one model in a row, for PyTorch
  product: int = 8192  # backend of the matrices that find the ceiling
  rounds: int = 5  # of turns against PyTorch
  trials: int = 2  # turns of each formulation and chunk
  on_gpu: bool = True  # what else would take hours


SMALL = Scale(4, 8, 4, 2, (1, 2), (2, 4), 1, 256, 2, 1, on_gpu=False)


# Each backend has its own process, which imports only what it needs: JAX and
# PyTorch in one process would load each other's CUDA libraries. All of them
# import this file.


def probe() -> Any:
  import gpu_jax

  return gpu_jax.Probe()


def reference(**options: Any) -> Any:
  import gpu_jax

  return gpu_jax.Reference(**options)


def ours(**options: Any) -> Any:
  import gpu_jax

  return gpu_jax.JaxGpu(**options)


def theirs(**options: Any) -> Any:
  import gpu_torch

  return gpu_torch.TorchGpu(**options)


def fused(**options: Any) -> Any:
  import gpu_torch

  return gpu_torch.FusedGpu(**options)


def population(
  scale: Scale, precision: str, members: int = 0, conv: str = 'auto'
) -> Workload:
  """Return the population to be trained; jaxmu alone reads `conv`."""
  return Workload(
    'resnet18',
    {'width': scale.width} | ({} if conv == 'auto' else {'conv': conv}),
    members or scale.members,
    scale.batch,
    scale.steps * scale.batch,
    hparams={'learning_rate': RATE},
    precision=precision,
  )


def speeds(images: int, spent: list[float]) -> dict[str, str]:
  """Turn seconds of turns into the columns about speed."""
  speed = take_turns.spread([images / s for s in spent])
  return {
    'images_per_s': f'{speed.median:.0f}',
    'low': f'{speed.low:.0f}',
    'high': f'{speed.high:.0f}',
    'models_per_hour': f'{3600 * speed.median / RECIPE:.1f}',
    'study_hours': f'{STUDY / speed.median / 3600:.1f}',
  }


def ratio(
  images: int, spent: list[float], our_images: int, our_spent: list[float]
) -> dict[str, str]:
  """Compare seconds per image, round by round."""
  each = [s / images for s in spent]
  times = take_turns.ratios(each, [s / our_images for s in our_spent])
  return {
    'speed_up': f'{times.median:.2f}',
    'ratio_low': f'{times.low:.2f}',
    'ratio_high': f'{times.high:.2f}',
  }


class Bench:
  """All steps on one machine, row by row."""

  def __init__(self, scale: Scale, rows: Rows, folder: str):
    self.scale, self.rows, self.folder = scale, rows, folder
    with take_turns.Backend(
      'probe', probe, [{}], self.environment()
    ) as backend:
      (self.platform,) = backend.call('platform')
      if self.platform == 'cpu' and scale.on_gpu:
        raise RuntimeError(
          'JAX finds no GPU; install jax[cuda13], or give --small'
        )
      (rows.hardware,) = backend.call('device')
      for precision in PRECISIONS:
        work = functools.partial(self.ceiling, backend, precision)
        rows.add('ceiling', precision, work)
    workload = population(scale, 'float32', WRITTEN)
    options = {'workload': workload, 'folder': folder}
    on_cpu = self.environment() | {'JAX_PLATFORMS': 'cpu'}
    with take_turns.Backend(
      'reference', reference, [options], on_cpu
    ) as backend:
      (self.expected,) = backend.call('losses')
      (self.hparams,) = backend.call('hparams')

  def environment(self) -> dict[str, str]:
    """Return the environment in which JAX processes share the GPU."""
    cache = os.path.join(self.folder, 'compiled')
    return {
      'XLA_PYTHON_CLIENT_PREALLOCATE': 'false',
      'JAX_COMPILATION_CACHE_DIR': os.environ.get(
        'JAX_COMPILATION_CACHE_DIR', cache
      ),
    }

  def start(
    self, workload: Workload, chunk: int, flags: str = ''
  ) -> take_turns.Backend:
    """Start jaxmu's backend."""
    options = [{'workload': workload, 'chunk': chunk}]
    flags = f'{os.environ.get("XLA_FLAGS", "")} {flags}'.strip()
    return take_turns.Backend(
      'jaxmu', ours, options, self.environment() | {'XLA_FLAGS': flags}
    )

  def ceiling(
    self, backend: take_turns.Backend, precision: str
  ) -> dict[str, str]:
    (found,) = backend.call('ceiling', self.scale.product, precision)
    return {'tflops_ceiling': f'{found:.3g}'}

  def apart(
    self, backend: take_turns.Backend, precision: str
  ) -> dict[str, str]:
    """Compare the losses of two models, or of the first, with a CPU's.

    Raises:
      RuntimeError: they are further apart than rounding explains.
    """
    worst = 0.0
    for found in backend.call('losses'):
      gap = np.abs(found / self.expected[: len(found)] - 1)
      # Not max(): a NaN must be kept.
      worst = float(np.max(np.append(gap, worst)))
    if not worst < TOLERANCE[precision]:
      raise RuntimeError(
        f'{backend.name}, {precision}: losses differ from a CPU by '
        f'{worst:.1e}, more than {TOLERANCE[precision]}'
      )
    return {'losses_apart': f'{worst:.0e}'}

  def check(self, precision: str, conv: str) -> dict[str, str]:
    workload = population(self.scale, precision, WRITTEN, conv)
    with self.start(workload, WRITTEN) as backend:
      return self.apart(backend, precision)

  def time(
    self, workload: Workload, chunk: int, count: int, flags: str = ''
  ) -> dict[str, str]:
    """Time one way to lay a population out, `count` turns."""
    with self.start(workload, chunk, flags) as backend:
      spent = take_turns.rounds([backend], 'run', count)['jaxmu']
      return self.speed(backend, workload, spent)

  def speed(
    self, backend: take_turns.Backend, workload: Workload, spent: list[float]
  ) -> dict[str, str]:
    """Return the columns about jaxmu's backend."""
    (facts,) = backend.call('facts')
    found = speeds(workload.members * workload.retain, spent)
    live = facts['live_flops'] * float(found['images_per_s']) / 1e12
    ceiling = self.rows.find('ceiling', workload.precision)['tflops_ceiling']
    share = f'{live / float(ceiling):.3f}' if ceiling else ''
    return found | {
      'tflops_live': f'{live:.3g}',
      'share_of_ceiling': share,
      'mb_per_model': f'{facts["bytes_per_member"] / 1e6:.0f}',
      'peak_mb': f'{facts["peak_bytes"] / 1e6:.0f}',
      'compile_s': f'{facts["compile_seconds"]:.1f}',
    }

  def table(self, precision: str) -> None:
    """Check each formulation, then time it in every chunk."""
    checked = [conv for conv in FORMULATIONS if self.is_right(precision, conv)]
    for chunk in self.scale.chunks:
      for conv in checked:
        workload = population(self.scale, precision, conv=conv)
        work = functools.partial(self.time, workload, chunk, self.scale.trials)
        self.rows.add(Way(conv, chunk).name, precision, work, chunk)

  def is_right(self, precision: str, conv: str) -> bool:
    """Return whether the losses of a formulation are those of a CPU."""
    work = functools.partial(self.check, precision, conv)
    row = self.rows.add(f'check {conv}', precision, work)
    return bool(row and not row['note'])

  def best(self, precision: str) -> tuple[Way, dict[str, str]] | None:
    """Return the fastest way that was measured, and its row."""
    found = [
      (Way(conv, int(row['chunk'])), row)
      for conv in FORMULATIONS
      for row in self.rows.all(Way(conv, 0).name, precision)
      if row['images_per_s']
    ]
    return max(found, key=lambda x: float(x[1]['images_per_s']), default=None)

  def conclusion(self, precision: str) -> str:
    """Name the fastest way and the settings of a job that choose it."""
    best = self.best(precision)
    if not best:
      return f'{precision}: not measured'
    way, row = best
    return (
      f'{precision}: fastest is conv={way.conv} in chunks of {way.chunk}, '
      f'{float(row["images_per_s"]):,.0f} images/s; set '
      f'--config.model.precision={precision} '
      f'--config.model.options.conv={way.conv} --config.run.chunk={way.chunk}'
    )

  def pytorch(self, peer: Peer, precision: str) -> take_turns.Backend:
    """Start a backend of PyTorch."""
    options = {
      'workload': population(self.scale, precision, peer.models or 1),
      'folder': self.folder,
      'hparams': self.hparams,
      'device': self.platform,
      'mode': peer.mode,
    }
    if peer.models:
      return take_turns.Backend(
        peer.name, fused, [options | {'written': WRITTEN}]
      )
    options['repeats'] = self.scale.repeats
    return take_turns.Backend(peer.name, theirs, [options] * peer.processes)

  def match(self, peer: Peer, precision: str, way: Way) -> dict[str, str]:
    """Time one backend of PyTorch and jaxmu in turn."""
    workload = population(self.scale, precision, conv=way.conv)
    with (
      self.pytorch(peer, precision) as other,
      self.start(workload, way.chunk) as backend,
    ):
      apart = self.apart(other, precision)
      spent = take_turns.rounds([backend, other], 'run', self.scale.rounds)
    models = peer.models or peer.processes * self.scale.repeats
    images = models * workload.retain
    all_images = workload.members * workload.retain
    compared = ratio(images, spent[peer.name], all_images, spent['jaxmu'])
    return speeds(images, spent[peer.name]) | compared | apart

  def profile(self, workload: Workload, chunk: int) -> dict[str, str]:
    """Profile the time by kind of kernel."""
    with self.start(workload, chunk) as backend:
      backend.call('run')
      (text,) = backend.call('profile')
    return {'note': text}

  def run(self, precision: str) -> None:
    """Take all steps in a precision."""
    self.table(precision)
    best = self.best(precision)
    if not best:
      return
    way, _ = best
    peers = [
      Peer(name, mode, models=models)
      for models in self.scale.fused
      for name, mode in (
        ('torch fused', ''),
        ('torch fused, compile', 'default'),
      )
    ]
    for peer in (*PEERS, *peers):
      work = functools.partial(self.match, peer, precision, way)
      self.rows.add(peer.name, precision, work, peer.models or '')
    workload = population(self.scale, precision, conv=way.conv)
    augmented = dataclasses.replace(workload, augment=True)
    count = self.scale.rounds
    steps = {
      'augmented': functools.partial(self.time, augmented, way.chunk, count),
      **{
        name: functools.partial(self.time, workload, way.chunk, count, flags)
        for name, flags in FLAGS.items()
      },
      'profile': functools.partial(self.profile, workload, way.chunk),
    }
    for name, work in steps.items():
      self.rows.add(name, precision, work, way.chunk)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--small', action='store_true')
  parser.add_argument('--precisions', default=','.join(PRECISIONS))
  parser.add_argument('--chunks', default='')
  parser.add_argument('--seconds', type=float, default=float('inf'))
  parser.add_argument('--out', type=pathlib.Path)
  options = parser.parse_args()
  end = time.monotonic() + options.seconds
  sys.path.insert(0, str(HERE.parent))  # for the backends, which import jaxmu
  scale = SMALL if options.small else Scale()
  if options.chunks:
    chunks = tuple(map(int, options.chunks.split(',')))
    scale = dataclasses.replace(scale, chunks=chunks)
  name = 'gpu_small.csv' if options.small else 'gpu.csv'
  rows = Rows(options.out or HERE / name, end)
  with tempfile.TemporaryDirectory() as folder:
    bench = Bench(scale, rows, folder)
    precisions = options.precisions.split(',')
    for precision in precisions:
      bench.run(precision)
    print('\n'.join(map(bench.conclusion, precisions)))
  if rows.late:
    print(f'time is up; {rows.late} rows are left for another call')


if __name__ == '__main__':
  main()
