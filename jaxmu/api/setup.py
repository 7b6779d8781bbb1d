"""Data, design, model and seed that several populations share.

Settings that are not given are those of a job, see `jaxmu.study.recipes`.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxmu import hparams as hp
from jaxmu import layout as layout_lib
from jaxmu import models, platforms, population
from jaxmu import precision as precision_lib
from jaxmu.api import inputs
from jaxmu.data import catalog
from jaxmu.method import Method
from jaxmu.study import execution, recipes, tuned
from jaxmu.types import Key, Task

# Members that train in one call of a program; more follow one after another.
MEMBERS_AT_ONCE = 8
SEED_MODES = ('independent', 'reference')


@dataclasses.dataclass(frozen=True, eq=False)
class Setup:
  """Data, design, model and seed of a chain train, retrain, unlearn, audit.

  Attributes:
    data: the data set.
    design: which examples each model retains and forgets.
    model: the architecture.
    model_name: the name to print and to save; '' for a model given as an
      object.
    model_options: options of a model given by name.
    precision: of the products of the network, see `jaxmu.precision`.
    seed: root of all random draws.
    seeds: initialisations per training set.
    seed_mode: 'independent', or 'reference' to share draws between members as
      the benchmark does; see `jaxmu.study.settings`.
  """

  data: inputs.Data
  design: inputs.Design
  model: models.Model
  model_name: str
  model_options: Mapping[str, Any]
  precision: str = precision_lib.DEFAULT
  seed: int = 0
  seeds: int = 1
  seed_mode: str = 'independent'

  @property
  def root(self) -> Key:
    """The key from which all others follow."""
    return jax.random.key(self.seed)

  @property
  def shared_draws(self) -> bool:
    """Whether members share their draws."""
    return self.seed_mode == 'reference'

  @property
  def image_shape(self) -> tuple[int, int, int]:
    """(H, W, 3) of the model's input."""
    height, width, channels = self.data.image.shape[1:]
    return height, width, channels

  def task(self, data: inputs.Data | None = None) -> Task:
    """Return what all members share, for this or another data set."""
    data = data or self.data
    key = ('task', self.model, self.data.transform, self.precision)
    if key not in data.programs:
      set_up_devices()
      data.programs[key] = Task(
        population.device_dataset(data.image, data.label),
        self.model,
        self.data.transform,
        self.precision,
      )
    return data.programs[key]

  def trainer(self, method: Method, size: int) -> population.Trainer:
    """Return the programs of a method, compiled once per data set.

    Args:
      method: the method.
      size: members that train in one call.
    """
    task = self.task()
    layout = choose_layout(size)
    model = self.model, self.data.transform, self.precision
    key = ('train', id(method), *model, layout)
    trainer = self.data.programs.get(key)
    # The trainer keeps the method alive, so its id cannot be reused.
    if trainer is None:
      trainer = population.Trainer(method, task, layout)
      self.data.programs[key] = trainer
    return trainer

  def predictor(
    self, size: int, data: inputs.Data | None = None
  ) -> population.Predictor:
    """Return the program that scores `size` models at once on a data set."""
    data = data or self.data
    layout = choose_layout(size)
    task = self.task(data)
    key = ('predict', self.model, self.data.transform, self.precision, layout)
    if key not in data.programs:
      data.programs[key] = population.Predictor(task, layout)
    return data.programs[key]

  def describe(self) -> str:
    """Return model and data in a few words."""
    options = ' '.join(f'{k}={v}' for k, v in self.model_options.items())
    name = self.model_name or type(self.model).__name__
    return f'{name}{f" ({options})" if options else ""} on {self.data.name}'


@functools.cache
def set_up_devices() -> None:
  """Give a CPU one device per core, unless JAX was set up or used before.

  Members train side by side on the devices; results do not depend on them.
  """
  if jax.config.jax_num_cpu_devices > 0:  # type: ignore[attr-defined]
    return
  try:
    jax.config.update('jax_num_cpu_devices', execution.cores())
  except RuntimeError:  # JAX has started
    pass


def choose_layout(size: int) -> population.Layout:
  """Use all devices; one member at a time on a CPU core, several on a GPU.

  Args:
    size: members at once; no more places than these need are made.
  """
  set_up_devices()
  devices = min(len(platforms.local_devices()), size)
  chunk = min(layout_lib.default_chunk(), -(-size // devices))
  return population.Layout(devices, chunk)


def slices(size: int) -> list[np.ndarray]:
  """Divide `size` members into slices of nearly equal size, run one by one."""
  set_up_devices()
  places = len(platforms.local_devices()) * layout_lib.default_chunk()
  most = max(MEMBERS_AT_ONCE, places)
  return np.array_split(np.arange(size), -(-size // most))


def build_model(
  spec: Any, data: inputs.Data, options: Mapping[str, Any], precision: str
) -> models.Model:
  """Return the model that a name, a path or an object refers to.

  Raises:
    ValueError: there is no such model, or it does not fit the data.
  """
  precision_lib.check(precision)
  options = {**options, **precision_lib.model_options(precision)}
  shape = data.image.shape[1:]
  model = models.build(
    spec,
    num_classes=data.num_classes,
    image_shape=(shape[0], shape[1], shape[2]),
    options=options,
  )
  if model.num_classes != data.num_classes:
    raise ValueError(
      f'the model has {model.num_classes} classes and {data.name} has '
      f'{data.num_classes}; build it with num_classes={data.num_classes}'
    )
  return model


_NETWORKS = ('resnet18', 'vit11m')


def is_small(data: inputs.Data) -> bool:
  """Return whether a data set takes the settings of the digits."""
  return data.num_dev <= catalog.SMALL


def scale_of(data: inputs.Data) -> str:
  """Return the name of the scale whose settings a data set takes."""
  return catalog.scale_of(data.name, data.num_dev)


def training_defaults(
  data: inputs.Data, model: str
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Return hyper-parameters of training and options of the model.

  Args:
    data: the data set.
    model: name of a built-in model; '' for any other.
  """
  known = model in _NETWORKS
  config = recipes.job_config(
    'ft', model=model if known else 'resnet18', scale=scale_of(data)
  )
  options = config['model']['options'] if known else {}
  return dict(config['train']), dict(options)


def method_defaults(method: Method, data: inputs.Data) -> dict[str, Any]:
  """Return all hyper-parameters of an unlearning method."""
  chosen = hp.defaults(method.Hparams)
  return (
    {**chosen, **tuned.small_scale(method.name)} if is_small(data) else chosen
  )
