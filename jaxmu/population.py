"""Populations of models: their training and their predictions.

Functions of one model are mapped over populations by `jaxmu.layout`; no other
code maps over several models.

`Trainer` trains a population with a method. One epoch is a compiled program.
The loop over epochs is in Python, where progress and failures are recorded and
a run can be stopped. Members may differ in every leaf of their
hyper-parameters, the number of epochs included: finished members are masked out
until the rest are done.

`Predictor` gives the log-odds of every model on examples.
"""

import functools
import gc
import time
import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmu import hparams as hp
from jaxmu import layout as layout_lib
from jaxmu import method as method_lib
from jaxmu import models, platforms, precision
from jaxmu.data import batches
from jaxmu.draws import Draws
from jaxmu.layout import Layout as Layout
from jaxmu.layout import device_dataset as device_dataset
from jaxmu.layout import map_members as map_members
from jaxmu.layout import pad as pad
from jaxmu.layout import put as put
from jaxmu.layout import replicate as replicate
from jaxmu.layout import shapes as shapes
from jaxmu.layout import sharding as sharding
from jaxmu.method import Method
from jaxmu.methods.parts import forward, losses
from jaxmu.types import Array, ArrayT, Key, Problem, Split, Task, Variables

PREDICTION_BATCH = 256
_PREDICTION_PIXELS = 2**21  # of such a batch, at most

# States are donated so that their memory is free early, also where no result
# has their shapes, such as the optimiser's sums when models are taken out.
warnings.filterwarnings('ignore', message='Some donated buffers were not')


