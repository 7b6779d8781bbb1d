"""Populations of models: the only code that maps over several models.

`map_members` maps a function of one model over a population:

  population [P] -> devices of the mesh -> chunks in sequence -> members vmapped

Devices do not communicate; the compiled program has no collectives. On a CPU
the best chunk is 1 (members one after another, one device per core); on a GPU
it is larger.

`Trainer` trains a population with a method. One epoch is a compiled program.
The loop over epochs is in Python, where progress and failures are recorded and
a run can be stopped. Members may differ in every leaf of their
hyper-parameters, the number of epochs included: finished members are masked out
until the rest are done.

`Predictor` gives the log-odds of every model on examples.
"""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmu import hparams as hp
from jaxmu import method as method_lib
from jaxmu import models, platforms, precision
from jaxmu.data import batches
from jaxmu.draws import Draws
from jaxmu.method import Method
from jaxmu.methods.parts import forward, losses
from jaxmu.types import (
  Array,
  ArrayT,
  Dataset,
  Key,
  Problem,
  Split,
  Task,
  Variables,
)

PREDICTION_BATCH = 256


@dataclasses.dataclass(frozen=True)
class Layout:
  """How a population is laid out on the machine.

  Attributes:
    devices: number of devices that share the members.
    chunk: members that run as one vmapped batch on a device.
    given: the devices to choose from, if not those of this process. They may
      be descriptions of devices, see `Trainer.lower`.
  """

  devices: int = 1
  chunk: int = 1
  given: tuple[platforms.Device, ...] = ()

  def __post_init__(self) -> None:
    available = len(self._available())
    if not 1 <= self.devices <= available:
      raise ValueError(
        f'devices = {self.devices}; '
        + (
          f'{available} are given'
          if self.given
          else f'this process sees {available}. On a CPU set '
          'jax_num_cpu_devices before the first computation'
        )
      )
    if self.chunk < 1:
      raise ValueError(f'chunk = {self.chunk}; give at least 1')

  @property
  def width(self) -> int:
    """Members that run at once; populations are padded to a multiple of it."""
    return self.devices * self.chunk

  def halved(self) -> 'Layout':
    """Return the layout with half the chunk, at least 1."""
    return dataclasses.replace(self, chunk=max(self.chunk // 2, 1))

  def mesh(self) -> jax.sharding.Mesh:
    """Return the mesh with the single axis 'members'."""
    return jax.make_mesh(
      (self.devices,),
      ('members',),
      axis_types=(jax.sharding.AxisType.Auto,),
      devices=self._available()[: self.devices],
    )

  def tracing(self) -> contextlib.AbstractContextManager[Any]:
    """Return the context in which to trace programs for the devices."""
    if not self.given:
      return contextlib.nullcontext()
    return platforms.target(platforms.of(self.given[0]))

  def _available(self) -> Sequence[platforms.Device]:
    return self.given or platforms.local_devices()


def map_members(
  fn: Callable[[Any, Any], Any],
  shared: Any,
  stacked: Any,
  *,
  layout: Layout,
  active: Array | None = None,
  skip: Callable[[Any, Any], Any] | None = None,
) -> Any:
  """Apply `fn(shared, member)` to every member of a population.

  Args:
    fn: a function of one member.
    shared: data that all members share, e.g. the data set.
    stacked: members stacked along leading axes [P]; P a multiple of
      `layout.width`, see `pad`.
    layout: devices and chunk.
    active: bool[P]; chunks without an active member cost nothing.
    skip: gives the result of an inactive member, `skip(shared, member)`, of the
      same shapes as `fn`'s result; needed with `active`.

  Returns:
    The results, stacked along leading axes [P].
  """
  spec = jax.sharding.PartitionSpec
  per_device = functools.partial(
    _map_chunks, fn, skip=skip, chunk=layout.chunk, masked=active is not None
  )
  # Methods may start a loop from constants, which the check of varying axes
  # would refuse. It is not needed, because devices do not communicate.
  mapped = jax.shard_map(
    per_device,
    mesh=layout.mesh(),
    in_specs=(spec(), spec('members'), spec('members')),
    out_specs=spec('members'),
    check_vma=False,
  )
  if active is None:
    active = jnp.ones(_size(stacked), bool)
  with layout.tracing():
    return mapped(shared, stacked, active)


def _map_chunks(
  fn: Callable[[Any, Any], Any],
  shared: Any,
  stacked: Any,
  active: Array,
  *,
  skip: Callable[[Any, Any], Any] | None,
  chunk: int,
  masked: bool,
) -> Any:
  count = _size(stacked) // chunk
  split = jax.tree.map(
    lambda x: x.reshape(count, chunk, *x.shape[1:]), (stacked, active)
  )

  def run(members):
    if chunk > 1:
      return jax.vmap(functools.partial(fn, shared))(members)
    # With a batch of one, vmap would still batch every matrix product.
    one = fn(shared, jax.tree.map(lambda x: x[0], members))
    return jax.tree.map(lambda x: x[None], one)

  def skipped(members):
    assert skip is not None
    return jax.vmap(functools.partial(skip, shared))(members)

  def body(item):
    members, on = item
    if not masked:
      return run(members)

    def some():
      if chunk == 1:  # its only member is active
        return run(members)
      choose = functools.partial(_where, on)
      return jax.tree.map(choose, run(members), skipped(members))

    return jax.lax.cond(jnp.any(on), some, lambda: skipped(members))

  out = jax.lax.map(body, split)
  return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), out)


