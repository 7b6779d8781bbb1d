"""jaxmu's side of a comparison: a population in one compiled program.

It writes down the weights and the draws of every member, so that the other side
can train the same models on the same batches.
"""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from workload import MEAN, STD, Workload

from jaxmu import methods, models, population, training
from jaxmu.core import hparams as hp
from jaxmu.core.draws import Draws
from jaxmu.core.types import Dataset, Split, Task, Transform
from jaxmu.models import torch_names
from jaxmu.ops import surgery

RECORDED = 4  # epochs whose draws are written down

# Orders that a method draws, and over which sets; see its file.
_AT_START = {
  'msg': {'subset': 'retain', 'forget': 'forget'},
  'salun': {'forget': 'forget'},
}
_EVERY_EPOCH = {
  'original': {'train': 'both'},
  'retrain': {'retain': 'retain'},
  'msg': {'retain': 'retain'},
  'ct': {'retain': 'retain'},
  'neggrad_plus': {'retain': 'retain', 'forget': 'forget'},
  'scrub': {'retain': 'retain'},
  'salun': {'train': 'both'},
}


def make(
  workload: Workload, folder: str, devices: int = 2, chunk: int = 1
) -> 'JaxSide':
  """Build the side in a process that has not used JAX yet."""
  if devices > 1:
    jax.config.update('jax_num_cpu_devices', devices)
  return JaxSide(workload, population.Layout(devices, chunk), folder)


class JaxSide:
  """A loaded and compiled population.

  Attributes:
    compile_seconds: time spent on compiling so far.
  """

  def __init__(
    self, workload: Workload, layout: population.Layout, folder: str = ''
  ):
    self.workload = workload
    image, label = workload.data()
    model = models.build(
      workload.model, num_classes=workload.classes, options=workload.options
    )
    self.task = Task(Dataset(image, label), model, Transform(MEAN, STD))
    self.method = methods.get(workload.method)
    self.keys = jax.random.split(jax.random.key(1), workload.members)
    self.originals = training.fresh(
      self.task, jax.random.split(jax.random.key(2), workload.members)
    )
    self.splits = Split(*workload.sets())
    if folder:
      for member in range(workload.members):
        self._record(member, pathlib.Path(folder))
    self.trainer = training.Trainer(self.method, self.task, layout)
    self.loaded = self._load(1)

  @property
  def compile_seconds(self) -> float:
    """Time spent on compiling so far."""
    return self.trainer.compile_seconds

  def run(self) -> None:
    """Run one epoch for the population, from the original weights."""
    trained = self.trainer.train(self.loaded)
    jax.block_until_ready(trained.variables)

  def losses(self, epochs: int) -> np.ndarray:
    """Run some epochs and return the mean loss of each, f64[P, E]."""
    return self.trainer.train(self._load(epochs)).losses

  def facts(self) -> dict[str, Any]:
    """Return what else there is to say about this side."""
    return {'compile_seconds': self.compile_seconds}

  def _load(self, epochs: int) -> training.Loaded:
    hparams = hp.from_config(
      self.method.Hparams, hyper_parameters(self.workload, epochs)
    )
    population_of = [hparams] * self.workload.members
    return self.trainer.load(
      population_of, self.keys, self.splits, self.originals
    )

  def _record(self, member: int, folder: pathlib.Path) -> None:
    """Write weights, index sets and draws of a member."""
    variables = jax.tree.map(lambda x: x[member], self.originals)
    state = torch_names.to_torch(self.task.model, variables)
    found = {f'weights:{name}': value for name, value in state.items()}
    for part in ('retain', 'forget', 'val'):
      found[part] = getattr(self.splits, part)[member]
    draws = Draws(self.keys[member])
    found |= _drawn(self.workload, draws, variables['params'])
    found |= _noise(self.workload, self.task.model, draws)
    np.savez(folder / f'{member}.npz', **found)


def hyper_parameters(workload: Workload, epochs: int) -> dict[str, Any]:
  """Return the hyper-parameters that differ from the method's defaults."""
  found = {**workload.hparams, 'num_epochs': epochs}
  known = hp.defaults(methods.get(workload.method).Hparams)
  sizes = [name for name in known if name.endswith('batch_size')]
  return found | dict.fromkeys(sizes, workload.batch)


def _drawn(workload: Workload, draws: Draws, params: Any) -> dict[str, Any]:
  """Repeat the orders that the method draws, and the fresh weights of MSG."""
  sizes = {'retain': workload.retain, 'forget': workload.forget}
  sizes['both'] = workload.retain + workload.forget
  found: dict[str, Any] = {}
  start = draws.at('init')
  for name, over in _AT_START.get(workload.method, {}).items():
    found[f'start:{name}'] = start.permutation(name, sizes[over])
  for name, over in _EVERY_EPOCH[workload.method].items():
    orders = [
      draws.at('epoch', epoch).permutation(name, sizes[over])
      for epoch in range(RECORDED)
    ]
    found[f'epoch:{name}'] = np.stack(orders)
  if workload.method == 'msg':
    kernels = surgery.conv_kernels(params)
    shapes = {path: kernel.shape for path, kernel in kernels.items()}
    fresh = start.normals('fresh', shapes, jnp.float32)
    names = {leaf.path: leaf.torch for leaf in _leaves(workload)}
    for path, value in fresh.items():
      found[f'fresh:{names[path]}'] = surgery.torch_layout(value)
  return found


def _leaves(workload: Workload) -> tuple[torch_names.Leaf, ...]:
  return torch_names.parameters(
    models.build(
      workload.model, num_classes=workload.classes, options=workload.options
    )
  )


def _noise(
  workload: Workload, model: models.Model, draws: Draws
) -> dict[str, np.ndarray]:
  """Repeat the draws of dropped paths, f[E, S, K, B]; whole batches only."""
  if not model.num_drop_paths:
    return {}
  if workload.retain % workload.batch:
    raise ValueError('give a retain set of whole batches')
  shape = model.num_drop_paths, workload.batch
  steps = workload.retain // workload.batch
  table = [
    [
      draws.at('epoch', epoch).at('step', step).uniform('drop_path', shape)
      for step in range(steps)
    ]
    for epoch in range(RECORDED)
  ]
  return {'noise': np.array(table)}
