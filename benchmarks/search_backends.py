"""Backends of `benchmarks/search_speed.py`: they train and measure trials.

The jaxmu backend opens the job of a search. It trains the originals once, and
writes weights, index sets and draws for PyTorch's backend. All trials of an
initialisation have the same draws, as in a search.
"""

import dataclasses
import io
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

import jax
import jax_backend
import numpy as np
import torch
import torch.nn.functional as F
import torch_backend
from pytorch import data as data_lib
from pytorch import resnet
from workload import Workload

from jaxmu import hparams as hp
from jaxmu import main as command
from jaxmu import methods, population
from jaxmu.attacks import single_model
from jaxmu.metrics import indiscernibility
from jaxmu.report import progress
from jaxmu.study import job as job_lib
from jaxmu.study import recipes, stages
from jaxmu.study import settings as settings_lib
from jaxmu.tuning import opening, samplers
from jaxmu.tuning.trials import Evaluator, Trial

INITIALISATIONS = 3
SEED = 0  # of the sampler that draws the trials
PREDICTION_BATCH = 256  # images of a forward pass after training, as in jaxmu

# Settings as plain values, each with the position of its initialisation.
Drawn = Sequence[tuple[dict[str, Any], int]]


class JaxSearch:
  """Trials in jaxmu, as a search evaluates them.

  Args:
    folder: of the originals, which the first backend trains.
    name: of the subfolder for finished shards.
    devices: CPU devices.
    shard: trials per call of a program; 0 for that of the configuration.
  """

  def __init__(self, folder: str, name: str, devices: int, shard: int):
    config = recipes.benchmark()
    config['workdir'] = folder
    config['run']['devices'] = devices
    config['search'].update(
      initialisations=INITIALISATIONS,
      judges=0,
      objective='no_oracle',  # values are compared, not objectives
    )
    command.set_up_jax(config)
    self.settings = settings_lib.from_config(config)
    self.bars = progress.Progress(io.StringIO())
    job = job_lib.open_job(
      opening.search_settings(self.settings), opening.search_design
    )
    original = methods.get('original')
    trainer = population.Trainer(original, job.task, job.layout)
    stages.train(job, 'original', trainer, self.bars)
    run = dataclasses.replace(
      job.settings.run, shard=shard or job.settings.run.shard
    )
    # The originals keep their address, so that all backends share them.
    self.job = dataclasses.replace(
      job,
      folder=pathlib.Path(folder) / name,
      settings=dataclasses.replace(job.settings, run=run),
    )
    self.members = job_lib.members_per_forget_set(job.design, INITIALISATIONS)
    self.evaluators: dict[str, Evaluator] = {}
    self.trainers: dict[str, population.Trainer] = {}

  def draw(self, method: str, count: int) -> Drawn:
    """Draw trials from the space of a method, over all initialisations."""
    one = next(u for u in self.settings.unlearners if u.method == method)
    space = opening.method_space(self.settings, one)
    study = samplers.Replay('random', SEED, space)
    return [
      (asked.setting, number % INITIALISATIONS)
      for number, asked in enumerate(study.ask(count))
    ]

  def shared(self) -> dict[str, Any]:
    """Return data and width of the networks."""
    task, source = self.job.task, self.job.source
    if task.transform.flip or task.transform.crop_padding:
      raise ValueError('the other backend does not augment')
    transform = task.transform
    return {
      'data': (source.image, source.label, transform.mean, transform.std),
      'width': task.model.width,
    }

  def record(self, method: str, folder: str) -> None:
    """Write an initialisation's weights, sets and draws per file."""
    sizes = self.job.sizes
    workload = Workload(
      'resnet18', {}, 1, 0, sizes.retain, sizes.forget, sizes.val, method
    )
    keys, sets, start = self._inputs(method, np.arange(INITIALISATIONS))
    for number in range(INITIALISATIONS):
      one = lambda x, i=number: x[i]  # noqa: E731
      jax_backend.record(
        _path(folder, method, number),
        workload,
        self.job.task.model,
        keys[number],
        jax.tree.map(one, sets),
        jax.tree.map(one, start),
      )

  def losses(self, method: str, drawn: Drawn) -> dict[int, np.ndarray]:
    """Train without measuring; losses f64[E] by trial."""
    if method not in self.trainers:
      self.trainers[method] = population.Trainer(
        methods.get(method), self.job.task, self.job.layout
      )
    trainer = self.trainers[method]
    size, found = self.job.settings.run.shard, {}
    for first in range(0, len(drawn), size):
      shard = list(drawn[first : first + size])
      shard += shard[-1:] * (size - len(shard))  # one program for all shards
      cls = trainer.method.Hparams
      loaded = trainer.load(
        [hp.from_config(cls, setting) for setting, _ in shard],
        *self._inputs(method, np.array([place for _, place in shard])),
      )
      losses = trainer.train(loaded).losses
      for number in range(first, min(first + size, len(drawn))):
        curve = losses[number - first]
        found[number] = curve[np.isfinite(curve)]
    return found

  def load(self, method: str, drawn: Drawn) -> None:
    """Prepare `run`; removes the stored outcomes of earlier runs."""
    shutil.rmtree(self.job.folder, ignore_errors=True)
    if method not in self.evaluators:
      self.evaluators[method] = Evaluator(self.job, method, self.bars)
    self.method = method
    self.trials = [Trial(setting, place) for setting, place in drawn]

  def run(self) -> None:
    """Train and measure all trials, and store their outcomes."""
    self.outcomes = self.evaluators[self.method].evaluate(
      self.trials, lambda *_: None
    )

  def measured(self) -> dict[int, np.ndarray]:
    """Return three accuracies and Indisc, f64[4] by trial."""
    return dict(enumerate(np.stack(self.outcomes[:4], axis=1)))

  def compile_seconds(self, method: str) -> float:
    """Return the time spent on compiling a method."""
    return self.trainers[method].compile_seconds

  def _inputs(self, method: str, place: np.ndarray) -> tuple:
    """Return keys, index sets and originals of chosen initialisations."""
    members = stages.select_members(self.members, place)
    originals = self.job.populations['original']
    return (
      job_lib.draw_keys(self.job.root, method, members, False),
      job_lib.index_sets(self.job.design, members),
      stages.read_models(
        self.job,
        originals,
        job_lib.originals_of(members, originals.members),
      ),
    )