def initial_variables(task: Task, keys: Key) -> Variables:
  """Draw the initial variables of each member, leaves [P, ...] on the host.

  Args:
    task: gives the model and the size of its images.
    keys: one key per member, [P].
  """
  shape = task.dataset.image_shape
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
    start: the weights to start from; None where they are in the states, because
      no epoch reads them.
  """

  hparams: Any
  key: Key
  split: Split[ArrayT]
  start: Variables | None


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


# Those whose programs may have to make room for others.
_trainers: 'weakref.WeakSet[Trainer]' = weakref.WeakSet()


class Trainer:
  """The compiled programs of one method, for any number of populations.

  A process that compiles for many methods or settings drops the programs of
  all trainers when there is no room for more (`jaxmu.platforms`).

  Attributes:
    method: the method.
    task: data set, model and transform, replicated over the devices.
    layout: devices and chunk.
  """

  def __init__(self, method: Method, task: Task, layout: Layout):
    self.method, self.layout = method, layout
    self.task = replicate(layout_lib.with_readable_images(task, layout), layout)
    self._seconds: list[float] = []
    self._build()
    _trainers.add(self)

  @property
  def compile_seconds(self) -> float:
    """Time spent on compiling so far."""
    return sum(self._seconds)

  @property
  def num_programs(self) -> int:
    """Number of programs compiled for the present layout."""
    return len(self._programs)

  def narrow(self) -> None:
    """Halve the chunk; programs are compiled again when they are needed."""
    self.layout = self.layout.halved()
    self._build()

  def drop_programs(self) -> None:
    """Drop all programs; they are compiled again when they are needed."""
    self._build()

  def _build(self) -> None:
    layout = self.layout
    self._programs: dict[Any, Any] = {}
    # Traced once, although running and skipping both use its result.
    self._one_epoch = jax.jit(self._epoch_one)
    over = functools.partial(map_members, layout=layout)
    jit = functools.partial(jax.jit, out_shardings=sharding(layout))
    self._init = jit(self._first_states, donate_argnums=2)
    self._epoch = jit(
      lambda task, members, state, epoch, active: over(
        lambda shared, pair: self._one_epoch(shared, pair),
        (task, epoch),
        (members, state),
        active=active,
        skip=self._skip_one,
        in_place=layout_lib.replaces_states(),
      ),
      donate_argnums=2,
    )
    self._finish = jit(self._models_of, donate_argnums=1)
    self._look = jit(self._models_of)  # compiled only if a `watch` needs it

  def _models_of(self, members: MemberInputs[Array], state: Any) -> Variables:
    finish = lambda _, pair: self.method.finish(pair[0].hparams, pair[1])  # noqa: E731
    with self.layout.tracing():
      # Without a loop, which would collect the models beside the states.
      if layout_lib.replaces_states():
        return jax.vmap(functools.partial(finish, ()))((members, state))
    return map_members(finish, (), (members, state), layout=self.layout)

  def _first_states(
    self,
    task: Task,
    members: MemberInputs[Array],
    start: Variables | None,
    active: Array,
  ) -> Any:
    """Start all members, whose states replace `start` if that is given."""
    over = functools.partial(map_members, layout=self.layout, active=active)
    if start is None:
      return over(self._init_one, task, members, skip=self._blank)
    one = lambda pair: self._init_one(task, *pair)  # noqa: E731
    state = jax.eval_shape(jax.vmap(one), (members, start))
    state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), state)
    return over(
      lambda task, pair: (self._init_one(task, pair[0], pair[1].variables), ()),
      task,
      (members, state._replace(variables=start)),
      skip=lambda task, pair: (pair[1], ()),
      in_place=True,
    )[0]

  def _init_one(
    self,
    task: Task,
    member: MemberInputs[Array],
    start: Variables | None = None,
  ) -> Any:
    start = member.start if start is None else start
    assert start is not None
    problem = Problem(task, member.split, start)
    draws = Draws(member.key).at('init')
    with precision.products(task.precision):
      return self.method.init(member.hparams, draws, problem)

  def _blank(self, task: Task, member: MemberInputs[Array]) -> Any:
    state = jax.eval_shape(self._init_one, task, member)
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), state)

  def _epoch_one(self, shared: Any, pair: Any) -> Any:
    (task, epoch), (member, state) = shared, pair
    # If no epoch reads the start, weights of the same shapes stand for it.
    problem = Problem(task, member.split, member.start or state.variables)
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

  def _start_fits_into_states(
    self, members: MemberInputs[Any], has_epochs: bool
  ) -> bool:
    """Return whether states can replace the starting models on the devices."""
    with self.layout.tracing():
      if not layout_lib.replaces_states():
        return False
      task, member = jax.eval_shape(
        lambda task, members: (task, jax.tree.map(lambda x: x[0], members)),
        self.task,
        members,
      )
      state = jax.eval_shape(self._init_one, task, member)
      shape = lambda x: (x.shape, x.dtype)  # noqa: E731
      if jax.tree.map(shape, state.variables) != jax.tree.map(
        shape, member.start
      ):
        return False
      return not (has_epochs and self._epoch_reads_start(task, member, state))

  def _epoch_reads_start(self, task: Task, member: Any, state: Any) -> bool:
    def marked(tree, mark):
      return jax.tree.map(lambda _: mark, tree)

    shared, pair = (task, jnp.int32(0)), (member, state)
    program = self._one_epoch.trace(shared, pair).jaxpr.jaxpr
    marks = marked(member, False)._replace(start=marked(member.start, True))
    marks = jax.tree.leaves(
      (marked(shared, False), (marks, marked(state, False)))
    )
    read = {id(x) for one in program.eqns for x in one.invars}
    read.update(map(id, program.outvars))
    return any(
      id(x) in read
      for is_start, x in zip(marks, program.invars, strict=True)
      if is_start
    )

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
    members, start, epochs = self._members(hparams, keys, splits, starts)
    members = put(pad(members, self.layout), self.layout)
    kind = _kind(members, start, epochs)
    if kind not in self._programs:
      self._compile(self._lower(members, start, epochs))
    return Loaded(members, start, epochs, *self._programs[kind])

  def _compile(self, lowered: 'Loaded') -> None:
    if not platforms.has_room_for_programs():
      for trainer in list(_trainers):
        trainer.drop_programs()
      gc.collect()
    begin = time.perf_counter()
    compiled = [program.compile() for program in lowered.programs]
    self._seconds.append(time.perf_counter() - begin)
    kind = _kind(lowered.members, lowered.start, lowered.epochs)
    self._programs[kind] = (*compiled, None)[:2]

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
    members, start, epochs = self._members(hparams, keys, splits, starts)
    return self._lower(shapes(members, self.layout), start, epochs)

  def _members(
    self,
    hparams: Sequence[Any],
    keys: Key,
    splits: Split[np.ndarray],
    starts: Variables,
  ) -> tuple[MemberInputs[Any], Variables | None, np.ndarray]:
    """Return the members, the starts of `Loaded`, and the numbers of epochs."""
    hparams = prepare_hparams(self.method, hparams, self.task, splits, starts)
    epochs = np.array([int(self.method.num_epochs(h)) for h in hparams])
    members = MemberInputs(hp.stack(hparams), keys, splits, starts)
    if self._start_fits_into_states(members, bool(epochs.any())):
      return members._replace(start=None), starts, epochs
    return members, None, epochs

  def _lower(
    self,
    members: MemberInputs[Any],
    start: Variables | None,
    epochs: np.ndarray,
  ) -> 'Loaded':
    begin, epoch = time.perf_counter(), None
    active = np.ones(layout_lib.size(members), bool)
    replaced = shapes(start, self.layout) if start else None
    with self.layout.tracing():
      init = self._init.lower(self.task, members, replaced, active)
      if epochs.any():
        state = shapes(init.out_info, self.layout)
        epoch = self._epoch.lower(
          self.task, members, state, jnp.int32(0), active
        )
    self._seconds.append(time.perf_counter() - begin)
    return Loaded(members, start, epochs, init, epoch)

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
    # Copied, because the program writes over it.
    start = loaded.start and jax.device_put(
      pad(loaded.start, self.layout), sharding(self.layout), may_alias=False
    )
    state = loaded.init(self.task, loaded.members, start, active)
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
    start: the weights to start from on the host, leaves [P, ...] without
      padding; None where `members` has them on the devices.
    epochs: number of epochs of each member, i64[P] without padding.
    init: makes the first states.
    epoch: trains for an epoch; None if no member has any.
  """

  members: MemberInputs[Array]
  start: Variables | None
  epochs: np.ndarray
  init: Any
  epoch: Any

  @property
  def programs(self) -> list[Any]:
    """All programs."""
    return [p for p in (self.init, self.epoch) if p is not None]