def _where(on: Array, new: Array, old: Array) -> Array:
  return jnp.where(on.reshape(-1, *[1] * (new.ndim - 1)), new, old)


def _size(stacked: Any) -> int:
  return jax.tree.leaves(stacked)[0].shape[0]


def pad(stacked: Any, layout: Layout) -> Any:
  """Repeat the last member until the population fills the layout."""
  size = _size(stacked)
  missing = -size % layout.width
  index = np.concatenate([np.arange(size), np.full(missing, size - 1)])
  return jax.tree.map(lambda x: x[index], stacked) if missing else stacked


def sharding(layout: Layout) -> jax.NamedSharding:
  """Return the sharding of stacked members over the devices of the layout."""
  return jax.NamedSharding(layout.mesh(), jax.sharding.PartitionSpec('members'))


def put(stacked: Any, layout: Layout) -> Any:
  """Spread a padded population over the devices of the layout."""
  return jax.device_put(stacked, sharding(layout))


def device_dataset(image: np.ndarray, label: np.ndarray) -> Dataset:
  """Put a data set on the first device.

  On a CPU, a read-only array whose address is a multiple of 64, as that of a
  mapped file, is not copied. Others are, because their owner may change them.

  Args:
    image: u8[N, H, W, C].
    label: integer[N].
  """
  arrays = (
    jnp.array(one) if one.flags.writeable else jax.device_put(one)
    for one in (image, label)
  )
  return Dataset(*arrays)


def replicate(shared: Any, layout: Layout) -> Any:
  """Make what all members share available to every device of the layout.

  Accelerators get a copy each. The devices of a CPU read the same memory.
  Shapes stay shapes; they get the sharding.
  """
  sharding = jax.NamedSharding(layout.mesh(), jax.sharding.PartitionSpec())
  if any(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(shared)):
    return jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
      shared,
    )
  if platforms.of(layout.mesh().devices.flat[0]) == 'cpu':
    # JAX copies an array of one device to the others, but takes an aligned
    # array of the host for each device where it is.
    shared = jax.tree.map(np.asarray, shared)
  return jax.device_put(shared, sharding)


def shapes(stacked: Any, layout: Layout) -> Any:
  """Return the shapes of a population, padded and laid out on the devices.

  Args:
    stacked: arrays or shapes of members stacked along leading axes [P].
    layout: devices and chunk.
  """
  place = sharding(layout)
  size = -(-_size(stacked) // layout.width) * layout.width
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(
      (size, *x.shape[1:]), x.dtype, sharding=place
    ),
    jax.eval_shape(lambda x: x, stacked),  # with JAX's dtypes
  )


