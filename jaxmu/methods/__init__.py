"""The unlearning methods, one per file, and the table of all of them."""

from jaxmu.core.method import Method
from jaxmu.methods import (
  ct,
  ft,
  ga,
  msg,
  neggrad_plus,
  original,
  retrain,
)

METHODS: dict[str, Method] = {
  'ct': ct.METHOD,
  'ft': ft.METHOD,
  'ga': ga.METHOD,
  'msg': msg.METHOD,
  'neggrad_plus': neggrad_plus.METHOD,
  'original': original.METHOD,
  'retrain': retrain.METHOD,
}

# What unlearning is measured with and against; not unlearning methods.
BASELINES = ('original', 'retrain')


def get(name: str) -> Method:
  """Look up a method by the paper's name.

  Raises:
    ValueError: no such method; the message lists those there are.
  """
  if name not in METHODS:
    raise ValueError(
      f'unknown method {name!r}; choose one of {", ".join(METHODS)}'
    )
  return METHODS[name]
