"""The probe: a few training steps of a job's own model under one plan."""

import time

import jax
import numpy as np

from jaxmu import methods, population, training
from jaxmu.core.types import Split
from jaxmu.execution import choice, fallback, hardware, memory
from jaxmu.pipeline import job as job_lib
from jaxmu.pipeline import roster, train

_STEPS = {'cpu': 4}  # of an epoch; where steps are short, more are needed
_MORE_STEPS = 16
_EPOCHS = 4  # the first, which warms up, does not count


def measure(job: job_lib.Job, plan: choice.Plan) -> choice.Measured:
  """Train under a plan for a moment.

  Args:
    job: gives model, images, batch size and hyper-parameters.
    plan: what to try.

  Returns:
    The median speed of a few epochs, and the memory of their program; a speed
    of 0 if memory ran out.
  """
  try:
    return _measure(job, plan)
  except Exception as error:
    if not fallback.ran_out(error):
      raise
  return choice.Measured(plan, 0.0, 0.0, memory.Need(0.0, 0.0, 0.0), 0)


def _measure(job: job_lib.Job, plan: choice.Plan) -> choice.Measured:
  layout = population.Layout(plan.devices, plan.chunk)
  trainer = training.Trainer(methods.get('retrain'), job.task, layout)
  loaded, images = _load(job, trainer)
  times = [time.perf_counter()]
  trainer.train(loaded, on_epoch=lambda _: times.append(time.perf_counter()))
  held = memory.size_of(loaded.members) / plan.devices
  members = len(loaded.epochs) // plan.devices
  return choice.Measured(
    plan=plan,
    images=images / float(np.median(np.diff(times)[1:])),
    compile_seconds=trainer.compile_seconds,
    need=memory.need_of(loaded.epoch, held, members, plan.chunk),
    peak=hardware.peak(),
  )


def _load(
  job: job_lib.Job, trainer: training.Trainer
) -> tuple[training.Loaded, int]:
  """Load two chunks per device, or one if it holds a whole shard.

  Returns:
    The population and the images that one of its epochs trains on.
  """
  width = trainer.layout.width
  size = width * min(2, -(-largest_shard(job) // width))
  batch = job.settings.train['batch_size']
  count = batch * _STEPS.get(jax.default_backend(), _MORE_STEPS)
  people = job.populations['retrain']
  members = train.select(people.members, np.zeros(size, np.int32))
  index = np.tile(np.resize(job.design.retain[0], count), (size, 1))
  one = np.tile(job.design.val[:1], (size, 1))
  hparams = job_lib.hyper_parameters(people).replace(
    num_epochs=np.asarray(_EPOCHS, np.int32)
  )
  loaded = trainer.load(
    [hparams] * size,
    roster.draw_keys(job.root, 'probe', members, False),
    Split(index, one, one),
    train.starting_models(job, people, members),
  )
  return loaded, size * count


def largest_shard(job: job_lib.Job) -> int:
  """Return how many models of a population are held at once."""
  largest = max(p.members.size for p in job.populations.values())
  return min(job.settings.run.shard, largest)


def operations_per_image(job: job_lib.Job) -> float:
  """Return the operations of one forward pass, without compiling it."""
  shape = job.task.dataset.image.shape[1:]
  image = jax.ShapeDtypeStruct((1, *shape), np.float32)
  one = train.one_model(job)
  apply = jax.jit(lambda v, x: job.task.model.apply(v, x, train=False))
  found = apply.lower(one, image).cost_analysis() or {}
  return float(found.get('flops', 0.0))