def _kind(
  members: MemberInputs[Any], start: Variables | None, epochs: np.ndarray
) -> Any:
  """Return what decides which programs train a population.

  These are structure, shapes and dtypes of the inputs, and whether there are
  epochs.
  """
  leaves, structure = jax.tree.flatten((members, start))
  kinds = tuple((x.shape, x.dtype) for x in leaves)
  return structure, kinds, bool(epochs.any())


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
    self._task = replicate(
      layout_lib.with_readable_images(task, layout), layout
    )
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
  size = prediction_batch(task.dataset.image_shape)
  table, _ = batches.padded_batches(index, size)
  score = functools.partial(_score, task, variables)
  with precision.products(task.precision):
    _, scores = jax.lax.scan(lambda _, index: (None, score(index)), None, table)
  return jax.tree.map(lambda x: x.reshape(-1)[: index.shape[0]], scores)


def prediction_batch(image_shape: tuple[int, int, int]) -> int:
  """Return how many images f[H, W, C] a model scores at once.

  256, and less for images of more than 8,192 pixels: 32 of 224 x 224. Their
  activations would need more memory than training in small batches does.
  """
  height, width, _ = image_shape
  most = max(1, _PREDICTION_PIXELS // (height * width))
  return min(PREDICTION_BATCH, 1 << (most.bit_length() - 1))


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