class TorchSearch:
  """The same trials in PyTorch, one after another.

  Args:
    folder: of the recorded initialisations.
    data: images, labels, mean and standard deviation.
    width: of the networks.
    layout: of images in memory.
    threads: of an operation.
    next_trial: the next trial of the queue, shared by all processes of the
      backend.
  """

  def __init__(
    self,
    folder: str,
    data: tuple,
    width: int,
    layout: str,
    threads: int,
    next_trial: Any,
  ):
    torch.set_num_threads(threads)
    memory_format = torch_backend.FORMATS[layout]
    image, label, mean, std = map(np.asarray, data)
    self.data = data_lib.load(image, label, mean, std, memory_format)
    self.model = resnet.ResNet18(int(label.max()) + 1, width).to(
      memory_format=memory_format
    )
    self.folder, self.next_trial = folder, next_trial

  def load(self, method: str, drawn: Drawn) -> None:
    """Read the initialisations and prepare `run`."""
    self.method, self.drawn = method, drawn
    self.members = [
      data_lib.read(_path(self.folder, method, number))
      for number in range(INITIALISATIONS)
    ]
    # Long trials first, as in jaxmu, so that all processes end together.
    epochs = [setting['num_epochs'] for setting, _ in drawn]
    self.queue = sorted(range(len(drawn)), key=lambda n: -epochs[n])
    self.next_trial.value = 0

  def run(self) -> None:
    """Train and measure trials until the queue is empty."""
    self.outcomes = {}
    for number in self._take():
      self._train(number)
      member = self.members[self.drawn[number][1]]
      self.outcomes[number] = self._measure(member)

  def measured(self) -> dict[int, np.ndarray]:
    """Return three accuracies and Indisc, f64[4] by trial."""
    return self.outcomes

  def losses(self, method: str, drawn: Drawn) -> dict[int, np.ndarray]:
    """Train without measuring; losses f64[E] by trial."""
    self.load(method, drawn)
    return {number: self._train(number) for number in range(len(drawn))}

  def _take(self):
    """Yield the trials that no process has taken yet."""
    while True:
      with self.next_trial.get_lock():
        position = self.next_trial.value
        self.next_trial.value += 1
      if position >= len(self.queue):
        return
      yield self.queue[position]

  def _train(self, number: int) -> np.ndarray:
    setting, place = self.drawn[number]
    member = self.members[place]
    self.model.load_state_dict(member.weights, strict=False)
    losses = torch_backend.METHODS[self.method](
      self.model, self.data, member, setting, setting['num_epochs'], False
    )
    return torch.stack(losses).double().numpy()

  @torch.inference_mode()
  def _measure(self, member: data_lib.Member) -> np.ndarray:
    """Return three accuracies and Indisc of the trained model, f64[4]."""
    self.model.eval()
    # The shuffle of the attack depends on the order, which is that of jaxmu.
    parts = [member.retain, member.forget.sort().values, member.val]
    index = torch.cat(parts)
    logits = torch.cat(
      [
        self.model(self.data.image[batch])
        for batch in index.split(PREDICTION_BATCH)
      ]
    )
    label = self.data.label[index]
    sizes = [len(part) for part in parts]
    correct = (logits.argmax(1) == label).double().split(sizes)
    loss = F.cross_entropy(logits.double(), label, reduction='none')
    _, forget, val = (part.numpy() for part in loss.split(sizes))
    mia = np.nan
    if torch.isfinite(loss).all():
      mia = single_model.population_mia(forget, val)
    accuracies = [float(part.mean()) for part in correct]
    return np.array([*accuracies, indiscernibility.indiscernibility(mia)])


def _path(folder: str, method: str, number: int) -> pathlib.Path:
  return pathlib.Path(folder) / f'{method}_{number}.npz'
