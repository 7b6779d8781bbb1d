"""What an unlearning method is: pure functions of one member.

  prepare(hparams, problem) -> hparams              exact counts, on the host
  init(hparams, draws, problem) -> state            surgery, masks, teachers
  epoch(hparams, draws, problem, state, epoch) -> (state, info)
  finish(hparams, state) -> variables

A state is what the next epoch needs, a NamedTuple with a field `variables`; an
info is what one might plot, a flat dict of scalars or arrays [steps]. The epoch
counter is traced and so is the number of epochs, hence neither costs a
compilation. A method sees one model; populations, progress, checkpoints and
timing belong to the driver.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxmu import precision
from jaxmu.draws import Draws
from jaxmu.types import Array, Problem, Variables

State = Any
Info = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class Sizes:
  """What the counted cost of a method depends on besides hyper-parameters."""

  retain: int
  forget: int
  val: int
  classes: int


class Chosen(NamedTuple):
  """The weights that a method chooses or disturbs.

  A report says how many of them are dead, that is, only ever meet padding.

  Attributes:
    verb: what the method does to them, 'of the weights that it ...'.
    info: name of the info that counts the dead ones in an epoch; '' for a
      method that disturbs all weights.
    anew: whether every epoch chooses others, so that their counts add up.
  """

  verb: str
  info: str = ''
  anew: bool = False


@dataclasses.dataclass(frozen=True)
class Card:
  """Facts about a method that tables, docs and tests read.

  Attributes:
    title: the name in full.
    citation: authors, year and where to find the paper.
    cost: counted work of the published algorithm in forward passes of one
      example (a backward pass counts two), from hyper-parameters as plain
      numbers and set sizes; what we skip, such as asking a teacher twice, is
      counted.
    reads: which index sets the method looks at, of 'retain', 'forget', 'val'.
    needs: what a model must have, of 'conv' and 'batch_norm'.
    small: values of hyper-parameters for which the contract test is sensible,
      where the defaults are not.
    exempt: properties of the contract test that do not apply, each with the
      reason why.
    paper: values of options that follow the cited work where the benchmark's
      code departs from it; see `jaxmu.methods.hparams_for`.
    chosen: the weights that it chooses or disturbs, None if all are trained
      alike.
  """

  title: str
  citation: str
  cost: Callable[[Mapping[str, Any], Sizes], float]
  reads: tuple[str, ...]
  needs: tuple[str, ...] = ()
  small: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  exempt: Mapping[str, str] = dataclasses.field(default_factory=dict)
  paper: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  chosen: Chosen | None = None


def _num_epochs(hparams: Any) -> Array:
  return hparams.num_epochs


def _as_given(hparams: Any, problem: Problem) -> Any:
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
  epoch: Callable[[Any, Draws, Problem, State, Array], tuple[State, Info]]
  card: Card
  finish: Callable[[Any, State], Variables] = _variables
  num_epochs: Callable[[Any], Array] = _num_epochs
  prepare: Callable[[Any, Problem], Any] = _as_given


def check(method: Method, problem: Problem) -> None:
  """Refuse a problem that a method cannot work on, before any training.

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
  """Run one member from start to end, one epoch after another.

  The plain loop that every population must agree with; also the five-line way
  to use a method from a notebook.

  Args:
    method: an entry of `jaxmu.methods.METHODS`.
    hparams: an instance of `method.Hparams` with scalar leaves, as
      `jaxmu.hparams.from_config` makes it.
    draws: where the randomness of this run lives.
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
        hparams, draws.at('epoch', epoch), problem, state, epoch
      )
      infos.append(info)
  return method.finish(hparams, state), infos
