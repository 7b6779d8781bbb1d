"""Backends of `benchmarks/default_job.py`: the job's shards, one at a time.

The jaxmu backend opens the real job. It trains the originals first, from which
MSG starts, and writes weights, index sets and draws for PyTorch's backend.
"""

import pathlib
import sys
from typing import Any

import jax
import jax_backend
import numpy as np
import torch
import torch_backend
from pytorch import data as data_lib
from pytorch import resnet
from workload import Workload

from jaxmu import population
from jaxmu.study import job, settings, stages

ROOT = pathlib.Path(__file__).parent.parent
POPULATIONS = ('original', 'retrain', 'msg')


class JaxJob:
  """The job's own populations, trained shard by shard as the job does."""

  def __init__(self, folder: str, devices: int):
    jax.config.update('jax_num_cpu_devices', devices)
    sys.path.insert(0, str(ROOT))  # configurations are no part of jaxmu
    from configs import msg_resnet

    config = msg_resnet.get_config().to_dict()
    config['workdir'] = folder
    self.folder = pathlib.Path(folder)
    self.job = job.open_job(settings.from_config(config))
    self.trainers = {
      name: population.Trainer(part.method, self.job.task, self.job.layout)
      for name, part in self.job.populations.items()
    }
    self.originals: Any = None

  def prepare(self, rounds: int) -> dict[str, dict[str, Any]]:
    """Train the originals, compile all, write members for the other backend.

    Returns:
      Per population its hyper-parameters, size and number of shards.
    """
    shards = self.job.populations['original'].models.size
    found = []
    for shard in range(shards):
      self.load('original', shard)
      found.append(jax.tree.map(np.asarray, self._train().variables))
    self.originals = jax.tree.map(lambda *x: np.concatenate(x), *found)
    facts = {}
    for name in POPULATIONS:
      part = self.job.populations[name]
      for shard in range(min(rounds, part.models.size)):
        self.load(name, shard)
        self._record(name, shard)
      facts[name] = {
        'hparams': part.hparams,
        'shards': part.models.size,
        'members': [
          [int(i) for i in part.positions(n)] for n in range(part.models.size)
        ],
      }
    return facts

  def shared(self) -> dict[str, Any]:
    """Return data and width of the networks."""
    transform = self.job.task.transform
    if transform.flip or transform.crop_padding:
      raise ValueError('the other backend does not augment')
    source = self.job.source
    return {
      'data': (source.image, source.label, transform.mean, transform.std),
      'width': self.job.task.model.width,
    }

  def load(self, name: str, shard: int, rate: float | None = None) -> None:
    """Put a shard on the devices; with a rate, to train one epoch at it."""
    part = self.job.populations[name]
    chosen = part.positions(shard)
    members = stages.select_members(part.members, chosen)
    if name == 'msg':
      origin = job.originals_of(
        members, self.job.populations['original'].members
      )
      start = jax.tree.map(lambda x: x[origin], self.originals)
    else:
      start = stages.starting_models(self.job, part, members)
    keys = job.draw_keys(self.job.root, name, members, False)
    sets = job.index_sets(self.job.design, members)
    self.trainer = self.trainers[name]
    hparams = job.hyper_parameters(part)
    if rate is not None:
      hparams = hparams.replace(
        learning_rate=np.float32(rate), num_epochs=np.int32(1)
      )
    hparams = [hparams] * members.size
    self.loaded = self.trainer.load(hparams, keys, sets, start)
    self.given = chosen, keys, sets, start

  def run(self) -> None:
    """Train the shard."""
    self.losses = self._train().losses

  def curve(self) -> dict[int, np.ndarray]:
    """Return the losses of the last run, f64[E] by member."""
    return dict(enumerate(self.losses))

  def compile_seconds(self) -> float:
    """Return the time spent on compiling, all populations together."""
    return sum(t.compile_seconds for t in self.trainers.values())

  def _train(self) -> Any:
    trained = self.trainer.train(self.loaded)
    jax.block_until_ready(trained.variables)
    return trained

  def _record(self, name: str, shard: int) -> None:
    _, keys, sets, start = self.given
    chosen, sizes = self.job.settings, self.job.sizes
    part = self.job.populations[name]
    workload = Workload(
      chosen.model,
      dict(chosen.model_options),
      len(keys),
      int(part.hparams['batch_size']),
      sizes.retain,
      sizes.forget,
      sizes.val,
      name,
    )
    for number in range(len(keys)):
      one = lambda x, i=number: x[i]  # noqa: E731
      jax_backend.record(
        self.folder / f'{name}_{shard}_{number}.npz',
        workload,
        self.job.task.model,
        keys[number],
        jax.tree.map(one, sets),
        jax.tree.map(one, start),
        int(part.hparams['num_epochs']),
      )


class TorchJob:
  """The same models in PyTorch, one after another."""

  def __init__(
    self,
    folder: str,
    data: tuple,
    hparams: dict[str, dict[str, Any]],
    width: int,
    layout: str,
    threads: int,
    part: tuple[int, int],
  ):
    torch.set_num_threads(threads)
    memory_format = torch_backend.FORMATS[layout]
    image, label, mean, std = data
    self.data = data_lib.load(
      np.asarray(image), np.asarray(label), mean, std, memory_format
    )
    self.folder, self.hparams, self.part = folder, hparams, part
    classes = int(label.max()) + 1
    self.build = lambda: resnet.ResNet18(classes, width).to(
      memory_format=memory_format
    )

  def load(
    self, name: str, shard: int, size: int, rate: float | None = None
  ) -> None:
    """Read the members of a shard and build their networks; as in `JaxJob`."""
    self.name = name
    changed = {} if rate is None else {'learning_rate': rate, 'num_epochs': 1}
    self.settings = self.hparams[name] | changed
    self.numbers = range(self.part[0], size, self.part[1])
    self.pairs = []
    for number in self.numbers:
      path = pathlib.Path(self.folder) / f'{name}_{shard}_{number}.npz'
      member, model = data_lib.read(path), self.build()
      model.load_state_dict(member.weights, strict=False)
      self.pairs.append((model, member))

  def run(self) -> None:
    """Train them."""
    hparams = self.settings
    self.losses = [
      torch_backend.METHODS[self.name](
        model, self.data, member, hparams, hparams['num_epochs'], False
      )
      for model, member in self.pairs
    ]

  def curve(self) -> dict[int, np.ndarray]:
    """Return the losses of the last run, f64[E] by member."""
    pairs = zip(self.numbers, self.losses, strict=True)
    return {number: np.array([float(x) for x in ls]) for number, ls in pairs}