def initial_variables(task: Task, keys: Key) -> Variables:
  """Draw the initial variables of each member, leaves [P, ...] on the host.

  Args:
    task: gives the model and the size of its images.
    keys: one key per member, [P].
  """
  shape = task.dataset.image.shape[1:]
  draw = _initialiser(task.model, shape, platforms.is_cpu())
  variables = [jax.tree.map(np.asarray, draw(key)) for key in keys]
  return jax.tree.map(lambda *leaves: np.stack(leaves), *variables)


@functools.cache
def _initialiser(model: Any, shape: Any, on_cpu: bool) -> Callable[[Key], Any]:
  draw = jax.jit(lambda key: models.init(model, key, shape))
  # Optimising a program of dozens of random generators takes ten times longer
  # than running it.
  fast: Any = {'xla_backend_optimization_level': 0}
  lowered = draw.lower(jax.random.key(0))
  return lowered.compile(compiler_options=fast if on_cpu else None)


Watch = Callable[[int, Callable[[], Variables]], None]


class MemberInputs(NamedTuple, Generic[ArrayT]):
  """A population to be trained; every leaf is stacked along [P].

  Attributes:
    hparams: hyper-parameters, prepared.
    key: key of each member's draws.
    split: index sets of each member.
    start: the weights to start from.
  """

  hparams: Any
  key: Key
  split: Split[ArrayT]
  start: Variables


class Trained(NamedTuple):
  """The result of training.

  Attributes:
    variables: trained models, leaves [P, ...].
    infos: numbers that the method reports, e.g. 'loss' and 'learning_rate',
      averaged over the steps of each epoch, f64[P, E]; NaN after a member's
      last epoch.
    failed: first epoch in which a member's loss was not finite, i64[P]; the
      number of its epochs if only the result is not finite; -1 for members that
      stayed finite.
  """

  variables: Variables
  infos: dict[str, np.ndarray]
  failed: np.ndarray

  @property
  def losses(self) -> np.ndarray:
    """Mean loss of each epoch, f64[P, E]."""
    return self.infos['loss']


