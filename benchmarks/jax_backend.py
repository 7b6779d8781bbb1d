"""jaxmu's backend of a comparison: a population in one compiled program.

It writes the weights and the draws of every member to files, so that the other
backend can train the same models on the same batches.
"""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from workload import MEAN, STD, Workload

from jaxmu import hparams as hp
from jaxmu import methods, models, population, precision
from jaxmu.draws import Draws
from jaxmu.methods.parts import weights
from jaxmu.models import pytorch_names
from jaxmu.types import Dataset, Split, Task, Transform, Variables

RECORDED = 4  # epochs whose draws are recorded

# The orders that each method draws, and their sets; see its file.
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
) -> 'JaxBackend':
  """Build the backend in a process that has not used JAX yet."""
  if devices > 1:
    jax.config.update('jax_num_cpu_devices', devices)
  return JaxBackend(workload, population.Layout(devices, chunk), folder)


class JaxBackend:
  """A loaded and compiled population.

  Attributes:
    compile_seconds: time spent on compiling so far.
  """

  def __init__(
    self, workload: Workload, layout: population.Layout, folder: str = ''
  ):
    self.workload = workload
    self.task = task(workload)
    self.method = methods.get(workload.method)
    self.keys = jax.random.split(jax.random.key(1), workload.members)
    self.originals = population.initial_variables(
      self.task, jax.random.split(jax.random.key(2), workload.members)
    )
    self.splits = Split(*workload.sets())
    if folder:
      for number in range(workload.members):
        one = lambda x, i=number: x[i]  # noqa: E731
        record(
          pathlib.Path(folder) / f'{number}.npz',
          workload,
          self.task.model,
          self.keys[number],
          jax.tree.map(one, self.splits),
          jax.tree.map(one, self.originals),
        )
    self.trainer = population.Trainer(self.method, self.task, layout)
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
    """Return further columns about this backend."""
    return {'compile_seconds': self.compile_seconds}

  def _load(self, epochs: int) -> population.Loaded:
    hparams = hp.from_config(
      self.method.Hparams, hyper_parameters(self.workload, epochs)
    )
    population_of = [hparams] * self.workload.members
    return self.trainer.load(
      population_of, self.keys, self.splits, self.originals
    )


def task(workload: Workload) -> Task:
  """Build data and network of a workload."""
  options = precision.model_options(workload.precision)
  model = models.build(
    workload.model,
    num_classes=workload.classes,
    options={**workload.options, **options},
  )
  image, label = workload.data()
  crop_padding = 4 if workload.augment else 0
  transform = Transform(MEAN, STD, workload.augment, crop_padding)
  return Task(Dataset(image, label), model, transform, workload.precision)


def lower(
  workload: Workload, layout: population.Layout, epochs: int = 1
) -> population.Loaded:
  """Lower the programs of a workload from shapes alone, for any devices."""
  one = task(workload)
  one = one.replace(dataset=jax.eval_shape(lambda x: x, one.dataset))
  method = methods.get(workload.method)
  hparams = hp.from_config(method.Hparams, hyper_parameters(workload, epochs))
  keys = jax.random.split(jax.random.key(0), workload.members)
  shape = workload.side, workload.side, 3
  starts = jax.eval_shape(
    jax.vmap(lambda key: models.init(one.model, key, shape)), keys
  )
  return population.Trainer(method, one, layout).lower(
    [hparams] * workload.members, keys, Split(*workload.sets()), starts
  )


def record(
  path: pathlib.Path,
  workload: Workload,
  model: models.Model,
  key: jax.Array,
  split: Split,
  original: Variables,
  epochs: int = RECORDED,
) -> None:
  """Write weights, index sets and draws of one member for the other backend.

  Args:
    path: of the archive.
    workload: gives the method and the sizes.
    model: the network.
    key: of the member's draws.
    split: index sets.
    original: weights the member starts from.
    epochs: how many epochs of draws.
  """
  state = pytorch_names.to_torch(model, original)
  found = {f'weights:{name}': value for name, value in state.items()}
  for part in ('retain', 'forget', 'val'):
    found[part] = getattr(split, part)
  draws = Draws(key)
  found |= _orders(workload, draws, epochs)
  if workload.method == 'msg':
    found |= _fresh(model, draws, original['params'])
  if model.num_drop_paths:
    found['noise'] = _noise(workload, model, draws, epochs)
  np.savez(path, **found)


def hyper_parameters(workload: Workload, epochs: int) -> dict[str, Any]:
  """Return the hyper-parameters that differ from the method's defaults."""
  found = {**workload.hparams, 'num_epochs': epochs}
  known = hp.defaults(methods.get(workload.method).Hparams)
  sizes = [name for name in known if name.endswith('batch_size')]
  return found | dict.fromkeys(sizes, workload.batch)


def _orders(
  workload: Workload, draws: Draws, epochs: int
) -> dict[str, np.ndarray]:
  """Repeat the orders that the method draws, i32[...] or i32[E, ...]."""
  sizes = {'retain': workload.retain, 'forget': workload.forget}
  sizes['both'] = workload.retain + workload.forget
  found = {}
  for name, over in _AT_START.get(workload.method, {}).items():
    order = draws.at('init').permutation(name, sizes[over])
    found[f'start:{name}'] = np.asarray(order)
  for name, over in _EVERY_EPOCH[workload.method].items():
    orders = [
      draws.at('epoch', epoch).permutation(name, sizes[over])
      for epoch in range(epochs)
    ]
    found[f'epoch:{name}'] = np.stack(orders)
  return found


def _fresh(
  model: models.Model, draws: Draws, params: Any
) -> dict[str, np.ndarray]:
  """Repeat the fresh weights that MSG draws, in PyTorch's layout."""
  kernels = weights.conv_kernels(params)
  shapes = {path: kernel.shape for path, kernel in kernels.items()}
  fresh = draws.at('init').normals('fresh', shapes, jnp.float32)
  names = {leaf.path: leaf.torch for leaf in pytorch_names.parameters(model)}
  return {
    f'fresh:{names[path]}': np.asarray(weights.torch_layout(value))
    for path, value in fresh.items()
  }


def _noise(
  workload: Workload, model: models.Model, draws: Draws, epochs: int
) -> np.ndarray:
  """Repeat the draws of dropped paths, f[E, S, K, B]; whole batches only."""
  if workload.retain % workload.batch:
    raise ValueError('give a retain set of whole batches')
  shape = model.num_drop_paths, workload.batch
  steps = workload.retain // workload.batch
  table = [
    [
      draws.at('epoch', epoch).at('step', step).uniform('drop_path', shape)
      for step in range(steps)
    ]
    for epoch in range(epochs)
  ]
  return np.array(table)
