"""Run a method on the inputs of a recorded run and collect the same outputs.

The method runs as usual, `prepare`, `init`, `epoch` after `epoch`, `finish`;
recorded draws enter through `Draws.recorded`.
"""

import functools
import inspect
import pathlib
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from jaxmu import hparams as hp
from jaxmu import models
from jaxmu.draws import Draws
from jaxmu.method import Method
from jaxmu.methods.parts import forward
from jaxmu.models import pytorch_names
from jaxmu.types import Problem, Task, Variables
from tests.golden import rules

MODELS = {'resnet18': 'resnet18', 'tinyvit': 'vit11m'}
CONVOLUTION_GAIN = {'resnet18': 2.0, 'tinyvit': 1.0}
IMAGE = (32, 32, 3)


class Recording(NamedTuple):
  """One recorded run: inputs and outputs."""

  meta: dict[str, Any]
  arrays: dict[str, np.ndarray]
  model: Any
  problem: Problem

  @property
  def kind(self) -> str:
    """The reference's name of the method, e.g. 'CFk' for 'CFk_2'."""
    return self.meta['method'].split('_')[0]

  def tag(self, *parts: Any) -> str:
    """Return the tag of a draw of this run."""
    return '/'.join([self.meta['set'], self.meta['method'], *map(str, parts)])


class Replay(NamedTuple):
  """The outputs of our run.

  Attributes:
    epochs: losses of the optimiser steps of each epoch.
    rates: learning rates of the same steps.
    snapshots: variables after initialisation ('init'), after each epoch
      ('epoch0', ...), and as returned ('final').
    states: state before each epoch, where extra checks start from.
    infos: of each epoch.
    hparams: as prepared.
    draws: with the recorded ones.
  """

  epochs: list[np.ndarray]
  rates: list[np.ndarray]
  snapshots: dict[str, Variables]
  states: list[Any]
  infos: list[Any]
  hparams: Any
  draws: Draws


def read(folder: pathlib.Path, name: str, dtype: str = 'float64') -> Recording:
  """Read a recorded run and make its inputs."""
  meta, arrays = rules.load(folder, name)
  arch = meta['arch']
  variables = _weights(arch, meta['weight_tag'], dtype)
  task = Task(
    jax.tree.map(jnp.asarray, rules.dataset(meta['data_seed'])),
    model(arch),
    rules.transform(),
  )
  split = jax.tree.map(jnp.asarray, rules.split())
  return Recording(meta, arrays, task.model, Problem(task, split, variables))


def model(arch: str) -> models.Model:
  """Build the network with the name `arch` in recordings."""
  return models.build(MODELS[arch], num_classes=rules.CLASSES)


@functools.cache
def shapes(arch: str) -> Variables:
  """Return zeros of the shapes of a network's variables."""
  found = jax.eval_shape(
    lambda key: models.init(model(arch), key, IMAGE), jax.random.key(0)
  )
  return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), found)


@functools.cache
def _weights(arch: str, tag: str, dtype: str) -> Variables:
  state = rules.state_dict(
    model(arch), shapes(arch), tag, convolution_gain=CONVOLUTION_GAIN[arch]
  )
  state = {name: value.astype(dtype) for name, value in state.items()}
  return pytorch_names.from_torch(model(arch), state)


@functools.cache
def compiled(module: Any, name: str) -> Any:
  """Return a function of a method's module, compiled."""
  return jax.jit(getattr(module, name))


def _init(method: Method, part: str) -> Any:
  """Return `init`, compiled; or its costly part alone, if that has a name.

  A part that is also checked separately would otherwise be compiled twice.
  """
  if not part:
    return jax.jit(method.init)
  module = inspect.getmodule(method.init)
  fast = compiled(module, part)

  def init(*args):
    with mock.patch.object(module, part, fast):
      return method.init(*args)

  return init


def run(
  recording: Recording,
  method: Method,
  values: dict[str, Any],
  recorded: dict[str, Any],
  *,
  steps: Any,
  noise: Any,
  part: str = '',
  num_epochs: int | None = None,
) -> Replay:
  """Run a method on recorded draws.

  Args:
    recording: the recorded run.
    method: the method.
    values: hyper-parameters by our names.
    recorded: draws by path.
    steps: gives losses and learning rates of the steps of an epoch, from
      prepared hyper-parameters, info and epoch.
    noise: gives drop-path draws by path, from prepared hyper-parameters.
    part: the function of the method's module that its `init` spends its time
      in, where that is inspected as well.
    num_epochs: stop after so many epochs.
  """
  problem = recording.problem
  hparams = hp.from_config(method.Hparams, values)
  hparams = method.prepare(hparams, problem)
  recorded = {**recorded, **noise(hparams)}
  draws = Draws(jax.random.key(0), jax.tree.map(jnp.asarray, recorded))
  init, epoch = _init(method, part), jax.jit(method.epoch)
  state = init(hparams, draws.at('init'), problem)
  snapshots = {'init': state.variables}
  losses, rates, states, infos = [], [], [], []
  total = int(method.num_epochs(hparams))
  for e in range(total if num_epochs is None else min(total, num_epochs)):
    states.append(state)
    state, info = epoch(
      hparams, draws.at('epoch', e), problem, state, jnp.int32(e)
    )
    epoch_losses, epoch_rates = steps(hparams, info, e)
    losses.append(epoch_losses)
    rates.append(epoch_rates)
    snapshots[f'epoch{e}'] = state.variables
    infos.append(info)
  states.append(state)
  snapshots['final'] = jax.jit(method.finish)(hparams, state)
  return Replay(
    losses,
    rates,
    snapshots,
    states,
    infos,
    hparams,
    draws,
  )


def fingerprints(model: Any, variables: Variables) -> np.ndarray:
  """Return one row per tensor in state-dict order, f64[T, 10]."""
  state = pytorch_names.to_torch(model, variables)
  return np.stack([rules.fingerprint(value) for value in state.values()])


def parameter_fingerprints(model: Any, tree: Any) -> np.ndarray:
  """Return one row per tensor of a tree like the parameters, f64[T, 10]."""
  return np.stack(
    [rules.fingerprint(value) for value in parameters(model, tree).values()]
  )


def parameters(model: Any, tree: Any) -> dict[str, np.ndarray]:
  """Return a tree like the parameters by PyTorch name, in its layout."""
  found = {}
  for leaf in pytorch_names.parameters(model):
    value = tree
    for name in leaf.path.split('/'):
      value = value[name]
    found[leaf.torch] = np.asarray(pytorch_names.torch_layout(leaf, value))
  return found


@functools.cache
def _probe(model: Any, transform: Any) -> Any:

  def logits(variables, dataset):
    task = Task(dataset, model, transform)
    first = rules.FIRST['probe']
    index = jnp.arange(first, first + rules.SIZES['probe'])
    images = forward.clean_images(task, index, forward.dtype_of(variables))
    return forward.eval_logits(task, variables, images)

  return jax.jit(logits)


def probe_logits(recording: Recording, variables: Variables) -> np.ndarray:
  """Return evaluation-mode logits of the probe images, f[8, 10]."""
  task = recording.problem.task
  probe = _probe(task.model, task.transform)
  return np.asarray(probe(variables, task.dataset))