class Trainer:
  """The compiled programs of one method, for any number of populations.

  Attributes:
    method: the method.
    task: data set, model and transform, replicated over the devices.
    layout: devices and chunk.
    compile_seconds: time spent on compiling so far.
  """

  def __init__(self, method: Method, task: Task, layout: Layout):
    self.method, self.layout = method, layout
    self.task = replicate(task, layout)
    self.compile_seconds = 0.0
    self._build()

  @property
  def num_programs(self) -> int:
    """Number of programs compiled for the present layout."""
    return len(self._programs)

  def narrow(self) -> None:
    """Halve the chunk; programs are compiled again when they are needed."""
    self.layout = self.layout.halved()
    self._build()

  def _build(self) -> None:
    layout, method = self.layout, self.method
    self._programs: dict[Any, Any] = {}
    # Traced once, although running and skipping both use its result.
    self._one_epoch = jax.jit(self._epoch_one)
    over = functools.partial(map_members, layout=layout)
    jit = functools.partial(jax.jit, out_shardings=sharding(layout))
    self._init = jit(
      lambda task, members, active: over(
        self._init_one, task, members, active=active, skip=self._blank
      )
    )
    self._epoch = jit(
      lambda task, members, state, epoch, active: over(
        lambda shared, pair: self._one_epoch(shared, pair),
        (task, epoch),
        (members, state),
        active=active,
        skip=self._skip_one,
      ),
      donate_argnums=2,
    )
    finish = lambda members, state: over(  # noqa: E731
      lambda _, pair: method.finish(pair[0].hparams, pair[1]),
      (),
      (members, state),
    )
    self._finish = jit(finish, donate_argnums=1)
    self._look = jit(finish)  # compiled only if a `watch` needs it

  def _init_one(self, task: Task, member: MemberInputs[Array]) -> Any:
    problem = Problem(task, member.split, member.start)
    draws = Draws(member.key).at('init')
    with precision.products(task.precision):
      return self.method.init(member.hparams, draws, problem)

  def _blank(self, task: Task, member: MemberInputs[Array]) -> Any:
    state = jax.eval_shape(self._init_one, task, member)
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), state)

  def _epoch_one(self, shared: Any, pair: Any) -> Any:
    (task, epoch), (member, state) = shared, pair
    problem = Problem(task, member.split, member.start)
    draws = Draws(member.key).at('epoch', epoch)
    with precision.products(task.precision):
      state, info = self.method.epoch(
        member.hparams, draws, problem, state, epoch
      )
    return state, jax.tree.map(jnp.mean, info)

  def _skip_one(self, shared: Any, pair: Any) -> Any:
    _, info = jax.eval_shape(self._one_epoch, shared, pair)
    nothing = jax.tree.map(lambda x: jnp.full(x.shape, jnp.nan, x.dtype), info)
    return pair[1], nothing

  def load(
    self,
    hparams: Sequence[Any],
    keys: Key,
    splits: Split[np.ndarray],
    starts: Variables,
  ) -> 'Loaded':
    """Put a population on the devices and compile its programs.

    Args:
      hparams: hyper-parameters of each member, equal in their statics.
      keys: key of each member's draws, [P].
      splits: index sets of each member, leaves [P, ...].
      starts: starting models, leaves [P, ...].

    Raises:
      ValueError: members differ in a static hyper-parameter.
    """
    members, epochs = self._members(hparams, keys, splits, starts)
    members = put(pad(members, self.layout), self.layout)
    leaves = [(x.shape, x.dtype) for x in jax.tree.leaves(members)]
    kind = (jax.tree.structure(members), tuple(leaves), bool(epochs.any()))
    if kind not in self._programs:
      begin = time.perf_counter()
      lowered = self._lower(members, epochs)
      compiled = [program.compile() for program in lowered.programs]
      self._programs[kind] = (*compiled, None)[:2]
      self.compile_seconds += time.perf_counter() - begin
    return Loaded(members, epochs, *self._programs[kind])

  def lower(
    self,
    hparams: Sequence[Any],
    keys: Key,
    splits: Split[np.ndarray],
    starts: Variables,
  ) -> 'Loaded':
    """Lower the programs that `load` compiles, from shapes alone.

    The devices of the layout may be descriptions, and the arguments and the
    data set of the task may be shapes.

    Args:
      hparams: as in `load`.
      keys: as in `load`.
      splits: as in `load`.
      starts: as in `load`.

    Returns:
      Shapes in place of the members, and programs that are not compiled yet.

    Raises:
      ValueError: members differ in a static hyper-parameter.
    """
    members, epochs = self._members(hparams, keys, splits, starts)
    return self._lower(shapes(members, self.layout), epochs)

  def _members(
    self,
    hparams: Sequence[Any],
    keys: Key,
    splits: Split[np.ndarray],
    starts: Variables,
  ) -> tuple[MemberInputs[Any], np.ndarray]:
    """Return the members, and the number of epochs of each."""
    hparams = prepare_hparams(self.method, hparams, self.task, splits, starts)
    epochs = np.array([int(self.method.num_epochs(h)) for h in hparams])
    return MemberInputs(hp.stack(hparams), keys, splits, starts), epochs

  def _lower(self, members: MemberInputs[Any], epochs: np.ndarray) -> 'Loaded':
    active = np.ones(_size(members), bool)
    init = self._init.lower(self.task, members, active)
    if not epochs.any():
      return Loaded(members, epochs, init, None)
    state = shapes(init.out_info, self.layout)
    epoch = self._epoch.lower(self.task, members, state, jnp.int32(0), active)
    return Loaded(members, epochs, init, epoch)

  def run(
    self,
    hparams: Sequence[Any],
    keys: Key,
    splits: Split[np.ndarray],
    starts: Variables,
    *,
    on_epoch: Callable[[int], None] = lambda members: None,
    watch: Watch | None = None,
  ) -> Trained:
    """Load a population and train it from start to end; see `load`.

    Args:
      hparams: as in `load`.
      keys: as in `load`.
      splits: as in `load`.
      starts: as in `load`.
      on_epoch: called after every epoch with the number of members that took
        part in it.
      watch: see `train`.
    """
    loaded = self.load(hparams, keys, splits, starts)
    return self.train(loaded, on_epoch=on_epoch, watch=watch)

  def train(
    self,
    loaded: 'Loaded',
    *,
    takes_part: np.ndarray | None = None,
    stop_failed: bool = False,
    on_epoch: Callable[[int], None] = lambda members: None,
    watch: Watch | None = None,
  ) -> Trained:
    """Train a loaded population from start to end.

    Args:
      loaded: what `load` returned.
      takes_part: bool[P], members to train; the others are skipped, so that a
        smaller population can use the same compiled program. None for all.
      stop_failed: stop members whose loss is not finite after an epoch; their
        models stay as they are then.
      on_epoch: called after every epoch with the number of members that took
        part in it.
      watch: called after every epoch with its number, from 0, and a function
        that returns the current models, leaves [P, ...] that are valid until
        `watch` returns. Nothing is computed unless this function is called.

    Returns:
      The trained models, the infos of the method, and failures.
    """
    size = len(loaded.epochs)
    active = pad(
      np.ones(size, bool) if takes_part is None else takes_part, self.layout
    )
    if takes_part is not None:
      active[size:] = False
    planned = active * pad(loaded.epochs, self.layout)
    remaining = planned.copy()
    state = loaded.init(self.task, loaded.members, active)
    epochs = max(planned, default=0)
    empty = np.full((size, epochs), np.nan)
    infos = {'loss': empty.copy()}
    for epoch in range(epochs):
      took_part = epoch < remaining
      state, info = loaded.epoch(
        self.task, loaded.members, state, jnp.int32(epoch), took_part
      )
      for name, values in info.items():
        infos.setdefault(name, empty.copy())
        infos[name][:, epoch] = np.asarray(values, np.float64)[:size]
      if stop_failed:
        bad = took_part[:size] & ~np.isfinite(infos['loss'][:, epoch])
        remaining[:size][bad] = 0
      on_epoch(int(np.sum(took_part[:size])))
      if watch is not None:
        watch(epoch, functools.partial(self._models, loaded, state))
    variables = self._finish(loaded.members, state)
    variables = jax.tree.map(lambda x: x[:size], variables)
    finite = np.asarray(_all_finite(variables))
    failed = failure_epochs(infos['loss'], planned[:size], finite)
    return Trained(variables, infos, failed)

  def _models(self, loaded: 'Loaded', state: Any) -> Variables:
    """Return the models that `finish` gives for a state, which stays valid."""
    size = len(loaded.epochs)
    variables = self._look(loaded.members, state)
    return jax.tree.map(lambda x: x[:size], variables)


