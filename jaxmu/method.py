"""What an unlearning method is: pure functions of one model.

  prepare(hparams, problem) -> hparams              exact counts, on the host
  init(hparams, draws, problem) -> state            edits, masks, teachers
  epoch(hparams, draws, problem, state, epoch) -> (state, info)
  finish(hparams, state) -> variables

A state is a NamedTuple with a field `variables` and whatever else the next
epoch needs. An info is a flat dict of scalars or arrays [steps] to plot, with a
'loss'. The epoch counter and the number of epochs are traced, so neither costs
a compilation. Populations, progress, checkpoints and timing belong to the
caller.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp

from jaxmu import hparams as hp
from jaxmu import precision
from jaxmu.draws import Draws
from jaxmu.types import Array, Problem, Variables

State = Any
Info = dict[str, Array]
# (hparams, draws, problem, state, epoch) -> (state, info)
Epoch = Callable[[Any, Draws, Problem, State, Array], tuple[State, Info]]


@dataclasses.dataclass(frozen=True)
class Sizes:
  """The sizes of sets that the counted cost of a method depends on."""

  retain: int
  forget: int
  val: int
  classes: int


class Chosen(NamedTuple):
  """Weights that a method selects or changes.

  A report says how many of them are dead, that is, only multiply padding.

  Attributes:
    action: what the method does to them; 'selected' means that it trains no
      other weights.
    info: name of the info with the number of dead ones in an epoch; '' for a
      method that changes all weights.
    every_epoch: whether every epoch selects new weights, so that counts add up.
  """

  action: Literal['replaced', 'selected', 'pruned', 'noised']
  info: str = ''
  every_epoch: bool = False


@dataclasses.dataclass(frozen=True)
class Card:
  """Facts about a method that tables, documents and tests read.

  Attributes:
    title: the name in full.
    citation: authors, year and where the paper is published.
    cost: counted work of the published algorithm in forward passes of one
      example (a backward pass counts two), from hyper-parameters as plain
      numbers and set sizes. Work that this implementation saves, such as
      running a teacher once instead of in every step, is counted.
    reads: which index sets the method reads, of 'retain', 'forget', 'val'.
    label: short name for tables and pictures; '' for the method's name.
    needs: layers that a model must have, from 'conv' and 'batch_norm'.
    small: values of hyper-parameters for the contract test where the defaults
      do not suit its problem of 20 retained examples.
    digits_space: search spaces that replace the declared ones at the digits
      scale (`jaxmu.study.tuned`), in the forms of `jaxmu.tuning.spaces`.
    exempt: rules of the contract test that do not apply, each with the reason.
    paper: values of options that follow the cited work where the benchmark's
      code departs from it; see `jaxmu.methods.hparams_for`.
    chosen: the weights that it selects or changes, None if it trains all
      weights alike.
    inert: says at which hyper-parameters, plain numbers by name, the method
      leaves out what it is named after, and why; '' at all others. A search
      does not choose such a setting. None if there are none.
  """

  title: str
  citation: str
  cost: Callable[[Mapping[str, Any], Sizes], float]
  reads: tuple[str, ...]
  label: str = ''
  needs: tuple[str, ...] = ()
  small: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  digits_space: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  exempt: Mapping[str, str] = dataclasses.field(default_factory=dict)
  paper: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  chosen: Chosen | None = None
  inert: Callable[[Mapping[str, Any], Problem], str] | None = None


def _num_epochs(hparams: Any) -> Array:
  return hparams.num_epochs


def _unchanged(hparams: Any, problem: Problem) -> Any:
  del problem
  return hparams


def _variables(hparams: Any, state: State) -> Variables:
  del hparams
  return state.variables


class Method(NamedTuple):
  """One unlearning algorithm as pure functions of (hparams, draws, problem)."""

  name: str
  Hparams: type
  init: Callable[[Any, Draws, Problem], State]
  epoch: Epoch
  card: Card
  finish: Callable[[Any, State], Variables] = _variables
  num_epochs: Callable[[Any], Array | int] = _num_epochs
  prepare: Callable[[Any, Problem], Any] = _unchanged


# The arguments of the functions of a method.
ARGUMENTS = {
  'prepare': ('hparams', 'problem'),
  'init': ('hparams', 'draws', 'problem'),
  'epoch': ('hparams', 'draws', 'problem', 'state', 'epoch'),
  'finish': ('hparams', 'state'),
}


def as_method(value: Any) -> Method:
  """Check that an object is a method, and return it.

  Args:
    value: `METHOD` of a plug-in.

  Raises:
    ValueError: it is not a complete `Method`; the message says what is missing.
  """
  if not isinstance(value, Method):
    raise ValueError(
      f'{type(value).__name__} is not a jaxmu.method.Method; define METHOD = '
      "Method(name='...', Hparams=Hparams, init=init, epoch=epoch, "
      'card=Card(...))'
    )
  if not isinstance(value.name, str) or not value.name.isidentifier():
    raise ValueError(
      f'name = {value.name!r}; give a name of letters, digits and underscores'
    )
  if not isinstance(value.card, Card):
    raise ValueError(
      f'card is a {type(value.card).__name__}; give a jaxmu.method.Card'
    )
  if not dataclasses.is_dataclass(value.Hparams) or not hp.declared(
    value.Hparams
  ):
    raise ValueError(
      'Hparams declares no hyper-parameters; decorate it with '
      'flax.struct.dataclass and declare fields with jaxmu.hparams.leaf or '
      'static'
    )
  for part, names in ARGUMENTS.items():
    _check_arguments(part, getattr(value, part), names)
  unknown = {*value.card.reads} - {'retain', 'forget', 'val'}
  if unknown:
    raise ValueError(
      f'card.reads = {value.card.reads!r}; name sets of retain, forget and val'
    )
  return value


def _check_arguments(part: str, function: Any, names: tuple[str, ...]) -> None:
  wanted = f'{part}({", ".join(names)})'
  if not callable(function):
    raise ValueError(
      f'{part} is a {type(function).__name__}; give a function {wanted}'
    )
  parameters = tuple(inspect.signature(function).parameters)
  if parameters != names:
    raise ValueError(
      f'the arguments of {part} are ({", ".join(parameters)}); write {wanted}'
    )


def check(method: Method, problem: Problem) -> None:
  """Check that a method can work on a problem, before any training.

  Args:
    method: the method.
    problem: data, split and model; shapes are enough.

  Raises:
    ValueError: a set that the method reads is empty, or the model lacks a kind
      of layer that it edits; the message says what to do.
  """
  for part in method.card.reads:
    if not getattr(problem.split, part).shape[0]:
      raise ValueError(
        f'{method.name} needs a {part} set, and this split has none; give '
        'one, or choose a method that does not read it'
      )
  kinds = {layer.kind for layer in problem.task.model.layers}
  accepted = {'conv': {'conv', 'depthwise'}, 'batch_norm': {'batch_norm'}}
  for need in method.card.needs:
    if not kinds & accepted[need]:
      raise ValueError(
        f'{method.name} works on layers of kind {need}; the model has none '
        f'(it has {", ".join(sorted(kinds))}); choose another method or model'
      )


def run(
  method: Method, hparams: Any, draws: Draws, problem: Problem
) -> tuple[Variables, list[Info]]:
  """Unlearn with one model, epoch by epoch; the plain loop.

  A population gives the same result for each of its models.

  Args:
    method: what `jaxmu.methods.get` returns.
    hparams: an instance of `method.Hparams` with scalar leaves, as
      `jaxmu.hparams.from_config` makes it.
    draws: random draws of this run.
    problem: data, split and starting model.

  Returns:
    The unlearned variables and the info of every epoch.
  """
  check(method, problem)
  hparams = method.prepare(hparams, problem)
  infos = []
  with precision.products(problem.task.precision):
    state = method.init(hparams, draws.at('init'), problem)
    for epoch in range(int(method.num_epochs(hparams))):
      state, info = method.epoch(
        hparams, draws.at('epoch', epoch), problem, state, jnp.asarray(epoch)
      )
      infos.append(info)
  return method.finish(hparams, state), infos
