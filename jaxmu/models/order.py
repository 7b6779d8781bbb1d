"""The order in which a network uses its parameters, from its traced program."""

from typing import Any

import flax.traverse_util
import jax
import jax.extend.core
import jax.numpy as jnp

from jaxmu.types import Variables

# Operations that pass an array on unchanged; using the result uses the array.
_VIEWS = (
  'broadcast_in_dim',
  'convert_element_type',
  'copy',
  'reshape',
  'squeeze',
  'transpose',
)
# The position of an array in its layer, independent of the order of use.
_WITHIN = ('kernel', 'scale', 'bias', 'mean', 'var')


def of_use(model: Any, variables: Variables) -> dict[str, list[str]]:
  """List the paths of each collection in the order of their first use.

  The arrays of a layer stay together: kernel or scale, bias, statistics.
  Arrays that are never used come last.

  Args:
    model: has `image_shape` and `apply`; it is traced, not run.
    variables: arrays or shapes.
  """
  flat = {
    name: flax.traverse_util.flatten_dict(tree, sep='/')
    for name, tree in variables.items()
  }
  images = jnp.zeros((2, *model.image_shape))

  def run(flat):
    nested = {
      name: flax.traverse_util.unflatten_dict(part, sep='/')
      for name, part in flat.items()
    }
    return model.apply(nested, images, train=False)

  jaxpr = jax.make_jaxpr(run)(flat).jaxpr
  places = [
    (part[0].key, part[1].key)
    for part, _ in jax.tree_util.tree_leaves_with_path(flat)
  ]
  inputs = dict(zip(jaxpr.invars, range(len(places)), strict=True))
  used: list[int] = []
  _visit(jaxpr, inputs, used)
  layers: list[str] = []
  for index in (*used, *range(len(places))):
    layer = places[index][1].rpartition('/')[0]
    if layer not in layers:
      layers.append(layer)
  return {
    name: sorted(part, key=lambda path: _rank(path, layers))
    for name, part in flat.items()
  }


def _rank(path: str, layers: list[str]) -> tuple[int, int, str]:
  layer, _, name = path.rpartition('/')
  within = _WITHIN.index(name) if name in _WITHIN else len(_WITHIN)
  return layers.index(layer), within, name


def _visit(jaxpr: Any, inputs: dict[Any, int], used: list[int]) -> None:
  """Append to `used` the inputs of a program in order of first use.

  Args:
    jaxpr: the program.
    inputs: which of its variables hold which input; views are added.
    used: numbers of the inputs that were used so far.
  """
  for equation in jaxpr.eqns:
    known = [
      None if isinstance(v, jax.extend.core.Literal) else inputs.get(v)
      for v in equation.invars
    ]
    inner = _inner(equation)
    if inner is not None:
      below = {
        variable: number
        for variable, number in zip(inner.invars, known, strict=True)
        if number is not None
      }
      _visit(inner, below, used)
      for outer, variable in zip(equation.outvars, inner.outvars, strict=True):
        if isinstance(variable, jax.extend.core.Literal):
          continue
        if variable in below:
          inputs[outer] = below[variable]
    elif equation.primitive.name in _VIEWS and known[0] is not None:
      inputs[equation.outvars[0]] = known[0]
    else:
      for number in known:
        if number is not None and number not in used:
          used.append(number)


def _inner(equation: Any) -> Any:
  """Return the program inside an operation that is a plain call."""
  programs = [
    getattr(value, 'jaxpr', value)
    for value in equation.params.values()
    if hasattr(getattr(value, 'jaxpr', value), 'eqns')
  ]
  if len(programs) != 1 or len(programs[0].invars) != len(equation.invars):
    return None
  same = len(programs[0].outvars) == len(equation.outvars)
  return programs[0] if same else None