class Loaded(NamedTuple):
  """A population on the devices with its programs.

  Attributes:
    members: with padding. `Trainer.lower` gives shapes in their place, and
      programs that are not compiled.
    epochs: number of epochs of each member, i64[P] without padding.
    init: makes the first states.
    epoch: trains for an epoch; None if no member has any.
  """

  members: MemberInputs[Array]
  epochs: np.ndarray
  init: Any
  epoch: Any

  @property
  def programs(self) -> list[Any]:
    """All programs."""
    return [p for p in (self.init, self.epoch) if p is not None]


def prepare_hparams(
  method: Method,
  hparams: Sequence[Any],
  task: Task,
  splits: Split[np.ndarray],
  starts: Variables,
) -> list[Any]:
  """Check the problem and run the method's `prepare` for each member.

  Args:
    method: the method.
    hparams: hyper-parameters of each member.
    task: data set, model and transform.
    splits: index sets of each member, leaves [P, ...].
    starts: starting models, leaves [P, ...]; shapes are enough.

  Raises:
    ValueError: the method cannot work on this split or model.
  """
  one = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), (splits, starts)
  )
  problem = Problem(task, *one)
  method_lib.check(method, problem)
  return [method.prepare(h, problem) for h in hparams]


def failure_epochs(
  losses: np.ndarray, epochs: np.ndarray, finite: np.ndarray
) -> np.ndarray:
  """Return when each member failed, i64[P], -1 for those that did not.

  Args:
    losses: f64[P, E] mean loss of each epoch.
    epochs: i64[P] how many epochs a member took part in.
    finite: bool[P] whether its result is finite.
  """
  took_part = np.arange(losses.shape[1]) < epochs[:, None]
  bad = took_part & ~np.isfinite(losses)
  # The sentinel column makes a member without a bad epoch fail after the last.
  first = np.argmax(np.c_[bad, np.ones(len(epochs), bool)], axis=1)
  return np.where(bad.any(axis=1), first, np.where(finite, -1, epochs))


