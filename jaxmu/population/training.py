"""Train a population with a method, epoch by epoch.

One epoch is a compiled program. The loop over epochs is in Python, where
progress and failures are recorded and a run can be stopped. Members may differ
in every leaf of their hyper-parameters, the number of epochs included: finished
members are masked out until the rest are done.
"""

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmu import hparams as hp
from jaxmu import method as method_lib
from jaxmu import models, precision
from jaxmu.draws import Draws
from jaxmu.method import Method
from jaxmu.population.layout import (
  Layout,
  map_members,
  pad,
  put,
  replicate,
  sharding,
)
from jaxmu.types import Array, ArrayT, Key, Problem, Split, Task, Variables


def initial_variables(task: Task, keys: Key) -> Variables:
  """Draw the initial variables of each member, leaves [P, ...] on the host.

  Args:
    task: gives the model and the size of its images.
    keys: one key per member, [P].
  """
  draw = _initialiser(task.model, task.dataset.image.shape[1:])
  variables = [jax.tree.map(np.asarray, draw(key)) for key in keys]
  return jax.tree.map(lambda *leaves: np.stack(leaves), *variables)


@functools.cache
def _initialiser(model: Any, shape: Any) -> Callable[[Key], Any]:
  draw = jax.jit(lambda key: models.init(model, key, shape))
  # Optimising a program of dozens of random generators takes ten times longer
  # than running it.
  fast: Any = {'xla_backend_optimization_level': 0}
  on_cpu = jax.default_backend() == 'cpu'
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
    hparams = prepare_hparams(self.method, hparams, self.task, splits, starts)
    epochs = np.array([int(self.method.num_epochs(h)) for h in hparams])
    members = MemberInputs(hp.stack(hparams), keys, splits, starts)
    members = put(pad(members, self.layout), self.layout)
    shapes = [(x.shape, x.dtype) for x in jax.tree.leaves(members)]
    kind = (jax.tree.structure(members), tuple(shapes), bool(epochs.any()))
    if kind not in self._programs:
      self._programs[kind] = self._compile(members, epochs)
    return Loaded(members, epochs, *self._programs[kind])

  def _compile(self, members: MemberInputs[Array], epochs: np.ndarray) -> Any:
    begin = time.perf_counter()
    active = np.ones(len(pad(epochs, self.layout)), bool)
    init = self._init.lower(self.task, members, active)
    state = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(
        x.shape, x.dtype, sharding=sharding(self.layout)
      ),
      init.out_info,
    )
    lowered = [init]
    if epochs.any():
      lowered.append(
        self._epoch.lower(self.task, members, state, jnp.int32(0), active)
      )
    compiled = [program.compile() for program in lowered]
    self.compile_seconds += time.perf_counter() - begin
    return compiled[0], compiled[1] if epochs.any() else None

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
      hparams: hyper-parameters of each member, equal in their statics.
      keys: key of each member's draws, [P].
      splits: index sets of each member, leaves [P, ...].
      starts: starting models, leaves [P, ...].
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
  """A population on the devices with its compiled programs.

  Attributes:
    members: with padding.
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
    """All compiled programs."""
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