@jax.jit
def _all_finite(variables: Variables) -> Array:
  leaves = [
    jnp.isfinite(x).reshape(x.shape[0], -1).all(axis=1)
    for x in jax.tree.leaves(variables)
  ]
  return jnp.stack(leaves).all(axis=0)


class Predictions(NamedTuple, Generic[ArrayT]):
  """Model outputs that attacks and metrics need.

  Attributes:
    log_odds: log(p / (1 - p)) of the true class; where logits are not finite,
      the most negative finite number. f32[P, N]
    correct: whether the largest logit is that of the true class. bool[P, N]
    finite: whether all logits are finite. bool[P, N]
  """

  log_odds: ArrayT
  correct: ArrayT
  finite: ArrayT


class Predictor:
  """The compiled program that scores populations, on all examples or some."""

  def __init__(self, task: Task, layout: Layout):
    self.layout = layout
    self._task = replicate(task, layout)
    self._build()

  def narrow(self) -> None:
    """Halve the chunk; the program is compiled again when it is needed."""
    self.layout = self.layout.halved()
    self._build()

  def _build(self) -> None:
    layout = self.layout
    self._program = jax.jit(
      lambda task, stacked: map_members(
        _score_chosen, task, stacked, layout=layout
      )
    )

  def lower(
    self, variables: Variables, index: np.ndarray | None = None
  ) -> jax.stages.Lowered:
    """Lower the program from shapes alone; see `Trainer.lower`.

    Args:
      variables: models stacked along [P], or their shapes.
      index: as in `run`.
    """
    padded = shapes((variables, index), self.layout)
    return self._program.lower(self._task, padded)

  def run(
    self, variables: Variables, index: np.ndarray | None = None
  ) -> Predictions[np.ndarray]:
    """Score examples; clean images, evaluation mode, float32 outputs.

    Args:
      variables: models stacked along [P].
      index: i32[P, N] which examples each model is scored on, None for all of
        the data set in order.
    """
    size = jax.tree.leaves(variables)[0].shape[0]
    padded = put(pad((variables, index), self.layout), self.layout)
    result = self._program(self._task, padded)
    log_odds, correct, finite = (np.asarray(x)[:size] for x in result)
    return Predictions(log_odds, correct, finite)


def _score_chosen(
  task: Task, pair: tuple[Variables, Array | None]
) -> Predictions[Array]:
  variables, index = pair
  if index is None:
    index = jnp.arange(task.dataset.label.shape[0])
  table, _ = batches.padded_batches(index, PREDICTION_BATCH)
  score = functools.partial(_score, task, variables)
  with precision.products(task.precision):
    _, scores = jax.lax.scan(lambda _, index: (None, score(index)), None, table)
  return jax.tree.map(lambda x: x.reshape(-1)[: index.shape[0]], scores)


def _score(
  task: Task, variables: Variables, index: Array
) -> Predictions[Array]:
  images = forward.clean_images(task, index, forward.dtype_of(variables))
  logits = forward.eval_logits(task, variables, images).astype(jnp.float32)
  label = task.dataset.label[index]
  return predictions_from_logits(logits, label)


def predictions_from_logits(logits: Array, label: Array) -> Predictions[Array]:
  """Return the predictions of one model from its logits f32[N, C].

  Logits may be finite but so large that their differences are not, for example
  after a method that adds unbounded noise; such log-odds are clipped to the
  largest finite number of their sign.
  """
  finite = jnp.isfinite(logits).all(axis=1)
  largest = jnp.finfo(jnp.float32).max
  log_odds = jnp.clip(losses.log_odds(logits, label), -largest, largest)
  return Predictions(
    jnp.where(finite, log_odds, -largest),
    finite & (jnp.argmax(logits, axis=1) == label),
    finite,
  )
